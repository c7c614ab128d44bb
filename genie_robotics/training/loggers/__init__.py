"""Where training's numbers go: metrics.jsonl always, TensorBoard and wandb where they are asked for.

One small interface, `Logger`; one file for each. An extra is opened by name, is looked for before training starts, and
never stops a training: where it fails it is switched off.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from genie_datasets.base.errors import UserError
from genie_robotics.training.loggers.json_lines import JsonLines


class Finding(Protocol):
    """Something that is wrong with a training, and what to do about it."""

    @property
    def name(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def remedy(self) -> str: ...


class Logger(Protocol):
    """Takes what one stage of a run tells, in order of its steps."""

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Finding] = ()) -> None: ...
    def close(self) -> None: ...


def open_tensorboard(run: Path, stage: str, step: int) -> Logger:
    from genie_robotics.training.loggers.to_tensorboard import TensorBoard

    return TensorBoard(run, stage, step)


def open_wandb(run: Path, stage: str, step: int) -> Logger:
    from genie_robotics.training.loggers.to_wandb import Wandb

    return Wandb(run, stage)


EXTRAS: dict[str, Callable[[Path, str, int], Logger]] = {"tensorboard": open_tensorboard, "wandb": open_wandb}
"""By name, which is also that of the package it needs and of this distribution's extra."""


def check_loggers(names: Sequence[str]) -> None:
    """Raises UserError where a logger has no such name, or its package is not installed. Imports nothing."""
    for name in names:
        if name not in EXTRAS:
            raise UserError(
                f"--loggers: there is no {name}; there are {' and '.join(EXTRAS)} (metrics.jsonl is always)"
            )
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # no origin: a folder of that name, such as the one wandb makes
            raise UserError(f"--loggers {name}: it is not installed; pip install 'genie-robotics[{name}]'")


def open_loggers(
    names: Sequence[str], run: Path, stage: str, step: int, say: Callable[[str], None]
) -> tuple[Logger, ...]:
    """metrics.jsonl of `run`, and the extras.

    Args:
        step: the first step to be logged; what an earlier, cut process told of this stage from there on is dropped.
        say: prints a line.

    Raises:
        UserError: an extra cannot be opened, or metrics.jsonl cannot be written.
    """
    opened: list[Logger] = [JsonLines(run / "metrics.jsonl", stage, step)]
    for name in names:
        try:
            opened.append(Guarded(EXTRAS[name](run, stage, step), name, say))
        except Exception as error:
            raise UserError(f"{name} cannot be opened ({one_line(error)}); mend that or leave out --loggers") from error
    return tuple(opened)


class Guarded:
    """A logger that is switched off, with one line, when it fails: a network must not stop a training."""

    def __init__(self, logger: Logger, name: str, say: Callable[[str], None]):
        self.logger: Logger | None = logger
        self.name, self.say = name, say

    def log(self, step: int, stage: str, values: Mapping[str, float], findings: Sequence[Finding] = ()) -> None:
        if self.logger is not None:
            self.attempt(lambda logger: logger.log(step, stage, values, findings))

    def close(self) -> None:
        if self.logger is not None:
            self.attempt(lambda logger: logger.close())

    def attempt(self, call: Callable[[Logger], None]) -> None:
        assert self.logger is not None
        try:
            call(self.logger)
        except Exception as error:
            self.logger = None
            self.say(f"{self.name} failed ({one_line(error)}) and is switched off; metrics.jsonl goes on")


def one_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
