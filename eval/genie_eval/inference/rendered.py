"""Recorded moments of a simulator, rendered again in another scene: the nuisances that no filter on pixels can make.

Light that throws other shadows, another camera, another table, things in the background, a passer-by: the arm moves as
recorded, to the bit. Only for tabletop data, whose records keep the simulator's states. (specification, level H)
"""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from genie_datasets.base.errors import UserError
from genie_eval.dreams.pixels import psnr
from genie_eval.inference.sample import Sample, share_of

FACTORS = ("textures", "colours", "lighting", "camera", "clutter", "distractor")  # all that leave the physics alone
FRAMES = 16  # of each trajectory, from its first
USUAL_PIXELS = 64 * 64  # larger pictures cost more: fewer trajectories then
LEAST = 3
TRIES = 20  # draws of a factor until it differs from the recorded scene's


def rendered_flips(sample: Sample, trajectories: int = 12, frames: int = FRAMES) -> dict[str, Any]:
    """factor -> {flip_rate, ci95}: codes that change against the same moments rendered without a change.

    Also `recorded`: the same moments rendered unchanged, against the recorded pictures ({flip_rate, ci95, psnr}): flips
    there are the renderer's and the compression's, not the factor's. {"reason"} where records keep no simulator state.
    """
    from genie_datasets.tabletop.render import use_opengl

    use_opengl()  # before mujoco is imported; where it is, the ray caster draws
    try:
        from genie_datasets.tabletop import read_recording

        read_recording(sample.split, sample.trajectories[0].episode)
    except UserError as error:
        return {"reason": str(error)}
    size = sample.split.image_size
    affordable = max(LEAST, round(trajectories * USUAL_PIXELS / (size[0] * size[1])))
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
    """The first frames of trajectory i as the simulator draws them: unchanged, then under each factor."""
    from genie_datasets.base.fit import fit_frames
    from genie_datasets.tabletop import Simulator, read_recording, redraw

    trajectory = sample.trajectories[i]
    recording = read_recording(sample.split, trajectory.episode)
    states = recording.states[trajectory.ids[:frames]]
    rng, pictures = sample.rng(i, 8), []
    for factor in (None, *FACTORS):
        scene = recording.scene
        for _ in range(TRIES if factor else 0):  # a passer-by is drawn as "nobody" in half of the cases
            scene = redraw(recording.scene, str(factor), int(rng.integers(1 << 30)))
            if scene != recording.scene:
                break
        sim = Simulator(scene, size)
        try:
            drawn = []
            for state in states:
                sim.restore(state)
                if factor == "distractor":
                    sim.place_distractor(sim.data.time)  # the state holds the position in its own scene
                drawn.append(sim.observe().frame)
        finally:
            sim.close()
        pictures.append(fit_frames(np.stack(drawn), tuple(sample.genie.config.image_size), sample.genie.config.fit))
    return pictures
