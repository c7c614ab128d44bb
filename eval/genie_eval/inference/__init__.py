"""Latent actions of altered input: nuisances, still frames, reversed video, changed futures."""
