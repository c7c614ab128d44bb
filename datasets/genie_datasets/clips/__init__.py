"""Clips of episodes for training: windows, order, filters, labels."""
