"""Readers of robot video: RLDS, LeRobot, video files, arrays, frame caches and mixtures, with one view of episodes."""
