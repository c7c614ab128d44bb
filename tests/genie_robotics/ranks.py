"""Processes of one training on this machine, with the environment that `torchrun` gives them.

They are forked from a process that has imported torch, which takes seconds of every new interpreter.
"""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.genie_robotics.preloaded"])


def child(function: Callable, args: tuple, environment: dict[str, str], log: Path) -> None:
    """Runs `function` as the whole work of this process, which prints to `log`."""
    os.environ.clear()
    os.environ.update(environment)
    opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    status = 1
    try:
        status = function(*args) or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # gloo's threads sometimes abort the interpreter's own end, after everything is done


class Ranks:
    """Running processes, each of which calls `function(*args)`.

    Args:
        folder: where `rank0.log` and so on are written.
        function: of a module; its result is the exit status, None is 0.
        processes: their number; 1 is a run without a process group.
    """

    def __init__(self, folder: Path, function: Callable, *args, processes: int = 2):
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.logs = [folder / f"rank{rank}.log" for rank in range(processes)]
        group = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.processes = [
            FORKS.Process(
                target=child,
                args=(function, args, {**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)}, log),
            )
            for rank, log in enumerate(self.logs)
        ]
        for process in self.processes:
            process.start()

    def wait(self, seconds: float = 300) -> list[int | None]:
        """Exit statuses; None for a process that did not end in time. None is running afterwards."""
        for process in self.processes:
            process.join(seconds)
        statuses = [process.exitcode for process in self.processes]
        self.kill()
        return statuses

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def output(self) -> list[str]:
        return [log.read_text() if log.exists() else "" for log in self.logs]


def run_ranks(folder: Path, function: Callable, *args, processes: int = 2) -> list[str]:
    """Runs the processes to their end, which must be a success. Returns what each printed."""
    ranks = Ranks(folder, function, *args, processes=processes)
    assert ranks.wait() == [0] * processes, "\n".join(ranks.output())
    return ranks.output()


def command(argv: list[str]) -> int:
    """`genie-robotics ...` as the work of a rank."""
    from genie_robotics.cli import main

    return main(argv)
