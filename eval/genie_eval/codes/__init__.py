"""Metrics that need codes and motion alone: usage, grounding, consistency, leakage, and baseline codes."""
