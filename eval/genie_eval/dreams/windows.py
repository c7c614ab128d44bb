"""Long dreams of random codes, and the windows of steps in which the codes are read back.

Codes are uniform, so that the arm wanders and reaches its limits, as it does under a player's keys. In the windows that
are read, every code is sent equally often, in random order: a picture that stands still then reads exactly 0 bits,
whatever a judge sees in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_eval.codes.quantize import k_means, nearest_center
from genie_eval.collect import to_numpy
from genie_eval.dreams.channel import confusion
from genie_eval.dreams.command import JudgeReading
from genie_eval.features import flow_features
from genie_eval.interfaces import Judge, WorldModel
from genie_eval.metrics import Metric, judge, of_eight_codes
from genie_eval.resampling import interval

WINDOW = 48  # steps of a dream in which commands are read, at most
MEMORY = 2**28  # bytes of frames that are dreamt at once
JUDGED = 32  # clips that a judge reads at once
STILL_FLOW = 0.002  # fraction of the picture per step: flow below this scale is noise
JUDGES = {
    "independent": "an independent latent action model (--judge)",
    "flow": "optical flow: k-means of the mean flow of moving pixels, without any learning",
}


def random_codes(num_codes: int, dreams: int, steps: Sequence[int], seed: int) -> Int[np.ndarray, "D n"]:
    """Codes for D dreams up to the last of `steps`: uniform, and balanced in the window before each step."""
    rng = np.random.default_rng([seed, 23])
    codes = rng.integers(num_codes, size=(dreams, max(steps)))
    for window in (window_before(step, num_codes) for step in sorted(steps)):
        balanced = np.resize(np.arange(num_codes), window.stop - window.start)
        codes[:, window] = rng.permuted(np.tile(balanced, (dreams, 1)), axis=1)
    return codes


def window_before(step: int, num_codes: int) -> slice:
    """A multiple of K codes, WINDOW at most, that end at or shortly before `step`."""
    if step < num_codes:
        return slice(0, step)
    end = step // num_codes * num_codes
    return slice(max(0, end - max(1, WINDOW // num_codes) * num_codes), end)


@dataclass(frozen=True)
class LongRead:
    """Frames and readings of D dreams (or simulations), at each of the steps that are asked for.

    frames[:, 0] is step 0, then one frame per step. flow[step]: (D, w, 2) mean flow in the window before the step.
    judged[step]: (D, w) codes of the judge; empty without a judge. windows[step]: the codes of the window.
    """

    steps: tuple[int, ...]
    frames: UInt8[np.ndarray, "D s+1 H W 3"]
    flow: dict[int, Float[np.ndarray, "D w 2"]]
    judged: dict[int, Int[np.ndarray, "D w"]]
    windows: dict[int, slice]

    @staticmethod
    def join(parts: "Sequence[LongRead]") -> "LongRead":
        first = parts[0]
        return LongRead(
            first.steps, np.concatenate([part.frames for part in parts]),
            {step: np.concatenate([part.flow[step] for part in parts]) for step in first.flow},
            {step: np.concatenate([part.judged[step] for part in parts]) for step in first.judged}, first.windows,
        )  # fmt: skip


def first_frames(world: WorldModel, pictures: UInt8[np.ndarray, "D H W 3"], seed: int) -> UInt8[np.ndarray, "D H W 3"]:
    """Step 0: the frame that a world shows before any action. A world without `start` shows its reconstruction."""
    start = getattr(world, "start", None)
    if start is None:
        return to_numpy(world.reconstruct(pictures[:, None]))[:, 0]
    return to_numpy(start(pictures[:, None], seed=seed).frame).reshape(pictures.shape)


def dream_long(
    world: WorldModel, judge: Judge | None, pictures: UInt8[np.ndarray, "D H W 3"], codes: Int[np.ndarray, "D n"],
    steps: Sequence[int], seed: int, progress: bool = False, label: str = "long dreams",
) -> LongRead:  # fmt: skip
    """Dreams that start from pictures, read at `steps`. Only a part of the frames is in memory at once."""
    at_once = max(1, MEMORY // (codes.shape[1] * pictures[0].size))
    parts = []
    with tqdm(total=len(pictures), desc=label, unit="dream", disable=not progress) as bar:
        for begin in range(0, len(pictures), at_once):
            rows = slice(begin, begin + at_once)
            shown = first_frames(world, pictures[rows], seed + begin)
            dream = to_numpy(world.generate(pictures[rows][:, None], codes[rows], seed=seed + begin))
            frames = np.concatenate([shown[:, None], dream], axis=1)
            parts.append(read_long(frames, judge, steps, world.config.num_actions))
            bar.update(len(shown))
    return LongRead.join(parts)


def read_long(
    frames: UInt8[np.ndarray, "D n+1 H W 3"], judge: Judge | None, steps: Sequence[int], num_codes: int
) -> LongRead:
    """Reads the windows before `steps` in whole dreams; frames[:, t] is the frame after t codes."""
    windows = {step: window_before(step, num_codes) for step in steps}
    clips = {step: frames[:, window.start : window.stop + 1] for step, window in windows.items()}
    return LongRead(
        tuple(steps), frames[:, [0, *steps]].copy(), {step: read_flow(clip) for step, clip in clips.items()},
        {} if judge is None else {step: read_codes(judge, clip) for step, clip in clips.items()}, windows,
    )  # fmt: skip


def read_flow(clips: UInt8[np.ndarray, "D w+1 H W 3"]) -> Float[np.ndarray, "D w 2"]:
    """Mean flow of the moving pixels of each step."""
    return np.stack([flow_features(clip)[0] for clip in clips])


def read_codes(judge: Judge, clips: UInt8[np.ndarray, "D w+1 H W 3"]) -> Int[np.ndarray, "D w"]:
    parts = [to_numpy(judge.infer_actions(clips[b : b + JUDGED])) for b in range(0, len(clips), JUDGED)]
    return np.concatenate(parts).astype(np.int64)


def flow_codes(flow: Float[np.ndarray, "D w 2"], num_codes: int, seed: int = 0) -> Int[np.ndarray, "D w"]:
    """k-means of the flow, each dream's in units of its usual flow: arms of all sizes count alike."""
    scale = np.sqrt((flow**2).sum(axis=-1).mean(axis=1))[:, None, None] + STILL_FLOW
    rows = (flow / scale).reshape(-1, flow.shape[-1])
    return nearest_center(rows, k_means(rows, num_codes, seed)).reshape(flow.shape[:-1])


def channel(sent: Int[np.ndarray, "D w"], read: Int[np.ndarray, "D w"], num_codes: int, about: str) -> JudgeReading:
    """The channel from sent to read codes; one group per dream. The two need not be named alike: bits do not care."""
    size = max(num_codes, int(read.max(initial=0)) + 1)
    dream = np.broadcast_to(np.arange(len(sent))[:, None], sent.shape)
    counts = confusion(sent.ravel(), read.ravel(), dream.ravel(), size)
    return JudgeReading(counts, about=about)


def channels(
    found: LongRead, step: int, codes: Int[np.ndarray, "D n"], num_codes: int, rows: np.ndarray | slice = slice(None)
) -> dict[str, JudgeReading]:
    """Reading of each judge in the window before a step, of some of the dreams."""
    sent = codes[rows][:, found.windows[step]]
    read = {} if not found.judged else {"independent": found.judged[step][rows]}
    read["flow"] = flow_codes(found.flow[step][rows], num_codes)
    return {name: channel(sent, codes_read, num_codes, JUDGES[name]) for name, codes_read in read.items()}


def bits_json(reading: JudgeReading, weights: Float[np.ndarray, "R D"]) -> dict[str, Any]:
    return {"about": reading.about, "value": reading.bits, "ci95": interval(reading.bits_drawn(weights))}


def judge_bits(name: str, metric: Metric, num_codes: int) -> Metric:
    """The verdict of a metric in bits, whose marks are those of 8 codes."""
    ci95 = None if metric.ci95 is None else eight_code_bits(np.asarray(metric.ci95), num_codes)
    bits = eight_code_bits(float(metric.value or 0), num_codes)
    return judge(name, metric, bits, ci95, of_eight_codes(num_codes))


def eight_code_bits(bits: Any, num_codes: int) -> Any:
    """Bits of a channel of `num_codes` codes, rescaled to one of 8."""
    return 3 / np.log2(max(num_codes, 2)) * bits


def headline(steps: Sequence[int], wanted: int) -> int:
    """The step nearest to the one at which a metric is read."""
    return min(steps, key=lambda step: abs(step - wanted))
