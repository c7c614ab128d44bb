"""Frames of one episode that have several sizes: fitted and said once, or one error."""

from collections.abc import Iterable

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.fit import Size
from genie_datasets.base.globs import exclude_option
from genie_datasets.base.notes import warn_once
from genie_datasets.sources.decode import DamagedImage, decode_image, image_size


class SizeChanges(ValueError):
    """The frames of an episode have several sizes, and no size to fit them to was given."""


def check_size(step: int, found: Size, native: Size, size: Size | None, about: str, where: str) -> None:
    """Compares the size of a frame with that of the first.

    about: the source, of which a note is said once. Raises SizeChanges where `size` is None.
    """
    if found == native:
        return
    what = f"frame {step} has {found[0]}x{found[1]} pixels, others {native[0]}x{native[1]}"
    if size is None:
        raise SizeChanges(what)
    warn_once(f"sizes in {about}", f"{where}: {what}; each frame is fitted to {size[0]}x{size[1]}")


def decode_frames(
    images: Iterable[tuple[int, bytes]], num: int, size: Size | None, mode: str, about: str, where: str
) -> np.ndarray | None:
    """Decodes (step, image file) pairs, `num` of them: (num, H, W, 3) uint8; None where there are none.

    Raises DamagedImage, which names the step; SizeChanges.
    """
    out: np.ndarray | None = None
    native: Size | None = None
    for n, (step, data) in enumerate(images):
        try:
            found = image_size(data)
            image = decode_image(data, size, mode)
        except DamagedImage as error:
            raise DamagedImage(f"step {step}: {error}") from None
        check_size(step, found, native := native or found, size, about, where)
        if out is None:
            out = np.empty((num, *image.shape), np.uint8)
        out[n] = image
    return out


def several_sizes(where: str, error: SizeChanges, name: str) -> UserError:
    """name: of the file, for --exclude."""
    return UserError(
        f"{where}: {error}: read it with a size, such as frames(episode, size=(64, 64)) or `data cache`, which fit "
        f"every frame, or leave it out with {exclude_option([name])}"
    )
