"""`build_frame_cache`: decodes a split into a frame cache, whole or not at all, and goes on where it was cut.

.OUT.partial/          beside OUT, and renamed to OUT when it is whole
    lock               held by the process that writes; the kernel releases it when that process dies
    begun.json         the fingerprint of what is written
    frames.u8          the cache's frames, written where they belong
    done.u8            a byte for each episode: 1 when its frames are on the disk
"""

import contextlib
import errno
import json
import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from genie_datasets.base.cache_dir import AtomicFile
from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError
from genie_datasets.base.file_lock import file_lock
from genie_datasets.base.file_state import stamp_of
from genie_datasets.base.fit import FIT_VERSION, Size, check_mode
from genie_datasets.base.notes import warn
from genie_datasets.sources.frame_cache import BROKEN_STATE, CACHE_VERSION, FRAMES, INDEX, META, STATE, FrameCache
from genie_datasets.sources.split import Split

SYNC_BYTES = 64 << 20  # written between two times that progress is made safe
AHEAD = 4  # episodes in memory for each thread


def build_frame_cache(
    split: Split | Sequence[Split], out_dir: str | Path, size: Size, mode: str = "crop", progress: bool = True
) -> FrameCache:
    """Decodes a split (or several as one) into the folder `out_dir`, which appears when it is whole.

    A cache that is already there is used if it was made of the same files in the same way, and replaced if not. A call
    that was cut is gone on with by the same call; two at once take turns.

    Raises:
        UserError: the disk is too small or becomes full; an image is damaged; `out_dir` holds something else.
    """
    check_mode(mode)
    if not isinstance(split, Split):
        from genie_datasets.sources.mixture import MixedSplit

        split = split[0] if len(split) == 1 else MixedSplit(split[0].name, list(split), [1.0] * len(split))
    out_dir = Path(out_dir)
    mark = cache_fingerprint(split, size, mode)
    if (finished := finished_cache(out_dir, mark, split)) and finished.describes(split):
        return finished
    if not split.num_frames.sum():
        raise UserError(f"split '{split.name}' holds no frames: there is nothing to cache")
    partial = out_dir.with_name(f".{out_dir.name}.partial")
    try:
        with locked(partial):
            existing = existing_cache(out_dir)
            if not (isinstance(existing, FrameCache) and existing.fingerprint == mark and is_current(existing, split)):
                if existing:
                    warn(f"{out_dir} is made again: its source, or the way to read it, has changed, or it is broken")
                write(split, partial, size, mode, mark, progress)
                check_unchanged(split)
                put_in_place(partial, out_dir, bool(existing))
            elif not existing.describes(split):
                with AtomicFile(out_dir / INDEX) as stream:
                    np.savez(stream, **existing.index_of(split))  # type: ignore[arg-type]
            return FrameCache.open(out_dir)
    except OSError as error:
        raise UserError(
            f"cannot write {out_dir} ({error.strerror or error}): fix this and rerun the command, which resumes in "
            f"{partial}"
        ) from None


def cache_fingerprint(split: Split, size: Size, mode: str) -> str:
    return f"{split.fingerprint}/{split.name}/{size[0]}x{size[1]}-{mode}-v{FIT_VERSION}"


def check_unchanged(split: Split) -> None:
    """Raises UserError where a file changed since the source was opened: a cache would mix what was and what is."""
    for state in split.states:
        if name := state.first_change():
            raise UserError(f"{Path(state.root) / name} changed while it was read: rerun the command")


def is_current(cache: FrameCache, split: Split) -> bool:
    """True if the files that a cache was made of are those of `split`, by size and time of change."""
    try:
        return stamp_of(cache.source_states) == split.stamp
    except BROKEN_STATE:
        return False


def finished_cache(out_dir: Path, mark: str, split: Split) -> FrameCache | None:
    """The cache in `out_dir` where it is the one asked for. Without the lock, another call may be exchanging it just
    now: then, as where anything else is amiss, None, and the look under the lock tells."""
    try:
        cache = FrameCache.open(out_dir)
    except (UserError, OSError):
        return None
    return cache if cache.fingerprint == mark and is_current(cache, split) else None


def existing_cache(out_dir: Path) -> FrameCache | bool:
    """The cache in `out_dir`; True if it is of another version or broken, False if there is none.

    Raises UserError if the folder holds something else.
    """
    if (out_dir / META).exists():
        is_ours = (out_dir / FRAMES).is_file() and (out_dir / INDEX).is_file()
        try:
            return FrameCache.open(out_dir)
        except UserError:
            if is_ours:
                return True
            raise
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UserError(f"{out_dir} exists and is not a frame cache: give another folder")
    return False


@contextlib.contextmanager
def locked(partial: Path) -> Iterator[None]:
    """The folder of a cache under way is this process's; it is taken away where nothing in it is worth keeping."""
    lock = partial / "lock"
    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.ExitStack() as stack:
            try:
                partial.mkdir(exist_ok=True)
                held = stack.enter_context(file_lock(lock))
            except FileNotFoundError:
                continue  # the one before us has finished between these two lines
            except FileExistsError:  # or while mkdir looked at what is there
                if partial.is_symlink() or partial.is_file():
                    raise
                continue
            if not is_at(held, lock):
                continue  # it finished while we waited: the file that we hold is renamed or removed
            try:
                yield
            finally:
                done = partial / "done.u8"
                if is_at(held, lock) and not (done.exists() and any(done.read_bytes())):
                    shutil.rmtree(partial, ignore_errors=True)
            return


def is_at(held: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held.fileno()), path.stat())
    except FileNotFoundError:
        return False


def put_in_place(partial: Path, out_dir: Path, replaces: bool) -> None:
    old = out_dir.with_name(f".{out_dir.name}.old")
    if replaces:
        shutil.rmtree(old, ignore_errors=True)
        out_dir.rename(old)
    elif out_dir.exists():
        out_dir.rmdir()  # it was empty
    partial.rename(out_dir)
    for name in ("lock", "begun.json", "done.u8"):
        (out_dir / name).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def write(split: Split, partial: Path, size: Size, mode: str, mark: str, progress: bool) -> None:
    """Fills `partial` with a whole cache. Raises UserError, OSError."""
    frame_bytes = size[0] * size[1] * 3
    start = np.concatenate([[0], np.cumsum(split.num_frames)]).astype(np.int64)
    done = take_over(partial, f"{mark} {split.stamp}", split.num_episodes)
    written = int(split.num_frames[done].sum())
    check_disk(partial, int(start[-1] - written) * frame_bytes)
    with (partial / FRAMES).open("ab"):
        pass
    frames, marks = os.open(partial / FRAMES, os.O_WRONLY), os.open(partial / "done.u8", os.O_WRONLY)
    unmarked: list[int] = []

    def make_safe() -> None:
        os.fdatasync(frames)  # before their marks: what is marked is there, also after a power cut
        for episode in unmarked:
            os.pwrite(marks, b"\1", episode)
        unmarked.clear()

    def decode(episode: int) -> tuple[int, np.ndarray]:
        return episode, split.frames(episode, None, size, mode)

    since = 0
    bar = tqdm(total=int(start[-1]), initial=written, desc=f"decode {split.name}", unit="frame", leave=False,
               disable=not progress)  # fmt: skip
    try:
        with (
            bar,
            contextlib.closing(
                in_order(decode, np.flatnonzero(~done).tolist(), 1 if split.sequential else num_cores())
            ) as decoded,
        ):
            for episode, images in decoded:
                write_at(frames, images, int(start[episode]) * frame_bytes)
                unmarked.append(episode)
                since += images.nbytes
                if since >= SYNC_BYTES:
                    make_safe()
                    since = 0
                bar.update(len(images))
    finally:
        with contextlib.suppress(OSError):  # of a full disk; the error that led here says more
            make_safe()
        os.close(frames)
        os.close(marks)
    episodes = range(split.num_episodes)
    np.savez(
        partial / INDEX,
        episode_start=start,
        hz=split.hz,
        group=split.group,
        group_weights=split.group_weights,
        instruction=np.array([split.instruction(e) for e in episodes]),
        episode_name=np.array([split.episode_name(e) for e in episodes]),
    )
    states = [state.plain() for state in split.states]
    (partial / STATE).write_text(json.dumps(states, indent=0))
    meta = {
        "version": CACHE_VERSION, "split": split.name, "height": size[0], "width": size[1], "mode": mode,
        "fingerprint": mark,
    }  # fmt: skip
    (partial / META).write_text(json.dumps(meta, indent=1))


def take_over(partial: Path, mark: str, num_episodes: int) -> np.ndarray:
    """(E,) bool: the episodes that an earlier call has written. What was begun of something else is removed."""
    try:
        begun = json.loads((partial / "begun.json").read_text())
        marks = np.fromfile(partial / "done.u8", np.uint8)
        if begun == {"fingerprint": mark} and len(marks) == num_episodes:
            return marks == 1
    except (OSError, ValueError):
        pass
    for path in partial.iterdir():
        if path.name != "lock":
            path.unlink()
    np.zeros(num_episodes, np.uint8).tofile(partial / "done.u8")
    (partial / "begun.json").write_text(json.dumps({"fingerprint": mark}))
    return np.zeros(num_episodes, bool)


def check_disk(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"the frame cache needs {needed} bytes ({needed / 1e9:.1f} GB), {place.parent} has {free} free: give a "
            "folder on a larger disk, or a smaller size"
        )


def write_at(file: int, images: np.ndarray, offset: int) -> None:
    """Raises OSError; a memory map would end the process by a signal where the disk is full."""
    left = np.ascontiguousarray(images).data.cast("B")
    while left:
        num = os.pwrite(file, left, offset)
        if not num:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left, offset = left[num:], offset + num


def in_order(work, items: list[int], num_threads: int) -> Generator[Any]:
    """`work(item)` of each, a few at once in threads: the decoders let go of the interpreter's lock."""
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(num_threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= AHEAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
