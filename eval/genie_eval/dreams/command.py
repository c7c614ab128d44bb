"""`command_bits` and `command_bits_physical`: does a commanded code arrive in the dream, and who can read it there?

Every code is commanded from every start and read back by judges that do not know the command: the model's own latent
action model; an independent one (`--judge`), because two models trained together could agree on a mark that nobody else
sees; and the motion read-out, which sees only where the robot goes. Bits are those of a channel in which all codes are
sent equally often; with 8 codes the maximum is 3.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from genie_eval.collect import to_numpy
from genie_eval.dreams.channel import channel_bits, confusion, kappa, match_codes, recalls
from genie_eval.dreams.context import PERMUTATIONS, ControlContext
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.play import SequenceDreams
from genie_eval.dreams.readout_error import MAX_ABSTAINED
from genie_eval.dreams.starts import Starts
from genie_eval.interfaces import Judge
from genie_eval.metrics import MIN_KAPPA_SHARE, MIN_RECALL, Metric, judge, not_run, of_eight_codes
from genie_eval.resampling import interval, permutation_p


@dataclass(frozen=True)
class JudgeReading:
    """Codes that one judge read back. counts[s]: (sent, read) at start s; ceiling: the same judge on real video."""

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

    def bits_drawn(self, weights: Float[np.ndarray, "R S"]) -> Float[np.ndarray, " R"]:
        """Bits in each bootstrap draw of starts."""
        starts, codes = self.counts.shape[:2]
        return channel_bits((weights @ self.counts.reshape(starts, -1)).reshape(-1, codes, codes))

    def chance(self, seed: int) -> tuple[float, float]:
        """(mean bits with commands renamed at every start, p of the bits)."""
        rng = np.random.default_rng(seed)
        codes = self.counts.shape[1]
        null = [
            channel_bits(sum(counts[rng.permutation(codes)] for counts in self.counts)) for _ in range(PERMUTATIONS)
        ]
        return float(np.mean(null)), permutation_p(self.bits, np.array(null))

    def as_json(self, weights: Float[np.ndarray, "R S"]) -> dict[str, Any]:
        together = self.counts.sum(axis=0)
        return {
            "about": self.about, "bits": self.bits, "ci95": interval(self.bits_drawn(weights)),
            "ceiling_bits": self.ceiling_bits, "effective_actions": 2**self.bits,
            "kappa": float(kappa(together)),
            "kappa_ceiling": None if self.ceiling is None else float(kappa(self.ceiling)),
            "recall": recalls(together), "confusion": together.tolist(), **self.more,
        }  # fmt: skip


def command_bits(context: ControlContext) -> Metric:
    """Bits of a command that the model's own latent action model reads back; `more["judges"]` holds every judge."""
    world, starts, constant = context.world, context.commanded.starts, context.commanded.constant
    num_codes, weights = context.num_codes, context.weights
    own = replace(
        read_back(world, starts, constant, num_codes), ceiling=_ceiling(world, context.dreams, num_codes),
        about="this model's own latent action model",
    )  # fmt: skip
    judges: dict[str, Any] = {"own": own.as_json(weights)}
    for name, perturb in perturbations().items():
        judges["own"][f"bits_after_{name}"] = read_back(world, starts, constant, num_codes, perturb=perturb).bits
    missing = _missing_for_pass(own)
    if context.judge is None:
        judges["independent"] = {"reason": "give another run (other seed, other data) with --judge"}
    else:
        theirs = to_numpy(context.judge.infer_actions(context.dreams.truth)).ravel()
        label = match_codes(context.dreams.codes.ravel(), theirs, num_codes, context.judge.config.num_actions)
        independent = replace(
            read_back(context.judge, starts, constant, num_codes, label),
            ceiling=_ceiling(context.judge, context.dreams, num_codes, label),
            about="an independent latent action model (--judge), its codes matched on real video",
        )
        judges["independent"] = independent.as_json(weights)
        if independent.bits < 0.5 * own.bits:
            missing.append(f"an independent judge reads only {independent.bits:.2f} bits")
    null, p = own.chance(context.seed)
    metric = Metric(
        value=own.bits, null=null, oracle=own.ceiling_bits, ci95=interval(own.bits_drawn(weights)), p=p,
        n_trajectories=len(starts), more={"judges": judges},
    )  # fmt: skip
    return _judge_bits("command_bits", context, metric, own.bits, missing)


def command_bits_physical(context: ControlContext) -> Metric:
    """Bits of a command that are read from where the robot goes in the dream. oracle: the simulator's own futures."""
    motion = context.motion
    if isinstance(motion, str):
        return not_run(motion)
    reading = replace(
        classify_displacements(motion.dreams.confident("base"), context.code_motion, context.step_spread),
        about="the read-out: which code's real motion is nearest to what the dream moved",
    )
    more = {**reading.as_json(context.weights), "reliability": motion.error.reliability}
    oracle = None
    if motion.futures is not None:
        simulated = motion.futures.confident("base")
        oracle = classify_displacements(simulated, context.code_motion, context.step_spread).bits
        more["ceiling_bits"] = oracle
    null, p = reading.chance(context.seed)
    metric = Metric(
        value=reading.bits, null=null, oracle=oracle, ci95=interval(reading.bits_drawn(context.weights)), p=p,
        n_trajectories=len(context.commanded.starts), more=more,
    )  # fmt: skip
    abstained = float(np.mean(reading.more["abstained"]))
    missing = [f"the read-out abstains from {abstained:.0%} of the dreams"] if abstained > MAX_ABSTAINED else []
    return motion.error.limit_verdict(_judge_bits("command_bits_physical", context, metric, reading.bits, missing))


def _judge_bits(name: str, context: ControlContext, metric: Metric, bits: float, missing: list[str]) -> Metric:
    scale = 3 / np.log2(context.num_codes)  # the marks are for 8 codes
    return judge(
        name, metric, scale * bits, scale * np.asarray(metric.ci95), of_eight_codes(context.num_codes), missing
    )


def read_back(
    judge: Judge, starts: Starts, played: SequenceDreams, num_codes: int, label: Int[np.ndarray, " L"] | None = None,
    perturb: Callable[[np.ndarray], np.ndarray] | None = None, batch: int = 32,
) -> JudgeReading:  # fmt: skip
    """The judge's codes of every step of every dream.

    label: the judge's codes -> this model's codes. perturb: applied to the frames first (see `perturbations`).
    """
    num_starts, num_sequences, steps = played.dreams.shape[:3]
    read = np.empty((num_starts, num_sequences, steps), np.int64)
    for s in range(num_starts):
        first = np.broadcast_to(starts.reconstructed[s], (num_sequences, 1, *starts.reconstructed.shape[1:]))
        clips = np.concatenate([first, played.dreams[s]], axis=1)
        if perturb is not None:
            clips = perturb(clips)
        for begin in range(0, num_sequences, batch):
            read[s, begin : begin + batch] = to_numpy(judge.infer_actions(clips[begin : begin + batch]))
    if label is not None:
        read = label[read]
    sent = np.broadcast_to(played.sequences[None], read.shape)
    start = np.broadcast_to(np.arange(num_starts)[:, None, None], read.shape)

    def counts(*step: Any) -> Float[np.ndarray, "S K K"]:
        return confusion(sent[step].ravel(), read[step].ravel(), start[step].ravel(), num_codes)

    by_step = [float(channel_bits(counts(..., t).sum(0))) for t in range(steps)]
    return JudgeReading(counts(...), more={"bits_by_step": by_step})


def _ceiling(
    judge: Judge, dreams: DreamSet, num_codes: int, label: Int[np.ndarray, " L"] | None = None
) -> Float[np.ndarray, "K K"]:
    """Confusion of the same judge on reconstructed real video; sent: the model's code of the true frames."""
    read = to_numpy(judge.infer_actions(dreams.reconstructed)).ravel()
    read = read if label is None else label[read]
    sent = dreams.codes.ravel()
    return confusion(sent, read, np.zeros_like(sent), num_codes).sum(axis=0)


def perturbations() -> dict[str, Callable[[UInt8[np.ndarray, "B T H W 3"]], UInt8[np.ndarray, "B T H W 3"]]]:
    """Harmless changes of clips that would remove an invisible mark: blur, JPEG and noise."""
    import cv2

    def by_frame(change):
        return lambda clips: np.stack([[change(frame) for frame in clip] for clip in clips])

    def jpeg(frame: np.ndarray) -> np.ndarray:
        encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))

    def noise(clips: np.ndarray) -> np.ndarray:
        return np.clip(clips + np.random.default_rng(0).normal(0, 4, clips.shape), 0, 255).astype(np.uint8)

    blur = by_frame(lambda frame: cv2.GaussianBlur(frame, (3, 3), 0.8))
    return {"blur": blur, "jpeg": by_frame(jpeg), "noise": noise}


def classify_displacements(
    moved: Float[np.ndarray, "S K D"], code_motion: Float[np.ndarray, "K D"], spread: Float[np.ndarray, " D"]
) -> JudgeReading:
    """Reads a code from each displacement: the code whose real motion is nearest.

    moved: displacement of a dream of each code, NaN where the read-out abstains. code_motion: mean motion of each code
    in real video over one step. Both are divided by `spread`. The two differ in length, and how far a dream goes is not
    judged here: one factor for all codes, fitted on the other starts, brings them to one scale.
    """
    num_starts, codes = moved.shape[:2]
    scaled, ideal = moved / spread, code_motion / spread
    known = np.isfinite(scaled).all(axis=-1)
    usable = np.isfinite(ideal).all(axis=-1)
    filled = np.where(known[..., None], scaled, 0.0)
    target = np.where(usable[:, None], ideal, 0.0)
    product = (filled * target).sum(axis=(1, 2))  # per start
    square = (known[..., None] * target**2).sum(axis=(1, 2))
    rest = np.maximum(square.sum() - square, 1e-12)
    factor = np.maximum((product.sum() - product) / rest, 1e-3)
    distance = ((filled[:, :, None] - factor[:, None, None, None] * target) ** 2).sum(axis=-1)
    distance = np.where(usable, distance, np.inf)
    read = distance.argmin(axis=-1)
    sent = np.broadcast_to(np.arange(codes), read.shape)
    start = np.broadcast_to(np.arange(num_starts)[:, None], read.shape)
    counts = np.zeros((num_starts, codes, codes))
    np.add.at(counts, (start[known], sent[known], read[known]), 1)
    more = {"scale": float(np.median(factor)), "abstained": (1 - known.mean(axis=0)).tolist()}
    return JudgeReading(counts, more=more)


def _missing_for_pass(reading: JudgeReading) -> list[str]:
    """Requirements of a pass, other than the bits, that are not met."""
    missing = []
    together = reading.counts.sum(axis=0)
    worst, code = min((r, k) for k, r in enumerate(recalls(together)) if r is not None)
    if worst < MIN_RECALL:
        missing.append(f"command {code} is read back in only {worst:.0%} of the dreams (required: {MIN_RECALL:.0%})")
    if reading.ceiling is not None:
        best, own = float(kappa(reading.ceiling)), float(kappa(together))
        if own < MIN_KAPPA_SHARE * best:
            missing.append(f"kappa {own:.2f} is below {MIN_KAPPA_SHARE:.0%} of its value on real video ({best:.2f})")
    return missing
