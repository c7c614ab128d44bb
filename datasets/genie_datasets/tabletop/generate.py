"""`generate`: simulate on all cores and write RLDS; the bytes depend neither on the workers nor on interruptions."""

import errno
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.episode import NUM_FRAMES
from genie_datasets.tabletop.factors import FAMILIES, FAMILY_FACTORS, Factors
from genie_datasets.tabletop.plan import plan
from genie_datasets.tabletop.pool import WorkerFailed, WorkerPool
from genie_datasets.tabletop.render import NO_GL, find_backend, renderer_name
from genie_datasets.tabletop.unfinished import Unfinished, count_finished
from genie_datasets.tabletop.worker import Job

DEFAULT_SPLITS = {"train": 0.8, "test": 0.2}
LARGEST_SEED = 10**9  # scenes and episodes have seeds a million times as large, in 64 bits
SMALLEST, LARGEST = 16, 1024  # pixels a side
BYTES_PER_PIXEL, BYTES_PER_FRAME = 1.0, 3_000  # on disk, generously: JPEG of quality 95, and the rest of a step


def _check(episodes: int, seed: int, size: tuple[int, int], splits: dict[str, float], family: str) -> None:
    if family not in FAMILIES:
        raise UserError(f"no tabletop family {family!r}: choose one of {', '.join(FAMILIES)}")
    if seed < 0:
        raise UserError(f"seed {seed} is negative: give a seed of 0 or more")
    if seed > LARGEST_SEED:
        raise UserError(f"seed {seed} is too large: give one of 0 to {LARGEST_SEED}")
    if len(size) != 2 or not all(SMALLEST <= s <= LARGEST for s in size):
        shown = "x".join(map(str, size))
        raise UserError(f"size {shown} cannot be rendered: give HEIGHTxWIDTH, each from {SMALLEST} to {LARGEST} pixels")
    if not splits or not all(name.isidentifier() for name in splits):
        raise UserError(f"bad split names {list(splits)}: use letters, digits and _, as in train=.8,test=.2")
    if not all(fraction > 0 for fraction in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
        raise UserError(f"split shares {splits} must be above 0 and add up to 1, as in train=.8,test=.2")
    if episodes < len(splits):
        raise UserError(f"{episodes} episodes cannot fill {len(splits)} splits: give at least {len(splits)}")


def _check_disk(out: Path, episodes: int, size: tuple[int, int]) -> None:
    """UserError if `out` lies on a disk too full for those of so many `episodes` that are not there yet."""
    left = episodes - count_finished(out)
    need = left * NUM_FRAMES * (BYTES_PER_PIXEL * size[0] * size[1] + BYTES_PER_FRAME)
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < need:
        raise UserError(
            f"{out} has {free / 1e9:.2f} GB free, and {left} episodes of {size[0]}x{size[1]} may need"
            f" {need / 1e9:.2f} GB: free some space, or make fewer or smaller episodes"
        )


def generate(
    out: Path | str,
    episodes: int,
    seed: int,
    size: tuple[int, int] = (64, 64),
    splits: dict[str, float] | None = None,
    family: str = "easy",
    workers: int | None = None,
    progress: bool = True,
    factors: Factors | None = None,
    scenes: int | None = None,
) -> Path:
    """Writes a tabletop data set and returns the folder that holds its features.json.

    `size` is (height, width); `splits` maps names to shares of the episodes and of the scenes, .8 train and .2 test
    unless given; `factors` says what differs between scenes, and how the robot behaves: the family's own unless given;
    `scenes` is how many there are in all, a few for `easy` and many for `rt1` unless given. The same arguments give the
    same bytes on the same machine, for any number of `workers` (one a core unless given), and also when the work was
    cut: finished episodes stay in `out`, and the same call goes on there.
    Raises UserError for arguments that make no sense, for an `out` that holds anything else or cannot be written, and
    for workers that keep dying.
    """
    out = Path(out)
    splits = dict(DEFAULT_SPLITS if splits is None else splits)
    size = (int(size[0]), int(size[1])) if len(size) == 2 else size
    _check(episodes, seed, size, splits, family)
    if scenes is not None and not len(splits) <= scenes <= episodes:
        raise UserError(
            f"{scenes} scenes do not go with {episodes} episodes in {len(splits)} splits, which share no scene:"
            f" give from {len(splits)} to {episodes}"
        )
    _check_disk(out, episodes, size)
    factors = factors or FAMILY_FACTORS[family]
    jobs = plan(episodes, seed, size, splits, family, factors, scenes)
    backend = find_backend()
    arguments = {
        "--episodes": str(episodes),
        "--seed": str(seed),
        "--size": f"{size[0]}x{size[1]}",
        "--split": ",".join(f"{name}={fraction:g}" for name, fraction in splits.items()),
        "--family": family,
        "factors": json.dumps(asdict(factors)),
        "--scenes": str(len({job.scene for job in jobs})),
        "renderer": renderer_name(backend),
    }
    with Unfinished(out, arguments, jobs) as folder:
        if folder.final.is_dir():
            return folder.final
        try:
            metadata = {
                "family": family,
                "seed": seed,
                "renderer": renderer_name(backend),
                "factors": json.dumps(asdict(factors)),
            }
            _make(folder, jobs, backend, workers or os.cpu_count() or 1, metadata, progress)
            return folder.finish()
        except WorkerFailed as error:
            remedies = "with fewer --workers if memory ran out"
            if backend != NO_GL:
                elsewhere = " and another folder" if folder.kept else ""  # renderers must not mix in one data set
                remedies += f", or with MUJOCO_GL={NO_GL}{elsewhere} if OpenGL is broken here"
            raise UserError(f"{error}; {_kept(folder, jobs, out)}: run the same command again, {remedies}") from error
        except OSError as error:
            reason = error.strerror or error
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "free some space" if full else "put that right"
            raise UserError(
                f"cannot write to {out}: {reason}; {remedy} and run the same command again: {_kept(folder, jobs, out)}"
            ) from error


def _kept(folder: Unfinished, jobs: list[Job], out: Path) -> str:
    return f"{folder.kept} of {len(jobs)} episodes are kept in {out}"


def _make(folder: Unfinished, jobs: list[Job], backend: str, workers: int, metadata: dict, progress: bool) -> None:
    """Makes the episodes that `folder` lacks, fills its shards and describes them. Raises WorkerFailed, OSError."""
    from tqdm import tqdm

    begun = folder.shards.episodes
    waiting = folder.waiting
    missing = [job for job in jobs[begun:] if job.index not in waiting]
    with WorkerPool(min(workers, len(missing)), backend) as pool:
        # After the workers have started, since TensorFlow takes seconds to import.
        from genie_datasets.tabletop.writer import RLDSWriter

        writer = RLDSWriter(jobs[0].size)
        made = pool.map(missing, lambda job, episode: writer.write(folder.path(job.index), episode))
        with tqdm(total=len(jobs), initial=begun, desc="tabletop", unit="episode", disable=not progress) as bar:
            for job in jobs[begun:]:
                if job.index not in waiting:
                    next(made)
                folder.settle(job.index)
                bar.update()
    writer.describe(folder.data, dict.fromkeys(job.split for job in jobs), folder.shards, metadata)
