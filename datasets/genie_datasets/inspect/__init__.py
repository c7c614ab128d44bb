"""Figures of `data inspect`: an overview of a source, and how fast things move in it."""
