"""The status line: redrawn in place on a terminal, now and then a line where the output is a file."""

import sys
import time

FILE_SECONDS = 15.0  # between status lines where the output is a file


class Console:
    """Prints to the standard output; where that has gone away (a closed pipe), training goes on without it.

    Args:
        quiet: no status lines. What must be said is said all the same.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.printed_at = -FILE_SECONDS

    @property
    def terminal(self) -> bool:
        return sys.stdout.isatty()

    def due(self, last: bool) -> bool:
        """A status line would be shown now; `last`: it is the last of its stage."""
        return not self.quiet and (self.terminal or last or time.monotonic() - self.printed_at > FILE_SECONDS)

    def status(self, text: str, last: bool) -> None:
        self.printed_at = time.monotonic()
        self.write(f"\r\x1b[K{text}" if self.terminal else text, end="\n" if last or not self.terminal else "")

    def say(self, text: str) -> None:
        """A line of its own, in place of the status line, which is drawn again below it."""
        self.write(f"\r\x1b[K{text}" if self.terminal else text, end="\n")

    def write(self, text: str, end: str) -> None:
        try:
            print(text, end=end, flush=True)
        except (OSError, ValueError):  # a closed pipe, a closed file
            self.quiet = True
