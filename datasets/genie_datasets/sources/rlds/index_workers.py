"""Indexes several shards at once, and keeps the result of each in a file until the whole index is written.

The work is a Python loop over memory maps, so threads would not speed it up. The workers are processes of this module
and not a ProcessPoolExecutor: that would run a user's script without a main guard again, and its workers would outlive
a killed parent, while these end when their pipe closes.
"""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tqdm import tqdm

from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file
from genie_datasets.base.globs import exclude_option
from genie_datasets.base.mapped_npz import BROKEN, ChunkedArray, map_npz, write_npz
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
    except DamagedRecord as error:
        raise _damaged(shard, str(error)) from None
    except OSError as error:
        raise _unreadable(shard, error.strerror or str(error)) from None


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


def _unreadable(shard: Path, reason: str) -> UserError:
    return UserError(
        f"cannot read shard {shard} ({reason}): make it readable, or leave it out with {exclude_option([shard.name])}"
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

        jobs = [pool.submit(run, number) for number in todo]
        try:
            for job in as_completed(jobs):
                bar.update(job.result())
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
    """One process, which reads a job per line of JSON and answers with a line. It ends when its pipe closes."""

    def __init__(self, spec: IndexSpec):
        self.spec = spec

    def __enter__(self) -> "Worker":
        self.process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            process_group=0, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # safe, because files appear whole or not at all
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def index(self, shard: Path, path: Path) -> None:
        """Writes the index of a shard to `path`. Raises UserError; OSError if `path` cannot be written."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"shard": str(shard), "path": str(path), "spec": asdict(self.spec)}
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            result: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            status = self.process.poll()
            raise UserError(
                f"the process that indexed {shard} ended (exit status {status}): rerun the command, which resumes"
            ) from None
        if "damaged" in result:
            raise _damaged(shard, result["damaged"])
        if "unreadable" in result:
            raise _unreadable(shard, result["unreadable"])
        if "unwritable" in result:
            raise OSError(result["errno"], result["unwritable"])


def run_job(shard: Path, path: Path, spec: IndexSpec) -> dict[str, Any]:
    """The work of one job, in the worker; the result is empty if all went well."""
    try:
        index = index_shard(shard, spec)
    except DamagedRecord as error:
        return {"damaged": str(error)}
    except OSError as error:
        return {"unreadable": error.strerror or str(error)}
    try:
        with atomic_file(path) as stream:
            write_npz(stream, {name: ChunkedArray.of(array) for name, array in index.arrays().items()})
    except OSError as error:
        return {"unwritable": error.strerror or str(error), "errno": error.errno}
    return {}


def main() -> None:
    """Runs one job per line of standard input."""
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(run_job(Path(job["shard"]), Path(job["path"]), IndexSpec(**job["spec"]))), flush=True)


if __name__ == "__main__":
    main()
