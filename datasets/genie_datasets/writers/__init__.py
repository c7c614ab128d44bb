"""Writers of RLDS, LeRobot and frame caches."""
