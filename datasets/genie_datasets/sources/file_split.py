"""Splits with one file per episode: the shared part of folders of videos and of numpy files."""

import contextlib
import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.folders import first_of
from genie_datasets.base.notes import warn
from genie_datasets.base.recent import RecentItems
from genie_datasets.sources.frame_sizes import SizeChanges, several_sizes
from genie_datasets.sources.split import BLOCK, Ids, Size, Split, frame_ids

SPLIT_FOLDERS = ("train", "val", "validation", "test")
KEEP_BYTES = 256 << 20  # of decoded episodes, so that successive clips do not decode the same file again
Images = Iterator[tuple[np.ndarray, np.ndarray]]
"""(positions among the wanted frames, image (H, W, 3) uint8) of each."""


class DamagedFile(ValueError):
    """The file is of another kind, or damaged; the message says why."""


class FileSplit(Split):
    """Episode e is the file `files[e]` below `root`, which random access decodes from its beginning."""

    def __init__(self, name: str, fingerprint: str, root: Path, files: list[Path], hz: np.ndarray):
        self.name, self.fingerprint, self.root, self.files, self.hz = name, fingerprint, root, files, hz
        self._decoded: RecentItems[np.ndarray] = RecentItems(KEEP_BYTES, count_bytes=True)

    @abstractmethod
    def _images(self, episode: int, ids: np.ndarray, size: Size | None, mode: str) -> Images:
        """Yields the wanted frames, in the order of the file. Raises DamagedFile, SizeChanges."""

    @abstractmethod
    def _bad(self, episode: int, error: DamagedFile) -> UserError:
        """The error of a damaged file."""

    @contextlib.contextmanager
    def _errors(self, episode: int) -> Iterator[None]:
        """Turns errors of reading an episode into UserError."""
        file = self.files[episode]
        for state in self.states:
            state.check(file)
        try:
            yield
        except DamagedFile as error:
            raise self._bad(episode, error) from None
        except SizeChanges as error:
            raise several_sizes(str(file), error, file.relative_to(self.root).as_posix()) from None

    def frames(self, episode: int, ids: Ids = None, size: Size | None = None, mode: str = "crop") -> np.ndarray:
        wanted = frame_ids(ids, self.num_frames[episode])
        height, width = size or self.size_of(episode)

        def read(numbers: np.ndarray) -> np.ndarray:
            out = np.empty((len(numbers), height, width, 3), np.uint8)
            with self._errors(episode):
                for places, image in self._images(episode, numbers, size, mode):
                    out[places] = image
            return out

        if ids is None or not len(wanted) or self.num_frames[episode] * height * width * 3 > KEEP_BYTES:
            return read(wanted)
        key = (episode, size and tuple(size), mode)
        return self._decoded.get(key, lambda: read(np.arange(self.num_frames[episode])))[wanted]

    def frame_blocks(self, episode: int, size: Size | None = None, mode: str = "crop") -> Iterator[np.ndarray]:
        block: list[np.ndarray] = []
        with self._errors(episode):
            for places, image in self._images(episode, np.arange(self.num_frames[episode]), size, mode):
                block += [image] * len(places)
                while len(block) >= BLOCK:
                    yield np.stack(block[:BLOCK])
                    del block[:BLOCK]
        if block:
            yield np.stack(block)

    def instruction(self, episode: int) -> str:
        return instruction_of(self.files[episode])

    def episode_name(self, episode: int) -> str:
        return self.files[episode].relative_to(self.root).as_posix()


def instruction_of(file: Path) -> str:
    """The words of a file's name without the number of the take: 'pick_green_can_2.mp4' -> 'pick green can'."""
    words = re.split(r"[\s_\-]+", file.stem)
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return " ".join(word for word in words if word)


def split_folders(root: Path, files: list[Path]) -> dict[str, list[int]]:
    """Numbers of the files of each split. All are 'train', unless each lies in a folder train, val, validation or test.

    These folders may lie below others that hold all files. The case of their names does not matter.
    """
    folders = [[part.lower() for part in file.relative_to(root).parts[:-1]] for file in files]
    while all(len(parts) > 1 for parts in folders) and len({parts[0] for parts in folders}) == 1:
        if folders[0][0] in SPLIT_FOLDERS:
            break
        folders = [parts[1:] for parts in folders]
    tops = [parts[0] if parts else "" for parts in folders]
    if not set(tops) <= set(SPLIT_FOLDERS):
        if inside := [file for file, top in zip(files, tops, strict=True) if top in SPLIT_FOLDERS]:
            outside = next(file for file, top in zip(files, tops, strict=True) if top not in SPLIT_FOLDERS)
            warn(
                f"{first_of(inside)} is in the folder of a split, {outside} is not: all are read as one split, 'train'"
            )
        return {"train": list(range(len(files)))}
    return {name: [i for i, top in enumerate(tops) if top == name] for name in SPLIT_FOLDERS if name in tops}
