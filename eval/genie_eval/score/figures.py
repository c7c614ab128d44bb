"""Figures of a score: what each code moves, in any dimensions, and those that it shares with `evaluate`."""

from pathlib import Path
from typing import Any

import numpy as np

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.naming import code_means
from genie_eval.report.charts import LEAST, code_usage, ladder_chart, motion_quiver
from genie_eval.report.style import GREY, INK, RULE, code_colour, figure
from genie_eval.resampling import bootstrap_weights, interval
from genie_eval.score.latents import Latents

MAX_PANELS = 16
MAX_DIMS = 16


def draw(
    latents: Latents, ladder: list[dict[str, Any]], cards: list[dict[str, Any]], out: Path, draws: int, metres: bool
) -> list[dict[str, str]]:
    """Writes the figures; one object each: {"file" (relative to out), "title", "caption"}."""
    folder, found = out / "figures", []

    def add(name: str, title: str, caption: str) -> None:
        found.append({"file": f"figures/{name}.png", "title": title, "caption": caption})

    if latents.table.why_unusable("base") is None:
        if metres and latents.base_frame:
            caption = motion_quiver(folder / "motion.png", latents.table, latents.codes, cards, draws)
            add("motion", "What each code moves", caption)
        caption = motion_profile(folder / "profile.png", latents, cards, draws)
        add("profile", "What each code moves, by dimension", caption)
    if any(row.get("grounding_skill") is not None for row in ladder):
        add("ladder", "The ladder", ladder_chart(folder / "ladder.png", ladder, ""))
    shown = cards if len(cards) <= 64 else None
    if shown:
        add("usage", "How the codes are used", code_usage(folder / "usage.png", latents.table, latents.codes, cards))
    return found


def motion_profile(path: Path, latents: Latents, cards: list[dict[str, Any]], draws: int) -> str:
    """One panel a code, one row a dimension: a dot for each trajectory's mean, a bar for the mean of all, in SDs."""
    table, codes = latents.table, latents.codes
    motion = table.motions["base"][:, :MAX_DIMS]
    spread = motion.std(axis=0)
    values = motion / np.where(spread > 1e-9, spread, 1.0)  # not centred: 0 stays "no motion"
    mean, drawn = code_means(table, values, codes, len(cards), bootstrap_weights(table.num_trajectories, draws))
    low, high = interval(drawn)
    sums = code_sums(codes, values, table.trajectory, len(cards))
    with np.errstate(divide="ignore", invalid="ignore"):
        own = sums.total / sums.count[..., None]  # (I, K, D)
    shown = sorted(sorted(range(len(cards)), key=lambda k: -cards[k]["share"])[:MAX_PANELS])
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    dims = values.shape[1]
    reach = np.nanquantile(np.abs(own[sums.count >= LEAST]), 0.99) if (sums.count >= LEAST).any() else 1.0
    reach = 1.1 * max(float(reach), 1e-9)
    rng = np.random.default_rng(0)
    with figure(
        path, 2.35 * columns, (0.3 * dims + 0.75) * rows + 0.35, nrows=rows, ncols=columns, squeeze=False, sharey=True
    ) as (fig, axes):
        for axis in axes.flat[len(shown) :]:
            axis.set_axis_off()
        for axis, k in zip(axes.flat, shown, strict=False):
            axis.axvline(0, color=RULE, lw=0.9)
            enough = sums.count[:, k] >= LEAST
            for d in range(dims):
                jitter = rng.uniform(-0.25, 0.25, int(enough.sum()))
                axis.scatter(own[enough, k, d], d + jitter, s=3, color=code_colour(k), alpha=0.3, lw=0)
                if np.isfinite(mean[k, d]):
                    axis.plot([low[k, d], high[k, d]], [d, d], color=INK, lw=1.4, zorder=4)
                    axis.plot(mean[k, d], d, "|", color=INK, ms=11, mew=2.2, zorder=5)
            axis.set_xlim(-reach, reach)
            axis.set_ylim(dims - 0.4, -0.6)
            axis.set_yticks(range(dims), latents.motion_names[:dims])
            axis.locator_params(axis="x", nbins=5)
            axis.set_title(
                f"code {latents.labels[k]}: {cards[k]['name']}\n{cards[k]['share']:.0%}", color=code_colour(k)
            )
        fig.supxlabel("mean motion in one transition, in SDs of its dimension", fontsize=9, color=GREY)
    return (
        "What each code really moves. One row for each dimension of the motion; one dot for each trajectory (its mean "
        "over the code's transitions), a bar for the mean of all with its 95 % interval. A code that means one motion "
        "in every trajectory has its dots close together and away from 0; dots on both sides of 0 are a code that "
        "means different things in different trajectories."
        + (f" The {MAX_PANELS} most used codes of {len(cards)} are shown." if len(cards) > MAX_PANELS else "")
    )
