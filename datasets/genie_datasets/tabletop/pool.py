"""Simulation workers: processes of our own, results in the order of the jobs."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from genie_datasets.errors import UserError
from genie_datasets.tabletop.worker import EncodedEpisode, Job, receive, send

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "LP_NUM_THREADS"), "1"
)
TRIES = 3  # of one episode, each in a new process: OpenGL drivers crash now and then
WAITING_PER_WORKER = 4  # finished or running episodes that may wait for the writer


class _WorkerDied(Exception):
    """Carries the exit status."""


class _Worker:
    """One worker process, started anew when it dies; used by one thread at a time."""

    def __init__(self, backend: str):
        self._backend = backend
        self._process = self._start()

    def _start(self) -> subprocess.Popen:
        env = {**os.environ, **ONE_THREAD, "MUJOCO_GL": self._backend}
        env.pop("PYOPENGL_PLATFORM", None)
        command = [sys.executable, "-m", "genie_datasets.tabletop.worker"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def run(self, job: Job) -> EncodedEpisode:
        """Makes one episode; a worker that dies costs nothing but time, since an episode is a function of its job."""
        for _ in range(TRIES - 1):
            try:
                return self._ask(job)
            except _WorkerDied:
                self.close()
                self._process = self._start()
        try:
            return self._ask(job)
        except _WorkerDied as died:
            raise UserError(
                f"simulation workers ended {TRIES} times (exit status {died}) in episode {job.index}"
                f" (scene {job.scene}, seed {job.seed}); what they said is above: run the same command again,"
                " with fewer --workers if memory ran out, or with MUJOCO_GL=disable if OpenGL is broken here"
            ) from None

    def _ask(self, job: Job) -> EncodedEpisode:
        assert self._process.stdin is not None  # for type checkers: both are pipes
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, job)
            return receive(self._process.stdout)  # type: ignore[return-value]
        except (EOFError, BrokenPipeError):
            raise _WorkerDied(self._process.wait()) from None

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class WorkerPool:
    """`with WorkerPool(n, backend) as pool: for episode in pool.episodes(jobs)`; workers start in the background."""

    def __init__(self, workers: int, backend: str):
        self._workers = [_Worker(backend) for _ in range(max(1, workers))]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(len(self._workers))

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True)

    def _run(self, job: Job) -> EncodedEpisode:
        worker = self._idle.get()
        try:
            return worker.run(job)
        finally:
            self._idle.put(worker)

    def episodes(self, jobs: list[Job]) -> Iterator[EncodedEpisode]:
        """The episodes of `jobs` in their order, whichever worker makes them; only a few wait in memory."""
        waiting: deque[Future[EncodedEpisode]] = deque()
        for job in jobs:
            waiting.append(self._threads.submit(self._run, job))
            if len(waiting) > WAITING_PER_WORKER * len(self._workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
