"""The ladder: the model's codes between what is best possible and what means nothing, all read by the same code."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from genie_eval.codes import nulls
from genie_eval.codes.codebook import perplexity, usage
from genie_eval.codes.motion_statistics import MotionAssay
from genie_eval.codes.quantize import COMPONENTS, quantise
from genie_eval.codes.transitions import Transitions
from genie_eval.metric import plain, skill

Codes = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class Features:
    """Descriptions of the same transitions that need no learning (rows as in the table); None where there is none."""

    flow: Float[np.ndarray, "M F"] | None = None
    difference: Float[np.ndarray, "M S"] | None = None
    untrained: Float[np.ndarray, "M E"] | None = None
    motions: dict[str, Float[np.ndarray, "M D"]] | None = None
    predicted: Float[np.ndarray, "M 3"] | None = None  # base motion, read from the frames by a supervised net


@dataclass(frozen=True)
class Rung:
    """One set of codes; `about` says in words what they are. codes is None where the source cannot give them."""

    name: str
    about: str
    codes: Codes | None


def rungs(
    table: Transitions, codes: Codes, features: Features, train: Features | None, num_codes: int, seed: int = 0
) -> list[Rung]:
    """Every row of the ladder, from oracle to model. What is fitted, is fitted on `train` or cross-fitted."""
    train = train or Features()

    def clusters(values: np.ndarray | None, fit: np.ndarray | None = None, components: int | None = None):
        if values is None or not np.isfinite(values).all() or table.num_trajectories < 2:
            return None
        return quantise(values, table.trajectory, num_codes, fit, components, seed)

    def of_motion(name: str) -> Codes | None:
        return clusters(table.motions.get(name), (train.motions or {}).get(name))

    oracle = of_motion("base")
    source = "oracle" if oracle is not None else "model"
    permuted = nulls.permuted_per_trajectory(codes if oracle is None else oracle, table, num_codes, seed)
    return [
        Rung("oracle_motion", "k-means of the true motion in the base frame: the best that K codes allow", oracle),
        Rung("oracle_image", "k-means of the true motion in the image plane", of_motion("image")),
        Rung(
            "idm",
            "supervised inverse dynamics, its motion sorted into the oracle's cells: what these pixels allow",
            clusters(features.predicted, (train.motions or {}).get("base", table.motions.get("base"))),
        ),
        Rung("flow_kmeans", "k-means of optical flow: no learning", clusters(features.flow, train.flow)),
        Rung(
            "pca_kmeans",
            "k-means of the principal components of the frame difference: no learning",
            clusters(features.difference, train.difference, COMPONENTS),
        ),
        Rung("untrained", "k-means of the embeddings of an untrained model", clusters(features.untrained)),
        Rung("swapped", "the model's codes, each trajectory with those of another", nulls.swapped(codes, table, seed)),
        Rung("marginal", "random codes with the model's shares", nulls.marginal(codes, num_codes, seed)),
        Rung("constant", "one code for everything", nulls.constant(codes)),
        Rung(
            "permuted_per_trajectory",
            f"the {source}'s codes, renamed at random in every trajectory: consistent inside each, not across them",
            permuted,
        ),
        Rung("phase", "how far into the episode", nulls.phase_code(table, num_codes)),
        Rung("scene", "which scene", nulls.scene_code(table, num_codes)),
        Rung("position", "where the arm is (k-means), not where it goes", nulls.position_code(table, num_codes, seed)),
        Rung("model", "the latent action model that is evaluated", codes),
    ]


def ladder(
    found: list[Rung],
    assays: dict[str, MotionAssay],
    nulls_of: dict[str, float],
    oracles: dict[str, float],
    trajectory: Int[np.ndarray, " M"],
    num_codes: int,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of `report.json`'s ladder.

    assays: {"": on true motion, "_flow": on flow}, whichever there are; the suffix is that of the metric's name.
    nulls_of, oracles: by the same suffix, what skill is measured between.
    """
    rows = []
    for rung in tqdm(found, desc="ladder", unit="row", disable=not progress):
        row: dict[str, Any] = {"name": rung.name, "about": rung.about, "ci95": {}}
        if rung.codes is None:
            rows.append({**row, "reason": "this source does not give what these codes need"})
            continue
        row["codebook_perplexity"] = float(perplexity(usage(rung.codes, trajectory, num_codes).sum(axis=0)))
        for suffix, assay in assays.items():
            grounding, consistent = f"grounding{suffix}_r2", f"ctc{suffix}"
            value, ci = assay.r2(rung.codes), assay.r2_interval(rung.codes)
            null, best = nulls_of[suffix], oracles[suffix]
            reading = assay.ctc(rung.codes)
            row[grounding], row[f"grounding{suffix}_skill"] = value, skill(value, null, best)
            row[consistent] = reading.value
            row["ci95"] |= {grounding: ci, consistent: reading.ci95}
            if best > null:
                row["ci95"][f"grounding{suffix}_skill"] = (ci - null) / (best - null)
            if reading.value is None:
                row.setdefault("reason", f"{consistent} undefined: {reading.reason}")
        rows.append(row)
    return plain(rows)
