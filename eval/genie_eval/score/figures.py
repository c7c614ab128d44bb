"""Figures of `score`: the motion of each code in any dimensions, and figures that it shares with `evaluate`."""

from pathlib import Path
from typing import Any

import numpy as np

from genie_eval.codes.naming import code_means
from genie_eval.plotting import GRAY, INK, MAX_CODES, RULE, code_color, shown_codes
from genie_eval.report.charts import baseline_chart, code_usage, motion_quiver, panel_grid, trajectory_means
from genie_eval.report.figures import Figures
from genie_eval.resampling import bootstrap_weights, interval
from genie_eval.score.latents import Latents

MAX_DIMS = 16
MAX_USAGE = 64  # codes of which the use is drawn


def draw(
    latents: Latents, ladder: list[dict[str, Any]], cards: list[dict[str, Any]], out: Path, draws: int, meters: bool
) -> list[dict[str, str]]:
    """Writes the figures and returns one object each: {"file" (relative to out), "title", "caption"}.

    meters: the unit of the motion is meters, so that it can be drawn as a map.
    """
    figures, table, codes = Figures(out), latents.table, latents.codes
    if table.why_unusable("base") is None:
        if meters and latents.base_frame:
            figures.add("motion", "Motion of each code", motion_quiver, table, codes, cards, draws)
        figures.add("profile", "Motion of each code, by dimension", motion_profile, latents, cards, draws)
    if any(row.get("grounding_skill") is not None for row in ladder):
        figures.add("ladder", "Comparison with baselines and oracles", baseline_chart, ladder, "")
    if len(cards) <= MAX_USAGE:
        figures.add("usage", "Use of the codes", code_usage, table, codes, cards)
    return figures.found


def motion_profile(path: Path, latents: Latents, cards: list[dict[str, Any]], draws: int) -> str:
    """One panel per code, one row per dimension: a dot per trajectory, a bar for the mean of all, in SDs."""
    table, codes = latents.table, latents.codes
    motion = table.motions["base"][:, :MAX_DIMS]
    spread = motion.std(axis=0)
    values = motion / np.where(spread > 1e-9, spread, 1.0)  # not centered: 0 stays "no motion"
    mean, drawn = code_means(table, values, codes, len(cards), bootstrap_weights(table.num_trajectories, draws))
    low, high = interval(drawn)
    own, enough = trajectory_means(codes, values, table, len(cards))
    shown = shown_codes(cards)
    dims = values.shape[1]
    reach = np.nanquantile(np.abs(own[enough]), 0.99) if enough.any() else 1.0
    reach = 1.1 * max(float(reach), 1e-9)
    rng = np.random.default_rng(0)
    with panel_grid(path, len(shown), 4, (2.35, 0.3 * dims + 0.75), (0, 0.35), sharey=True) as (fig, axes):
        for axis, k in zip(axes, shown, strict=True):
            axis.axvline(0, color=RULE, lw=0.9)
            for d in range(dims):
                jitter = rng.uniform(-0.25, 0.25, int(enough[:, k].sum()))
                axis.scatter(own[enough[:, k], k, d], d + jitter, s=3, color=code_color(k), alpha=0.3, lw=0)
                if np.isfinite(mean[k, d]):
                    axis.plot([low[k, d], high[k, d]], [d, d], color=INK, lw=1.4, zorder=4)
                    axis.plot(mean[k, d], d, "|", color=INK, ms=11, mew=2.2, zorder=5)
            axis.set_xlim(-reach, reach)
            axis.set_ylim(dims - 0.4, -0.6)
            axis.set_yticks(range(dims), latents.motion_names[:dims])
            axis.locator_params(axis="x", nbins=5)
            axis.set_title(
                f"code {latents.labels[k]}: {cards[k]['name']}\n{cards[k]['share']:.0%}", color=code_color(k)
            )
        fig.supxlabel("mean motion in one transition, in SDs of its dimension", fontsize=9, color=GRAY)
    return (
        "Motion of each code. Panels: codes. Rows: dimensions of the motion. One dot per trajectory (its mean over the "
        "code's transitions), a bar for the mean of all with its 95 % interval. Better: dots close together and away "
        "from 0. Dots on both sides of 0: the code means different motions in different trajectories."
        + (f" The {MAX_CODES} most used codes of {len(cards)} are shown." if len(cards) > MAX_CODES else "")
    )
