"""The latent actions of recorded transitions, inferred as the evaluation infers them: from whole episodes."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from genie_datasets import frame_step
from genie_datasets.base.errors import UserError

if TYPE_CHECKING:
    from genie_datasets import Split


def check_gap(genie: Any, split: "Split") -> None:
    """Raises UserError where one code of the model spans several steps of the source: it would be several actions."""
    gap = genie.config.gap
    for hz in np.unique(split.hz):
        step = frame_step(gap, float(hz))
        if step != 1:
            raise UserError(
                f"split '{split.name}': this run's codes span {gap} s, {step} steps at {hz:g} Hz, so that no code is "
                f"one robot action; play it back on data of about {1 / gap:.2g} Hz, or train with --gap {1 / hz:.3g}"
            )


def read_frames(
    genie: Any, split: "Split", episode: int, ids: np.ndarray | None = None
) -> UInt8[np.ndarray, "L H W 3"]:
    """Frames of an episode (all without `ids`), fitted as the model's configuration says."""
    return split.frames(episode, ids, size=tuple(genie.config.image_size), mode=genie.config.fit)


def episode_codes(genie: Any, split: "Split", episode: int) -> Int[np.ndarray, " L-1"]:
    """The codes of every transition of an episode; entry t leads from frame t to t+1."""
    return to_numpy(genie.infer_actions(read_frames(genie, split, episode)[None]))[0].astype(np.int64)


def transition_codes(
    genie: Any, split: "Split", episode: Int[np.ndarray, " M"], step: Int[np.ndarray, " M"], progress: bool = False
) -> Int[np.ndarray, " M"]:
    """The codes of M transitions: what `episode_codes` gives, computed only in the windows that hold one of them."""
    stride = genie.config.clip_length - 1  # windows share one frame: see Genie.infer_actions
    window = step // stride
    wanted = np.unique(np.stack([episode, window], axis=1), axis=0)
    codes = np.zeros(len(step), np.int64)
    for e, w in tqdm(wanted, desc="codes of the labels", unit="window", disable=not progress):
        first = int(w) * stride
        ids = np.arange(first, min(first + stride + 1, int(split.num_frames[e])))
        inferred = to_numpy(genie.infer_actions(read_frames(genie, split, int(e), ids)[None]))[0]
        here = (episode == e) & (window == w)
        codes[here] = inferred[step[here] - first]
    return codes


def to_numpy(value: Any) -> np.ndarray:
    """torch (any device) or numpy to numpy."""
    return value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
