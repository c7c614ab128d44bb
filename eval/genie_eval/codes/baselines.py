"""Baseline codes: the best possible codes, learning-free ones and codes without meaning, measured as the model's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from genie_eval.codes import nulls
from genie_eval.codes.code_sums import usage
from genie_eval.codes.codebook import perplexity
from genie_eval.codes.motion_statistics import MotionStatistics
from genie_eval.codes.quantize import COMPONENTS, quantize
from genie_eval.codes.transitions import Transitions
from genie_eval.metrics import plain, skill

Codes = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class Features:
    """Descriptions of the transitions, one row each; None where there is none."""

    flow: Float[np.ndarray, "M F"] | None = None
    difference: Float[np.ndarray, "M S"] | None = None
    untrained: Float[np.ndarray, "M E"] | None = None
    motions: dict[str, Float[np.ndarray, "M D"]] | None = None
    predicted: Float[np.ndarray, "M 3"] | None = None  # base motion, read from the frames by a supervised network


@dataclass(frozen=True)
class Baseline:
    """One set of codes and what they are; codes is None where the source cannot provide them."""

    about: str
    codes: Codes | None


def baselines(
    table: Transitions, codes: Codes, features: Features, train: Features | None, num_codes: int, seed: int = 0
) -> dict[str, Baseline]:
    """All sets of codes by name, from the oracle to the model.

    train: the same features of training trajectories, on which k-means is fitted; without them it is cross-fitted.
    """
    train = train or Features()

    def clusters(values: np.ndarray | None, fit: np.ndarray | None = None, components: int | None = None):
        if values is None or not np.isfinite(values).all() or table.num_trajectories < 2:
            return None
        return quantize(values, table.trajectory, num_codes, fit, components, seed)

    def of_motion(name: str) -> Codes | None:
        return clusters(table.motions.get(name), (train.motions or {}).get(name))

    oracle = of_motion("base")
    source = "oracle" if oracle is not None else "model"
    permuted = nulls.permuted_per_trajectory(codes if oracle is None else oracle, table, num_codes, seed)
    predicted = clusters(features.predicted, (train.motions or {}).get("base", table.motions.get("base")))
    rows = {
        "oracle_motion": ("k-means of the true motion in the base frame: the best that K codes allow", oracle),
        "oracle_image": ("k-means of the true motion in the image plane", of_motion("image")),
        "idm": ("motion predicted by supervised inverse dynamics, assigned to the oracle's clusters", predicted),
        "flow_kmeans": ("k-means of optical flow: no learning", clusters(features.flow, train.flow)),
        "pca_kmeans": (
            "k-means of the principal components of the frame difference: no learning",
            clusters(features.difference, train.difference, COMPONENTS),
        ),
        "untrained": ("k-means of the embeddings of an untrained model", clusters(features.untrained)),
        "swapped": ("the model's codes, swapped between trajectories", nulls.swapped(codes, table, seed)),
        "marginal": ("random codes with the model's shares", nulls.marginal(codes, num_codes, seed)),
        "constant": ("one code for everything", np.zeros_like(codes)),
        "permuted_per_trajectory": (
            f"the {source}'s codes, renamed at random in every trajectory: consistent within, not across trajectories",
            permuted,
        ),
        "phase": ("progress in the episode", nulls.phase_code(table, num_codes)),
        "scene": ("the scene", nulls.scene_code(table, num_codes)),
        "position": ("k-means of the arm's position, not its motion", nulls.position_code(table, num_codes, seed)),
        "model": ("the latent action model that is evaluated", codes),
    }
    return {name: Baseline(about, found) for name, (about, found) in rows.items()}


def baseline_rows(
    found: dict[str, Baseline],
    statistics: dict[str, MotionStatistics],
    null: dict[str, float],
    oracle: dict[str, float],
    trajectory: Int[np.ndarray, " M"],
    num_codes: int,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """The rows of `ladder` in report.json: usage, grounding and consistency of every set of codes.

    statistics, null, oracle: by suffix of the metric's name ("" for true motion, "_flow" for flow), the statistics and
    the R2 between which skill is measured.
    """
    rows = []
    for name, baseline in tqdm(found.items(), desc="baselines", unit="row", disable=not progress):
        row: dict[str, Any] = {"name": name, "about": baseline.about, "ci95": {}}
        rows.append(row)
        codes = baseline.codes
        if codes is None:
            row["reason"] = "this source does not provide what these codes need"
            continue
        row["codebook_perplexity"] = float(perplexity(usage(codes, trajectory, num_codes).sum(axis=0)))
        for suffix, measured in statistics.items():
            r2_name, skill_name, ctc_name = f"grounding{suffix}_r2", f"grounding{suffix}_skill", f"ctc{suffix}"
            value, ci, low, best = measured.r2(codes), measured.r2_interval(codes), null[suffix], oracle[suffix]
            reading = measured.ctc(codes)
            row |= {r2_name: value, skill_name: skill(value, low, best), ctc_name: reading.value}
            row["ci95"] |= {r2_name: ci, ctc_name: reading.ci95}
            if best > low:
                row["ci95"][skill_name] = (ci - low) / (best - low)
            if reading.value is None:
                row.setdefault("reason", f"{ctc_name} undefined: {reading.reason}")
    return plain(rows)
