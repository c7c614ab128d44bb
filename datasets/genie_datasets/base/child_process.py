"""Processes that answer requests over pipes: `python -m MODULE`, whose main part calls `serve`.

A ProcessPoolExecutor would not do. Its workers import the caller's script, which may lack a main guard or import
TensorFlow (which crashes together with Mesa's OpenGL), import modules before their environment can be set, and outlive
a killed parent. These processes end when their pipe closes.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

GRACE_PERIOD = 5.0  # s in which a process that closed its pipe may end


class ChildDied(Exception):
    """The process ended before it answered; the argument is its exit status."""


def start(module: str, env: dict[str, str]) -> subprocess.Popen:
    """Starts a module with this environment. Raises OSError."""
    command = [sys.executable, "-m", module]
    # In its own process group, so that the terminal's Ctrl-C does not reach it.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, process_group=0)


def ask(process: subprocess.Popen, request: Any) -> Any:
    """The answer to one request. Raises ChildDied."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        raise ChildDied(exit_status(process, GRACE_PERIOD)) from None


def exit_status(process: subprocess.Popen, seconds: float) -> int:
    """Waits for a process to end, kills it after `seconds`, and returns its exit status."""
    try:
        return process.wait(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def close_pipes(process: subprocess.Popen) -> None:
    """Closes the pipes of a process, which may have ended."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr]


def serve(answer: Callable[[Any], Any]) -> None:
    """Answers the requests of the parent until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the pipe
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # keeps the output of libraries out of the pipe
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        found = answer(request)
        try:
            pickle.dump(found, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:  # the parent was killed
            os._exit(1)  # sys.exit would flush the closed pipe and print an error
