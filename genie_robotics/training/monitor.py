"""What training tells: one status line a step on a terminal, one JSON object a log step in metrics.jsonl."""

import json
import sys
import time
from pathlib import Path

from torch import Tensor

QUIET_SECONDS = 15.0  # between status lines where the output is a file


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


class Monitor:
    def __init__(self, path: Path, stage: str, log_every: int, quiet: bool = False):
        self.path = path
        self.stage = stage
        self.log_every = log_every
        self.quiet = quiet
        self.speed = 0.0
        self.printed_at = 0.0
        self.started = self.last = time.monotonic()

    def step(
        self, step: int, progress: float, seconds_left: float, num_frames: int, rate: float, values: dict[str, Tensor]
    ) -> None:
        """Called after every optimizer step; `values` become numbers only when they are shown or stored."""
        now = time.monotonic()
        speed = num_frames / max(1e-9, now - self.last)
        self.speed = speed if not self.speed else 0.95 * self.speed + 0.05 * speed
        self.last = now
        store = step % self.log_every == 0 or progress >= 1
        terminal = sys.stdout.isatty()
        show = not self.quiet and (terminal or progress >= 1 or now - self.printed_at > QUIET_SECONDS)
        if not (store or show):
            return
        numbers = {name: float(value) for name, value in values.items()}
        if store:
            line = {"stage": self.stage, "step": step, **numbers, "rate": rate, "frames_per_s": round(self.speed, 1)}
            with open(self.path, "a") as file:
                file.write(json.dumps({k: v if v == v else None for k, v in line.items()}) + "\n")
        if show:
            self.printed_at = now
            shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            text = (
                f"{self.stage:<14}step {step:>6}  {100 * progress:3.0f}%  {shown}  "
                f"{self.speed:,.0f} frames/s  left {duration(seconds_left)}"
            )
            end = "\n" if not terminal or progress >= 1 else ""
            print(f"\r\x1b[K{text}" if terminal else text, end=end, flush=True)
