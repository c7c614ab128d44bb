"""Writers of RLDS data sets, LeRobotDatasets and frame caches."""
