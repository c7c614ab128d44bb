"""Figures of long dreams: effect of the codes and quality of the picture at each frame."""

from pathlib import Path
from typing import Any

from genie_eval.plotting import DREAM, GOOD, GRAY, INK, PALETTE, RULE, band, figure

LAW_WORDS = {
    "uniform": "uniform",
    "marginal": "with the shares of real codes",
    "other_trajectory": "from another trajectory",
    "derangement": "never the right code",
    "constant": "always the most common code",
}
LAW_STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
PICTURES = {
    "psnr": "PSNR, dB", "psnr_moving": "PSNR of pixels that move, dB", "ssim": "SSIM",
    "lpips": "LPIPS (lower is better)",
}  # fmt: skip


def use_chart(path: Path, horizon: dict[str, Any], marks: dict[str, float]) -> str:
    """delta-PSNR and AAF against t, one line per law of random codes.

    horizon: `details.horizon`. marks: pass marks of the two.
    """
    laws = {law: row for law, row in horizon["laws"].items() if row.get("delta_psnr")}
    t = horizon["t"]
    with figure(path, 9.4, 3.3, nrows=1, ncols=2) as (fig, axes):
        for axis, name, title, mark in (
            (axes[0], "delta_psnr", "gain of the right over random codes, dB", marks["delta_psnr"]),
            (axes[1], "aaf", "share of avoidable error removed (AAF)", marks["aaf"]),
        ):
            axis.axhline(0, color=RULE, lw=1)
            axis.axhline(mark, color=GOOD, lw=0.9, ls=":")
            for n, (law, row) in enumerate(laws.items()):
                style = LAW_STYLES[n % len(LAW_STYLES)]
                band(axis, t, row[name], PALETTE[n], LAW_WORDS.get(law, law), style)
            if name == "aaf":
                first = next(iter(laws.values()))
                if first.get("aaf_copy_last"):
                    axis.plot(t, first["aaf_copy_last"]["value"], color=GRAY, lw=1.1, label="prompt repeated")
                low, high = axis.get_ylim()
                axis.set_ylim(max(low, -1.0), min(max(high, 0.6), 1.1))
            axis.axvline(4, color=RULE, lw=0.8, ls="--")
            axis.set_title(title)
            axis.set_xlabel("frames into the dream")
            axis.text(t[-1], mark, "pass ", color=GOOD, fontsize=7.5, ha="right", va="bottom")
        handles, labels = axes[1].get_legend_handles_labels()
        fig.legend(handles, labels, title="random codes", loc="outside right center", fontsize=8, title_fontsize=8)
    return (
        "Effect of the codes along the dream. Left: gain in PSNR of the dream with inferred codes over the same dream "
        "with random codes. Right: share of the avoidable error that the right codes remove. Lines: ways to draw "
        f"random codes, with 95 % bands over {horizon['n_clips']} clips. The metrics are read at the dashed line, the "
        "4th frame. Higher is better; near 0 the model dreams the same whatever the codes."
    )


def fidelity_chart(path: Path, readings: dict[str, dict[str, Any]], t: list[int], clips: int) -> str:
    """Picture quality against t. readings: metric -> {"dream", "tokenizer", "copy_last"} -> {"value", "ci95"}."""
    shown = {name: rows for name, rows in readings.items() if rows}
    with figure(path, 3.1 * len(shown) + 1.6, 3.0, nrows=1, ncols=len(shown), squeeze=False) as (fig, axes):
        for axis, (name, rows) in zip(axes[0], shown.items(), strict=True):
            for which, color, style, label in (
                ("tokenizer", INK, "--", "tokenizer:\nbest possible dream"),
                ("dream", DREAM, "-", "dream"),
                ("copy_last", GRAY, ":", "prompt repeated"),
            ):
                if rows.get(which):
                    band(axis, t, rows[which], color, label, style)
            axis.set_title(PICTURES.get(name, name))
            axis.set_xlabel("frames into the dream")
            axis.locator_params(axis="x", integer=True)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside right center", fontsize=8)
    return (
        "Quality of the picture against the truth, frame by frame, one panel per metric (higher is better, except "
        "LPIPS). A dream should stay near the tokenizer and be better than the repeated prompt, which is hard where "
        f"little moves, and easier on moving pixels. {clips} held-out clips, one prompt frame, inferred codes."
    )
