"""Ablation studies: variants of one configuration, trained with equal budget and measured on the same trajectories."""
