"""Measures a trial: metrics of the evaluation with their bootstrap draws.

All trials are measured under the same resampled trajectories, so their differences are paired by draw.

codes     grounding_r2 and its skill, ctc, its worst code, R2 of the continuous latent per axis, perplexity, state_leak,
          nuisance_flip_rate
dreams    delta_psnr_t4, action_attributable_fraction, dream_psnr (mean of t = 1..8, and each t = 1..15), tokenizer_psnr
commands  command_bits, read back by the model itself
losses    error_share (latent actions) and token_loss (dynamics) on held-out clips, if their own loss trained them
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from genie_eval.ablation.held_out import HeldOut, read_codes
from genie_eval.ablation.reading import Reading, Readings
from genie_eval.codes.code_sums import usage
from genie_eval.codes.codebook import codebook_perplexity, perplexity
from genie_eval.codes.consistency import consistency, pair_sums
from genie_eval.codes.leakage import state_leak
from genie_eval.codes.motion_metrics import FEW_SWAPS, ctc_metric, grounding_metric
from genie_eval.codes.probe import probe
from genie_eval.collect import Evidence
from genie_eval.dreams.generation import choose_clips
from genie_eval.inference.flips import altered_codes
from genie_eval.inference.sample import choose_sample, share_of
from genie_eval.resampling import bootstrap_weights, interval
from genie_robotics.genie import Genie
from genie_robotics.models.layers.patches import to_unit
from genie_robotics.training.stages import DynamicsStage

LONG, SHORT = 15, 8  # frames of a dream; frames that dream_psnr is a mean over
COMMANDED = 5  # repetitions of a commanded code
MASKS = 4  # random masks per clip of token_loss


def measure(
    genie: Genie, sample: HeldOut, groups: tuple[str, ...], with_own_loss: Collection[str] = ()
) -> tuple[Readings, dict[str, Any]]:
    """The readings of these groups, and details that are stored but not shown in tables.

    with_own_loss: components trained by their own loss, which the group `losses` measures.
    """
    evidence = read_codes(genie, sample)
    readings: Readings = {}
    details: dict[str, Any] = {}
    for group, read in (("codes", code_readings), ("dreams", dream_readings)):
        if group in groups:
            found, more = read(genie, sample, evidence)
            readings |= found
            details |= more
    if "commands" in groups:
        readings |= command_readings(genie, sample, evidence)
    if "losses" in groups:
        readings |= loss_readings(genie, sample, with_own_loss)
    return readings, details


# --------------------------------------------------------------------------------------------------------------- codes
def code_readings(genie: Genie, sample: HeldOut, evidence: Evidence) -> tuple[Readings, dict[str, Any]]:
    codes, table, seed, draws = evidence.codes, sample.table, sample.sampling.seed, sample.sampling.draws
    num_codes = genie.config.num_actions
    oracle = sample.baseline_codes("oracle", num_codes)
    readings = grounding_readings(sample, codes, num_codes) | ctc_readings(sample, codes, num_codes)
    weights = bootstrap_weights(table.num_trajectories, draws, seed)
    drawn = perplexity(weights @ usage(codes, table.trajectory, num_codes))
    readings["codebook_perplexity"] = Reading.of(
        codebook_perplexity(codes, table.trajectory, num_codes, oracle, seed), drawn
    )
    readings["state_leak"] = Reading.of(state_leak(table, codes, num_codes, draws, seed))
    readings["nuisance_flip_rate"] = flip_reading(genie, sample, codes)
    assert evidence.embedding is not None
    linear = probe(table, evidence.embedding, codes, num_codes, seed)
    if "ridge" in linear:
        names = ("x", "y", "z") if len(linear["ridge"]["by_dimension"]) == 3 else range(9)
        readings["linear_r2"] = Reading(linear["ridge"]["r2"], units=table.num_trajectories)
        for name, value in zip(names, linear["ridge"]["by_dimension"], strict=False):
            readings[f"linear_r2_{name}"] = Reading(float(value), units=table.num_trajectories)
    shares = np.bincount(codes, minlength=num_codes) / len(codes)
    return readings, {"code_shares": shares, "probe": linear}


def grounding_readings(sample: HeldOut, codes: Int[np.ndarray, " M"], num_codes: int) -> Readings:
    """R2 of code means in held-out trajectories, and its skill: 0 for swapped codes, 1 for k-means of the motion."""
    statistics, oracle = sample.statistics(num_codes), sample.baseline_codes("oracle", num_codes)
    metric = grounding_metric(statistics, codes, oracle, {}, FEW_SWAPS)
    drawn, best, null = statistics.r2_draws(codes), statistics.r2_draws(oracle), metric.null or 0.0
    units = metric.n_trajectories or 0
    scaled = (drawn - null) / np.maximum(best - null, 1e-9)
    return {
        "grounding_skill": Reading(metric.skill, metric.more["skill_ci95"], scaled, units, metric.reason),
        "grounding_r2": Reading.of(metric, drawn),
    }


def ctc_readings(sample: HeldOut, codes: Int[np.ndarray, " M"], num_codes: int) -> Readings:
    """CTC and its worst code, without draws if CTC is undefined."""
    statistics = sample.statistics(num_codes)
    metric, reading = ctc_metric(statistics, codes, sample.baseline_codes("oracle", num_codes), FEW_SWAPS)
    units = metric.n_trajectories or 0
    if metric.value is None:
        return {name: Reading(None, units=units, reason=metric.reason) for name in ("ctc", "worst_code")}
    pairs = pair_sums(codes, statistics.residual, sample.table.trajectory, num_codes, statistics.lag)
    drawn = consistency(pairs, statistics.weights, statistics.moving_codes(codes))
    known = [k for k, value in enumerate(reading.code_values) if value is not None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn.across / drawn.within
        code_ratios = (drawn.code_across / drawn.code_within)[:, known]
    readings = {"ctc": Reading.of(metric, ratios)}
    if not known:
        return readings | {"worst_code": Reading(None, units=units, reason="no code has a reliable motion of its own")}
    worst = metric.more["worst_code"]
    lowest = np.nanmin(np.where(np.isfinite(code_ratios), code_ratios, np.nan), axis=1)
    return readings | {"worst_code": Reading(worst["value"], worst["ci95"], lowest, units)}


def flip_reading(genie: Genie, sample: HeldOut, codes: Int[np.ndarray, " M"]) -> Reading:
    """Fraction of codes that change with light, colors or camera, mean over the consistent nuisances."""
    setting = sample.sampling
    if codes.min() == codes.max():
        return Reading(None, reason=f"all transitions have code {codes[0]}, so no code can change")
    some = choose_sample(genie, sample.frames, sample.trajectories, sample.table, codes, setting.altered, setting.seed)
    altered = altered_codes(some)
    flips = np.stack([new != some.codes for new in altered.values()]).mean(axis=0)
    share = share_of(flips, some.table.trajectory, len(some), setting.seed, setting.draws)
    counts = np.bincount(some.table.trajectory, minlength=len(some))
    hits = np.bincount(some.table.trajectory, weights=flips, minlength=len(some))
    weights = bootstrap_weights(len(some), setting.draws, setting.seed)
    return Reading(share.value, share.ci95, (weights @ hits) / (weights @ counts), len(some))


# -------------------------------------------------------------------------------------------------------------- dreams
def dream_readings(genie: Genie, sample: HeldOut, evidence: Evidence) -> tuple[Readings, dict[str, Any]]:
    from genie_eval.dreams.action_use import action_use
    from genie_eval.dreams.fidelity import fidelity
    from genie_eval.dreams.generation import DELTA_AT, dream_set
    from genie_eval.dreams.pixels import decibel, psnr, squared_error

    setting = sample.sampling
    dreams = dream_set(
        genie, sample.frames, sample.trajectories, setting.clips, LONG, seed=setting.seed, progress=False
    )
    head = replace(
        dreams, truth=dreams.truth[:, : SHORT + 1], reconstructed=dreams.reconstructed[:, : SHORT + 1],
        inferred=dreams.inferred[:, :SHORT], codes=dreams.codes[:, :SHORT],
    )  # fmt: skip
    metrics = action_use(head, setting.draws, setting.seed) | fidelity(head, setting.draws, setting.seed)
    units = len(np.unique(dreams.trajectory))
    weights = bootstrap_weights(units, setting.draws, setting.seed)

    def mean(values: Float[np.ndarray, " C"]) -> Float[np.ndarray, " R"]:
        """Mean over trajectories, under every draw."""
        return weights @ dreams.by_trajectory(values) / units

    shown = {
        "dream_psnr": psnr(head.inferred, head.truth[:, 1:]).mean(axis=1),
        "tokenizer_psnr": psnr(head.reconstructed, head.truth).mean(axis=1),
    }
    readings = {name: Reading.of(metrics[name], mean(values)) for name, values in shown.items()}
    by_t = psnr(dreams.inferred, dreams.truth[:, 1:])
    copied = psnr(np.broadcast_to(dreams.truth[:, :1], dreams.inferred.shape), dreams.truth[:, 1:])
    for t in range(by_t.shape[1]):
        drawn = mean(by_t[:, t])
        readings[f"dream_psnr_t{t + 1}"] = Reading(
            float(dreams.by_trajectory(by_t[:, t]).mean()), interval(drawn), drawn, units
        )
    if dreams.horizon >= DELTA_AT:
        truth = dreams.truth[:, DELTA_AT]
        own, random, floor = (
            squared_error(frames, truth)
            for frames in (
                dreams.inferred[:, DELTA_AT - 1],
                dreams.random[:, DELTA_AT - 1],
                dreams.reconstructed[:, DELTA_AT],
            )
        )
        readings["delta_psnr_t4"] = Reading.of(metrics["delta_psnr_t4"], mean(decibel(own) - decibel(random)))
        found = metrics["action_attributable_fraction"]
        share = None if found.value is None else 1 - mean(own - floor) / mean(random - floor)
        readings["action_attributable_fraction"] = Reading.of(found, share)
    return readings, {"copy_last_psnr_by_t": copied.mean(axis=0), "clips": len(dreams.trajectory)}


# ------------------------------------------------------------------------------------------------------------ commands
def command_readings(genie: Genie, sample: HeldOut, evidence: Evidence) -> Readings:
    """Every code COMMANDED times in a row from every start, read back by the model itself."""
    from genie_eval.dreams.command import read_back
    from genie_eval.dreams.play import constant_sequences, dream_sequences
    from genie_eval.dreams.starts import choose_starts

    setting, num_codes = sample.sampling, genie.config.num_actions
    starts = choose_starts(genie, sample.frames, evidence, setting.starts, setting.seed)
    sequences = constant_sequences(num_codes, COMMANDED)
    played = dream_sequences(genie, starts, sequences, 32, setting.seed, "commands", False)
    reading = read_back(genie, starts, played, num_codes)
    drawn = reading.bits_drawn(bootstrap_weights(len(starts), setting.draws, setting.seed))
    return {"command_bits": Reading(reading.bits, interval(drawn), drawn, len(starts))}


# -------------------------------------------------------------------------------------------------------------- losses
def loss_readings(genie: Genie, sample: HeldOut, with_own_loss: Collection[str]) -> Readings:
    """error_share of the latent actions: error of the predicted frames, divided by the error of repeating the previous
    frame, each summed over clips (a clip without motion has no weight). token_loss of the dynamics: nats per masked
    token; models with equally many tokens per frame get the same masks."""
    setting, length = sample.sampling, genie.config.clip_length
    owner, start, horizon = choose_clips(sample.trajectories, setting.clips, length - 1, setting.seed)
    errors, copy_errors, token_losses = (np.zeros(len(owner)) for _ in range(3))
    space = genie.latent_action.space
    dynamics = DynamicsStage(genie, "frozen").eval()
    for number, (i, s) in enumerate(zip(owner, start, strict=True)):
        trajectory = sample.trajectories[i]
        pixels = sample.frames.frames(trajectory.episode, trajectory.ids[s : s + horizon + 1])
        clip = torch.as_tensor(pixels, device=genie.device)[None]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(number)
            if "latent_action" in with_own_loss:
                _, logs = genie.latent_action(clip)
                copy_errors[number] = float(space.copy_error(space.read(to_unit(clip))))
                errors[number] = float(logs["error_share"]) * copy_errors[number]
            if "dynamics" in with_own_loss:
                token_losses[number] = float(dynamics(clip.expand(MASKS, -1, -1, -1, -1))[0])
    readings = {}
    if "latent_action" in with_own_loss:
        readings["error_share"] = ratio_reading(errors, copy_errors, owner, sample)
    if "dynamics" in with_own_loss:
        readings["token_loss"] = ratio_reading(token_losses, np.ones(len(owner)), owner, sample)
    return readings


def ratio_reading(
    numerator: Float[np.ndarray, " C"], denominator: Float[np.ndarray, " C"], owner: Int[np.ndarray, " C"],
    sample: HeldOut,
) -> Reading:  # fmt: skip
    """Sum divided by sum over clips, whose trajectories owner[c] are resampled."""
    _, place = np.unique(owner, return_inverse=True)
    numerators, denominators = np.bincount(place, weights=numerator), np.bincount(place, weights=denominator)
    weights = bootstrap_weights(len(numerators), sample.sampling.draws, sample.sampling.seed)
    drawn = (weights @ numerators) / (weights @ denominators)
    return Reading(float(numerator.sum() / denominator.sum()), interval(drawn), drawn, len(numerators))
