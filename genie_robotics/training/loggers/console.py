"""The status line: redrawn in place on a terminal, a new line now and then in a file."""

import sys
import time

FILE_SECONDS = 15.0
"""Seconds between status lines if the output is not a terminal."""


class Console:
    """Prints to the standard output. If that is closed (a broken pipe), training continues without it.

    Args:
        quiet: no status lines; `say` still prints.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.printed_at = -FILE_SECONDS

    @property
    def is_terminal(self) -> bool:
        return sys.stdout.isatty()

    def due(self, last: bool) -> bool:
        """True if a status line would be shown now; last: it is the last one of its stage."""
        return not self.quiet and (self.is_terminal or last or time.monotonic() - self.printed_at > FILE_SECONDS)

    def status(self, text: str, last: bool) -> None:
        self.printed_at = time.monotonic()
        self.write(f"\r\x1b[K{text}" if self.is_terminal else text, end="\n" if last or not self.is_terminal else "")

    def say(self, text: str) -> None:
        """Prints a line in place of the status line, which is drawn again below it."""
        self.write(f"\r\x1b[K{text}" if self.is_terminal else text, end="\n")

    def write(self, text: str, end: str) -> None:
        try:
            print(text, end=end, flush=True)
        except (OSError, ValueError):  # a closed pipe, a closed file
            self.quiet = True
