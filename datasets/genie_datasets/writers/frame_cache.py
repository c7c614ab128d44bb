"""`build_frame_cache` decodes a split into a frame cache, which appears when it is complete.

.OUT.partial/          next to OUT, renamed to OUT when it is complete; a call that was interrupted resumes in it
    lock               held by the process that writes
    begun.json         the fingerprint of the cache
    frames.u8          the frames of the cache
    done.u8            one byte per episode: 1 when its frames are on the disk
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from genie_datasets.base.cores import num_cores
from genie_datasets.base.errors import UserError
from genie_datasets.base.file_lock import file_lock, is_at
from genie_datasets.base.file_state import combined_digest
from genie_datasets.base.files import atomic_file
from genie_datasets.base.fit import FIT_VERSION, Size, check_mode
from genie_datasets.base.notes import warn
from genie_datasets.base.ordered_map import map_ahead
from genie_datasets.sources.frame_cache import BROKEN_STATE, CACHE_VERSION, FRAMES, INDEX, META, STATE, FrameCache
from genie_datasets.sources.split import Split

SYNC_BYTES = 64 << 20  # written between two syncs
AHEAD = 4  # episodes in memory per thread


def build_frame_cache(
    split: Split | Sequence[Split], out_dir: str | Path, size: Size, mode: str = "crop", progress: bool = True
) -> FrameCache:
    """Decodes a split, or several as one, into the folder `out_dir`, which appears when it is complete.

    A cache in `out_dir` is used if it was made from the same files in the same way, and replaced otherwise. The same
    call resumes one that was interrupted; two calls at once take turns.

    Raises:
        UserError: not enough disk space, a damaged image, or `out_dir` holds something else.
    """
    check_mode(mode)
    if not isinstance(split, Split):
        from genie_datasets.sources.mixture import MixedSplit

        split = split[0] if len(split) == 1 else MixedSplit(split[0].name, list(split), [1.0] * len(split))
    out_dir = Path(out_dir)
    fingerprint = f"{split.fingerprint}/{split.name}/{size[0]}x{size[1]}-{mode}-v{FIT_VERSION}"
    if (cache := _finished_cache(out_dir, fingerprint, split)) and cache.describes(split):
        return cache
    if not split.num_frames.sum():
        raise UserError(f"split '{split.name}' has no frames to cache: choose another source")
    partial = out_dir.with_name(f".{out_dir.name}.partial")
    try:
        with _locked(partial):
            is_replaced = _check_replaceable(out_dir)
            cache = _finished_cache(out_dir, fingerprint, split)
            if cache is None:
                if is_replaced:
                    warn(
                        f"{out_dir} is made again: its source, or how it is read, has changed, or the cache is damaged"
                    )
                _write(split, partial, size, mode, fingerprint, progress)
                for state in split.states:
                    if name := state.first_change():
                        raise UserError(f"{Path(state.root) / name} changed while it was read: rerun the command")
                _put_in_place(partial, out_dir, is_replaced)
            elif not cache.describes(split):
                with atomic_file(out_dir / INDEX) as stream:
                    np.savez(stream, **cache.index_of(split))  # type: ignore[arg-type]
            return FrameCache.open(out_dir)
    except OSError as error:
        raise UserError(
            f"cannot write {out_dir} ({error.strerror or error}): fix this and rerun the command, which resumes in "
            f"{partial}"
        ) from None


def _finished_cache(out_dir: Path, fingerprint: str, split: Split) -> FrameCache | None:
    """The cache in `out_dir` if it is complete and made from the files of `split` as they are now."""
    try:
        cache = FrameCache.open(out_dir)
        is_current = combined_digest(cache.source_states) == split.stamp
    except (UserError, *BROKEN_STATE):
        return None
    return cache if cache.fingerprint == fingerprint and is_current else None


def _check_replaceable(out_dir: Path) -> bool:
    """True if `out_dir` holds a frame cache of any kind, False if it is empty. Raises UserError for anything else."""
    if (out_dir / META).exists():
        if not ((out_dir / FRAMES).is_file() and (out_dir / INDEX).is_file()):
            FrameCache.open(out_dir)  # raises UserError
        return True
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UserError(f"{out_dir} exists and is not a frame cache: choose another folder")
    return False


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Holds the folder of an unfinished cache, and removes it afterwards if no episode in it is finished."""
    lock = partial / "lock"
    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.ExitStack() as stack:
            try:
                partial.mkdir(exist_ok=True)
                held = stack.enter_context(file_lock(lock))
            except FileNotFoundError:
                continue  # another process finished between these two lines
            except FileExistsError:  # or during mkdir
                if partial.is_symlink() or partial.is_file():
                    raise
                continue
            if not is_at(held, lock):
                continue  # another process finished while this one waited
            try:
                yield
            finally:
                done = partial / "done.u8"
                if is_at(held, lock) and not (done.exists() and any(done.read_bytes())):
                    shutil.rmtree(partial, ignore_errors=True)
            return


def _put_in_place(partial: Path, out_dir: Path, is_replaced: bool) -> None:
    old = out_dir.with_name(f".{out_dir.name}.old")
    if is_replaced:
        shutil.rmtree(old, ignore_errors=True)
        out_dir.rename(old)
    elif out_dir.exists():
        out_dir.rmdir()  # it was empty
    partial.rename(out_dir)
    for name in ("lock", "begun.json", "done.u8"):
        (out_dir / name).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def _write(split: Split, partial: Path, size: Size, mode: str, fingerprint: str, progress: bool) -> None:
    """Fills `partial` with a complete cache. Raises UserError, OSError."""
    frame_bytes = size[0] * size[1] * 3
    start = np.concatenate([[0], np.cumsum(split.num_frames)]).astype(np.int64)
    done = _finished_episodes(partial, f"{fingerprint} {split.stamp}", split.num_episodes)
    written = int(split.num_frames[done].sum())
    _check_disk(partial, int(start[-1] - written) * frame_bytes)
    with (partial / FRAMES).open("ab"):
        pass
    frames, flags = os.open(partial / FRAMES, os.O_WRONLY), os.open(partial / "done.u8", os.O_WRONLY)
    unsynced: list[int] = []

    def sync() -> None:
        os.fdatasync(frames)  # before their flags, so that a flag is true even after a power failure
        for episode in unsynced:
            os.pwrite(flags, b"\1", episode)
        unsynced.clear()

    def decode(episode: int) -> tuple[int, np.ndarray]:
        return episode, split.frames(episode, None, size, mode)

    num_bytes = 0
    num_threads = 1 if split.sequential else num_cores()
    pool = ThreadPoolExecutor(num_threads)  # decoders release the GIL
    bar = tqdm(total=int(start[-1]), initial=written, desc=f"decode {split.name}", unit="frame", leave=False,
               disable=not progress)  # fmt: skip
    try:
        with bar:
            for episode, images in map_ahead(pool, decode, np.flatnonzero(~done).tolist(), AHEAD * num_threads):
                write_at(frames, images, int(start[episode]) * frame_bytes)
                unsynced.append(episode)
                num_bytes += images.nbytes
                if num_bytes >= SYNC_BYTES:
                    sync()
                    num_bytes = 0
                bar.update(len(images))
    finally:
        pool.shutdown(cancel_futures=True)
        with contextlib.suppress(OSError):  # the error that led here says more
            sync()
        os.close(frames)
        os.close(flags)
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
    states = [state.to_json() for state in split.states]
    (partial / STATE).write_text(json.dumps(states, indent=0))
    meta = {
        "version": CACHE_VERSION, "split": split.name, "height": size[0], "width": size[1], "mode": mode,
        "fingerprint": fingerprint,
    }  # fmt: skip
    (partial / META).write_text(json.dumps(meta, indent=1))


def _finished_episodes(partial: Path, fingerprint: str, num_episodes: int) -> np.ndarray:
    """(E,) bool: True for episodes that an earlier call has written. Files of another cache are removed."""
    try:
        begun = json.loads((partial / "begun.json").read_text())
        flags = np.fromfile(partial / "done.u8", np.uint8)
        if begun == {"fingerprint": fingerprint} and len(flags) == num_episodes:
            return flags == 1
    except (OSError, ValueError):
        pass
    for path in partial.iterdir():
        if path.name != "lock":
            path.unlink()
    np.zeros(num_episodes, np.uint8).tofile(partial / "done.u8")
    (partial / "begun.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return np.zeros(num_episodes, bool)


def _check_disk(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"not enough disk space: the frame cache needs {needed} bytes ({needed / 1e9:.1f} GB), {place.parent} has "
            f"{free} free; choose a folder on a larger disk, or a smaller size"
        )


def write_at(file: int, images: np.ndarray, offset: int) -> None:
    """Writes an array into a file. Raises OSError; a memory map would kill the process if the disk is full."""
    left = np.ascontiguousarray(images).data.cast("B")
    while left:
        num = os.pwrite(file, left, offset)
        if not num:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left, offset = left[num:], offset + num
