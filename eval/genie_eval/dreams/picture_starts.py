"""`start_psnr`, `scene_retention` and `start_command_bits`: pictures of other kinds than the model was trained on.

All three are measured on the same dreams, because each alone is easily had: a world that stands still keeps every
pixel, and a world that replaces the picture by its own table obeys well. `scene_retention` fails where commands cannot
be read back.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.dreams.command import JudgeReading
from genie_eval.dreams.pixels import MIN_ERROR, decibel, moving_error, psnr
from genie_eval.dreams.windows import (
    LongRead,
    bits_json,
    channel,
    channels,
    dream_long,
    eight_code_bits,
    headline,
    judge_bits,
    random_codes,
    read_codes,
)
from genie_eval.interfaces import Judge, WorldModel
from genie_eval.metrics import METRICS, MIN_START_BITS, Metric, judge, not_run, plain
from genie_eval.resampling import bootstrap_weights, interval
from genie_eval.start_pictures.picture import FittedStarts, StartPicture, fit_starts

CAP = float(decibel(np.array(MIN_ERROR)))  # dB; PSNR of equal pictures
RETENTION_AT = 64  # steps at which scene_retention and start_command_bits are read
MIN_STILL = 16  # still pixels that a picture must have


@dataclass
class PictureDreams:
    """Dreams of one set of pictures, and what was read in them."""

    starts: FittedStarts
    codes: Int[np.ndarray, "S n"]
    found: LongRead
    repeated: dict[int, np.ndarray]  # what the judge reads where the start is repeated, by step; empty without a judge


def dream_pictures(
    world: WorldModel, judge: Judge | None, pictures: list[StartPicture], steps: tuple[int, ...], seed: int,
    progress: bool,
) -> PictureDreams:  # fmt: skip
    """Dreams random codes from every picture."""
    config = world.config
    height, width = config.image_size
    starts = fit_starts(pictures, (height, width), config.fit)
    codes = random_codes(config.num_actions, len(starts), steps, seed)
    found = dream_long(world, judge, starts.frames, codes, steps, seed, progress, "dreams: any start")
    repeated = {}
    if judge is not None:
        still = read_codes(judge, np.stack([starts.frames, starts.frames], axis=1))
        repeated = {s: np.broadcast_to(still, (len(starts), w.stop - w.start)) for s, w in found.windows.items()}
    return PictureDreams(starts, codes, found, repeated)


def measure_pictures(
    world: WorldModel, dreams: PictureDreams, draws: int, seed: int, oracle_bits: float | None = None
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """The three metrics, and details for report.json.

    oracle_bits: what the same judge reads in the simulator under such codes.
    """
    starts, found, num_codes = dreams.starts, dreams.found, world.config.num_actions
    weights = bootstrap_weights(len(starts), draws, seed)
    first = psnr(found.frames[:, 0], starts.frames)
    flat = np.broadcast_to(
        np.rint(starts.frames.mean(axis=(1, 2), keepdims=True)).astype(np.uint8), starts.frames.shape
    )
    at = headline(found.steps, RETENTION_AT)
    kept = {step: retention(starts, found.frames[:, n]) for n, step in enumerate(found.steps, start=1)}
    details: dict[str, Any] = {
        "n_pictures": len(starts), "n_with_arm": int(starts.has_arm.sum()), "fingerprint": starts.fingerprint,
        "size": list(starts.frames.shape[1:3]), "steps": list(found.steps), "cap_db": CAP, "headline_step": at,
        "read_windows": {str(step): [w.start + 1, w.stop] for step, w in found.windows.items()},
        "kinds": [_kind(dreams, kind, first, kept, num_codes) for kind in dict.fromkeys(starts.kinds)],
        "pictures": [
            {"name": name, "kind": kind, "start_psnr": first[i], "retention": [kept[step][i] for step in found.steps]}
            for i, (name, kind) in enumerate(zip(starts.names, starts.kinds, strict=True))
        ],
    }  # fmt: skip
    start = Metric(
        value=float(first.mean()), null=float(psnr(flat, starts.frames).mean()), oracle=CAP,
        ci95=interval(weights @ first / len(starts)), n_trajectories=len(starts),
    )  # fmt: skip
    kept_metric = retention_metric(starts, kept, at, flat, weights)
    bits = command_metric(dreams, at, num_codes, draws, seed, oracle_bits)
    judge_together(kept_metric, bits, num_codes)
    metrics = {"start_psnr": judge("start_psnr", start), "scene_retention": kept_metric, "start_command_bits": bits}
    return metrics, plain(details)


def judge_together(kept: Metric, bits: Metric, num_codes: int) -> None:
    """Neither counts without the other: a frozen picture keeps every pixel, and a world's own table obeys in its place.

    A metric fails where the other is measured in the same dreams and lies below its mark for a failure. One that could
    not be measured leaves at most a warning.
    """
    low = METRICS["scene_retention"].mark
    assert low is not None
    lost = kept.value is not None and kept.value < low.bad
    deaf = bits.value is not None and eight_code_bits(bits.value, num_codes) < MIN_START_BITS
    for metric, other, fails, why in (
        (kept, bits, deaf, "commands are not obeyed in these dreams, and a frozen picture keeps every pixel"),
        (bits, kept, lost, "the picture is not kept in these dreams, and another one may be what obeys"),
    ):
        if metric.value is None:
            continue
        if fails:
            metric.verdict, metric.reason = "fail", f"{metric.reason}; does not count: {why}"
        elif other.value is None and metric.verdict == "pass":
            metric.verdict = "warn"
            metric.reason += f"; counts only beside the other half, which is not measured: {other.reason}"


def retention(starts: FittedStarts, frames: np.ndarray) -> Float[np.ndarray, " S"]:
    """PSNR of the still pixels against the start picture, dB; NaN for a picture that has too few of them."""
    enough = starts.still.sum(axis=(1, 2)) >= MIN_STILL
    found = decibel(moving_error(frames, starts.frames, starts.still))
    return np.where(enough, found, np.nan)


def command_metric(
    dreams: PictureDreams, at: int, num_codes: int, draws: int, seed: int, oracle_bits: float | None
) -> Metric:
    """start_command_bits, with every judge at every step."""
    rows = np.flatnonzero(dreams.starts.has_arm)
    if not len(rows):
        return not_run('no picture has an arm (starts.json: "has_arm")')
    weights = bootstrap_weights(len(rows), draws, seed)
    by_step: dict[str, Any] = {}
    for step in dreams.found.steps:
        readings = channels(dreams.found, step, dreams.codes, num_codes, rows)
        by_step[str(step)] = {name: bits_json(reading, weights) for name, reading in readings.items()}
        if step == at:
            reading = next(iter(readings.values()))
    null, p = reading.chance(seed)
    metric = Metric(
        value=reading.bits, null=null, oracle=oracle_bits, ci95=interval(reading.bits_drawn(weights)), p=p,
        n_trajectories=len(rows), more={"judge": reading.about, "steps": at, "by_step": by_step},
    )  # fmt: skip
    if dreams.repeated:
        frozen = repeated_bits(dreams, at, num_codes, rows)
        metric.more["repeated_start"] = frozen.bits
    return judge_bits("start_command_bits", metric, num_codes)


def repeated_bits(dreams: PictureDreams, step: int, num_codes: int, rows: np.ndarray) -> JudgeReading:
    """The judge's reading if the start is repeated: 0 bits, because all codes are sent equally often from each."""
    sent = dreams.codes[rows][:, dreams.found.windows[step]]
    return channel(sent, dreams.repeated[step][rows], num_codes, "")


def retention_metric(
    starts: FittedStarts, kept: dict[int, Float[np.ndarray, " S"]], at: int, flat: np.ndarray,
    weights: Float[np.ndarray, "R S"],
) -> Metric:  # fmt: skip
    """scene_retention, at every step, over the pictures of which the reach is known."""
    known = np.isfinite(kept[at])
    if not known.any():
        return not_run("it is not known what the arm can reach in these pictures; write a starts.json (eval/README.md)")
    weight = weights * known
    by_step: dict[str, Any] = {
        str(step): {
            "value": float(values[known].mean()),
            "ci95": interval(weight @ np.nan_to_num(values) / np.maximum(weight.sum(axis=1), 1)),
        }
        for step, values in kept.items()
    }
    null = float(np.nanmean(retention(starts, flat)))
    metric = Metric(
        **by_step[str(at)], null=null, oracle=CAP, n_trajectories=int(known.sum()),
        more={"steps": at, "by_step": by_step, "still_share": float(starts.still[known].mean())},
    )  # fmt: skip
    return judge("scene_retention", metric)


def _kind(
    dreams: PictureDreams, kind: str, first: np.ndarray, kept: dict[int, np.ndarray], num_codes: int
) -> dict[str, Any]:
    """One row by kind of picture. Bits of few pictures are rough."""
    rows = np.array([k == kind for k in dreams.starts.kinds])
    with_arm = np.flatnonzero(rows & dreams.starts.has_arm)
    bits: dict[str, list[float]] = {}
    for step in dreams.found.steps if len(with_arm) else ():
        for name, reading in channels(dreams.found, step, dreams.codes, num_codes, with_arm).items():
            bits.setdefault(name, []).append(reading.bits)
    return {
        "kind": kind, "n": int(rows.sum()), "start_psnr": float(first[rows].mean()),
        "retention": [float(np.nanmean(v[rows])) if np.isfinite(v[rows]).any() else None for v in kept.values()],
        "bits": bits,
    }  # fmt: skip
