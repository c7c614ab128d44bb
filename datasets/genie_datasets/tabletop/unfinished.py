"""The folder of an unfinished data set: its lock, its arguments and its finished episodes.

OUT/tabletop/1.0.0.incomplete/
    lock              held by the process that writes; the kernel releases it when the process ends
    plan.json         the arguments
    finished/         finished episodes that are not in a shard yet, a TFRecord file each
    1.0.0/            the shards; renamed to OUT/tabletop/1.0.0 when all are full
"""

import contextlib
import hashlib
import json
from collections import Counter
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.base.file_lock import file_lock, is_at
from genie_datasets.base.files import atomic_file
from genie_datasets.tabletop.shards import NAME, VERSION, Shards, complete_records, count_records
from genie_datasets.tabletop.worker import Job

RECORDS = "*.tfrecord-*"
FORMAT = 1  # of this folder; a folder of another format cannot be continued


def fingerprint(jobs: list[Job]) -> str:
    """A hash of all fields of all jobs."""
    return hashlib.sha256("".join(map(repr, jobs)).encode()).hexdigest()


def count_finished(out: Path) -> int:
    """Estimate the number of finished episodes of an unfinished data set in `out`, without verifying checksums."""
    partial = out / NAME / f"{VERSION}.incomplete"
    files = (path for folder in ("finished", VERSION) for path in (partial / folder).glob(RECORDS))
    return sum(count_records(path) for path in files if path.suffix != ".tmp")


class UnfinishedDataset:
    """Locks `out` for a data set while it is being made: `with UnfinishedDataset(out, arguments, jobs) as dataset`.

    Entering continues an earlier run of the same jobs. It raises UserError if `out` holds anything else, is in use, or
    cannot be written. Leaving before `finish` keeps the finished episodes; if there are none, it removes its own files.

    Args:
        arguments: names and values that led to the jobs, for messages: {"--episodes": "600", ...}.
    """

    def __init__(self, out: Path, arguments: dict[str, str], jobs: list[Job]):
        self._out = out
        self._plan = {"format": FORMAT, "arguments": arguments, "jobs": fingerprint(jobs)}
        self._partial = out / NAME / f"{VERSION}.incomplete"
        self._finished = self._partial / "finished"
        self.final = out / NAME / VERSION
        self.data = self._partial / VERSION
        self.shards = Shards(self.data, Counter(job.split for job in jobs))

    def __enter__(self) -> "UnfinishedDataset":
        if not self._partial.is_dir() and not _is_vacant(self._out):
            raise self._occupied()
        lock = self._partial / "lock"
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                # The last holder may have removed the file, and a third process may have created another one.
                if not is_at(held.enter_context(file_lock(lock, wait=False)), lock):
                    raise BlockingIOError
                self._continue_or_start()
                self._lock = held.pop_all()
        except BlockingIOError:
            raise UserError(
                f"another process is already writing to {self._out}; wait for it or choose another folder"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write to {self._out}: {reason}; fix this or choose another folder") from error
        return self

    def __exit__(self, *_: object) -> None:
        if not self.num_finished:
            self._remove_episodes()
        if not self.num_finished or self.final.is_dir():
            self._remove_folders()
        self._lock.close()

    def _occupied(self) -> UserError:
        if self.final.is_dir():
            return UserError(f"{self._out} already holds a finished data set; use it or choose another folder")
        return UserError(f"{self._out} exists and is not an empty folder; choose another folder or remove it")

    def _continue_or_start(self) -> None:
        """Keep what an earlier run of the same jobs finished, or start. Raises UserError for other jobs."""
        plan = self._read_plan()
        if self.final.is_dir():
            if plan != self._plan:
                raise self._occupied()
            return  # interrupted between `finish` and the removal of this folder
        if plan == self._plan:
            self._recover()
            return
        if plan is not None:
            self._check_no_episodes(plan["arguments"])
        self._remove_episodes()
        with atomic_file(self._partial / "plan.json", durable=True) as stream:
            stream.write(json.dumps(self._plan, indent=2).encode() + b"\n")
        self._make_folders()

    def _make_folders(self) -> None:
        self._finished.mkdir(exist_ok=True)
        self.data.mkdir(exist_ok=True)

    def _read_plan(self) -> dict | None:
        """The plan of an earlier run; None if there was none, or if it ended before it wrote one."""
        path = self._partial / "plan.json"
        try:
            plan = json.loads(path.read_bytes())
            dict(plan["arguments"])
        except FileNotFoundError:
            if {entry.name for entry in self._partial.iterdir()} <= {"lock", "plan.json.tmp"}:
                return None
        except (ValueError, KeyError, TypeError):
            pass
        else:
            return plan
        raise UserError(
            f"{self._out} holds an unfinished data set, but its {path.name} is missing or unreadable;"
            f" remove {self._partial}"
        )

    def _check_no_episodes(self, theirs: dict[str, str]) -> None:
        """Raise UserError if the unfinished data set with other arguments has any episode."""
        episodes = count_finished(self._out)
        if not episodes:
            return
        ours: dict[str, str] = dict(self._plan["arguments"])  # type: ignore[call-overload]
        differences = [
            f"{name} {theirs.get(name, 'unset')} (here {ours.get(name, 'unset')})"
            for name in {**theirs, **ours}
            if theirs.get(name) != ours.get(name)
        ]
        what = ", ".join(differences) or "those of another version of genie_robotics"
        raise UserError(
            f"{self._out} holds an unfinished data set ({episodes} episodes) with other arguments: {what};"
            " rerun that command to finish it, or remove the folder"
        )

    def _recover(self) -> None:
        """Keep the undamaged episodes of an earlier run."""
        self._make_folders()
        for partial in self._finished.glob("*.tmp"):
            partial.unlink()
        self.shards.recover()
        for index in self.pending:
            path = self.record_path(index)
            if index < self.shards.episodes or complete_records(path) != (1, path.stat().st_size):
                path.unlink()

    def record_path(self, index: int) -> Path:
        """The file of finished episode `index` until it is added to a shard."""
        return self._finished / f"episode.tfrecord-{index:08d}"

    @property
    def pending(self) -> set[int]:
        """Indices of the finished episodes that are not in a shard yet."""
        numbers = (path.name.removeprefix("episode.tfrecord-") for path in self._finished.glob(RECORDS))
        return {int(number) for number in numbers if number.isdigit()}

    @property
    def num_finished(self) -> int:
        """Number of finished episodes, which a rerun of the command keeps."""
        return len({*self.pending, *range(self.shards.episodes)})

    def add_to_shard(self, index: int) -> None:
        """Move finished episode `index` into its shard; indices must come in order. Raises OSError."""
        path = self.record_path(index)
        self.shards.append(path.read_bytes())
        path.unlink()

    def finish(self) -> Path:
        """Rename the folder of the shards to its final name, and return it. Raises OSError."""
        self.data.rename(self.final)
        return self.final

    def _remove_episodes(self) -> None:
        _remove(*self._finished.glob("*.tmp"), *self._finished.glob(RECORDS), *self.data.glob(RECORDS))

    def _remove_folders(self) -> None:
        """Remove the files of this class, and its folders if they are empty then."""
        partial = self._partial
        _remove(partial / "plan.json", self._finished, self.data, partial / "lock", partial, partial.parent)


def _remove(*paths: Path) -> None:
    """Remove files and empty folders; skip those that cannot be removed."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def _is_vacant(out: Path) -> bool:
    """True if `out` is missing, empty, or holds nothing but the empty folder that a run creates first."""
    if not out.is_dir():
        return not out.exists()
    return all(path.name == NAME and path.is_dir() and not any(path.iterdir()) for path in out.iterdir())
