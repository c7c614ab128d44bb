"""RUN/state/{stage}/step_00000500/: all that resuming a stage needs, so kept that no kill can harm it.

A checkpoint is a folder of two files: `state.pt` (tensors and plain values, which torch.load reads with
weights_only=True) and `SHA256SUMS` (`sha256sum -c` checks it). Of a model cut over processes the folder `pieces/` holds
the tensors (sharded_checkpoint.py). It is written under another name, synced to the disk, and renamed, so it is there
whole or not at all. What ends in `.tmp` never counts and is removed at the next save.

Random numbers need no saving: every step seeds them from (seed, stage, step). The sampler's position is the step.
"""

import hashlib
import io
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from genie_datasets.base.errors import UserError
from genie_robotics.models.distributed import of_all, rank, told_by_first
from genie_robotics.run_folder import sync_folder
from genie_robotics.training.sharded_checkpoint import FOLDER as PIECES
from genie_robotics.training.sharded_checkpoint import (
    LAYOUT,
    first_alone,
    read_pieces,
    stand_ins,
    take_out,
    write_pieces,
    wrong_pieces,
)
from genie_robotics.training.sharding import load_cut

STATE, SUMS = "state.pt", "SHA256SUMS"
NAME = re.compile(r"step_(\d{8,})(\.replaced)?")


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        folder: RUN/state/{stage}.
        keep: the newest so many are kept.
        keep_every: so is every one whose step is a multiple of this; 0: none.
    """

    def __init__(self, folder: Path, keep: int = 2, keep_every: int = 0):
        if keep < 1 or keep_every < 0:
            raise UserError(f"--keep must be at least 1 and --keep-every at least 0, not {keep} and {keep_every}")
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self.damaged: set[int] = set()  # steps that `newest` could not read: retention does not count them

    def newest(
        self, say: Callable[[str], None] = print, layout: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]] | None:
        """(step, content) of the newest whole checkpoint; None where there is none yet. Changes nothing.

        A damaged one is named through `say`, and the one before it is read: training from there gives the same. Of
        several processes all must ask at once.

        Args:
            layout: nested as the content is: how this process' model is cut, where it is; see `read_pieces`. All else
                is on the CPU.

        Raises:
            UserError: every checkpoint is damaged, or an earlier version of this package wrote them.
        """
        passed: list[tuple[Path, str]] = []
        for step, path in told_by_first(self.found()).items():
            try:
                content = read(path, layout)
            except Damaged as reason:
                self.damaged.add(step)
                passed.append((path, str(reason)))
                continue
            for bad, why in passed:
                say(f"{bad} is damaged ({why}): not used; training goes on from step {step}, the checkpoint before it")
            return step, content
        anew = f"delete {self.folder} to train this stage anew"
        if passed:
            path, why = passed[0]
            older = f", and so are the {len(passed) - 1} before it" if len(passed) > 1 else ", and there is no other"
            raise UserError(f"{path / STATE} is damaged ({why}){older}; {anew}")
        earlier = self.folder.with_name(f"{self.folder.name}.pt")
        if earlier.exists():
            raise UserError(
                f"{earlier} is of an earlier version, which cannot be resumed from; delete it to train anew"
            )
        return None

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Writes a checkpoint, then removes those that need not be kept. A kill leaves the earlier ones whole.

        Args:
            content: tensors, plain values, and lists, tuples and dicts of them. Where some are cut over processes, all
                must save at once.

        Raises:
            UserError: the disk is full, or cannot be written for another reason; the earlier ones are kept.
            TypeError: something in `content` could not be read back.
        """
        check_plain(content)
        content, cut = take_out(content)
        target = self.folder / f"step_{step:08d}"
        partial = target.with_name(f"{target.name}.tmp")
        try:
            if cut:
                first_alone(lambda: self.make(partial))
                digests = write_pieces(partial / PIECES, cut)
                first_alone(lambda: self.complete(step, partial, content, digests))
            else:
                self.make(partial)
                self.complete(step, partial, content)
        except OSError as error:
            if rank() == 0:
                shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"cannot write checkpoint {target}: {error.strerror or error}; the earlier ones are kept: "
                "free space on that disk and run the same command again to go on from there"
            ) from None
        return target

    def make(self, partial: Path) -> None:
        self.tidy()
        partial.mkdir(parents=True)

    def complete(
        self, step: int, partial: Path, content: dict[str, Any], pieces: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """The rest of the checkpoint, its name, and the end of those that are no longer kept."""
        target = partial.with_suffix("")
        replaced = target.with_name(f"{target.name}.replaced")
        write(partial, content, pieces)
        if target.exists():
            os.rename(target, replaced)  # until the next line is done, `found` takes this one
        os.rename(partial, target)
        for folder in (self.folder, *self.folder.parents[:2]):
            sync_folder(folder)
        self.damaged.discard(step)
        self.retire(step)

    def found(self) -> dict[int, Path]:
        """Checkpoints by their step, newest first, whole or damaged."""
        found: dict[int, Path] = {}
        # The shorter name last: a checkpoint that is being replaced counts where its successor is not yet there.
        for path in sorted(self.folder.glob("step_*"), key=lambda path: -len(path.name)):
            match = NAME.fullmatch(path.name)
            if match and path.is_dir():
                found[int(match[1])] = path
        return dict(sorted(found.items(), reverse=True))

    def tidy(self) -> None:
        """Removes or puts back what a kill left behind."""
        for path in list(self.folder.glob("step_*")):
            if path.suffix == ".tmp":
                shutil.rmtree(path)
            elif path.suffix == ".replaced":
                if path.with_suffix("").exists():
                    remove(path)
                else:
                    os.rename(path, path.with_suffix(""))

    def retire(self, saved: int) -> None:
        """Removes what need not be kept after step `saved` was."""
        self.tidy()
        found = self.found()
        good = [step for step in found if step not in self.damaged]
        kept = {saved, *good[: self.keep], *(step for step in good if self.keep_every and step % self.keep_every == 0)}
        for step, path in found.items():
            if step not in kept:
                remove(path)


class Damaged(Exception):
    """What is wrong with a checkpoint, in a few words."""


def read(path: Path, layout: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of one checkpoint, its digests verified first; raises Damaged, in all processes or in none."""
    content: dict[str, Any] = {}
    pieces: dict[str, str] = {}
    problem = None
    try:
        content, pieces = read_state(path)
    except Damaged as error:
        problem = str(error)
    problem = next((found for found in of_all(problem) if found), None)
    if problem:
        raise Damaged(problem)
    if not pieces and not any(True for _ in stand_ins(content)):
        return content
    problem = f"{SUMS} does not list its pieces" if LAYOUT not in pieces else wrong_pieces(path / PIECES, pieces)
    if problem:
        raise Damaged(problem)
    try:
        return read_pieces(path / PIECES, content, layout, pieces)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch raises many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise Damaged(f"{PIECES} cannot be read: {reason[0]}") from None


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The first process' file, and the digests of the pieces, by their names; raises Damaged."""
    name = STATE
    try:
        with open(path / STATE, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = SUMS
            stored = digests_of((path / SUMS).read_bytes())
            if stored.pop(STATE, None) != digest:
                raise Damaged(f"the SHA-256 of {STATE} is not the one in {SUMS}")
            name = STATE
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Damaged(f"{name} is missing") from None
    except OSError as error:
        raise Damaged(f"{name} cannot be read: {error.strerror or error}") from None
    except (Damaged, MemoryError):
        raise
    except Exception as error:  # torch.load raises many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise Damaged(f"{STATE} cannot be read: {reason[0]}") from None
    if not isinstance(content, dict):
        raise Damaged(f"{STATE} holds no dict")
    return content, {name.removeprefix(f"{PIECES}/"): digest for name, digest in stored.items()}


def write(folder: Path, content: dict[str, Any], pieces: Mapping[str, str] = MappingProxyType({})) -> None:
    """Fills `folder`, which is empty but for its pieces, synced to the disk; pieces: their SHA-256 by name."""
    with open(folder / STATE, "wb") as file:
        stream = HashingStream(file)
        torch.save(content, stream)  # type: ignore[arg-type]  # it needs no more than write and flush
        if stream.error:
            raise stream.error
        os.fsync(file.fileno())
    with open(folder / SUMS, "wb") as file:
        file.write(sums({STATE: stream.digest.hexdigest()} | {f"{PIECES}/{name}": d for name, d in pieces.items()}))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def sums(digests: dict[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def digests_of(text: bytes) -> dict[str, str]:
    """What `sums` was given; of a damaged file, what can be read of it."""
    lines = [line.partition("  ") for line in text.decode(errors="replace").splitlines()]
    return {name: digest for digest, _, name in lines}


class HashingStream:
    """Passes bytes on to a file and hashes them on the way: what is hashed is what was meant to be written.

    A write that fails is kept in `error` instead of being raised, because torch.save cannot pass it on through C++.
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


def remove(path: Path) -> None:
    """Deletes a checkpoint that must not be taken for a whole one when it is half deleted."""
    doomed = path.with_name(f"{path.name}.deleted.tmp")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.Size)


def check_plain(value: Any, where: str = "content") -> None:
    """Raises TypeError for what torch.load with weights_only=True would refuse to read back."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        for key, entry in value.items():
            check_plain(key, f"a key of {where}")
            check_plain(entry, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, entry in enumerate(value):
            check_plain(entry, f"{where}[{i}]")
    elif not isinstance(value, torch.Tensor) and type(value) not in PLAIN:
        raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values")


def training_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that the model's own file leaves out, such as the codebooks' counters."""
    stored = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in stored}


def module_state(module: nn.Module) -> dict[str, Any]:
    """All weights and buffers of a module: {"model": its state_dict, "buffers": `training_buffers`}."""
    return {
        "model": module.state_dict(),
        "buffers": {name: without_slack(buffer) for name, buffer in training_buffers(module).items()},
    }


def without_slack(tensor: torch.Tensor) -> torch.Tensor:
    """A copy where the tensor is a part of a larger storage, which torch.save would write as a whole."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def load_module_state(module: nn.Module, state: dict[str, Any], origin: str | Path = "the checkpoint") -> None:
    """Loads what `module_state` gave, strictly. Only how many latents a codebook remembers may differ.

    Args:
        origin: named in errors: the stage's folder of checkpoints.

    Raises:
        UserError: names, shapes or kinds of the tensors are not those of the module.
    """
    buffers = training_buffers(module)
    problem = misfit({**module.state_dict()}, state["model"]) or misfit(buffers, state["buffers"], may_grow=True)
    if problem:
        raise UserError(f"{origin} does not fit the model ({problem}); delete it to train this stage anew")
    load_cut(module, state["model"])
    for name, value in state["buffers"].items():
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, value.to(buffers[name].device, copy=True))


def misfit(own: dict[str, torch.Tensor], stored: dict[str, torch.Tensor], may_grow: bool = False) -> str | None:
    """The first difference in names, shapes and dtypes, or None. `may_grow`: tables may have another number of rows."""
    if own.keys() != stored.keys():
        name = min(own.keys() ^ stored.keys())
        return f"{name} is " + ("missing" if name in own else "not in the model")
    for name, value in own.items():
        other = stored[name]
        rows = may_grow and value.ndim > 1 and value.ndim == other.ndim
        if value.shape[rows:] != other.shape[rows:] or value.dtype != other.dtype:
            x, y = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (other, value))
            return f"{name} is {x}, in the model {y}"
    return None
