"""Losses on clips that were held out, each clip by itself, so that their chance can be drawn by trajectory."""

import numpy as np
import torch
from jaxtyping import Float

from genie_eval.ablation.held_out import HeldOut
from genie_eval.ablation.reading import Reading, Readings
from genie_eval.dreams.generation import choose_clips
from genie_eval.resampling import bootstrap_weights, interval
from genie_robotics.genie import Genie
from genie_robotics.training.stages import TRAINED, DynamicsStage

MASKS = 4  # of every clip


def loss_readings(genie: Genie, sample: HeldOut, stages: tuple[str, ...]) -> Readings:
    """error_share of the latent actions (see LatentActionModel.explain, with codes), token_loss of the dynamics: nats a
    masked token, the same masks for all models whose frames have as many tokens."""
    trained = {name for stage in stages for name in TRAINED[stage]}
    setting, length = sample.sampling, genie.config.clip_length
    owner, start, horizon = choose_clips(sample.trajectories, setting.clips, length - 1, setting.seed)
    values: dict[str, list[float]] = {}
    dynamics = DynamicsStage(genie).eval()
    for number, (i, s) in enumerate(zip(owner, start, strict=True)):
        trajectory = sample.trajectories[i]
        pixels = sample.frames.frames(trajectory.episode, trajectory.ids[s : s + horizon + 1])
        clip = torch.as_tensor(pixels, device=genie.device)[None]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(number)
            if "latent_action" in trained:
                _, logs = genie.latent_action(clip)
                values.setdefault("error_share", []).append(float(logs["error_share"]))
            if "dynamics" in trained:
                loss, _ = dynamics(clip.expand(MASKS, -1, -1, -1, -1))
                values.setdefault("token_loss", []).append(float(loss))
    return {name: mean_reading(np.array(each), owner, sample) for name, each in values.items()}


def mean_reading(values: Float[np.ndarray, " C"], owner: np.ndarray, sample: HeldOut) -> Reading:
    """Mean of the trajectories' means; clip c is of trajectory owner[c]."""
    _, place = np.unique(owner, return_inverse=True)
    each = np.bincount(place, weights=values) / np.bincount(place)
    weights = bootstrap_weights(len(each), sample.sampling.draws, sample.sampling.seed)
    drawn = weights @ each / len(each)
    return Reading(float(each.mean()), interval(drawn), drawn, len(each))
