"""Simulation workers that die: the episode is made again, the same; a job that always kills them is an error."""

import pytest

from genie_datasets.errors import UserError
from genie_datasets.tabletop.plan import plan
from genie_datasets.tabletop.pool import WorkerPool


def test_an_episode_survives_the_death_of_its_worker():
    jobs = plan(2, 0, (16, 16), {"train": 1.0}, "easy")
    with WorkerPool(1, "disable") as pool:
        first, second = pool.episodes(jobs)
        pool._workers[0]._process.kill()
        again = list(pool.episodes(jobs))
    assert [e.jpegs for e in again] == [first.jpegs, second.jpegs]


def test_a_job_that_kills_every_worker_is_named(monkeypatch):
    jobs = plan(1, 7, (16, 16), {"train": 1.0}, "easy")
    with WorkerPool(1, "disable") as pool:
        worker = pool._workers[0]
        start = worker._start

        def stillborn():
            process = start()
            process.kill()
            return process

        monkeypatch.setattr(worker, "_start", stillborn)
        worker._process.kill()
        with pytest.raises(UserError, match=r"ended 3 times \(exit status -9\) in episode 0 .*MUJOCO_GL=disable"):
            list(pool.episodes(jobs))
