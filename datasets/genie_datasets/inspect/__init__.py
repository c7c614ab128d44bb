"""The figures and pictures of `data inspect`."""
