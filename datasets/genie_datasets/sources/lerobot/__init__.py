"""The reader of LeRobotDatasets, versions 2 and 3."""
