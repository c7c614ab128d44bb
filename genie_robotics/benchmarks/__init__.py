"""Benchmarks of training, generation, playing and labeling: ratios to a baseline measured in the same run."""
