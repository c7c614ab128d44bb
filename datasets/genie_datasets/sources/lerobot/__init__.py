"""LeRobotDataset v2 and v3."""
