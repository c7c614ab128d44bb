"""Simulate a data set on all cores and write it as RLDS. An interrupted run is continued by the same call."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.episode import NUM_FRAMES
from genie_datasets.tabletop.factors import FAMILY_FACTORS, Factors
from genie_datasets.tabletop.plan import plan
from genie_datasets.tabletop.pool import WorkerFailed, WorkerPool
from genie_datasets.tabletop.render import NO_GL, find_backend, renderer_name
from genie_datasets.tabletop.unfinished import UnfinishedDataset, count_finished
from genie_datasets.tabletop.worker import Job

DEFAULT_SPLITS = {"train": 0.8, "test": 0.2}
MAX_SEED = 10**9  # scenes and episodes have seeds up to a million times larger, in 64 bits
MIN_SIDE, MAX_SIDE = 16, 1024  # pixels
BYTES_PER_PIXEL, BYTES_PER_FRAME = 1.0, 3_000  # upper estimates of the JPEG frame and of the rest of a step


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
    """Simulate a tabletop data set and return the folder that holds its features.json.

    The same arguments give the same bytes on the same machine, for any number of workers. After an interruption,
    finished episodes stay in `out`, and the same call continues there.

    Args:
        size: (height, width) of the frames.
        splits: name -> share of the episodes and of the scenes; the default is 0.8 train and 0.2 test.
        family: "easy", "rt1" or "wild", see `sample_scene`.
        workers: number of processes; the default is one per core.
        factors: what differs between scenes, and the behavior of the robot; the default is the family's.
        scenes: number of scenes in all splits together; the default is a few for "easy" and many for the others.

    Raises UserError for invalid arguments, if `out` holds anything else or cannot be written, or if workers keep dying.
    """
    out = Path(out)
    splits = dict(DEFAULT_SPLITS if splits is None else splits)
    size = (int(size[0]), int(size[1])) if len(size) == 2 else size
    _check(episodes, seed, size, splits, family, scenes)
    _check_disk_space(out, episodes, size)
    factors = factors or FAMILY_FACTORS[family]
    jobs = plan(episodes, seed, size, splits, family, factors, scenes)
    backend = find_backend()
    renderer, stored_factors = renderer_name(backend), factors.to_json()
    arguments = {
        "--episodes": str(episodes),
        "--seed": str(seed),
        "--size": f"{size[0]}x{size[1]}",
        "--split": ",".join(f"{name}={fraction:g}" for name, fraction in splits.items()),
        "--family": family,
        "factors": stored_factors,
        "--scenes": str(len({job.scene for job in jobs})),
        "renderer": renderer,
    }
    metadata = {"family": family, "seed": seed, "renderer": renderer, "factors": stored_factors}
    with UnfinishedDataset(out, arguments, jobs) as dataset:
        if dataset.final.is_dir():
            return dataset.final
        with _user_errors(dataset, len(jobs), out, backend):
            _simulate(dataset, jobs, backend, workers or num_cores(), metadata, progress)
            return dataset.finish()


def _check(
    episodes: int, seed: int, size: tuple[int, int], splits: dict[str, float], family: str, scenes: int | None
) -> None:
    if family not in FAMILY_FACTORS:
        raise UserError(f"unknown tabletop family {family!r}; pass one of {', '.join(FAMILY_FACTORS)}")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed must be from 0 to {MAX_SEED}, got {seed}")
    if len(size) != 2 or not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        shown = "x".join(map(str, size))
        raise UserError(f"size must be HEIGHTxWIDTH, each from {MIN_SIDE} to {MAX_SIDE} pixels, got {shown}")
    if not splits or not all(name.isidentifier() for name in splits):
        raise UserError(f"split names must be of letters, digits and _, got {list(splits)}; try train=0.8,test=0.2")
    if not all(fraction > 0 for fraction in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
        raise UserError(f"split shares must be above 0 and add up to 1, got {splits}; try train=0.8,test=0.2")
    if episodes < len(splits):
        raise UserError(f"{len(splits)} splits need at least {len(splits)} episodes, got {episodes}")
    if scenes is not None and not len(splits) <= scenes <= episodes:
        raise UserError(
            f"scenes must be from {len(splits)} (one per split) to {episodes} (one per episode), got {scenes}"
        )


def _check_disk_space(out: Path, episodes: int, size: tuple[int, int]) -> None:
    """Raise UserError if the disk of `out` has too little space for the episodes that are not finished."""
    missing = episodes - count_finished(out)
    needed = missing * NUM_FRAMES * (BYTES_PER_PIXEL * size[0] * size[1] + BYTES_PER_FRAME)
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"not enough disk space in {out}: {missing} episodes of {size[0]}x{size[1]} need up to"
            f" {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; free some space, or make fewer or smaller episodes"
        )


@contextlib.contextmanager
def _user_errors(dataset: UnfinishedDataset, episodes: int, out: Path, backend: str) -> Iterator[None]:
    """Turn errors of workers and of the disk into UserError, with the way to continue."""
    try:
        yield
    except (WorkerFailed, OSError) as error:
        kept = f"{dataset.num_finished} of {episodes} episodes are kept in {out}"
        if isinstance(error, WorkerFailed):
            remedy = "with fewer --workers if memory ran out"
            if backend != NO_GL:
                elsewhere = " and another folder" if dataset.num_finished else ""  # one data set has one renderer
                remedy += f", or with MUJOCO_GL={NO_GL}{elsewhere} if OpenGL does not work"
            raise UserError(f"{error}; {kept}: rerun the command, {remedy}") from error
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if is_full else "fix this"
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; {remedy} and rerun the command: {kept}"
        ) from error


def _simulate(
    dataset: UnfinishedDataset, jobs: list[Job], backend: str, workers: int, metadata: dict, progress: bool
) -> None:
    """Simulate the missing episodes, fill the shards and describe them. Raises WorkerFailed, OSError."""
    from tqdm import tqdm

    in_shards = dataset.shards.episodes
    pending = dataset.pending
    missing = [job for job in jobs[in_shards:] if job.index not in pending]
    with WorkerPool(min(workers, len(missing)), backend) as pool:
        # The workers start while TensorFlow is imported, which takes seconds.
        from genie_datasets.tabletop.writer import TabletopWriter

        writer = TabletopWriter(jobs[0].size)
        written = pool.map(missing, lambda job, episode: writer.write(dataset.record_path(job.index), episode))
        with tqdm(total=len(jobs), initial=in_shards, desc="tabletop", unit="episode", disable=not progress) as bar:
            for job in jobs[in_shards:]:
                if job.index not in pending:
                    next(written)
                dataset.add_to_shard(job.index)
                bar.update()
    writer.describe(dataset.data, dict.fromkeys(job.split for job in jobs), dataset.shards, metadata)
