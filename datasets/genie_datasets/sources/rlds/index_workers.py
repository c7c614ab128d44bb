"""Shards walked by several processes at once. What each finds is kept in a file until the whole index is written.

The walk is a Python loop, and page faults of a memory map hold the interpreter's lock: threads would not help. The
workers are processes of our own, not of `multiprocessing`, which would run a user's script without a main guard again.
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

from genie_datasets.base.cache_dir import AtomicFile
from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError
from genie_datasets.base.globs import exclude_option
from genie_datasets.base.mapped_npz import BROKEN, Pieces, map_npz, write_npz
from genie_datasets.sources.rlds.index_shard import ShardIndex, Wanted, index_shard
from genie_datasets.sources.rlds.tfrecord import GZIP, DamagedRecord

PARALLEL_FROM = 1 << 28  # bytes of shards; fewer are walked faster than processes start
Lengths = dict[str, int]


@contextlib.contextmanager
def index_shards(
    shards: list[Path], wanted: Wanted, lengths: Lengths, folder: Path | None
) -> Iterator[Callable[[int], ShardIndex]]:
    """Gives what is found in each shard, by its number.

    folder: where parts of large data sets are kept until the block ends without an error; a call that was cut, even by
    a kill, goes on with those that are there.

    Raises:
        UserError: a shard is damaged, or holds another number of episodes than `lengths` says by its name.
    """
    sizes = [shard.stat().st_size for shard in shards]
    if sum(sizes) < PARALLEL_FROM or len(shards) == 1:
        yield [check(shard, walked(shard, wanted), lengths, wanted) for shard in shards].__getitem__
        return
    place = folder or Path(tempfile.mkdtemp(prefix="genie_index."))
    try:
        place.mkdir(parents=True, exist_ok=True)
        for partial in place.glob("*.tmp"):
            partial.unlink(missing_ok=True)
        paths = [place / f"{number:05d}.npz" for number in range(len(shards))]
        walk_all(shards, sizes, paths, wanted)
        for path, shard in zip(paths, shards, strict=True):
            check(shard, ShardIndex.of(map_npz(path)), lengths, wanted)
        yield lambda number: ShardIndex.of(map_npz(paths[number]))
    except BaseException:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place, ignore_errors=True)


def walked(shard: Path, wanted: Wanted) -> ShardIndex:
    try:
        return index_shard(shard, wanted)
    except DamagedRecord as error:
        raise damaged(shard, str(error)) from None
    except OSError as error:
        raise unreadable(shard, error.strerror or str(error)) from None


def check(shard: Path, found: ShardIndex, lengths: Lengths, wanted: Wanted) -> ShardIndex:
    """Raises UserError where a shard lacks episodes."""
    num = int(found.num_records)
    expected = lengths.get(shard.name, num)
    if num != expected and not wanted.skip_damaged:
        raise damaged(shard, f"holds {num} episodes where dataset_info.json says {expected}")
    return found


def damaged(shard: Path, what: str) -> UserError:
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


def unreadable(shard: Path, why: str) -> UserError:
    return UserError(
        f"cannot read shard {shard} ({why}): make it readable, or leave it out with {exclude_option([shard.name])}"
    )


def walk_all(shards: list[Path], sizes: list[int], paths: list[Path], wanted: Wanted) -> None:
    """Writes to paths[n] what shards[n] holds, where that is not there yet."""
    todo = [number for number, path in enumerate(paths) if not is_whole(path)]
    if not todo:
        return
    num_workers = min(num_cores(), len(todo))
    bar = tqdm(total=sum(sizes), initial=sum(sizes) - sum(sizes[n] for n in todo), desc="index", unit="B",
               unit_scale=True, leave=False)  # fmt: skip
    with bar, contextlib.ExitStack() as stack:
        idle: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(num_workers):
            idle.put(stack.enter_context(Worker(wanted)))
        pool = stack.enter_context(ThreadPoolExecutor(num_workers))

        def ask(number: int) -> int:
            worker = idle.get()
            try:
                worker.walk(shards[number], paths[number])
            finally:
                idle.put(worker)
            return sizes[number]

        jobs = [pool.submit(ask, number) for number in todo]
        try:
            for job in as_completed(jobs):
                bar.update(job.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def is_whole(path: Path) -> bool:
    try:
        ShardIndex.of(map_npz(path))
    except BROKEN:
        return False
    return True


class Worker:
    """One process, which gets a line of JSON for a shard and answers with one; it ends when its pipe closes."""

    def __init__(self, wanted: Wanted):
        self.wanted = wanted

    def __enter__(self) -> "Worker":
        self.process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            process_group=0, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # parts are written whole or not at all
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def walk(self, shard: Path, path: Path) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"shard": str(shard), "path": str(path), "wanted": asdict(self.wanted)}
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            said: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            status = self.process.poll()
            raise UserError(
                f"the process that indexed {shard} ended (exit status {status}): run the same command again, it goes "
                "on where it was"
            ) from None
        if "damaged" in said:
            raise damaged(shard, said["damaged"])
        if "unreadable" in said:
            raise unreadable(shard, said["unreadable"])
        if "unwritable" in said:
            raise OSError(said["errno"], said["unwritable"])


def serve() -> None:
    """What a worker does."""
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(answer(Path(job["shard"]), Path(job["path"]), Wanted(**job["wanted"]))), flush=True)


def answer(shard: Path, path: Path, wanted: Wanted) -> dict[str, Any]:
    try:
        found = index_shard(shard, wanted)
    except DamagedRecord as error:
        return {"damaged": str(error)}
    except OSError as error:
        return {"unreadable": error.strerror or str(error)}
    try:
        with AtomicFile(path) as stream:
            write_npz(stream, {name: Pieces.whole(array) for name, array in found.arrays().items()})
    except OSError as error:
        return {"unwritable": error.strerror or str(error), "errno": error.errno}
    return {}


if __name__ == "__main__":
    serve()
