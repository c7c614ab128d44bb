"""Notes for the user on standard error, where they do not mix with what a command prints for machines."""

import sys


def warn(message: str) -> None:
    """Prints one note."""
    print(f"note: {message}", file=sys.stderr)


def warn_once(key: str, message: str) -> None:
    """Prints a note once per process and `key`, for findings that come up again with every frame."""
    if key not in _printed:
        _printed.add(key)
        warn(message)


_printed: set[str] = set()
