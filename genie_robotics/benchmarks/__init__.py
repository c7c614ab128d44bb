"""`bench train` and `bench generate`: ratios against a named baseline, measured in the same run."""
