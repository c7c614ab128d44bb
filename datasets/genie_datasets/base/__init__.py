"""Errors, files, locks, caches and picture sizes: what every other part uses."""
