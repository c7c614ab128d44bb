"""`command_bits` and `command_bits_physical`: does a commanded code arrive in the dream, and who can read it there?

Every code is played from every start, and read back by judges that did not see the command (specification, level D):
the model's own latent action model; an independent one (`--judge`), since two that were trained together could agree
on a mark nobody else sees; and the physical read-out, which sees only where the robot went. Bits are those of a channel
with all codes sent equally often; 3 is the most for 8 codes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from genie_eval.collect import to_numpy
from genie_eval.dreams.channel import channel_bits, confusion, kappa, recalls
from genie_eval.dreams.play import Plays
from genie_eval.dreams.starts import Starts
from genie_eval.resampling import interval, permutation_p

SHUFFLES = 199  # for the null: commands renamed at every start
MIN_RECALL = 0.40
KAPPA_SHARE = 0.70  # of the ceiling's kappa


@dataclass
class Reading:
    """What one judge read back. counts[s]: (sent, read) at start s; ceiling: the same judge on rebuilt real video."""

    counts: Float[np.ndarray, "S K K"]
    ceiling: Float[np.ndarray, "K K"] | None = None
    about: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        return float(channel_bits(self.counts.sum(axis=0)))

    @property
    def ceiling_bits(self) -> float | None:
        return None if self.ceiling is None else float(channel_bits(self.ceiling))

    def as_json(self, weights: Float[np.ndarray, "R S"]) -> dict[str, Any]:
        together = self.counts.sum(axis=0)
        return {
            "about": self.about, "bits": self.bits, "ci95": interval(self.bits_drawn(weights)),
            "ceiling_bits": self.ceiling_bits, "effective_actions": 2**self.bits,
            "kappa": float(kappa(together)),
            "kappa_ceiling": None if self.ceiling is None else float(kappa(self.ceiling)),
            "recall": recalls(together), "confusion": together.tolist(), **self.more,
        }  # fmt: skip

    def bits_drawn(self, weights: Float[np.ndarray, "R S"]) -> Float[np.ndarray, " R"]:
        starts, codes = self.counts.shape[:2]
        return channel_bits((weights @ self.counts.reshape(starts, -1)).reshape(-1, codes, codes))


def renamed_bits(reading: Reading, seed: int, times: int = SHUFFLES) -> Float[np.ndarray, " R"]:
    """Bits when every start has its own names for the commands: what chance reads."""
    rng = np.random.default_rng(seed)
    codes = reading.counts.shape[1]
    return np.array(
        [channel_bits(sum(counts[rng.permutation(codes)] for counts in reading.counts)) for _ in range(times)]
    )


def reread(
    judge: Any, label: Int[np.ndarray, " L"] | None, starts: Starts, plays: Plays, num_codes: int, batch: int = 32,
    spoil: Any = None,
) -> Reading:  # fmt: skip
    """The judge's codes of every step of every dream of a constant code.

    label: the judge's codes in this model's names. spoil: changes frames before they are judged (blur, noise, JPEG).
    """
    many_starts, many, steps = plays.dreams.shape[:3]
    read = np.empty((many_starts, many, steps), np.int64)
    for s in range(many_starts):
        first = np.broadcast_to(starts.rebuilt[s], (many, 1, *starts.rebuilt.shape[1:]))
        clips = np.concatenate([first, plays.dreams[s]], axis=1)
        if spoil is not None:
            clips = spoil(clips)
        for begin in range(0, many, batch):
            read[s, begin : begin + batch] = to_numpy(judge.infer_actions(clips[begin : begin + batch]))
    if label is not None:
        read = label[read]
    sent = np.broadcast_to(plays.sequences[None], read.shape)
    group = np.broadcast_to(np.arange(many_starts)[:, None, None], read.shape)
    reading = Reading(confusion(sent.ravel(), read.ravel(), group.ravel(), num_codes))
    by_step = [
        float(
            channel_bits(confusion(sent[..., t].ravel(), read[..., t].ravel(), group[..., t].ravel(), num_codes).sum(0))
        )
        for t in range(steps)
    ]
    reading.more["bits_by_step"] = by_step
    return reading


def spoilers() -> dict[str, Any]:
    """Harmless changes that would wash out an invisible mark."""
    import cv2

    def each(change):
        def apply(clips: UInt8[np.ndarray, "B T H W 3"]) -> UInt8[np.ndarray, "B T H W 3"]:
            flat = clips.reshape(-1, *clips.shape[2:])
            return np.stack([change(frame) for frame in flat]).reshape(clips.shape)

        return apply

    def jpeg(frame: np.ndarray) -> np.ndarray:
        packed = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))

    def noise(clips: np.ndarray) -> np.ndarray:
        grain = np.random.default_rng(0).normal(0, 4, clips.shape)
        return np.clip(clips + grain, 0, 255).astype(np.uint8)

    return {"blur": each(lambda frame: cv2.GaussianBlur(frame, (3, 3), 0.8)), "jpeg": each(jpeg), "noise": noise}


def physical(
    moved: Float[np.ndarray, "S K D"], meaning: Float[np.ndarray, "K D"], spread: Float[np.ndarray, " D"]
) -> Reading:
    """Which code's real motion is nearest to what the dream moved?

    moved: displacement over a whole play of each code, NaN where the read-out abstains; meaning: mean motion of each
    code in real video, one step; both are divided by `spread`. How far a held code goes is not what is asked here: one
    factor for all codes, fitted on the other starts, brings both to one scale.
    """
    many_starts, codes = moved.shape[:2]
    shown, ideal = moved / spread, meaning / spread
    known = np.isfinite(shown).all(axis=-1)
    usable = np.isfinite(ideal).all(axis=-1)
    filled = np.where(known[..., None], shown, 0.0)
    target = np.where(usable[:, None], ideal, 0.0)
    top = (filled * target).sum(axis=(1, 2))  # by start
    bottom = (known[..., None] * target**2).sum(axis=(1, 2))
    rest = np.maximum(bottom.sum() - bottom, 1e-12)
    scale = np.maximum((top.sum() - top) / rest, 1e-3)
    distance = ((filled[:, :, None] - scale[:, None, None, None] * target) ** 2).sum(axis=-1)
    distance = np.where(usable, distance, np.inf)
    read = distance.argmin(axis=-1)
    sent = np.broadcast_to(np.arange(codes), read.shape)
    group = np.broadcast_to(np.arange(many_starts)[:, None], read.shape)
    counts = np.zeros((many_starts, codes, codes))
    np.add.at(counts, (group[known], sent[known], read[known]), 1)
    return Reading(
        counts,
        more={
            "scale": float(np.median(scale)),
            "abstained": (1 - known.mean(axis=0)).tolist(),
        },
    )


def own_verdict_extras(reading: Reading) -> list[str]:
    """What the protocol asks beside the bits and did not find."""
    missing = []
    together = reading.counts.sum(axis=0)
    worst = min((r, k) for k, r in enumerate(recalls(together)) if r is not None)
    if worst[0] < MIN_RECALL:
        missing.append(f"command {worst[1]} is read back in {worst[0]:.0%} only (asked {MIN_RECALL:.0%})")
    if reading.ceiling is not None:
        best, own = float(kappa(reading.ceiling)), float(kappa(together))
        if own < KAPPA_SHARE * best:
            missing.append(f"kappa {own:.2f} is under {KAPPA_SHARE:.0%} of what real video reads ({best:.2f})")
    return missing


def chance(reading: Reading, seed: int) -> tuple[float, float]:
    """(mean of the renamed bits, p of the real ones)."""
    drawn = renamed_bits(reading, seed)
    return float(drawn.mean()), permutation_p(reading.bits, drawn)
