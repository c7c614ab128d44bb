"""The folder of a data set under way: who may write to it, for which arguments, and which episodes are finished.

OUT/tabletop/1.0.0.incomplete/
    lock              held by the process that writes; the kernel releases it when that process dies
    plan.json         the arguments
    finished/         episodes that came out before their turn, or whose turn is next: a TFRecord file each
    1.0.0/            the shards, which becomes OUT/tabletop/1.0.0 by one rename when all are full
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.shards import NAME, VERSION, Shards, count_records, whole_records
from genie_datasets.tabletop.worker import Job

RECORDS = "*.tfrecord-*"
FORMAT = 1  # of this folder; another number: another version of the library, whose work cannot be taken over


def fingerprint(jobs: list[Job]) -> str:
    """A hash of every field of every job."""
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(repr(job).encode())
    return digest.hexdigest()


def count_finished(out: Path) -> int:
    """How many episodes an unfinished data set in `out` seems to hold, at a glance: no checksum of data is verified."""
    partial = out / NAME / f"{VERSION}.incomplete"
    files = (path for folder in ("finished", VERSION) for path in (partial / folder).glob(RECORDS))
    return sum(count_records(path) for path in files if path.suffix != ".tmp")


class Unfinished:
    """`with Unfinished(out, arguments, jobs) as folder`: `out` is locked, and belongs to these jobs.

    `arguments` says in words what led to the jobs and how they are rendered: {"--episodes": "600", ...}.
    Entering raises UserError where `out` holds anything else, is in use, or cannot be written. Leaving it before
    `finish` keeps what is finished; where that is nothing, the folder is left as it was found.
    """

    def __init__(self, out: Path, arguments: dict[str, str], jobs: list[Job]):
        self._out = out
        self._plan = {"format": FORMAT, "arguments": arguments, "jobs": fingerprint(jobs)}
        self._partial = out / NAME / f"{VERSION}.incomplete"
        self._finished = self._partial / "finished"
        self._lock: IO[str] | None = None
        self.final = out / NAME / VERSION
        self.data = self._partial / VERSION
        lengths: dict[str, int] = {}
        for job in jobs:
            lengths[job.split] = lengths.get(job.split, 0) + 1
        self.shards = Shards(self.data, lengths)

    def __enter__(self) -> "Unfinished":
        if not self._partial.is_dir() and not _vacant(self._out):
            raise self._occupied()
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot make the folder {self._out}: {reason}; choose another one") from error
        try:
            self._lock = (self._partial / "lock").open("a")
            self._take_lock(self._lock)
            self._take_over()
        except OSError as error:
            self._release()
            reason = error.strerror or error
            raise UserError(
                f"cannot write to {self._out}: {reason}; put that right, or choose another folder"
            ) from error
        except BaseException:
            self._release()
            raise
        return self

    def _occupied(self) -> UserError:
        if self.final.is_dir():
            return UserError(f"{self._out} holds a data set that is finished: use it, or choose another folder")
        return UserError(f"{self._out} exists and is not an empty folder: choose another one, or remove it")

    def __exit__(self, *_: object) -> None:
        if not self.kept:
            self._clear()
        if not self.kept or self.final.is_dir():
            self._remove()
        self._release()

    def _take_lock(self, lock: IO[str]) -> None:
        busy = UserError(f"another process is writing to {self._out}: let it end, or choose another folder")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise busy from None
            return  # a file system without locks: go on as if alone
        try:  # the holder may have removed the file as it ended, and a third process made another
            same = os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name))
        except FileNotFoundError:
            same = False
        if not same:
            raise busy

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _take_over(self) -> None:
        """Compares the arguments of an earlier run with ours and takes over what it finished, or begins."""
        plan = self._read_plan()
        if self.final.is_dir():
            if plan != self._plan:
                raise self._occupied()
            return  # cut between the last two steps of `finish`
        if plan == self._plan:
            self._recover()
            return
        if plan is not None:
            self._refuse(plan["arguments"])
        self._clear()  # what a run of other arguments left that is not a whole episode
        path = self._partial / "plan.json"
        path.with_suffix(".tmp").write_text(json.dumps(self._plan, indent=2) + "\n")
        path.with_suffix(".tmp").replace(path)
        self._make_folders()

    def _make_folders(self) -> None:
        for folder in (self._finished, self.data):
            folder.mkdir(exist_ok=True)

    def _read_plan(self) -> dict | None:
        """The plan of an earlier run; None if there was none, or it died before it wrote one."""
        path = self._partial / "plan.json"
        try:
            plan = json.loads(path.read_bytes())
            dict(plan["arguments"])
        except FileNotFoundError:
            if {entry.name for entry in self._partial.iterdir()} <= {"lock", "plan.tmp"}:
                return None
        except (ValueError, KeyError, TypeError):
            pass
        else:
            return plan
        raise UserError(
            f"{self._out} holds an unfinished data set whose {path.name} is missing or cannot be read:"
            f" remove {self._partial}"
        )

    def _refuse(self, theirs: dict[str, str]) -> None:
        """Raises UserError if the unfinished data set of other arguments holds any episode."""
        episodes = count_finished(self._out)
        if not episodes:
            return
        ours: dict[str, str] = dict(self._plan["arguments"])  # type: ignore[call-overload]
        differ = [
            f"{name} {theirs.get(name, 'unset')} (here {ours.get(name, 'unset')})"
            for name in {**theirs, **ours}
            if theirs.get(name) != ours.get(name)
        ]
        what = ", ".join(differ) or "those of another version of this library"
        raise UserError(
            f"{self._out} holds an unfinished data set ({episodes} episodes) of other arguments: {what};"
            " run that command again to finish it, or remove the folder"
        )

    def _recover(self) -> None:
        self._make_folders()
        for partial in self._finished.glob("*.tmp"):
            partial.unlink()
        self.shards.recover()
        for index, path in list(self._waiting()):
            if index < self.shards.episodes or whole_records(path) != (1, path.stat().st_size):
                path.unlink()

    def _waiting(self) -> Iterator[tuple[int, Path]]:
        for path in self._finished.glob(RECORDS):
            number = path.name.removeprefix("episode.tfrecord-")
            if number.isdigit():
                yield int(number), path

    def path(self, index: int) -> Path:
        """Where the record of finished episode `index` waits for its turn."""
        return self._finished / f"episode.tfrecord-{index:08d}"

    @property
    def waiting(self) -> set[int]:
        """The finished episodes that are not in a shard yet."""
        return {index for index, _ in self._waiting()}

    @property
    def kept(self) -> int:
        """How many episodes are finished; the same command will not make them again."""
        return len({*self.waiting, *range(self.shards.episodes)})

    def settle(self, index: int) -> None:
        """Moves episode `index`, the next one in order and finished, into its shard. Raises OSError."""
        path = self.path(index)
        self.shards.append(path.read_bytes())
        path.unlink()

    def finish(self) -> Path:
        """Gives the folder of the shards its name, and returns it. Raises OSError."""
        self.data.rename(self.final)
        return self.final

    def _clear(self) -> None:
        """Removes episodes that are torn, or none."""
        for path in [*self._finished.glob("*.tmp"), *self._finished.glob(RECORDS), *self.data.glob(RECORDS)]:
            with contextlib.suppress(OSError):
                path.unlink()

    def _remove(self) -> None:
        """Takes away our own files, and the folders that are empty then."""
        with contextlib.suppress(OSError):
            (self._partial / "plan.json").unlink()
        for folder in (self._finished, self.data):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            (self._partial / "lock").unlink()
        for folder in (self._partial, self._partial.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _vacant(out: Path) -> bool:
    """Whether `out` is missing, or a folder with nothing in it but what a `generate` made in its first moment."""
    if not out.exists():
        return True
    if not out.is_dir():
        return False
    names = [entry.name for entry in out.iterdir()]
    return not names or (names == [NAME] and (out / NAME).is_dir() and not any((out / NAME).iterdir()))
