"""Checkpoints of a cut model (`--sharding full`): every process writes and reads its own pieces of the tensors.

torch.distributed.checkpoint does both, so that a checkpoint goes on with another number of processes, and whole with
one. In the rest of the checkpoint, which the first process writes, a tensor without data (of the meta device) stands
where a cut one belongs.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from genie_robotics.processes import num_processes, rank

FOLDER = "pieces"


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
        if isinstance(failure, RuntimeError):  # torch.save, which cannot pass an OSError on through C++
            where = ", ".join(map(str, sorted(error.failures)))
            raise OSError(f"process {where} could not write its pieces, is its disk full? ({failure})") from None
        raise failure from None
    own = {}
    for path in sorted(folder.glob(f"__{rank()}_*")) + ([folder / ".metadata"] if rank() == 0 else []):
        with open(path, "rb") as file:
            own[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    every: list[dict[str, str] | None] = [None] * num_processes()
    dist.all_gather_object(every, own)
    return {name: digest for found in every if found for name, digest in found.items()}


def read_pieces(folder: Path, content: Any, layout: Any) -> Any:
    """`content` with its stand-ins filled: each cut as the tensor of `layout` at its place, where there is one of its
    shape, else whole, on the CPU. All processes at once.

    layout: nested as `content` is; a tensor in it is meant for all that `content` has below its place.

    Raises:
        OSError, or what torch makes of a damaged file.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.api import CheckpointException

    targets = {place: like(missing, layout, place) for place, missing in stand_ins(content)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one process reading by itself is meant
            checkpoint.load(targets, storage_reader=checkpoint.FileSystemReader(folder))
    except CheckpointException as error:
        raise cause(error) from None
    return filled(content, targets)


def wrong_pieces(folder: Path, digests: dict[str, str]) -> str | None:
    """What is wrong with the first bad file, or None. Each process looks at its share; all come to the same answer."""
    problem = None
    for name in sorted(digests)[rank() :: num_processes()]:
        try:
            with open(folder / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digests[name]:
                    problem = problem or f"the SHA-256 of {FOLDER}/{name} is another"
        except OSError as error:
            problem = problem or f"{FOLDER}/{name} cannot be read: {error.strerror or error}"
    if num_processes() > 1:
        every: list[str | None] = [None] * num_processes()
        dist.all_gather_object(every, problem)
        problem = next((found for found in every if found), None)
    return problem


def first_alone(action: Callable[[], None]) -> None:
    """The first process acts, the others wait; what OSError it meets, all raise."""
    met: list[tuple[int | None, str] | None] = [None]
    if rank() == 0:
        try:
            action()
        except OSError as error:
            met = [(error.errno, error.strerror or str(error))]
    dist.broadcast_object_list(met, src=0)
    if met[0] is not None:
        raise OSError(*met[0])


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
