"""Trends against size, data and batch, on planted values with a known law."""

import json

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_eval.ablation.commands import AblateOptions, ablate
from genie_eval.ablation.reading import Reading
from genie_eval.ablation.study import Study, Variant, read_study
from genie_eval.ablation.trend import trend
from genie_eval.resampling import bootstrap_weights
from tests.genie_eval.test_ablation import TINY
from tests.genie_eval.test_ablation_table import UNITS, plant, reading

SIZES = (1e4, 3e4, 2e5, 1e6)
WEIGHTS = bootstrap_weights(UNITS, 400, 0)


def planted(rng, law, between=0.02, hard=0.5, seeds=3):
    """readings[variant][seed]: `law` of the size, plus a difficulty that all variants share, plus noise per seed."""
    scene = hard * rng.normal(size=UNITS)
    return [[reading(rng, law(x) + between * rng.normal(), scene, 0.05) for _ in range(seeds)] for x in SIZES]


def test_a_planted_slope_is_found_and_shared_difficulty_does_not_widen_it():
    found = trend(SIZES, planted(np.random.default_rng(0), lambda x: 0.3 * np.log10(x)))
    low, high = found.slope.ci95
    assert low < 0.3 < high
    assert high - low < 0.25  # the shared difficulty, ±0.5 per trajectory, cancels
    assert found.at + 5 * found.slope.value == pytest.approx(1.5, abs=0.2)
    assert (found.slope.seeds, found.slope.paired) == (3, True)


def test_intervals_cover_the_slope_and_leave_out_no_bend_that_is_not_there():
    rng = np.random.default_rng(1)
    covered, bent = 0, 0
    for _ in range(100):
        found = trend(SIZES, planted(rng, lambda x: 0.3 * np.log10(x), between=0.05))
        covered += found.slope.ci95[0] < 0.3 < found.slope.ci95[1]
        bent += not found.bend.ci95[0] < 0 < found.bend.ci95[1]
    assert covered >= 89
    assert bent <= 11


def test_a_bend_is_the_departure_in_the_middle_from_the_chord():
    """y = (log10 x - 5)² on equal steps from 4 to 6: the chord is 1, the middle 0."""
    sizes = (1e4, 10**4.5, 1e5, 10**5.5, 1e6)
    found = trend(sizes, [[Reading((np.log10(x) - 5) ** 2)] for x in sizes])
    assert found.slope.value == pytest.approx(0, abs=1e-9)
    assert found.bend.value == pytest.approx(-1)


def test_a_power_law_is_a_line_of_logarithms():
    rng = np.random.default_rng(2)
    rows = planted(rng, lambda x: 1 + 30 * x**-0.25, between=0.0, hard=0.0)
    exact = trend(SIZES, [[Reading(30 * x**-0.25)] for x in SIZES], power=True)
    assert exact.slope.value == pytest.approx(-0.25)
    assert 10 ** (exact.at + 5 * exact.slope.value) == pytest.approx(30 * 1e5**-0.25)
    off = trend(SIZES, rows, power=True)  # with a floor of 1 it is not a power law, and the bend shows it
    assert off.bend.ci95[1] < 0


def test_no_trend_without_three_different_sizes_and_values():
    some = [[Reading(1.0)], [Reading(2.0)], [Reading(3.0)]]
    assert trend((1, 2, 4), [*some[:2], [Reading(None)]]) is None
    assert trend((1, 2, 2), some) is None
    assert trend((1, 2, 4), [[Reading(0.0)], *some[:2]], power=True) is None
    assert trend((1, 2, 4), some).slope.ci95 is None  # one seed, no draws: no interval, no claim


@pytest.mark.parametrize("sizes", [(10, 40, 160, 1000), (1, 2, 4, 8), (66e3, 25e4, 1e6, 4e6)])
def test_equal_values_have_no_trend(sizes):
    """For a tokenizer that all variants share, rounding errors must not become a claim."""
    shared = [reading(np.random.default_rng(seed), 28.1, 0.0) for seed in range(3)]
    found = trend(sizes, [shared] * 4)
    assert (found.slope.value, found.slope.p, found.bend.value, found.bend.p) == (0, 1, 0, 1)


def test_a_clip_without_motion_has_no_weight_in_the_error_share():
    from types import SimpleNamespace

    from genie_eval.ablation.held_out import Sampling
    from genie_eval.ablation.measure import ratio_reading

    sample = SimpleNamespace(sampling=Sampling(draws=200))
    owner = np.array([0, 0, 1, 2, 3])
    errors, moved = np.array([0.2, 0.3, 0.1, 0.4, 0.001]), np.array([1.0, 1.0, 0.5, 1.5, 1e-6])
    found = ratio_reading(errors, moved, owner, sample)
    assert found.value == pytest.approx(1.001 / 4.000001)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert found.units == 4


STUDY = Study(
    "sizes",
    tuple(Variant(f"w{n}") for n in (1, 2, 4, 8)),
    measure=("codes", "losses"),
    axes={"parameters": ("w1", "w2", "w4", "w8"), "batch": ("w1", "w2", "w4")},
)
ABOUT = {"command": "ablate sizes", "data": "d [train]", "held_out": "d [test]", "steps": 5}


def test_the_table_tells_the_trends(tmp_path):
    from genie_eval.ablation.table import write_table

    rng = np.random.default_rng(3)
    for n in (1, 2, 4, 8):
        for seed in range(3):
            shift = 0.005 * rng.normal()
            readings = {
                "grounding_skill": reading(rng, 0.5 + 0.2 * np.log10(n) + shift, 0.0, 0.02),
                "worst_code": reading(rng, 0.1 * n, 0.0, 0.02),
                "error_share": reading(rng, 0.5 * n**-0.3 + shift, 0.0, 0.02),
            }
            plant(tmp_path, f"w{n}", seed, readings)
            path = tmp_path / f"cells/w{n}/seed{seed}/cell.json"
            content = json.loads(path.read_text())
            content["cost"]["latent_action"] |= {"parameters": 1000 * n, "batch_size": n}
            path.write_text(json.dumps(content))
    found = write_table(STUDY, tmp_path, ABOUT)
    line = found["trends"]["parameters"]["grounding_skill"]
    assert line["slope"]["value"] == pytest.approx(0.2, abs=0.02)
    assert line["verdict"] == "better"
    assert line["p_holm"] >= line["slope"]["p"]
    assert line["x"] == [1000, 2000, 4000, 8000]
    assert line["bends"] is False
    worst = found["trends"]["parameters"]["worst_code"]
    assert (worst["verdict"], worst["p_holm"]) == ("not judged", None)
    law = found["trends"]["parameters"]["error_share"]
    assert (law["power"], law["verdict"]) == (True, "better")
    assert law["slope"]["value"] == pytest.approx(-0.3, abs=0.05)
    text = (tmp_path / "table.md").read_text()
    assert "| parameters: 1e+03, 2e+03, 4e+03, 8e+03 | **+0." in text
    assert "| batch: 1, 2, 4 |" in text
    assert (tmp_path / "trends.png").stat().st_size > 1000
    json.loads((tmp_path / "results.json").read_text())


def test_less_data_is_trained_on_and_losses_are_measured(make_video, tmp_path):
    """End to end: variants with fewer episodes train on their own split, and their losses differ."""
    source = make_video(episodes=12, length=16)
    members = ("few", "more", "all")
    study = Study(
        "data",
        (Variant("all"), Variant("few", episodes=3), Variant("more", episodes=6)),
        set=TINY,
        steps=4,
        stages=("latent_action", "dynamics"),
        measure=("losses",),
        axes={"episodes": members},
    )
    asked = AblateOptions(study="data", out=tmp_path / "out", trajectories=12, clips=6)
    found = ablate(study, source, source, asked, [0, 1], "genie-robotics ablate data")
    by_name = {row["name"]: row["metrics"] for row in found["variants"]}
    losses = {name: by_name[name]["token_loss"]["values"] for name in members}
    assert all(0 < value < 2 * np.log(32) for values in losses.values() for value in values.values())
    assert losses["few"] != losses["all"]
    assert all(v > 0 for v in by_name["few"]["error_share"]["values"].values())
    assert found["trends"]["episodes"]["token_loss"]["x"] == [3, 6, 12]
    seen = {
        name: json.loads((tmp_path / f"out/cells/{name}/seed1/run/config.json").read_text())["data"]["fingerprint"]
        for name in members
    }
    assert len(set(seen.values())) == 3


def test_fewer_episodes_of_one_seed_are_among_more(make_video):
    from genie_datasets.sources.subset import some_episodes

    source = make_video(episodes=12, length=16)
    name = next(iter(source.splits))
    few, more, other = (some_episodes(source, name, n, s).split(name) for n, s in ((3, 0), (6, 0), (3, 1)))
    assert set(few.chosen) < set(more.chosen)
    assert set(few.chosen) != set(other.chosen)
    assert few.fingerprint != other.fingerprint
    with pytest.raises(UserError, match="has 12 episodes; expected at least 13"):
        some_episodes(source, name, 13, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"axes": {"speed": ["a", "b", "c"]}', "unknown axis 'speed'; expected one of: parameters, episodes, batch"),
        ('"axes": {"batch": ["a", "b", "d"]}', "axis batch: unknown variant 'd'; its variants are: a, b, c"),
        ('"axes": {"batch": ["a", "b"]}', "axis batch has 2 variants; a line needs at least three"),
        ('"axes": {"batch": "a"}', "axes must give a list of variants each"),
        ('"axes": ["a"]', "axes must be of type dict"),
    ],
)
def test_an_axis_that_cannot_be_is_one_line(text, expected, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"variants": [{"name": "a"}, {"name": "b"}, {"name": "c"}], ' + text + "}")
    with pytest.raises(UserError, match=expected) as error:
        read_study(path)
    assert "\n" not in str(error.value)


def test_too_many_episodes_are_refused_before_anything_is_trained(make_video, tmp_path):
    source = make_video(episodes=12, length=16)
    study = Study("data", (Variant("all"), Variant("more", episodes=13)), set=TINY, steps=4)
    with pytest.raises(UserError, match="has 12 episodes; expected at least 13"):
        ablate(study, source, source, AblateOptions(study="data", out=tmp_path / "out"), [0], "genie-robotics ablate")
    assert not (tmp_path / "out/cells").exists()


def test_end_to_end_latent_actions_have_no_loss_of_their_own():
    from genie_eval.ablation.plan import resolve
    from genie_eval.ablation.studies import MODES

    with_own_loss = {v.name: resolve(MODES, v, 10).with_own_loss for v in MODES.variants}
    assert "latent_action" in with_own_loss["cotrain"]
    assert with_own_loss["end_to_end"] == ("dynamics",)


def test_no_episodes_are_refused(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"variants": [{"name": "a", "episodes": 0}]}')
    with pytest.raises(UserError, match="a: episodes must be at least 1, got 0"):
        read_study(path)
