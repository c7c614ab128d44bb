"""Splits whose frames are stored as image files, one per step: the shared part of RLDS and of images in tables."""

from abc import abstractmethod

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.fit import Size
from genie_datasets.sources.decode import DamagedImage, decode_image, image_size
from genie_datasets.sources.frame_sizes import SizeChanges, check_size, several_sizes
from genie_datasets.sources.split import Ids, Split, frame_ids


class EncodedSplit(Split):
    """Decodes the frames that `encoded` gives."""

    location: str  # of the data set; a note about its sizes is printed once

    @abstractmethod
    def encoded(self, episode: int, step: int) -> bytes:
        """The stored image file of one frame. Raises UserError."""

    @abstractmethod
    def _place(self, episode: int) -> tuple[str, str]:
        """The episode in words, for messages, and the file to leave out with --exclude, empty if that is impossible."""

    @abstractmethod
    def _bad(self, episode: int, what: str) -> UserError:
        """The error of a damaged episode."""

    def _decode(self, data: bytes, size: Size | None, mode: str) -> np.ndarray:
        """An image file as (H, W, 3) uint8, fitted to `size`. Raises DamagedImage."""
        return decode_image(data, size, mode)

    def frames(self, episode: int, ids: Ids = None, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        steps = frame_ids(ids, self.num_frames[episode]).tolist()
        where, file = self._place(episode)
        reader = f"{self.location} by {type(self).__name__}"
        out: np.ndarray | None = None
        native: Size | None = None
        for n, step in enumerate(steps):
            data = self.encoded(episode, step)
            try:
                found, image = image_size(data), self._decode(data, size, mode)
                check_size(step, found, native := native or found, size, reader, where)
            except DamagedImage as error:
                raise self._bad(episode, f"step {step}: {error}") from None
            except SizeChanges as error:
                raise several_sizes(where, error, file) from None
            if out is None:
                out = np.empty((len(steps), *image.shape), np.uint8)
            out[n] = image
        return np.empty((0, *(size or self.image_size), 3), np.uint8) if out is None else out

    def size_of(self, episode: int) -> Size:
        try:
            return image_size(self.encoded(episode, 0))
        except DamagedImage as error:
            raise self._bad(episode, f"step 0: {error}") from None
