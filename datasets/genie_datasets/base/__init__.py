"""Errors, files, locks, caches, image sizes and command lines: the modules that every other package uses."""
