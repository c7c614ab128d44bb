"""Checkpoints of a sharded model (`--sharding full`): every process writes and reads its own shards of the tensors.

torch.distributed.checkpoint does both, so that a checkpoint can be read by another number of processes, and complete by
one. state.pt, which rank 0 writes, holds a placeholder (a tensor on the meta device) for each sharded tensor. A tensor
is named by its path in the content, such as "/components/dynamics/model/head.weight".
"""

import hashlib
import pickle
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from genie_datasets.base.files import sync_folder
from genie_robotics.models.distributed import all_gather_object, broadcast_object, num_processes, rank

SHARDS = "shards"
METADATA = ".metadata"
"""File in which torch stores where each shard is."""


def map_tensors(values: Any, function: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    """A copy of nested dicts, lists and tuples in which function(path, tensor) replaces every tensor."""
    if isinstance(values, Tensor):
        return function(path, values)
    if isinstance(values, dict):
        return type(values)((key, map_tensors(value, function, f"{path}/{key}")) for key, value in values.items())
    if isinstance(values, (list, tuple)):
        return type(values)(map_tensors(value, function, f"{path}/{i}") for i, value in enumerate(values))
    return values


def replace_shards(content: Any) -> tuple[Any, dict[str, DTensor]]:
    """`content` with placeholders for its sharded tensors, and these tensors by path."""
    shards: dict[str, DTensor] = {}

    def replace(path: str, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        shards[path] = tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    return map_tensors(content, replace), shards


def placeholders(content: Any) -> dict[str, Tensor]:
    """The placeholders in `content`, by path."""
    found: dict[str, Tensor] = {}

    def collect(path: str, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            found[path] = tensor
        return tensor

    map_tensors(content, collect)
    return found


def write_shards(folder: Path, shards: dict[str, DTensor]) -> dict[str, str]:
    """Writes into `folder`, synced to the disk. All processes must call it at once.

    Returns:
        The SHA-256 of all files, by name.

    Raises:
        OSError: a process could not write; the same error in all processes.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        checkpoint.save(dict(shards), storage_writer=checkpoint.FileSystemWriter(folder))
    except CheckpointException as error:
        failure = first_failure(error)
        if any(word in str(failure) for word in WRITE_ERRORS):
            ranks = ", ".join(map(str, sorted(error.failures)))
            raise OSError(f"rank {ranks} could not write its shards ({failure}); is its disk full?") from None
        raise failure from None
    own: dict[str, str] = {}
    problem = None
    try:
        names = [path.name for path in sorted(folder.glob(f"__{rank()}_*"))] + ([METADATA] if rank() == 0 else [])
        own = {name: sha256(folder / name) for name in names}
        sync_folder(folder)  # by every process, because they may be on several machines
    except OSError as error:
        problem = f"rank {rank()} could not read its shards back: {error.strerror or error}"
    problem = first_of_all_ranks(problem)
    if problem:
        raise OSError(problem)
    return {name: digest for digests in all_gather_object(own) for name, digest in digests.items()}


WRITE_ERRORS = ("inline_container", "PytorchStreamWriter", "write failed")
"""Words in the errors that torch.save raises in place of an OSError, which it cannot pass on through C++."""


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_shards(folder: Path, content: Any, layout: Any, files: Collection[str]) -> Any:
    """`content` with tensors in place of its placeholders. All processes must call it at once.

    Args:
        layout: nested like `content`. A tensor is read sharded like the tensor of `layout` at its path, or at a path
            above it, if both have the same shape; otherwise it is read complete, on the CPU.
        files: names of the verified files of the folder; no other is read.

    Raises:
        OSError, or the error of torch for a damaged file, in all processes.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.api import CheckpointException

    tensors = {path: empty_tensor(tensor, layout, path) for path, tensor in placeholders(content).items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns when a single process reads
            checkpoint.load(tensors, storage_reader=safe_reader(folder, files))
    except CheckpointException as error:
        raise first_failure(error) from None
    return map_tensors(content, lambda path, tensor: tensors[path] if tensor.is_meta else tensor)


def empty_tensor(placeholder: Tensor, layout: Any, path: str) -> Tensor:
    """An empty tensor to read into, sharded as `layout` says (see `read_shards`)."""
    for name in path.split("/")[1:]:
        if isinstance(layout, dict):
            layout = layout.get(name, layout.get(int(name) if name.isdecimal() else name))
        elif isinstance(layout, (list, tuple)):
            layout = layout[int(name)] if int(name) < len(layout) else None
    if isinstance(layout, DTensor) and layout.shape == placeholder.shape:
        return torch.empty_like(layout, dtype=placeholder.dtype).detach()
    return torch.empty(placeholder.shape, dtype=placeholder.dtype)


def damaged_shard(folder: Path, digests: dict[str, str]) -> str | None:
    """A description of the first damaged file, or None; the same in all processes, which each verify some files."""
    problem = None
    for name in sorted(digests)[rank() :: num_processes()]:
        try:
            if sha256(folder / name) != digests[name]:
                problem = problem or f"the SHA-256 of {SHARDS}/{name} differs from SHA256SUMS"
        except OSError as error:
            problem = problem or f"{SHARDS}/{name} cannot be read: {error.strerror or error}"
    return first_of_all_ranks(problem)


def first_of_all_ranks(problem: str | None) -> str | None:
    """The problem of the lowest rank that has one, in all processes."""
    return next((found for found in all_gather_object(problem) if found), None)


def run_on_rank_0(action: Callable[[], None]) -> None:
    """Runs `action` on rank 0 while the others wait; raises OSError on them if it fails."""
    failure: Exception | None = None
    if rank() == 0:
        try:
            action()
        except Exception as error:
            failure = error
    problem = broadcast_object(None if failure is None else str(getattr(failure, "strerror", None) or failure))
    if failure is not None:
        raise failure
    if problem is not None:
        raise OSError(problem)


ALLOWED = {
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
"""Names that the pickled metadata of a checkpoint may import, besides torch's dtypes."""


class MetadataUnpickler(pickle.Unpickler):
    """Refuses everything that is not ALLOWED. torch's own reader would run any code that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if name in ALLOWED.get(module, ()) or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{METADATA} imports {module}.{name}, which is not allowed")


def safe_reader(folder: Path, files: Collection[str]) -> Any:
    """A reader of torch for this folder that unpickles only ALLOWED names and opens only these files."""
    from torch.distributed.checkpoint import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            with open(folder / METADATA, "rb") as file:
                found = MetadataUnpickler(file).load()
            unlisted = sorted({info.relative_path for info in found.storage_data.values()} - set(files))
            if unlisted:
                raise pickle.UnpicklingError(f"{METADATA} names {unlisted[0]}, which SHA256SUMS does not list")
            return found

    return Reader(folder)


def first_failure(error: Any) -> BaseException:
    """The failure of the lowest rank in a CheckpointException; an OSError goes first."""
    failures = [failure for failure, _ in error.failures.values()]
    return next((failure for failure in failures if isinstance(failure, OSError)), failures[0])
