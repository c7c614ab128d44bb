"""One trainer for the three components."""
