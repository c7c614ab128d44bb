"""`generate`: simulate on all cores and write RLDS; the bytes do not depend on the number of workers."""

import os
import shutil
from pathlib import Path

from genie_datasets.errors import UserError
from genie_datasets.tabletop.episode import NUM_FRAMES
from genie_datasets.tabletop.plan import plan
from genie_datasets.tabletop.pool import WorkerPool
from genie_datasets.tabletop.render import find_backend, renderer_name
from genie_datasets.tabletop.scene import FAMILIES

DEFAULT_SPLITS = {"train": 0.8, "test": 0.2}
SMALLEST, LARGEST = 16, 1024  # pixels a side
BYTES_PER_PIXEL, BYTES_PER_FRAME = 1.0, 3_000  # on disk, generously: JPEG of quality 95, and the rest of a step


def _check(episodes: int, seed: int, size: tuple[int, int], splits: dict[str, float], family: str) -> None:
    if family not in FAMILIES:
        raise UserError(f"no tabletop family {family!r}: choose one of {', '.join(FAMILIES)}")
    if seed < 0:
        raise UserError(f"seed {seed} is negative: give a seed of 0 or more")
    if len(size) != 2 or not all(SMALLEST <= s <= LARGEST for s in size):
        shown = "x".join(map(str, size))
        raise UserError(f"size {shown} cannot be rendered: give HEIGHTxWIDTH, each from {SMALLEST} to {LARGEST} pixels")
    if not splits or not all(name.isidentifier() for name in splits):
        raise UserError(f"bad split names {list(splits)}: use letters, digits and _, as in train=.8,test=.2")
    if not all(fraction > 0 for fraction in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
        raise UserError(f"split shares {splits} must be above 0 and add up to 1, as in train=.8,test=.2")
    if episodes < len(splits):
        raise UserError(f"{episodes} episodes cannot fill {len(splits)} splits: give at least {len(splits)}")


def _prepare(out: Path, episodes: int, size: tuple[int, int]) -> None:
    """Makes the folder `out`; UserError if it holds something, cannot be made, or lies on a disk that is too full."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder: choose another one, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror or error}; choose another one") from error
    need = episodes * NUM_FRAMES * (BYTES_PER_PIXEL * size[0] * size[1] + BYTES_PER_FRAME)
    free = shutil.disk_usage(out).free
    if free < need:
        raise UserError(
            f"{out} has {free / 1e9:.2f} GB free, and {episodes} episodes of {size[0]}x{size[1]} may need"
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
) -> Path:
    """Writes a tabletop data set and returns the folder that holds its features.json.

    `size` is (height, width); `splits` maps names to shares of the episodes and of the scenes, .8 train and .2 test
    unless given. The same arguments give the same bytes on the same machine, for any number of `workers` (one a core
    unless given).
    Raises UserError for arguments that make no sense, and for an `out` that is not empty or cannot be written.
    """
    from tqdm import tqdm

    out = Path(out)
    splits = dict(DEFAULT_SPLITS if splits is None else splits)
    size = (int(size[0]), int(size[1])) if len(size) == 2 else size
    _check(episodes, seed, size, splits, family)
    _prepare(out, episodes, size)
    jobs = plan(episodes, seed, size, splits, family)
    backend = find_backend()
    with WorkerPool(min(workers or os.cpu_count() or 1, len(jobs)), backend) as pool:
        # After the workers have started, since TensorFlow takes seconds to import.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from genie_datasets.tabletop.rlds_writer import RLDSWriter, write_errors

        lengths = {name: sum(job.split == name for job in jobs) for name in splits}
        metadata = {"family": family, "seed": seed, "renderer": renderer_name(backend)}
        try:
            with RLDSWriter(out, size, lengths, metadata) as writer:
                made = zip(jobs, pool.episodes(jobs), strict=True)
                for job, episode in tqdm(made, total=len(jobs), desc="tabletop", unit="episode", disable=not progress):
                    writer.add(job.split, episode)
                return writer.finish()
        except write_errors() as error:
            reason = getattr(error, "strerror", None) or getattr(error, "message", None) or error
            raise UserError(f"cannot write to {out}: {reason}; free some space or choose another folder") from error
