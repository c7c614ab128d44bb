"""Losses on clips that were held out, each clip by itself, so that their chance can be drawn by trajectory."""

from collections.abc import Collection

import numpy as np
import torch
from jaxtyping import Float, Int

from genie_eval.ablation.held_out import HeldOut
from genie_eval.ablation.reading import Reading, Readings
from genie_eval.dreams.generation import choose_clips
from genie_eval.resampling import bootstrap_weights, interval
from genie_robotics.genie import Genie
from genie_robotics.models.layers.patches import to_unit
from genie_robotics.training.stages import DynamicsStage

MASKS = 4  # of every clip


def loss_readings(genie: Genie, sample: HeldOut, taught: Collection[str]) -> Readings:
    """error_share of the latent actions: the error of the predicted frames, from codes, over that of repeating the last
    frame, summed over each before they are divided (a clip without motion weighs nothing). token_loss of the dynamics:
    nats a masked token, the same masks for all models whose frames have as many tokens."""
    setting, length = sample.sampling, genie.config.clip_length
    owner, start, horizon = choose_clips(sample.trajectories, setting.clips, length - 1, setting.seed)
    errors, moved, tokens = (np.zeros(len(owner)) for _ in range(3))
    dynamics = DynamicsStage(genie).eval()
    for number, (i, s) in enumerate(zip(owner, start, strict=True)):
        trajectory = sample.trajectories[i]
        pixels = sample.frames.frames(trajectory.episode, trajectory.ids[s : s + horizon + 1])
        clip = torch.as_tensor(pixels, device=genie.device)[None]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(number)
            if "latent_action" in taught:
                _, logs = genie.latent_action(clip)
                moved[number] = change(genie, clip)
                errors[number] = float(logs["error_share"]) * moved[number]
            if "dynamics" in taught:
                tokens[number] = float(dynamics(clip.expand(MASKS, -1, -1, -1, -1))[0])
    readings = {}
    if "latent_action" in taught:
        readings["error_share"] = ratio(errors, moved, owner, sample)
    if "dynamics" in taught:
        readings["token_loss"] = ratio(tokens, np.ones(len(owner)), owner, sample)
    return readings


def change(genie: Genie, clip: torch.Tensor) -> float:
    """What LatentActionModel.explain divides error_share by: squared change of the pixels, or the share of tokens that
    change."""
    frames, of_tokens = to_unit(clip), genie.latent_action.tokens
    if of_tokens is not None:
        tokens = of_tokens.read(frames)
        return max(1e-3, float((tokens[:, 1:] != tokens[:, :-1]).float().mean()))
    return max(1e-6, float((frames[:, 1:] - frames[:, :-1]).square().mean()))


def ratio(
    top: Float[np.ndarray, " C"], bottom: Float[np.ndarray, " C"], owner: Int[np.ndarray, " C"], sample: HeldOut
) -> Reading:
    """Sum over sum, of clips whose trajectories (owner[c]) are drawn."""
    _, place = np.unique(owner, return_inverse=True)
    above, below = np.bincount(place, weights=top), np.bincount(place, weights=bottom)
    weights = bootstrap_weights(len(above), sample.sampling.draws, sample.sampling.seed)
    drawn = (weights @ above) / (weights @ below)
    return Reading(float(top.sum() / bottom.sum()), interval(drawn), drawn, len(above))
