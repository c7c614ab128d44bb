"""What the latent action model makes of altered input: nuisances, identity, reversal, the future."""
