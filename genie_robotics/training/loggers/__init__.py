"""Loggers: metrics.jsonl always, TensorBoard and wandb if --loggers names them.

A logger is a class in a file of its own with the interface `Logger`, and an entry of EXTRAS if it is optional. An
optional logger that fails is switched off, and training continues.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from genie_datasets.base.errors import UserError
from genie_robotics.health.findings import Finding
from genie_robotics.run_folder import first_line
from genie_robotics.training.loggers.json_lines import JsonLines
from genie_robotics.training.loggers.to_tensorboard import TensorBoard
from genie_robotics.training.loggers.to_wandb import Wandb


class Logger(Protocol):
    """Takes the values of one stage of a run, in the order of its steps."""

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Finding] = ()) -> None: ...
    def close(self) -> None: ...


EXTRAS: dict[str, Callable[[Path, str, int], Logger]] = {"tensorboard": TensorBoard, "wandb": Wandb}
"""Makes a logger of (run folder, stage, first step); by the name of its package, which is also this package's extra."""


def check_loggers(names: Sequence[str]) -> None:
    """Raises UserError if a logger is unknown or its package is not installed. Imports nothing."""
    for name in names:
        if name not in EXTRAS:
            raise UserError(
                f"--loggers: unknown logger '{name}'; expected {' or '.join(EXTRAS)} (metrics.jsonl is always written)"
            )
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # no origin: a folder of that name, such as the one that wandb makes
            raise UserError(f"--loggers {name}: {name} is not installed; pip install 'genie-robotics[{name}]'")


def open_loggers(
    names: Sequence[str], run: Path, stage: str, step: int, say: Callable[[str], None]
) -> tuple[Logger, ...]:
    """The logger of metrics.jsonl in `run`, and the extras.

    Args:
        step: the first step that will be logged; what an interrupted process logged of this stage from there on is
            dropped.
        say: prints a line.

    Raises:
        UserError: an extra cannot be opened, or metrics.jsonl cannot be written.
    """
    opened: list[Logger] = [JsonLines(run / "metrics.jsonl", stage, step)]
    for name in names:
        try:
            opened.append(Guarded(EXTRAS[name](run, stage, step), name, say))
        except Exception as error:
            raise UserError(
                f"{name} cannot be opened ({first_line(error)}); fix this, or leave {name} out of --loggers"
            ) from error
    return tuple(opened)


class Guarded:
    """A logger that is switched off, with one printed line, when it fails."""

    def __init__(self, logger: Logger, name: str, say: Callable[[str], None]):
        self.logger: Logger | None = logger
        self.name, self.say = name, say

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Finding] = ()) -> None:
        self.attempt(lambda logger: logger.log(step, stage, values, findings))

    def close(self) -> None:
        self.attempt(lambda logger: logger.close())

    def attempt(self, call: Callable[[Logger], None]) -> None:
        if self.logger is None:
            return
        try:
            call(self.logger)
        except Exception as error:
            self.logger = None
            self.say(f"{self.name} failed ({first_line(error)}) and is switched off; metrics.jsonl continues")
