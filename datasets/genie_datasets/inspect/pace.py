"""The pace of a source: the clips that filters would drop, and the gap between frames at which motion shows."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from genie_datasets.clips.dataset import frame_step
from genie_datasets.clips.filters import ClipFilter
from genie_datasets.clips.motion import MOTION_SIZE, motion
from genie_datasets.inspect.overview import SAMPLE, spaced
from genie_datasets.sources.split import Split

LONGEST_GAP = 2.0  # seconds
MAX_GAPS = 12
ENOUGH = 0.9  # share of the visible motion at the longest gap that the suggested gap must show


@dataclass(frozen=True)
class Pace:
    """The pace of at most 20 episodes, evenly spaced, in clips of `clip_length` frames `gap` seconds apart."""

    static_transitions: float
    """Share of transitions without visible motion."""
    static_clips: float
    """Share of clips that --drop-static 1 drops."""
    mostly_static_clips: float
    """Share of clips that --drop-static 0.5 drops."""
    cut_clips: float
    """Share of clips that --drop-cuts drops."""
    gaps: tuple[float, ...]
    """Gaps that were tried, seconds."""
    visible: tuple[float, ...]
    """Share of the pairs of frames at each gap with visible motion between them."""

    @property
    def suggested_gap(self) -> float:
        """The shortest gap that shows 90 % of the motion that the longest gap shows."""
        enough = ENOUGH * self.visible[-1]
        return next(gap for gap, share in zip(self.gaps, self.visible, strict=True) if share >= enough - 1e-9)

    def figures(self) -> dict[str, float | list[float]]:
        """The figures of `data inspect --json --motion`."""
        return {**asdict(self), "suggested_gap": self.suggested_gap}


def pace(split: Split, clip_length: int = 16, gap: float | None = None) -> Pace:
    """Measures the pace of a split from the pixels of at most 20 episodes."""
    chosen = spaced(split.num_episodes, SAMPLE)
    hz = float(np.median(split.hz[chosen]))
    longest = max(1, round(LONGEST_GAP * hz))
    steps = sorted({max(1, round(s)) for s in np.geomspace(1, longest, min(longest, MAX_GAPS))})
    filters = {
        "static_clips": ClipFilter(static=1.0), "mostly_static_clips": ClipFilter(static=0.5),
        "cut_clips": ClipFilter(cuts=True),
    }  # fmt: skip
    visible: dict[int, list[np.ndarray]] = {step: [] for step in steps}
    dropped: dict[str, list[np.ndarray]] = {name: [] for name in filters}
    static: list[np.ndarray] = []
    for episode in chosen:
        frames = split.frames(episode, None, MOTION_SIZE)
        for step in steps:
            visible[step].append(~motion(frames, step).static)
        step = frame_step(gap, split.hz[episode])
        found = motion(frames, step)
        static.append(found.static)
        windows = max(0, len(frames) - (clip_length - 1) * step)
        for name, drop in filters.items():
            dropped[name].append(~drop.kept(found, windows, clip_length, step))
    measured = [step for step in steps if any(map(len, visible[step]))] or steps[:1]
    return Pace(
        static_transitions=_share(static),
        gaps=tuple(step / hz for step in measured),
        visible=tuple(_share(visible[step]) for step in measured),
        **{name: _share(flags) for name, flags in dropped.items()},
    )


def _share(flags: list[np.ndarray]) -> float:
    """Share of the flags that are set, 0 without flags."""
    return float(np.concatenate(flags).mean()) if any(map(len, flags)) else 0.0


def plot_pace(found: Pace, path: Path, title: str) -> None:
    """Plots the share of visible motion against the gap, with the suggested gap."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    axes.plot(found.gaps, [100 * share for share in found.visible], "o-", color="#2b6cb0")
    axes.axvline(found.suggested_gap, color="#c05621", linestyle="--", label=f"suggested: {found.suggested_gap:.2g} s")
    axes.set(xlabel="gap between frames (s)", ylabel="pairs with visible motion (%)", ylim=(0, 103), title=title)
    axes.set_xlim(left=0)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
