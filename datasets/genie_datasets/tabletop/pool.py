"""A pool of simulation workers, which returns episodes in the order of their jobs."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import TypeVar

from genie_datasets.base import child_process
from genie_datasets.base.errors import UserError
from genie_datasets.base.ordered_map import map_ahead
from genie_datasets.tabletop.worker import EncodedEpisode, Job

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "LP_NUM_THREADS"), "1"
)
MAX_ATTEMPTS = 3  # per episode, each in a new process: OpenGL drivers crash sometimes
JOBS_AHEAD = 4  # per worker, that may start while an earlier job is still running
T = TypeVar("T")


class WorkerFailed(UserError):
    """Workers ended MAX_ATTEMPTS times in one episode, or could not be started."""


class _Worker:
    """A worker process that is restarted when it dies. One thread at a time uses it; another may close it."""

    def __init__(self, backend: str):
        self._backend = backend
        self._lock = Lock()  # for restarting and closing
        self._closed = False
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        env = {**os.environ, **ONE_THREAD, "MUJOCO_GL": self._backend}
        env.pop("PYOPENGL_PLATFORM", None)
        try:
            return child_process.start("genie_datasets.tabletop.worker", env)
        except OSError as error:
            raise WorkerFailed(f"cannot start a simulation worker: {error.strerror or error}") from error

    def run(self, job: Job) -> EncodedEpisode:
        """Simulate one episode, again in a new process if the worker dies. Raises WorkerFailed."""
        status = 0
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._ask(job)
            except child_process.ChildDied as died:
                (status,) = died.args
                self._restart()
        raise WorkerFailed(
            f"simulation workers ended {MAX_ATTEMPTS} times (exit status {status}) in episode {job.index}"
            f" (scene {job.scene}, seed {job.seed}); their output is above"
        )

    def _ask(self, job: Job) -> EncodedEpisode:
        return child_process.ask(self.process, job)

    def _restart(self) -> None:
        with self._lock:
            if self._closed:
                raise CancelledError
            child_process.close_pipes(self.process)
            self.process = self._start()

    def stop(self) -> None:
        """Ask the process to end after its current episode, which the waiting thread still receives."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(OSError):
                self.process.stdin.close()  # type: ignore[union-attr]


class WorkerPool(contextlib.AbstractContextManager["WorkerPool"]):
    """Simulation workers, which start in the background: `with WorkerPool(n, backend) as pool`.

    Closing the pool, also after an error or Ctrl-C, lets workers finish their current episode within 5 s.
    """

    def __init__(self, workers: int, backend: str):
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads = ThreadPoolExecutor(max(1, workers) + 1)  # one more, so that no worker waits for `then`
        try:
            for _ in range(max(1, workers)):
                self._workers.append(_Worker(backend))
                self._idle.put(self._workers[-1])
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
        deadline = time.monotonic() + child_process.GRACE_PERIOD
        for worker in self._workers:
            child_process.exit_status(worker.process, deadline - time.monotonic())
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            child_process.close_pipes(worker.process)

    def _run(self, job: Job, then: Callable[[Job, EncodedEpisode], T]) -> T:
        worker = self._idle.get()
        try:
            episode = worker.run(job)
        finally:
            self._idle.put(worker)
        return then(job, episode)

    def map(self, jobs: Iterable[Job], then: Callable[[Job, EncodedEpisode], T]) -> Iterator[T]:
        """Yield `then(job, episode)` of each job, in the order of the jobs.

        A thread of the pool calls `then` as soon as the episode is complete, even if earlier ones are not. Raises
        WorkerFailed for an episode in which workers died MAX_ATTEMPTS times.
        """
        ahead = JOBS_AHEAD * len(self._workers) + 1
        return map_ahead(self._threads, lambda job: self._run(job, then), jobs, ahead)

    def episodes(self, jobs: Iterable[Job]) -> Iterator[EncodedEpisode]:
        """Yield the episodes of `jobs` in their order."""
        return self.map(jobs, lambda _, episode: episode)
