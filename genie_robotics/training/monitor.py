"""Progress of training, step by step: values, findings, speed and remaining time, to the console and the loggers."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from genie_robotics.health.findings import Finding
from genie_robotics.training.loggers import Logger, check_loggers, open_loggers
from genie_robotics.training.loggers.console import Console


def duration(seconds: float) -> str:
    """Seconds as '1h05m' or '2m05s'."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


class Monitor:
    """Reports the progress of one stage in one process.

    Args:
        run: the run folder.
        log_every: steps between logged steps; the last step and steps with findings or figures are logged too.
        extras: names of optional loggers (`loggers.EXTRAS`).
        quiet: no status line.

    Raises:
        UserError: an optional logger is unknown or not installed.
    """

    def __init__(self, run: Path, stage: str, log_every: int, extras: Sequence[str] = (), quiet: bool = False):
        check_loggers(extras)
        self.run, self.stage, self.log_every, self.extras = run, stage, log_every, extras
        self.console = Console(quiet)
        self.loggers: tuple[Logger, ...] | None = None  # opened at the first step, whose number they need
        self.speed = 0.0
        """Frames per second, a moving average."""
        self.last = time.monotonic()

    def step(
        self,
        step: int,
        progress: float,
        seconds_left: float,
        num_frames: int,
        rate: float,
        values: Mapping[str, Tensor | float],
        findings: Sequence[Finding] = (),
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Reports an optimizer step. Tensors become numbers only if they are shown or logged.

        Args:
            progress: of the stage, 0 .. 1.
            num_frames: frames of this step.
            rate: learning rate as a fraction of its peak.
            values: shown and logged.
            figures: of the health checks; only logged, because the status line must fit a terminal.

        Raises:
            UserError: metrics.jsonl cannot be written.
        """
        self.update_speed(num_frames)
        if self.loggers is None:
            self.loggers = open_loggers(self.extras, self.run, self.stage, step, self.console.say)
        for finding in findings:
            message = finding.message.rstrip(". ")
            self.console.say(f"{finding.severity}: {self.stage}, step {step}: {message}. {finding.remedy}")
        done = progress >= 1
        log = step % self.log_every == 0 or done or bool(findings) or bool(figures)
        show = self.console.due(last=done)
        if not (log or show):
            return
        numbers = {name: float(value) for name, value in values.items()}
        if log:
            logged = numbers | dict(figures or {}) | {"rate": rate, "frames_per_s": round(self.speed, 1)}
            for logger in self.loggers:
                logger.log(step, self.stage, logged, findings)
        if show:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            self.console.status(
                f"{self.stage:<14}step {step:>6}  {100 * progress:3.0f}%  {shown}  "
                f"{self.speed:,.0f} frames/s  left {duration(seconds_left)}",
                last=done,
            )

    def update_speed(self, num_frames: int) -> None:
        now = time.monotonic()
        speed = num_frames / max(1e-9, now - self.last)
        self.speed = speed if not self.speed else 0.95 * self.speed + 0.05 * speed
        self.last = now

    def say(self, text: str) -> None:
        """Prints a line above the status line."""
        self.console.say(text)

    def close(self) -> None:
        """Closes the loggers; call it also after an error, so that they write what they hold."""
        for logger in self.loggers or ():
            logger.close()
        self.loggers = None
