"""What training tells, step by step: how fast it is and how long it takes, to the console and to the loggers."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from genie_robotics.training.loggers import Finding, Logger, check_loggers, open_loggers
from genie_robotics.training.loggers.console import Console


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


class Monitor:
    """Of one stage, on one process.

    Args:
        run: the run folder.
        log_every: steps between what the loggers get; the last step and those with findings or figures are logged too.
        loggers: extras, by name (training.loggers.EXTRAS).
        quiet: no status line.

    Raises:
        UserError: an extra is not installed.
    """

    def __init__(self, run: Path, stage: str, log_every: int, loggers: Sequence[str] = (), quiet: bool = False):
        check_loggers(loggers)
        self.run, self.stage, self.log_every, self.names = run, stage, log_every, loggers
        self.console = Console(quiet)
        self.loggers: tuple[Logger, ...] | None = None  # opened at the first step, which says where a resumed run is
        self.speed = 0.0  # frames/s
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
        """Called after every optimizer step; `values` become numbers only when they are shown or stored.

        Args:
            figures: the sentinel's, for the loggers alone: the status line must fit a terminal.

        Raises:
            UserError: metrics.jsonl cannot be written.
        """
        self.measure(num_frames)
        if self.loggers is None:
            self.loggers = open_loggers(self.names, self.run, self.stage, step, self.console.say)
        for finding in findings:
            self.console.say(line_of(finding, self.stage, step))
        done = progress >= 1
        store = step % self.log_every == 0 or done or bool(findings) or bool(figures)
        show = self.console.due(last=done)
        if not (store or show):
            return
        numbers = {name: float(value) for name, value in values.items()}
        if store:
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

    def measure(self, num_frames: int) -> None:
        """Takes the time since the last step into the moving speed."""
        now = time.monotonic()
        speed = num_frames / max(1e-9, now - self.last)
        self.speed = speed if not self.speed else 0.95 * self.speed + 0.05 * speed
        self.last = now

    def say(self, text: str) -> None:
        """Prints a line, wherever the status line is."""
        self.console.say(text)

    def close(self) -> None:
        """Also after an error: what the loggers still hold is written."""
        for logger in self.loggers or ():
            logger.close()
        self.loggers = None


def line_of(finding: Finding, stage: str, step: int) -> str:
    return f"{finding.severity}: {stage}, step {step}: {finding.message.rstrip('. ')}. {finding.remedy}"
