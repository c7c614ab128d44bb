"""The tables of trials with known differences."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file
from genie_eval.ablation.compare import Difference, difference, verdict
from genie_eval.ablation.held_out import Sampling
from genie_eval.ablation.reading import Reading
from genie_eval.ablation.study import Study, Variant
from genie_eval.ablation.table import write_table
from genie_eval.resampling import bootstrap_weights

UNITS, DRAWS = 100, 500
WEIGHTS = bootstrap_weights(UNITS, DRAWS, 0)
STUDY = Study("planted", (Variant("ours"), Variant("theirs", "something else"), Variant("same")), "Which?")
ABOUT = {"command": "ablate planted", "data": "d [train]", "held_out": "d [test]", "steps": 5}


def reading(rng, value, scene, spread=0.1):
    """A metric that is a mean over trajectories; scene: the difficulty of each trajectory, equal for all models."""
    each = value + scene + spread * rng.normal(size=UNITS)
    draws = WEIGHTS @ each / UNITS
    return Reading(float(each.mean()), np.quantile(draws, [0.025, 0.975]), draws, UNITS)


def seeds_of(rng, value, scene, number, between=0.02):
    return [reading(rng, value + between * rng.normal(), scene) for _ in range(number)]


def plant(out, variant, seed, readings, ms=100.0, version=1):
    folder = out / "cells" / variant / f"seed{seed}"
    with atomic_file(folder / "draws.npz") as stream:
        np.savez(stream, **{name: r.draws for name, r in readings.items() if r.draws is not None})
    content = {
        "variant": variant, "seed": seed, "git": {"commit": "0123456789abcdef", "changed": False},
        "measured": asdict(Sampling()) | {"version": version},
        "cost": {
            "latent_action": {
                "steps": 5, "batch_size": 4, "parameters": 1_660_000, "ms_a_step": ms, "saved_mb_a_clip": 80.0
            }
        },
        "metrics": {
            n: {"value": r.value, "ci95": r.ci95 if r.ci95 is None else list(r.ci95), "units": r.units,
                "reason": r.reason} for n, r in readings.items()
        },
        "details": {},
    }  # fmt: skip
    (folder / "cell.json").write_text(json.dumps(content))


def test_intervals_cover_a_planted_difference_at_their_level():
    rng = np.random.default_rng(0)
    covered, refused, trials = 0, 0, 400
    for _ in range(trials):
        scene = 0.3 * rng.normal(size=UNITS)
        found = difference(seeds_of(rng, 0.75, scene, 3), seeds_of(rng, 0.70, scene, 3))
        covered += found.ci95[0] <= 0.05 <= found.ci95[1]
        none = difference(seeds_of(rng, 0.7, scene, 3), seeds_of(rng, 0.7, scene, 3))
        refused += none.p <= 0.05
    assert 0.92 <= covered / trials <= 0.995
    assert refused / trials <= 0.08


def test_seeds_count_as_chance_and_not_only_trajectories():
    """Without a true difference, a bootstrap over trajectories alone claims one in most comparisons of three seeds."""
    rng = np.random.default_rng(1)
    wrong_alone = wrong = 0
    for _ in range(200):
        scene = 0.3 * rng.normal(size=UNITS)
        ours, theirs = (seeds_of(rng, 0.7, scene, 3, between=0.1) for _ in range(2))
        draws = np.mean([a.draws - b.draws for a, b in zip(ours, theirs, strict=True)], axis=0)
        low, high = np.quantile(draws, [0.025, 0.975])
        wrong_alone += not low <= 0 <= high
        wrong += difference(ours, theirs).p <= 0.05
    assert wrong_alone / 200 > 0.5
    assert wrong / 200 < 0.09


def test_pairing_removes_the_difficulty_that_all_models_share():
    rng = np.random.default_rng(2)
    scene = 0.5 * rng.normal(size=UNITS)
    ours, theirs = seeds_of(rng, 0.75, scene, 3, 0.001), seeds_of(rng, 0.7, scene, 3, 0.001)
    paired = difference(ours, theirs)
    unpaired = difference([Reading(r.value, r.ci95, None, r.units) for r in ours], theirs)
    assert paired.paired
    assert not unpaired.paired
    assert paired.value == unpaired.value
    assert np.ptp(paired.ci95) < 0.5 * np.ptp(unpaired.ci95)


def test_one_seed_has_an_interval_and_no_claim():
    rng = np.random.default_rng(3)
    scene = 0.3 * rng.normal(size=UNITS)
    found = difference(seeds_of(rng, 0.9, scene, 1), seeds_of(rng, 0.5, scene, 1))
    assert found.p < 1e-6
    assert verdict(found, found.p, False) == "no claim: 1 seed"


@pytest.mark.parametrize(
    ("value", "p", "lower", "expected"),
    [
        (0.1, 0.01, False, "better"), (-0.1, 0.01, False, "worse"), (-0.1, 0.01, True, "better"),
        (0.1, 0.01, True, "worse"), (0.1, 0.06, False, "no difference shown"),
    ],
)  # fmt: skip
def test_verdicts(value, p, lower, expected):
    assert verdict(Difference(value, None, p, 3, True), p, lower) == expected


def test_values_without_intervals_are_compared_over_seeds_alone():
    found = difference([Reading(v) for v in (0.9, 0.92, 0.91)], [Reading(v) for v in (0.5, 0.51, 0.5)])
    assert found.p < 0.01
    assert difference([Reading(0.9)], [Reading(0.5)]).ci95 is None
    assert difference([Reading(None)], [Reading(0.5)]) is None


def test_seeds_that_lack_the_value_are_left_out():
    found = difference([Reading(None), Reading(0.9)], [Reading(0.5), Reading(0.6)])
    assert (round(found.value, 9), found.seeds) == (0.3, 1)


@pytest.fixture
def planted(tmp_path):
    rng = np.random.default_rng(4)
    skill, leak = 0.3 * rng.normal(size=UNITS), 0.05 * rng.normal(size=UNITS)
    for seed in range(3):
        for variant, value, bad, ms in (("ours", 0.7, 0.1, 100), ("theirs", 0.5, 0.3, 200), ("same", 0.7, 0.1, 100)):
            shift = 0.01 * rng.normal()
            readings = {
                "grounding_skill": reading(rng, value + shift, skill, 0.02),
                "nuisance_flip_rate": reading(rng, bad + shift, leak, 0.02),
                "ctc": Reading(None, reason="undefined") if variant == "theirs" else reading(rng, 0.9, skill),
            }
            plant(tmp_path, variant, seed, readings, ms=ms + seed)
    return tmp_path


def test_the_table_reports_the_planted_differences(planted):
    found = write_table(STUDY, planted, ABOUT)
    ours, theirs, same = found["variants"]
    gap = theirs["metrics"]["grounding_skill"]["difference"]
    assert gap["ci95"][0] < -0.2 < gap["ci95"][1]
    assert np.ptp(gap["ci95"]) < 0.15
    assert (gap["verdict"], gap["seeds"], gap["paired"]) == ("worse", 3, True)
    assert theirs["metrics"]["nuisance_flip_rate"]["difference"]["verdict"] == "worse"
    assert same["metrics"]["grounding_skill"]["difference"]["verdict"] == "no difference shown"
    assert gap["p"] < gap["p_holm"] <= 2 * gap["p"] + 1e-12
    assert theirs["metrics"]["ctc"]["mean"] is None
    assert theirs["metrics"]["ctc"]["reasons"] == ["undefined"]
    assert ours["metrics"]["grounding_skill"]["difference"] is None
    assert theirs["cost"]["latent_action"]["ms_a_step"] == 201
    text = (planted / "table.md").read_text()
    assert re.search(r"- \*\*theirs\*\* against ours: worse: skill by 0\.(1|2)\d, flips by 0\.(1|2)\d", text)
    assert "- **same** against ours: no difference shown: skill, ctc" in text
    assert "equal budget: latent_action 5 steps of 4 clips; trained on d [train], measured on d [test]." in text
    assert re.search(r"\| theirs: something else \| 3 \| 0\.[45]\d ± 0\.0\d \| – \|", text)
    assert "| 1.66M | 201 | 80 |" in text
    assert "ablate planted --seeds 0,1,2" in text
    assert "0123456789" in text
    assert (planted / "differences.png").stat().st_size > 1000
    assert json.loads((planted / "results.json").read_text())["about"]["commits"] == ["0123456789abcdef"]


def test_with_one_seed_the_table_claims_nothing(planted):
    import shutil

    for path in planted.glob("cells/*/seed[12]"):
        shutil.rmtree(path)
    found = write_table(STUDY, planted, ABOUT)
    text = (planted / "table.md").read_text()
    assert "- **theirs** against ours: no claim: 1 seed: skill, flips" in text
    assert "better" not in text.replace("lower is better", "")
    assert "worse" not in text
    assert ", 1 seed |" in text
    assert found["variants"][1]["metrics"]["grounding_skill"]["ci95"] is not None


def test_trials_measured_in_another_way_are_left_out(planted):
    """Values measured in different ways cannot be compared."""
    import os

    rng = np.random.default_rng(5)
    plant(planted, "theirs", 0, {"grounding_skill": reading(rng, 0.9, 0.0)}, version=2)
    old = planted / "cells/theirs/seed0/cell.json"
    os.utime(old, (1, 1))
    found = write_table(STUDY, planted, ABOUT)
    assert found["variants"][1]["seeds"] == [1, 2]


def test_a_trial_without_draws_is_left_out(planted):
    (planted / "cells/theirs/seed0/draws.npz").unlink()
    assert write_table(STUDY, planted, ABOUT)["variants"][1]["seeds"] == [1, 2]


def test_without_trials_there_is_no_table(tmp_path):
    with pytest.raises(UserError, match="holds no measured trial of study planted"):
        write_table(STUDY, tmp_path, ABOUT)


def test_label_share_is_drawn_as_a_curve(tmp_path):
    rng = np.random.default_rng(6)
    study = Study("labels", tuple(Variant(f"{n}%", labels=n / 100) for n in (0, 1, 5, 100)), reference="0%")
    for n, value in ((0, 0.6), (1, 0.65), (5, 0.7), (100, 0.8)):
        for seed in range(2):
            plant(tmp_path, f"{n}%", seed, {"grounding_skill": reading(rng, value, 0.0), "ctc": Reading(None)})
    found = write_table(study, tmp_path, ABOUT | {"baselines": {"flow_kmeans": {"grounding_skill": 0.6}}})
    assert found["figures"] == ["differences.png", "labels.png"]
    assert (tmp_path / "labels.png").stat().st_size > 1000
    assert "| *flow_kmeans* |  | 0.60 |" in (tmp_path / "table.md").read_text()
