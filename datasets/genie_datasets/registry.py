"""What is known of public data sets by name: how many frames a second their robots were controlled at.

The rate matters because a latent action spans the time between two frames, and mixing rates mixes meanings.
"""

import sys

DEFAULT_HZ = 3.0
CONTROL_HZ = {  # the start of a data set's name -> Hz
    "tabletop": 3.0,
    "fractal": 3.0,
    "bridge": 5.0,
    "kuka": 10.0,
    "language_table": 10.0,
    "taco_play": 15.0,
    "jaco_play": 10.0,
}


def known_hz(name: str) -> float | None:
    """Hz of the data set whose registered name begins `name`, or None."""
    return next((hz for start, hz in CONTROL_HZ.items() if name.lower().startswith(start)), None)


def warn(message: str) -> None:
    """A notice on standard error, where it cannot mix with what a command prints for machines."""
    print(f"note: {message}", file=sys.stderr)
