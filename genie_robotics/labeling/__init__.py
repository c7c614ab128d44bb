"""Latent actions of a data set, the map from code to robot action, and what each code does."""

from genie_robotics.labeling.action_map import ActionMap

__all__ = ["ActionMap"]
