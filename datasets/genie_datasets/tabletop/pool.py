"""Simulation workers: processes of our own, results in the order of the jobs."""

import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import TypeVar

from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.worker import EncodedEpisode, Job, receive, send

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "LP_NUM_THREADS"), "1"
)
TRIES = 3  # of one episode, each in a new process: OpenGL drivers crash now and then
AHEAD_PER_WORKER = 4  # jobs that may be begun while an earlier one is still running
GRACE = 5.0  # s in which workers may end the episode they are at, when the pool is closed
T = TypeVar("T")


class WorkerFailed(UserError):
    """What died, and in which episode."""


class _WorkerDied(Exception):
    """Carries the exit status."""


class _PoolClosed(Exception):
    """The result of a job that was under way when the pool was closed; nobody asks for it."""


class _Worker:
    """One worker process, started anew when it dies; used by one thread at a time, and closed by another."""

    def __init__(self, backend: str):
        self._backend = backend
        self._lock = Lock()  # of starting a process and of closing
        self._closed = False
        self._process = self._start()

    def _start(self) -> subprocess.Popen:
        env = {**os.environ, **ONE_THREAD, "MUJOCO_GL": self._backend}
        env.pop("PYOPENGL_PLATFORM", None)
        command = [sys.executable, "-m", "genie_datasets.tabletop.worker"]
        try:  # in a process group of its own, which the terminal's Ctrl-C does not reach: it ends when its pipe closes
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, process_group=0)
        except OSError as error:
            raise WorkerFailed(f"a simulation worker could not be started: {error.strerror or error}") from error

    def run(self, job: Job) -> EncodedEpisode:
        """Makes one episode; a worker that dies costs nothing but time, since an episode is a function of its job."""
        status = 0
        for _ in range(TRIES):
            try:
                return self._ask(job)
            except _WorkerDied as died:
                (status,) = died.args
                self._restart()
        raise WorkerFailed(
            f"simulation workers ended {TRIES} times (exit status {status}) in episode {job.index} (scene {job.scene},"
            f" seed {job.seed}); what they said is above"
        )

    def _ask(self, job: Job) -> EncodedEpisode:
        process = self._process
        assert process.stdin is not None  # for type checkers: both are pipes
        assert process.stdout is not None
        try:
            send(process.stdin, job)
            return receive(process.stdout)  # type: ignore[return-value]
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            raise _WorkerDied(_ended(process, GRACE)) from None

    def _restart(self) -> None:
        with self._lock:
            if self._closed:
                raise _PoolClosed
            _close_pipes(self._process)
            self._process = self._start()

    def stop(self) -> None:
        """Asks the process to end after the episode it is at, which the thread that waits for it still gets."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # type: ignore[union-attr]

    def end(self, seconds: float) -> None:
        """Waits so long for the stopped process, then kills it."""
        _ended(self._process, seconds)

    def close(self) -> None:
        """Closes the pipes, when no thread uses them any more."""
        _close_pipes(self._process)


def _ended(process: subprocess.Popen, seconds: float) -> int:
    """The exit status of a process that gets so many seconds to end."""
    try:
        return process.wait(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _close_pipes(process: subprocess.Popen) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr]


class WorkerPool:
    """`with WorkerPool(n, backend) as pool: for episode in pool.episodes(jobs)`; workers start in the background.

    Raises WorkerFailed, a UserError, for a job in which workers died `TRIES` times. Episodes that are being made when
    the pool is closed, by an error or by Ctrl-C, are finished if that takes them less than `GRACE` seconds.
    """

    def __init__(self, workers: int, backend: str):
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads = ThreadPoolExecutor(max(1, workers) + 1)  # one more: workers do not wait for `then`
        try:
            for _ in range(max(1, workers)):
                self._workers.append(_Worker(backend))
                self._idle.put(self._workers[-1])
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            worker.end(deadline - time.monotonic())
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()

    def _run(self, job: Job, then: Callable[[Job, EncodedEpisode], T]) -> T:
        worker = self._idle.get()
        try:
            episode = worker.run(job)
        finally:
            self._idle.put(worker)
        return then(job, episode)

    def map(self, jobs: Iterable[Job], then: Callable[[Job, EncodedEpisode], T]) -> Iterator[T]:
        """`then(job, episode)` of each job, in the order of the jobs.

        `then` is called as soon as the episode is there, in a thread of the pool, even if earlier ones are not.
        """
        waiting: deque[Future[T]] = deque()
        for job in jobs:
            waiting.append(self._threads.submit(self._run, job, then))
            if len(waiting) > AHEAD_PER_WORKER * len(self._workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def episodes(self, jobs: Iterable[Job]) -> Iterator[EncodedEpisode]:
        """The episodes of `jobs` in their order, whichever worker makes them; only a few wait in memory."""
        return self.map(jobs, lambda _, episode: episode)
