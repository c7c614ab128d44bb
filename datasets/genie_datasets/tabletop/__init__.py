"""A MuJoCo tabletop in RT-1's view, where the truth is known."""
