"""What is measured of a cell: metrics of the suite, each with its draws under one set of resampled trajectories.

Draws of two cells were made with the same trajectories drawn, so their differences are paired.

codes     grounding_r2 and its skill, ctc, its worst code, R2 of the continuous latent by axis, perplexity, state_leak,
          nuisance_flip_rate
dreams    delta_psnr_t4, action_attributable_fraction, dream_psnr (mean of t = 1..8, and each t = 1..15), tokenizer_psnr
commands  command_bits, read back by the model itself
losses    of what was trained, on held-out clips: error_share (latent actions), token_loss (dynamics)
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.ablation.held_out import HeldOut, read_codes
from genie_eval.ablation.held_out_loss import loss_readings
from genie_eval.ablation.reading import Reading, Readings
from genie_eval.codes.code_sums import usage
from genie_eval.codes.codebook import codebook_perplexity, perplexity
from genie_eval.codes.consistency import consistency, pair_sums
from genie_eval.codes.leakage import state_leak
from genie_eval.codes.motion_metrics import FEW_SWAPS, ctc_metric, grounding_metric
from genie_eval.codes.probe import probe
from genie_eval.collect import Evidence
from genie_eval.inference.flips import altered_codes
from genie_eval.inference.sample import choose_sample, share_of
from genie_eval.resampling import bootstrap_weights, interval
from genie_robotics.genie import Genie

LONG, SHORT = 15, 8  # frames that are dreamt; over which dream_psnr is a mean
COMMANDED = 5  # how often a commanded code is repeated


def measure(
    genie: Genie, sample: HeldOut, groups: tuple[str, ...], taught: Collection[str] = ()
) -> tuple[Readings, dict[str, Any]]:
    """All readings of these groups, and what no table needs but a reader of results.json may.

    taught: the components that have learnt by losses of their own, which are asked for.
    """
    evidence = read_codes(genie, sample)
    readings: Readings = {}
    details: dict[str, Any] = {}
    if "codes" in groups:
        found, more = code_readings(genie, sample, evidence)
        readings |= found
        details |= more
    if "dreams" in groups:
        found, more = dream_readings(genie, sample, evidence)
        readings |= found
        details |= more
    if "commands" in groups:
        readings |= command_readings(genie, sample, evidence)
    if "losses" in groups:
        readings |= loss_readings(genie, sample, taught)
    return readings, details


# --------------------------------------------------------------------------------------------------------------- codes
def code_readings(genie: Genie, sample: HeldOut, evidence: Evidence) -> tuple[Readings, dict[str, Any]]:
    codes, table, seed, draws = evidence.codes, sample.table, sample.sampling.seed, sample.sampling.draws
    num_codes = genie.config.num_actions
    oracle = sample.codes_of("oracle", num_codes)
    readings = grounding_readings(sample, codes, num_codes)
    readings |= ctc_readings(sample, codes, num_codes)
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
    """R2 of code means in trajectories held out, and its skill between swapped codes and k-means of the motion."""
    assay, oracle = sample.assay(num_codes), sample.codes_of("oracle", num_codes)
    metric = grounding_metric(assay, codes, oracle, {}, FEW_SWAPS)
    drawn, best, null = assay.r2_draws(codes), assay.r2_draws(oracle), metric.null or 0.0
    units = metric.n_trajectories or 0
    scaled = (drawn - null) / np.maximum(best - null, 1e-9)
    return {
        "grounding_skill": Reading(metric.skill, metric.more["skill_ci95"], scaled, units, metric.reason),
        "grounding_r2": Reading.of(metric, drawn),
    }


def ctc_readings(sample: HeldOut, codes: Int[np.ndarray, " M"], num_codes: int) -> Readings:
    """CTC and its worst code. Where it has no value there are no draws either."""
    assay = sample.assay(num_codes)
    metric, reading = ctc_metric(assay, codes, sample.codes_of("oracle", num_codes), FEW_SWAPS)
    units = metric.n_trajectories or 0
    if metric.value is None:
        return {name: Reading(None, units=units, reason=metric.reason) for name in ("ctc", "worst_code")}
    pairs = pair_sums(codes, assay.residual, sample.table.trajectory, num_codes, assay.lag)
    drawn = consistency(pairs, assay.weights, assay.moving_codes(codes))
    known = [k for k, value in enumerate(reading.code_values) if value is not None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = drawn.across / drawn.within
        each = (drawn.code_across / drawn.code_within)[:, known]
    readings = {"ctc": Reading.of(metric, ratio)}
    if not known:
        return readings | {"worst_code": Reading(None, units=units, reason="no code has a motion of its own to judge")}
    worst = metric.more["worst_code"]
    lowest = np.nanmin(np.where(np.isfinite(each), each, np.nan), axis=1)
    return readings | {"worst_code": Reading(worst["value"], worst["ci95"], lowest, units)}


def flip_reading(genie: Genie, sample: HeldOut, codes: Int[np.ndarray, " M"]) -> Reading:
    """Share of codes that change with the light, the colours, the camera: mean over the consistent nuisances."""
    setting = sample.sampling
    if codes.min() == codes.max():
        return Reading(None, reason=f"one code for everything: {codes[0]}, which nothing can change")
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
        """Of the trajectories' means, under every draw."""
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
    """Every code five times in a row from every start, read back by the model itself."""
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
