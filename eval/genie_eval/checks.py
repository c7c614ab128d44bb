"""What every command asks of its options before any work: a seed that all parts take, a folder that can be written."""

import tempfile
from pathlib import Path

from genie_datasets.errors import UserError

MOST_SEED = 2**31 - 1  # scikit-learn takes no larger ones than 2**32 - 1, and some parts add to it


def check_seed(seed: int) -> None:
    """Raises UserError where numpy, torch or scikit-learn would not take the seed."""
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"--seed {seed}: a number from 0 to {MOST_SEED}")


def make_folder(out: Path) -> None:
    """Makes the folder of the report. Raises UserError, one line, where that or writing in it is not possible."""
    try:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file: give a folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{out} cannot be made or written ({why}): give another folder with --out") from None
