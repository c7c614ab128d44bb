"""Figures of long dreams: how much the codes matter at each frame, and how good the picture stays."""

from pathlib import Path
from typing import Any

from genie_eval.report.style import DREAM, GOOD, GREY, INK, PALETTE, RULE, band, figure

LAW_WORDS = {
    "uniform": "uniform",
    "marginal": "as often as real ones",
    "other_trajectory": "of another trajectory",
    "derangement": "never the right one",
    "constant": "always the commonest",
}
LAW_STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
PICTURES = {
    "psnr": "PSNR, dB", "psnr_moving": "PSNR of pixels that move, dB", "ssim": "SSIM",
    "lpips": "LPIPS (less is better)",
}  # fmt: skip


def use_chart(path: Path, horizon: dict[str, Any], marks: dict[str, float]) -> str:
    """delta-PSNR and AAF against t, a line a law. horizon: `details.horizon`; marks: pass marks of the two."""
    laws = {law: row for law, row in horizon["laws"].items() if row.get("delta_psnr")}
    t = horizon["t"]
    with figure(path, 9.4, 3.3, nrows=1, ncols=2) as (fig, axes):
        for axis, name, title, mark in (
            (axes[0], "delta_psnr", "gain of the right codes over random ones, dB", marks["delta_psnr"]),
            (axes[1], "aaf", "share of avoidable error that the codes remove (AAF)", marks["aaf"]),
        ):
            axis.axhline(0, color=RULE, lw=1)
            axis.axhline(mark, color=GOOD, lw=0.9, ls=":")
            for n, (law, row) in enumerate(laws.items()):
                style = LAW_STYLES[n % len(LAW_STYLES)]
                band(axis, t, row[name], PALETTE[n], LAW_WORDS.get(law, law), style)
            if name == "aaf":
                first = next(iter(laws.values()))
                if first.get("aaf_copy_last"):
                    axis.plot(t, first["aaf_copy_last"]["value"], color=GREY, lw=1.1, label="repeating the prompt")
                low, high = axis.get_ylim()
                axis.set_ylim(max(low, -1.0), min(max(high, 0.6), 1.1))
            axis.axvline(4, color=RULE, lw=0.8, ls="--")
            axis.set_title(title)
            axis.set_xlabel("frames into the dream")
            axis.text(t[-1], mark, "pass ", color=GOOD, fontsize=7.5, ha="right", va="bottom")
        handles, labels = axes[1].get_legend_handles_labels()
        fig.legend(handles, labels, title="random codes", loc="outside right center", fontsize=8, title_fontsize=8)
    return (
        "Do the codes matter, and for how long? Left: by how many dB the dream with inferred codes is nearer to the "
        "truth than the same dream with random codes; right: which share of the error that a perfect dream could avoid "
        f"goes away with the right codes. One line for each way to draw random codes, {horizon['n_clips']} clips, with "
        "95 % bands; the metrics are read at the dashed line, the 4th frame. Above 0 the codes are used; near 0 the "
        "model dreams the same whatever it is told."
    )


def fidelity_chart(path: Path, readings: dict[str, dict[str, Any]], t: list[int], clips: int) -> str:
    """Picture quality against t. readings: metric -> {"dream", "tokenizer", "copy_last"} -> {"value", "ci95"}."""
    shown = {name: rows for name, rows in readings.items() if rows}
    with figure(path, 3.1 * len(shown) + 1.6, 3.0, nrows=1, ncols=len(shown), squeeze=False) as (fig, axes):
        for axis, (name, rows) in zip(axes[0], shown.items(), strict=True):
            for which, colour, style, label in (
                ("tokenizer", INK, "--", "tokenizer:\nthe best a dream can be"),
                ("dream", DREAM, "-", "dream"),
                ("copy_last", GREY, ":", "repeat the prompt"),
            ):
                if rows.get(which):
                    band(axis, t, rows[which], colour, label, style)
            axis.set_title(PICTURES.get(name, name))
            axis.set_xlabel("frames into the dream")
            axis.locator_params(axis="x", integer=True)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside right center", fontsize=8)
    return (
        "How good the pictures are, frame by frame, against the truth. A dream should stay near the dashed line and "
        "above the dotted one: repeating the prompt costs nothing, and wins on frames where little moves, which is why "
        f"moving pixels stand beside the whole frame. {clips} held-out clips, one prompt frame, inferred codes."
    )
