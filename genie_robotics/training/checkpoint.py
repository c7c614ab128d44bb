"""Checkpoints: RUN/state/{stage}/step_00000500/ holds everything that resuming a stage needs.

A checkpoint is a folder with two files: `state.pt` (tensors and plain values, which torch.load reads with
weights_only=True) and `SHA256SUMS` (`sha256sum -c` checks it). If the model is sharded across ranks, the folder
`shards/` holds its tensors (sharded_checkpoint.py). A checkpoint is written under a temporary name, synced to the disk
and renamed, so a kill at any moment leaves it complete or absent. Folders that end in `.tmp` are never read, and the
next save removes them.

The state of random number generators is not saved, because every step seeds them from (seed, stage, step). The
sampler's position is the step.
"""

import hashlib
import io
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import sync_folder
from genie_robotics.models.distributed import broadcast_object, rank
from genie_robotics.run_folder import first_line
from genie_robotics.training.sharded_checkpoint import (
    METADATA,
    SHARDS,
    damaged_shard,
    first_of_all_ranks,
    placeholders,
    read_shards,
    replace_shards,
    run_on_rank_0,
    write_shards,
)
from genie_robotics.training.sharding import load_sharded

STATE, SUMS = "state.pt", "SHA256SUMS"
NAME = re.compile(r"step_(\d{8,})(\.replaced)?")


class DamagedCheckpoint(Exception):
    """A checkpoint cannot be used; the message says why."""


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        folder: RUN/state/{stage}.
        keep: number of newest checkpoints to keep.
        keep_every: checkpoints at multiples of this step are kept too; 0: none.
    """

    def __init__(self, folder: Path, keep: int = 2, keep_every: int = 0):
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self.damaged: set[int] = set()  # steps that `newest` could not read; they do not count as kept

    def newest(
        self, say: Callable[[str], None] = print, layout: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]] | None:
        """The newest undamaged checkpoint as (step, content), or None if there is none yet. Changes no file.

        A damaged checkpoint is reported through `say` and skipped: training that resumes from the one before it gives
        the same result. All processes must call it at once.

        Args:
            layout: sharded tensors of this process, nested like the content (see `read_shards`). All other tensors are
                loaded complete, on the CPU.

        Raises:
            UserError: every checkpoint is damaged.
        """
        skipped: list[tuple[Path, str]] = []
        for step, path in broadcast_object(self.paths()).items():
            try:
                content = read_checkpoint(path, layout)
            except DamagedCheckpoint as reason:
                self.damaged.add(step)
                skipped.append((path, str(reason)))
                continue
            for damaged, why in skipped:
                say(f"{damaged} is damaged ({why}) and skipped; training resumes from step {step}, the one before it")
            return step, content
        if skipped:
            path, why = skipped[0]
            raise UserError(
                f"{path} is damaged ({why}) and no other checkpoint is usable; "
                f"delete {self.folder} to retrain this stage"
            )
        return None

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Writes a checkpoint, then removes those that need not be kept.

        Args:
            content: tensors, plain values, and lists, tuples and dicts of them. If some tensors are sharded, all
                processes must call it at once, otherwise only rank 0.

        Raises:
            UserError: the checkpoint cannot be written, for example because the disk is full; earlier ones are kept.
            TypeError: something in `content` could not be read back.
        """
        check_plain(content)
        content, shards = replace_shards(content)
        target = self.folder / f"step_{step:08d}"
        partial = target.with_name(f"{target.name}.tmp")
        try:
            if shards:
                run_on_rank_0(lambda: self._begin(partial))
                digests = write_shards(partial / SHARDS, shards)
                run_on_rank_0(lambda: self._complete(step, partial, content, digests))
            else:
                self._begin(partial)
                self._complete(step, partial, content, {})
        except OSError as error:
            if rank() == 0:
                shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"cannot write checkpoint {target}: {error.strerror or error}; earlier checkpoints are kept: "
                "free disk space and rerun the command to continue"
            ) from None
        return target

    def _begin(self, partial: Path) -> None:
        self._clean_up()
        partial.mkdir(parents=True)

    def _complete(self, step: int, partial: Path, content: dict[str, Any], digests: Mapping[str, str]) -> None:
        """Writes the state beside the shards, gives the folder its final name and removes old checkpoints."""
        target = partial.with_suffix("")
        replaced = target.with_name(f"{target.name}.replaced")
        write_state(partial, content, digests)
        if target.exists():
            os.rename(target, replaced)  # `paths` returns it until the next line is done
        os.rename(partial, target)
        for folder in (self.folder, *self.folder.parents[:2]):
            sync_folder(folder)
        self.damaged.discard(step)
        self.remove_old(step)

    def paths(self) -> dict[int, Path]:
        """The folder of every checkpoint by its step, newest first; damaged ones are included."""
        found: dict[int, Path] = {}
        # In this order NAME replaces NAME.replaced, which counts only until its successor has its final name.
        for path in sorted(self.folder.glob("step_*"), reverse=True):
            match = NAME.fullmatch(path.name)
            if match and path.is_dir():
                found[int(match[1])] = path
        return dict(sorted(found.items(), reverse=True))

    def remove_old(self, saved: int) -> None:
        """Removes the checkpoints that need not be kept after step `saved`."""
        self._clean_up()
        found = self.paths()
        good = [step for step in found if step not in self.damaged]
        kept = {saved, *good[: self.keep], *(step for step in good if self.keep_every and step % self.keep_every == 0)}
        for step, path in found.items():
            if step not in kept:
                remove_checkpoint(path)

    def _clean_up(self) -> None:
        """Removes or restores folders that an interrupted save left."""
        for path in list(self.folder.glob("step_*")):
            if path.suffix == ".tmp":
                shutil.rmtree(path)
            elif path.suffix == ".replaced":
                if path.with_suffix("").exists():
                    remove_checkpoint(path)
                else:
                    os.rename(path, path.with_suffix(""))


def read_checkpoint(path: Path, layout: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of one checkpoint, whose digests are verified first. All processes must call it at once.

    Raises:
        DamagedCheckpoint: in all processes, if any of them finds damage.
    """
    content: dict[str, Any] = {}
    digests: dict[str, str] = {}
    problem = None
    try:
        content, digests = read_state(path)
    except DamagedCheckpoint as error:
        problem = str(error)
    problem = first_of_all_ranks(problem)
    if problem:
        raise DamagedCheckpoint(problem)
    if not digests and not placeholders(content):
        return content
    problem = f"{SUMS} does not list its shards" if METADATA not in digests else damaged_shard(path / SHARDS, digests)
    if problem:
        raise DamagedCheckpoint(problem)
    try:
        return read_shards(path / SHARDS, content, layout, digests)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch raises many kinds
        raise DamagedCheckpoint(f"{SHARDS} cannot be read: {first_line(error)}") from None


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of state.pt, and the SHA-256 of each file in shards/; raises DamagedCheckpoint."""
    name = STATE
    try:
        with open(path / STATE, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = SUMS
            digests = parse_sums((path / SUMS).read_bytes())
            name = STATE
            if digests.pop(STATE, None) != digest:
                raise DamagedCheckpoint(f"the SHA-256 of {STATE} differs from {SUMS}")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{name} is missing") from None
    except OSError as error:
        raise DamagedCheckpoint(f"{name} cannot be read: {error.strerror or error}") from None
    except (DamagedCheckpoint, MemoryError):
        raise
    except Exception as error:  # torch.load raises many kinds
        raise DamagedCheckpoint(f"{STATE} cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{STATE} does not hold a dict")
    return content, {name.removeprefix(f"{SHARDS}/"): digest for name, digest in digests.items()}


def write_state(folder: Path, content: dict[str, Any], digests: Mapping[str, str]) -> None:
    """Writes state.pt and SHA256SUMS into `folder`, synced to the disk; digests: of the files in shards/."""
    with open(folder / STATE, "wb") as file:
        stream = HashingStream(file)
        torch.save(content, stream)  # type: ignore[arg-type]  # it calls write and flush only
        if stream.error:
            raise stream.error
        os.fsync(file.fileno())
    with open(folder / SUMS, "wb") as file:
        file.write(format_sums({STATE: stream.digest.hexdigest()} | {f"{SHARDS}/{n}": d for n, d in digests.items()}))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def format_sums(digests: dict[str, str]) -> bytes:
    """The content of SHA256SUMS for these digests by file name."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def parse_sums(text: bytes) -> dict[str, str]:
    """Digests by file name; damaged text gives wrong names or digests, not an error."""
    lines = [line.partition("  ") for line in text.decode(errors="replace").splitlines()]
    return {name: digest for digest, _, name in lines}


class HashingStream:
    """A file to write that hashes the bytes before they reach the disk.

    A write error is stored in `error` instead of being raised, because torch.save cannot pass it on through C++.
    """

    def __init__(self, file: io.BufferedWriter):
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.attempt(lambda: self.file.write(data))
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        self.attempt(self.file.flush)

    def attempt(self, action: Callable[[], Any]) -> None:
        if self.error is None:
            try:
                action()
            except OSError as error:
                self.error = error


def remove_checkpoint(path: Path) -> None:
    """Deletes a checkpoint. It is renamed first, so that a half-deleted one is never read."""
    doomed = path.with_name(f"{path.name}.deleted.tmp")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.Size)


def check_plain(value: Any, where: str = "content") -> None:
    """Raises TypeError for a value that torch.load with weights_only=True would not read back."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        for key, entry in value.items():
            check_plain(key, f"a key of {where}")
            check_plain(entry, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, entry in enumerate(value):
            check_plain(entry, f"{where}[{i}]")
    elif not isinstance(value, torch.Tensor) and type(value) not in PLAIN:
        raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values")


def non_persistent_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that `state_dict` leaves out, such as the usage counts of a codebook."""
    stored = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in stored}


def module_state(module: nn.Module) -> dict[str, Any]:
    """All weights and buffers of a module: {"model": state_dict, "buffers": non-persistent buffers}."""
    return {
        "model": module.state_dict(),
        "buffers": {name: compact(buffer) for name, buffer in non_persistent_buffers(module).items()},
    }


def compact(tensor: torch.Tensor) -> torch.Tensor:
    """A copy if the tensor is a view of a larger storage, because torch.save would write all of that storage."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def load_module_state(module: nn.Module, state: dict[str, Any], origin: str | Path = "the checkpoint") -> None:
    """Loads the result of `module_state`, strictly, except that buffers may have another number of rows.

    Args:
        origin: the stage's folder of checkpoints, for errors.

    Raises:
        UserError: names, shapes or dtypes of the tensors differ from the module's. The module is unchanged.
    """
    buffers = non_persistent_buffers(module)
    problem = first_mismatch({**module.state_dict()}, state["model"])
    problem = problem or first_mismatch(buffers, state["buffers"], any_num_rows=True)
    if problem:
        raise UserError(f"{origin} does not fit the model ({problem}); delete it to retrain this stage")
    load_sharded(module, state["model"])
    for name, value in state["buffers"].items():
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, value.to(buffers[name].device, copy=True))


def first_mismatch(
    own: dict[str, torch.Tensor], stored: dict[str, torch.Tensor], any_num_rows: bool = False
) -> str | None:
    """The first difference in names, shapes and dtypes, or None. any_num_rows: the rows of a matrix do not count."""
    if own.keys() != stored.keys():
        name = min(own.keys() ^ stored.keys())
        return f"{name} is " + ("missing" if name in own else "not in the model")
    for name, value in own.items():
        other = stored[name]
        first = any_num_rows and value.ndim > 1 and value.ndim == other.ndim
        if value.shape[first:] != other.shape[first:] or value.dtype != other.dtype:
            x, y = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (other, value))
            return f"{name} is {x}, in the model {y}"
    return None
