"""Latent actions of recorded transitions, inferred from whole episodes as the evaluation does."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from genie_datasets import frame_step
from genie_datasets.base.errors import UserError
from genie_eval.collect import read_frames, to_numpy
from genie_eval.interfaces import Judge
from genie_robotics.models.windows import read_transitions

if TYPE_CHECKING:
    from genie_datasets import Split


def check_gap(model: Judge, split: "Split") -> None:
    """Checks that one code of the model is one step of the source, and so one robot action.

    Raises:
        UserError: a code spans several steps.
    """
    gap = model.config.gap
    if gap is None:
        return
    for hz in np.unique(split.hz):
        step = frame_step(gap, float(hz))
        if step != 1:
            raise UserError(
                f"split '{split.name}': a code of this run spans {gap} s, {step} steps at {hz:g} Hz, but playback "
                f"needs one robot action per code; use data of about {1 / gap:.2g} Hz, or train with --gap {1 / hz:.3g}"
            )


def episode_codes(model: Judge, split: "Split", episode: int) -> Int[np.ndarray, " L-1"]:
    """Codes of every transition of an episode; entry t leads from frame t to t+1."""
    return to_numpy(model.infer_actions(read_frames(model, split, episode)[None]))[0].astype(np.int64)


def transition_codes(
    model: Judge, split: "Split", episode: Int[np.ndarray, " M"], step: Int[np.ndarray, " M"], progress: bool = False
) -> Int[np.ndarray, " M"]:
    """Codes of M transitions, equal to those of `episode_codes`; only the windows that hold them are computed."""
    stride = model.config.clip_length - 1  # windows share one frame, as in Genie.infer_actions
    window = step // stride
    wanted = np.unique(np.stack([episode, window], axis=1), axis=0)
    frames = (
        read_frames(model, split, int(e), np.arange(w * stride, min((w + 1) * stride + 1, int(split.num_frames[e]))))
        for e, w in tqdm(wanted, desc="codes of the labels", unit="window", disable=not progress)
    )
    found = read_transitions(model.config, frames, lambda clips: [to_numpy(model.infer_actions(clips))])
    codes = np.zeros(len(step), np.int64)
    for (e, w), (inferred,) in zip(wanted, found, strict=True):
        here = (episode == e) & (window == w)
        codes[here] = inferred[step[here] - w * stride]
    return codes
