"""Checkpoints of a cut model (`--sharding full`): every process writes and reads its own pieces of the tensors.

torch.distributed.checkpoint does both, so that a checkpoint goes on with another number of processes, and whole with
one. In the rest of the checkpoint, which the first process writes, a tensor without data (of the meta device) stands
where a cut one belongs.
"""

import hashlib
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from genie_robotics.models.distributed import num_processes, of_all, rank, told_by_first
from genie_robotics.run_folder import sync_folder

FOLDER, LAYOUT = "pieces", ".metadata"


def take_out(values: Any, path: str = "") -> tuple[Any, dict[str, DTensor]]:
    """`values` with stand-ins for what is cut, and what they stand for, by its place."""
    cut: dict[str, DTensor] = {}
    if isinstance(values, DTensor):
        return torch.empty(values.shape, dtype=values.dtype, device="meta"), {path: values}
    if isinstance(values, dict):
        kept: Any = type(values)()
        for key, value in values.items():
            kept[key], more = take_out(value, f"{path}/{key}")
            cut |= more
        return kept, cut
    if isinstance(values, (list, tuple)):
        parts = [take_out(value, f"{path}/{i}") for i, value in enumerate(values)]
        for _, more in parts:
            cut |= more
        return type(values)(value for value, _ in parts), cut
    return values, cut


def write_pieces(folder: Path, cut: dict[str, DTensor]) -> dict[str, str]:
    """All processes at once, into the empty `folder`, synced to the disk. Returns the SHA-256 of all files, by name.

    Raises:
        OSError: of a process that could not write; the same one in all.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        checkpoint.save(dict(cut), storage_writer=checkpoint.FileSystemWriter(folder))
    except CheckpointException as error:
        failure = cause(error)
        if any(word in str(failure) for word in WRITERS):  # torch.save, which cannot pass an OSError on through C++
            where = ", ".join(map(str, sorted(error.failures)))
            raise OSError(f"process {where} could not write its pieces, is its disk full? ({failure})") from None
        raise failure from None
    own: dict[str, str] | str = {}
    try:
        names = [path.name for path in sorted(folder.glob(f"__{rank()}_*"))] + ([LAYOUT] if rank() == 0 else [])
        own = {name: sha256(folder / name) for name in names}
        sync_folder(folder)  # of several machines each has to
    except OSError as error:
        own = f"process {rank()} could not read what it wrote: {error.strerror or error}"
    digests: dict[str, str] = {}
    for found in of_all(own):
        if isinstance(found, str):
            raise OSError(found)
        digests |= found
    return digests


WRITERS = ("inline_container", "PytorchStreamWriter", "write failed")


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_pieces(folder: Path, content: Any, layout: Any, files: Collection[str]) -> Any:
    """`content` with its stand-ins filled: each cut as the tensor of `layout` at its place and on its device, where
    there is one of its shape, else whole, on the CPU. All processes at once.

    layout: nested as `content` is; a tensor in it is meant for all that `content` has below its place.
    files: of the folder, which are known to be whole; no other is read.

    Raises:
        OSError, or what torch makes of a damaged file, in all processes.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.api import CheckpointException

    targets = {place: like(missing, layout, place) for place, missing in stand_ins(content)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one process reading by itself is meant
            checkpoint.load(targets, storage_reader=reader_of(folder, files))
    except CheckpointException as error:
        raise cause(error) from None
    return filled(content, targets)


def wrong_pieces(folder: Path, digests: dict[str, str]) -> str | None:
    """What is wrong with the first bad file, or None. Each process looks at its share; all come to the same answer."""
    problem = None
    for name in sorted(digests)[rank() :: num_processes()]:
        try:
            if sha256(folder / name) != digests[name]:
                problem = problem or f"the SHA-256 of {FOLDER}/{name} is another"
        except OSError as error:
            problem = problem or f"{FOLDER}/{name} cannot be read: {error.strerror or error}"
    return next((found for found in of_all(problem) if found), None)


def first_alone(action: Callable[[], None]) -> None:
    """The first process acts, the others wait; where it fails, all do."""
    met: Exception | None = None
    if rank() == 0:
        try:
            action()
        except Exception as error:
            met = error
    told = told_by_first(None if met is None else str(getattr(met, "strerror", None) or met))
    if met is not None:
        raise met
    if told is not None:
        raise OSError(told)


KNOWN = {
    "torch.distributed.checkpoint.metadata": (
        "Metadata", "TensorStorageMetadata", "ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING",
        "StorageMeta", "MetadataIndex",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
    "pathlib": ("PosixPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
}  # fmt: skip
"""All that the pickled layout of a checkpoint may name, beside torch's dtypes."""


class LayoutUnpickler(pickle.Unpickler):
    """A folder from elsewhere must not run code here, and torch's own reader unpickles whatever there is."""

    def find_class(self, module: str, name: str) -> Any:
        if name in KNOWN.get(module, ()) or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{LAYOUT} names {module}.{name}, which no layout does")


def reader_of(folder: Path, files: Collection[str]) -> Any:
    """A reader of that folder which unpickles nothing strange and opens no other files than these."""
    from torch.distributed.checkpoint import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            with open(folder / LAYOUT, "rb") as file:
                found = LayoutUnpickler(file).load()
            strange = sorted({info.relative_path for info in found.storage_data.values()} - set(files))
            if strange:
                raise pickle.UnpicklingError(f"{LAYOUT} names {strange[0]}, which is not in the checkpoint's list")
            return found

    return Reader(folder)


def cause(error: Any) -> BaseException:
    """The first process' failure in a CheckpointException, an OSError rather than another."""
    found = [failure for failure, _ in error.failures.values()]
    return next((failure for failure in found if isinstance(failure, OSError)), found[0])


def stand_ins(values: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(values, Tensor):
        if values.is_meta:
            yield path, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from stand_ins(value, f"{path}/{key}")
    elif isinstance(values, (list, tuple)):
        for i, value in enumerate(values):
            yield from stand_ins(value, f"{path}/{i}")


def like(missing: Tensor, layout: Any, place: str) -> Tensor:
    """An empty tensor for what is missing, cut as the layout says."""
    for name in place.split("/")[1:]:
        if isinstance(layout, dict):
            layout = layout.get(name, layout.get(int(name) if name.isdecimal() else name))
        elif isinstance(layout, (list, tuple)):
            layout = layout[int(name)] if int(name) < len(layout) else None
    if isinstance(layout, DTensor) and layout.shape == missing.shape:
        return torch.empty_like(layout, dtype=missing.dtype).detach()
    return torch.empty(missing.shape, dtype=missing.dtype)


def filled(values: Any, found: dict[str, Tensor], path: str = "") -> Any:
    if isinstance(values, Tensor):
        return found[path] if values.is_meta else values
    if isinstance(values, dict):
        return type(values)((key, filled(value, found, f"{path}/{key}")) for key, value in values.items())
    if isinstance(values, (list, tuple)):
        return type(values)(filled(value, found, f"{path}/{i}") for i, value in enumerate(values))
    return values
