"""Notices on standard error."""

import sys


def warn(message: str) -> None:
    """A notice on standard error, where it cannot mix with what a command prints for machines."""
    print(f"note: {message}", file=sys.stderr)


def warn_once(about: str, message: str) -> None:
    """`warn`, once per process for each `about`: for what shows itself while frames are read."""
    if about not in _said:
        _said.add(about)
        warn(message)


_said: set[str] = set()
