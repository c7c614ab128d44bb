"""Indexes several shards at once, and keeps the result of each in a file until the whole index is written.

The work is a Python loop over memory maps, so threads would not speed it up.
"""

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from genie_datasets.base import child_process
from genie_datasets.base.cache_dir import unreadable
from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file
from genie_datasets.base.globs import exclude_option
from genie_datasets.base.mapped_npz import BROKEN, map_npz, write_npz
from genie_datasets.sources.rlds.index_shard import IndexSpec, ShardIndex, index_shard
from genie_datasets.sources.rlds.tfrecord import GZIP, DamagedRecord

PARALLEL_FROM = 1 << 28  # bytes of shards below which one process is faster
Lengths = dict[str, int]


@contextlib.contextmanager
def index_shards(
    shards: list[Path], spec: IndexSpec, lengths: Lengths, folder: Path | None
) -> Iterator[Callable[[int], ShardIndex]]:
    """Gives the index of each shard by its number.

    folder: keeps the results of large data sets until the block ends without an error, so that a call that was
        interrupted or killed resumes. Without it, they are kept in a temporary folder.

    Raises:
        UserError: a shard is damaged, or has another number of episodes than `lengths` states for its name.
    """
    sizes = [shard.stat().st_size for shard in shards]
    if sum(sizes) < PARALLEL_FROM or len(shards) == 1:
        yield [_checked(shard, _index_here(shard, spec), lengths, spec) for shard in shards].__getitem__
        return
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genie_index.")))
        place.mkdir(parents=True, exist_ok=True)
        for partial in place.glob("*.tmp"):
            partial.unlink(missing_ok=True)
        paths = [place / f"{number:05d}.npz" for number in range(len(shards))]
        _index_missing(shards, sizes, paths, spec)
        for path, shard in zip(paths, shards, strict=True):
            _checked(shard, ShardIndex.from_arrays(map_npz(path)), lengths, spec)
        yield lambda number: ShardIndex.from_arrays(map_npz(paths[number]))
        shutil.rmtree(place, ignore_errors=True)


def _index_here(shard: Path, spec: IndexSpec) -> ShardIndex:
    try:
        return index_shard(shard, spec)
    except (DamagedRecord, OSError) as error:
        raise _bad_shard(shard, error) from None


def _bad_shard(shard: Path, error: DamagedRecord | OSError) -> UserError:
    return unreadable(shard, shard.name, error) if isinstance(error, OSError) else _damaged(shard, str(error))


def _checked(shard: Path, index: ShardIndex, lengths: Lengths, spec: IndexSpec) -> ShardIndex:
    """The index of a shard. Raises UserError if the shard lacks episodes."""
    num = int(index.num_records)
    expected = lengths.get(shard.name, num)
    if num != expected and not spec.skip_damaged:
        raise _damaged(shard, f"holds {num} episodes, expected the {expected} of dataset_info.json")
    return index


def _damaged(shard: Path, what: str) -> UserError:
    if what.startswith(GZIP):
        name, plain = (shlex.quote(str(path)) for path in (shard, f"{shard}.plain"))
        return UserError(
            f"shard {shard} {what}, and TFDS shards are not: decompress it with gzip -dc {name} > {plain} && "
            f"mv {plain} {name}"
        )
    return UserError(
        f"shard {shard} {what}: download it again, or leave it out with {exclude_option([shard.name])} "
        "(--skip-damaged: only its damaged episodes)"
    )


def _index_missing(shards: list[Path], sizes: list[int], paths: list[Path], spec: IndexSpec) -> None:
    """Writes the index of shards[n] to paths[n] where that is missing, with one worker per core."""
    todo = [number for number, path in enumerate(paths) if not _is_whole(path)]
    if not todo:
        return
    num_workers = min(num_cores(), len(todo))
    bar = tqdm(total=sum(sizes), initial=sum(sizes) - sum(sizes[n] for n in todo), desc="index", unit="B",
               unit_scale=True, leave=False)  # fmt: skip
    with bar, contextlib.ExitStack() as stack:
        idle: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(num_workers):
            idle.put(stack.enter_context(Worker(spec)))
        pool = stack.enter_context(ThreadPoolExecutor(num_workers))

        def run(number: int) -> int:
            worker = idle.get()
            try:
                worker.index(shards[number], paths[number])
            finally:
                idle.put(worker)
            return sizes[number]

        try:
            for num_bytes in pool.map(run, todo):
                bar.update(num_bytes)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_whole(path: Path) -> bool:
    try:
        ShardIndex.from_arrays(map_npz(path))
    except BROKEN:
        return False
    return True


class Worker:
    """One process, which indexes a shard at a time. It ends when its pipe closes."""

    def __init__(self, spec: IndexSpec):
        self.spec = spec

    def __enter__(self) -> "Worker":
        self.process = child_process.start(__spec__.name, {**os.environ, "OMP_NUM_THREADS": "1"})
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # safe, because files appear whole or not at all
        self.process.wait()
        child_process.close_pipes(self.process)

    def index(self, shard: Path, path: Path) -> None:
        """Writes the index of a shard to `path`. Raises UserError; OSError if `path` cannot be written."""
        try:
            error, is_read = child_process.ask(self.process, (shard, path, self.spec))
        except child_process.ChildDied as died:
            raise UserError(
                f"the process that indexed {shard} ended (exit status {died}): rerun the command, which resumes"
            ) from None
        if error:
            raise error if is_read else _bad_shard(shard, error)


def run_job(job: tuple[Path, Path, IndexSpec]) -> tuple[DamagedRecord | OSError | None, bool]:
    """The work of one job, in the worker: its error, and whether the shard was read."""
    shard, path, spec = job
    is_read = False
    try:
        index = index_shard(shard, spec)
        is_read = True
        with atomic_file(path) as stream:
            write_npz(stream, vars(index))
    except (DamagedRecord, OSError) as error:
        return error, is_read
    return None, True


if __name__ == "__main__":
    child_process.serve(run_job)
