"""`genie-robotics score`: the consistency suite, as far as it goes, on anyone's latent actions."""
