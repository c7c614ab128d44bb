"""Episodes whose frames have several sizes: each frame is fitted, with one note, or reading ends in one error."""

from genie_datasets.base.errors import UserError
from genie_datasets.base.fit import Size
from genie_datasets.base.globs import exclude_option
from genie_datasets.base.notes import warn_once


class SizeChanges(ValueError):
    """The frames of an episode have several sizes, and no size was given to fit them to."""


def check_size(step: int, found: Size, native: Size, size: Size | None, source: str, where: str) -> None:
    """Compares the size of a frame with `native`, that of the first. Raises SizeChanges if they differ without `size`.

    source: the note about other sizes is printed once per source. where: the episode, for the note.
    """
    if found == native:
        return
    what = f"frame {step} has {found[0]}x{found[1]} pixels, others {native[0]}x{native[1]}"
    if size is None:
        raise SizeChanges(what)
    warn_once(f"sizes in {source}", f"{where}: {what}; each frame is fitted to {size[0]}x{size[1]}")


def several_sizes(where: str, error: SizeChanges, name: str) -> UserError:
    """The error of an episode with several sizes; name: of its file, for --exclude; empty: it cannot be left out."""
    remedy = f" or `data cache`, or leave the file out with {exclude_option([name])}" if name else ""
    return UserError(f"{where}: {error}; expected one size; fit the frames with frames(episode, size=(64, 64)){remedy}")
