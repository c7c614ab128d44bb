"""Workers that die: their episode is simulated again; a job that always kills its worker is an error."""

from concurrent.futures import CancelledError
from threading import Event

import pytest

from genie_datasets.base import child_process
from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.plan import plan
from genie_datasets.tabletop.pool import WorkerPool


def test_an_episode_survives_the_death_of_its_worker():
    jobs = plan(2, 0, (16, 16), {"train": 1.0}, "easy")
    with WorkerPool(1, "disable") as pool:
        first, second = pool.episodes(jobs)
        pool._workers[0].process.kill()
        again = list(pool.episodes(jobs))
    assert [e.jpegs for e in again] == [first.jpegs, second.jpegs]


def test_a_job_that_kills_every_worker_raises(monkeypatch):
    jobs = plan(1, 7, (16, 16), {"train": 1.0}, "easy")
    with WorkerPool(1, "disable") as pool:
        worker = pool._workers[0]
        start = worker._start

        def start_and_kill():
            process = start()
            process.kill()
            return process

        monkeypatch.setattr(worker, "_start", start_and_kill)
        worker.process.kill()
        with pytest.raises(UserError, match=r"ended 3 times \(exit status -9\) in episode 0 \(scene 7000000, seed 7"):
            list(pool.episodes(jobs))


def test_results_come_in_order_and_do_not_wait_for_each_other():
    jobs = plan(4, 0, (16, 16), {"train": 1.0}, "easy")
    second = Event()

    def then(job, episode):
        if job.index == 1:
            second.set()
        elif job.index == 0:
            assert second.wait(60)  # the only worker must not wait for this function
        return job.index

    with WorkerPool(1, "disable") as pool:
        assert list(pool.map(jobs, then)) == [0, 1, 2, 3]


def test_closing_finishes_current_episodes_and_starts_no_worker(monkeypatch):
    monkeypatch.setattr(child_process, "GRACE_PERIOD", 60.0)
    jobs = plan(4, 0, (16, 16), {"train": 1.0}, "easy")
    finished: list[int] = []
    with WorkerPool(2, "disable") as pool:
        assert next(pool.map(jobs, lambda job, _: finished.append(job.index) or job.index)) == 0
    assert {0, 1} <= set(finished)
    assert [worker.process.poll() for worker in pool._workers] == [0, 0]
    with pytest.raises(CancelledError):
        pool._workers[0]._restart()
