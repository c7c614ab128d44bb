"""Kinds of robot video, one episode view for all: RLDS, LeRobot, video files, arrays, frame caches, mixtures."""
