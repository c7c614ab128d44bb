"""Recorded states of a simulator, rendered again in another scene: nuisances that no pixel filter can make.

(Level H.) Other light with its shadows, another camera, another table, background objects, a passing distractor: the
arm moves exactly as recorded. Only for tabletop data, whose records keep the simulator's states.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from genie_datasets.base.errors import UserError
from genie_eval.dreams.pixels import psnr
from genie_eval.inference.sample import Sample, share_of
from genie_eval.simulation import open_recording, render_states

FACTORS = ("textures", "colours", "lighting", "camera", "clutter", "distractor")  # all that leave the physics unchanged
FRAMES = 16  # first frames of each trajectory
USUAL_PIXELS = 64 * 64  # of larger pictures, fewer trajectories are rendered
MIN_TRAJECTORIES = 3


def rendered_flips(sample: Sample, trajectories: int = 12, frames: int = FRAMES) -> dict[str, Any]:
    """factor -> {flip_rate, ci95}: share of codes that change against the same states rendered unchanged.

    recorded: the same for the unchanged rendering against the recorded pictures, with their psnr: flips there come from
    the renderer and the compression, not from the factor. {"reason"} where records keep no simulator states.
    """
    try:
        open_recording(sample.split, sample.trajectories[0].episode)
    except UserError as error:
        return {"reason": str(error)}
    size = sample.split.image_size
    affordable = max(MIN_TRAJECTORIES, round(trajectories * USUAL_PIXELS / (size[0] * size[1])))
    limit = min(trajectories, affordable, len(sample))
    names = ("recorded", *FACTORS)
    flips: dict[str, list[np.ndarray]] = {name: [] for name in names}
    owner, quality = [], []
    for i in sample.each("rendered again", limit):
        try:
            recorded = sample.frames(i)[:frames]
            unchanged, *changed = _renderings(sample, i, len(recorded), size)
        except UserError as error:
            return {"reason": str(error)}
        codes = sample.infer(np.stack([unchanged, recorded, *changed]))
        for name, new in zip(names, codes[1:], strict=True):
            flips[name].append(new != codes[0])
        owner.append(np.full(codes.shape[1], i))
        quality.append(psnr(unchanged, recorded).mean())
    trajectory = np.concatenate(owner)
    result: dict[str, Any] = {}
    for name in names:
        found = share_of(np.concatenate(flips[name]), trajectory, limit, sample.seed)
        result[name] = {"flip_rate": found.value, "ci95": found.ci95}
    result["recorded"]["psnr"] = float(np.mean(quality))
    rates = [result[name]["flip_rate"] for name in FACTORS]
    return result | {"mean": float(np.mean(rates)), "n_trajectories": limit, "frames": frames}


def _renderings(sample: Sample, i: int, frames: int, size: tuple[int, int]) -> list[UInt8[np.ndarray, "T H W 3"]]:
    """The first frames of trajectory i, rendered unchanged and then under each factor."""
    from genie_datasets.base.fit import fit_frames

    trajectory, config = sample.trajectories[i], sample.genie.config
    ids = trajectory.ids[:frames]
    pictures = render_states(sample.split, trajectory.episode, ids, size, FACTORS, sample.rng(i, 8))
    return [fit_frames(picture, config.image_size, config.fit) for picture in pictures]
