"""`genie-robotics score`: the consistency suite on anyone's latent actions, without model and frames."""
