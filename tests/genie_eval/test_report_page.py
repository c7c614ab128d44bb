"""The report from planted results: words, figures and page say what was planted, and what was not measured."""

import base64
import copy
import dataclasses
import json
import re
import subprocess
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from PIL import Image

from genie_eval.codes.baselines import Features, baselines
from genie_eval.codes.measure import StatisticsConfig, code_metrics
from genie_eval.codes.planted import planted_transitions, quantized
from genie_eval.collect import Evidence, Trajectory
from genie_eval.dreams.control import Control
from genie_eval.dreams.displacements import Displacements
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.play import SequenceDreams, constant_sequences
from genie_eval.dreams.readout_error import ReadoutError
from genie_eval.dreams.starts import Starts
from genie_eval.metrics import METRICS, Metric, not_run
from genie_eval.report import provenance
from genie_eval.report.animations import by_chance, dream_gif, moving_psnr, worst
from genie_eval.report.answer import sequence_answer
from genie_eval.report.code_charts import eta_squared, transition_shares
from genie_eval.report.control_charts import judges, sequence_steps
from genie_eval.report.findings import consistency_rows, failing_codes, variance_shares
from genie_eval.report.write import build, draw, limits, render, schema, validate, write_report

K, SIDE, STEPS, STARTS, CLIPS = 4, 16, 3, 8, 14
DREAMT = (
    "sequence_consistency", "command_bits", "command_bits_physical", "counterfactual_id", "delta_psnr_t4",
    "action_attributable_fraction", "nuisance_flip_rate", "tokenizer_psnr", "dream_psnr",
)  # fmt: skip
PROMISED = {"codebook_perplexity", "grounding_r2", "ctc", "state_leak", *DREAMT}
MODEL = SimpleNamespace(preset="planted", image_size=(SIDE, SIDE), clip_length=16, gap=None, num_actions=K)
SETTINGS = SimpleNamespace(draws=60, swaps=19, seed=0, progress=False)


def square(row, column):
    frame = np.full((SIDE, SIDE, 3), 40, np.uint8)
    frame[row : row + 4, column : column + 4] = (230, 180, 60)
    return frame


def planted_dreams(seed=0):
    """Clip c: a square goes right; its dream has grey-level noise on the moving pixels that grows with c."""
    rng = np.random.default_rng(seed)
    truth = np.stack([[square(c % 8, t) for t in range(6)] for c in range(CLIPS)])
    noise = rng.normal(size=truth[:, 1:].shape) * np.arange(CLIPS)[:, None, None, None, None]
    inferred = np.clip(truth[:, 1:] + noise, 0, 255).astype(np.uint8)
    codes = np.zeros((CLIPS, 5), int)
    start = np.zeros(CLIPS, int)
    return DreamSet(np.arange(CLIPS), start, truth, truth, inferred, inferred[:, :4], codes, codes[:, :4])


def planted_control():
    """Every code moves 10 cm one way from every start, and the simulator does the same."""
    ways = np.array([[0.1, 0, 0], [-0.1, 0, 0], [0, 0.1, 0], [0, -0.1, 0]])
    rng = np.random.default_rng(0)
    base = ways[None, :, None] * np.arange(1, STEPS + 1)[:, None] / STEPS + rng.normal(
        scale=1e-3, size=(STARTS, K, STEPS, 3)
    )
    moved = np.concatenate([base, base[..., :2] / 0.4], axis=-1)
    unsure = np.zeros((STARTS, K, STEPS), bool)
    unsure[0, 0, -1] = True
    columns = {"base": slice(0, 3), "image": slice(3, 5)}
    frames = np.stack([square(s % 8, 4) for s in range(STARTS)])
    starts = Starts(np.arange(STARTS), np.full(STARTS, 3), frames, frames)
    dreams = np.broadcast_to(frames[:, None, None], (STARTS, K, STEPS, SIDE, SIDE, 3)).copy()
    by_gap = {3: {"rms_error_mm": 7.0, "r2": {"base": [0.95, 0.9, 0.2], "image": [0.9, 0.9]}}}
    error = ReadoutError(0.68, 3, by_gap, {}, rng.gamma(2.0, 3, 200), rng.gamma(4, 10, 200))
    true = Displacements(moved, np.zeros_like(unsure), columns)
    return Control(
        starts,
        SequenceDreams(constant_sequences(K, STEPS), dreams),
        error=error,
        displacements=Displacements(moved, unsure, columns),
        simulated_displacements=true,
    )


def commanded(share=0.9):
    """The metrics of dreams; confusion says that code 3 is never understood."""
    counts = np.diag([9.0, 9, 9, 0])
    counts[3, 0] = 9
    judge = {
        "about": "own", "bits": 1.5, "ci95": [1.3, 1.7], "ceiling_bits": 1.9, "effective_actions": 2.8, "kappa": 0.6,
        "kappa_ceiling": 0.9, "recall": [1.0, 1.0, 1.0, 0.0], "confusion": counts.tolist(),
    }  # fmt: skip
    mean = {"value": share, "ci95": [share - 0.05, share + 0.05], "null": 0.0, "n_trajectories": 64, "verdict": "pass"}
    return {
        "sequence_consistency": Metric(
            **mean, reason="0.90 reaches the mark", oracle=1.0,
            more={"reliability": 0.95, "response": 3.0, "steps": STEPS, "n_starts": 64, "abstained": 0.02,
                  "by_kind": {"pairs": {"value": 0.8, "ci95": [0.7, 0.9], "steps": 2}}},
        ),
        "command_bits": Metric(
            value=1.5, verdict="pass", reason="enough", n_trajectories=64,
            more={"judges": {"own": judge, "independent": {"reason": "give --judge"}}},
        ),
        "command_bits_physical": Metric(value=1.4, verdict="pass", reason="enough", more=judge),
        "counterfactual_id": Metric(
            value=0.75, null=0.25, verdict="pass", reason="enough",
            more={"by_code": [1.0, 1.0, 1.0, 0.0], "confusion": counts.tolist()},
        ),
        **{name: Metric(value=20.0, verdict="pass", reason="enough") for name in DREAMT[4:6] + DREAMT[7:]},
        "nuisance_flip_rate": Metric(
            value=0.05, null=0.7, oracle=0.0, verdict="pass", reason="few", lower_is_better=True,
            more={"by_nuisance": {"hue": {"flip_rate": 0.05, "ci95": [0.03, 0.07], "ami": 0.9}},
                  "second_frame": {"jitter": {"flip_rate": 0.3, "ci95": [0.2, 0.4], "leaves_null": 0.1}}},
        ),
    }  # fmt: skip


def reading(value, n):
    return {"value": [value] * n, "ci95": [[value - 0.1, value + 0.1]] * n}


DETAILS = {
    "consistency": {
        "variance_components": {
            "code": {"value": 2.0, "ci95": [1.8, 2.2]}, "code_scene": {"value": -0.1, "ci95": [-0.2, 0.0]},
            "code_trajectory": {"value": 0.5, "ci95": [0.4, 0.6]}, "residual": {"value": 2.5}, "total": 5.0,
        },
        "by_scene": {"scenes": [{"scene": 7, "n_trajectories": 10, "ctc": 0.9, "ci95": [0.8, 1.0]}]},
    },
    "horizon": {
        "t": [1, 2, 3, 4], "n_clips": 9, "n_trajectories": 9, "resolution": [SIDE, SIDE],
        "psnr": {name: reading(20, 4) for name in ("dream", "tokenizer", "copy_last")},
        "laws": {
            "uniform": {"delta_psnr": reading(1.5, 4), "aaf": reading(0.5, 4)},
            "other_trajectory": {"meaning": "", "reason": "no other trajectory has 4 transitions"},
        },
        "lpips": {"reason": "the weights are not there"},
    },
    "probe": {"reason": "no embedding was kept"},
}  # fmt: skip


@pytest.fixture(scope="module")
def results():
    table = planted_transitions(24, 14, scenes=2)
    rng = np.random.default_rng(0)
    gripper = rng.normal(size=(len(table.step), 1))
    table = dataclasses.replace(table, motions={**table.motions, "gripper": gripper})
    codes = quantized(table.motions["base"], K)
    found = baselines(table, codes, Features(), None, K)
    metrics, ladder, cards = code_metrics(table, codes, found, K, StatisticsConfig(60, 19, 0, False))
    metrics.setdefault("state_leak", not_run("not asked"))
    metrics |= commanded()
    control = planted_control()
    evidence = Evidence([Trajectory(i, np.arange(15)) for i in range(24)], table, codes, Features(), 0)
    return SimpleNamespace(
        metrics=metrics, ladder=ladder, codes=cards, evidence=evidence, dreams=planted_dreams(), control=control,
        grid_starts=control.starts.frames[:3], grid=control.constant.dreams[:3], details=DETAILS,
        seconds={"dreams": 1.0},
    )  # fmt: skip


SOURCE = SimpleNamespace(name="squares", path="/nowhere", fingerprint="abc123")
SPLIT = SimpleNamespace(name="test")


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return out, write_report(results, SimpleNamespace(config=MODEL), SOURCE, SPLIT, out, "runs/planted", SETTINGS)


# ---------------------------------------------------------------------------------------------------------------- page
def test_page_opens_offline_and_holds_every_figure(written):
    out, report = written
    page = (out / "report.html").read_text()
    names = [figure["file"].removeprefix("figures/") for figure in report["figures"]]
    assert names == [
        "same_action.png", "motion.png", "dream_motion.png", "ladder.png", "consistency.png", "command.png",
        "sequences.png", "use.png", "dreams.png", "fidelity.png", "dimensions.png", "variance.png", "usage.png",
        "transitions.png", "nuisances.png", "readout.png", "worst.gif", "random.gif",
    ]  # fmt: skip
    for figure in report["figures"]:
        content = (out / figure["file"]).read_bytes()
        kind = figure["file"].rsplit(".", 1)[1]
        assert f"data:image/{kind};base64,{base64.b64encode(content).decode()}" in page
        assert len(figure["caption"]) > 80
        image = np.asarray(Image.open(out / figure["file"]).convert("L"), float)
        assert min(image.shape) > 150
        assert image.std() > 5, figure["file"]
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert "http" not in bare
    assert re.findall(r"<(?:script|link|iframe)", bare) == []
    assert len(page) < 8e6


def test_first_screen_answers_both_questions_with_primaries_before_guards(written):
    out, report = written
    page = (out / "report.html").read_text()
    first = page[: page.index('id="figures"')]
    assert len(report["summary"]["questions"]) == 2
    for asked in report["summary"]["questions"]:
        assert asked["question"] in first
        assert f"<strong>{asked['answer']}.</strong>" in first
    place = [first.index(f"<code>{name}</code>") for name in METRICS if f"<code>{name}</code>" in first]
    assert place == sorted(place)
    for name in PROMISED:
        assert f"<code>{name}</code>" in page, name
    assert "abc123" in page


def test_every_level_has_a_section_and_what_was_not_run_says_why(written):
    out, _ = written
    page = (out / "report.html").read_text()
    for letter in "ABCDEFGH":
        assert f'id="level-{letter}"' in page
    for why in (
        "no embedding was kept",
        "give --judge",
        "no other trajectory has 4 transitions",
        "the weights are not",
    ):
        assert re.search(rf"not run: {why}", page), why
    assert "8.0 %" not in page.split('id="level-C"')[1].split("code x scene")[1][:60]
    assert "40.0 %" in page  # 2.0 of 5.0: the share of the code


def test_codes_that_fail_are_listed_with_their_reasons(written):
    _, report = written
    failing = report["summary"]["failing_codes"]
    assert [row["code"] for row in failing] == [3]
    assert "read back as itself in only 0%" in "; ".join(failing[0]["reasons"])
    assert "chance (0%)" in "; ".join(failing[0]["reasons"])


def test_limits_speak_of_this_read_out(results):
    said = " ".join(limits(results, K))
    assert "an error of 7 mm" in said
    assert "explains 68%" in said
    assert "at most warn" in said
    assert "z (R2 0.20)" in said
    assert "y (R2" not in said
    assert "2.0% of the commanded dreams" in said


def test_codes_of_the_image_plane_are_said_to_be_the_cameras(results):
    changed = SimpleNamespace(**vars(results))
    grounding = copy.deepcopy(results.metrics["grounding_r2"])
    changed.metrics = results.metrics | {"grounding_r2": grounding}
    assert "may be relative to the camera: they are inferred" in limits(changed, K)[0]
    grounding.more["by_motion"] = {"image": {"skill": grounding.skill + 0.05}}
    assert limits(changed, K)[0].startswith("Codes may be")
    grounding.more["by_motion"] = {"image": {"skill": grounding.skill + 0.2}}
    assert limits(changed, K)[0].startswith("These codes are relative to the camera")


def test_training_seeds_stand_in_the_scorecard(written):
    out, report = written
    assert "training seeds" not in (out / "report.html").read_text()
    changed = copy.deepcopy(report)
    changed["metrics"]["ctc"] |= {"n_seeds": 3, "seeds": {"values": [0.9, 0.8, 0.7], "mean": 0.8, "sd": 0.1}}
    validate(changed)
    page = render(changed, out)
    assert "training seeds" in page
    assert "3: 0.80 ± 0.10" in page


def test_without_dreams_played_on_purpose_there_is_a_report_all_the_same(results, tmp_path):
    bare = SimpleNamespace(**vars(results))
    bare.control, bare.details = None, {}
    bare.metrics = results.metrics | {name: not_run("too few episodes for a read-out") for name in DREAMT[:4]}
    bare.metrics["nuisance_flip_rate"] = not_run("not asked")
    figures = draw(bare, tmp_path, SETTINGS)
    report = build(bare, SimpleNamespace(config=MODEL), SOURCE, SPLIT, None, SETTINGS, figures)
    validate(report)
    page = render(report, tmp_path)
    names = {figure["file"] for figure in figures}
    assert "figures/same_action.png" in names
    assert not names & {"figures/dream_motion.png", "figures/command.png", "figures/use.png", "figures/nuisances.png"}
    assert report["summary"]["questions"][1]["answer"] == "Not known"
    assert "not run: too few episodes for a read-out" in page
    assert "No motion read-out was applied" in page


def test_a_report_of_latents_without_pixels_has_the_same_sections(tmp_path):
    from genie_eval.score.score import ScoreConfig, score

    table = planted_transitions(20, 12)
    codes = quantized(table.motions["base"], K)
    np.savez(
        tmp_path / "latents.npz",
        codes=codes,
        motion=table.motions["base"],
        trajectory=table.trajectory,
        step=table.step,
    )
    report = score(tmp_path / "latents.npz", tmp_path / "out", ScoreConfig(draws=40, swaps=19, progress=False))
    validate(report)
    page = (tmp_path / "out" / "report.html").read_text()
    for letter in "ABCDEFGH":
        assert f'id="level-{letter}"' in page
    assert "needs the model itself" in page


# -------------------------------------------------------------------------------------------------------------- schema
@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r["metrics"].pop("ctc"),
        lambda r: r["metrics"]["ctc"].update(verdict="passed"),
        lambda r: r["metrics"]["ctc"].update(value="0.9"),
        lambda r: r["metrics"]["ctc"].update(verdict="pass", value=None),
        lambda r: r["metrics"]["ctc"].update(reason=""),
        lambda r: r["metrics"]["ctc"].update(ci95=[0.1, 0.2, 0.3]),
        lambda r: r["metrics"]["ctc"].update(p=1.5),
        lambda r: r["metrics"]["ctc"].update(seeds={"values": [1.0]}),
        lambda r: r["metrics"]["ctc"].pop("null"),
        lambda r: r["metrics"]["command_bits"].update(value=-1.0),
        lambda r: r["metrics"]["command_bits"]["judges"]["own"].update(bits="many"),
        lambda r: r["metrics"]["counterfactual_id"].update(value=1.2),
        lambda r: r["metrics"]["nuisance_flip_rate"]["by_nuisance"]["hue"].update(flip_rate=None),
        lambda r: r["metrics"].update(my_own={"value": 1}),
        lambda r: r["summary"]["questions"][0].pop("answer"),
        lambda r: r["figures"][0].update(file="figures/film.mp4"),
        lambda r: r["ladder"][0].update(name="another"),
        lambda r: r["codes"][0].update(share=2),
        lambda r: r.update(details=[]),
        lambda r: r.update(schema_version=2),
    ],
)
def test_schema_rejects_a_wrong_report(written, spoil):
    report = copy.deepcopy(written[1])
    spoil(report)
    with pytest.raises(jsonschema.ValidationError):
        validate(report)


def test_the_schema_is_one():
    """`validate` does not check it, because that takes longer than to check a report."""
    jsonschema.validators.validator_for(schema()).check_schema(schema())


def test_schema_takes_more_than_it_asks_for(written):
    report = copy.deepcopy(written[1])
    report["metrics"]["ctc"]["another_number"] = 1.0
    report["details"]["another_level"] = {"value": [1, 2]}
    report["another"] = "thing"
    validate(json.loads(json.dumps(report)))


# --------------------------------------------------------------------------------------------------------------- words
def sequence_metrics(**changes):
    metrics = commanded() | {"codebook_perplexity": Metric(value=4.0, more={"num_codes": K})}
    one = metrics["sequence_consistency"]
    for name, value in changes.items():
        if hasattr(one, name):
            setattr(one, name, value)
        else:
            one.more[name] = value
    return metrics


def test_sequences_that_agree_are_answered_yes():
    word, why = sequence_answer(sequence_metrics())
    assert word == "Yes"
    assert "90% (0.90 [0.85, 0.95])" in why
    assert "1.4 of 2.0 bits" in why
    assert "75% of dreams" in why
    assert "by chance 25%" in why


def test_an_answer_has_no_minus_before_zero():
    metrics = sequence_metrics()
    metrics["sequence_consistency"].value, metrics["sequence_consistency"].ci95 = -0.001, (-0.03, 0.02)
    assert "(0.00 [-0.03, 0.02])" in sequence_answer(metrics)[1]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"value": 0.1, "ci95": [0.05, 0.15], "verdict": "fail"}, "No"),
        ({"value": 0.5, "ci95": [0.45, 0.55], "verdict": "warn"}, "In part"),
        ({"verdict": "warn", "reason": "directions agree by a cosine of 0.5"}, "Mostly"),
        ({"verdict": "warn", "reason": "the read-out explains 0.8 of", "reliability": 0.8}, "Probably"),
        ({"value": 0.0, "ci95": [0.0, 0.0], "response": 0.0, "verdict": "fail"}, "No"),
    ],
)
def test_other_answers(changes, word):
    found, why = sequence_answer(sequence_metrics(**changes))
    assert found == word
    assert ("only 80% of the true displacement" in why) == (word == "Probably")
    assert ("move the same whatever" in why) == (changes.get("response") == 0.0)


def test_dreams_that_agree_on_the_wrong_motion_are_said_to():
    metrics = sequence_metrics()
    metrics["counterfactual_id"].verdict = "fail"
    assert sequence_answer(metrics)[0] == "Yes, but not always the motion that the codes mean"


def test_without_a_read_out_flow_gives_a_hint_and_no_answer():
    metrics = sequence_metrics() | {"sequence_consistency": not_run("no true motion in this source")}
    assert sequence_answer(metrics) == ("Not known", "No true motion in this source.")
    metrics["sequence_consistency_flow"] = Metric(value=0.66, ci95=[0.6, 0.7], n_trajectories=64, verdict="warn")
    word, why = sequence_answer(metrics)
    assert word == "Not known"
    assert "66% (0.66 [0.60, 0.70])" in why
    assert "a hint, not an answer" in why


def test_few_starts_are_exploratory():
    assert "exploratory: only 24 starts" in sequence_answer(sequence_metrics(n_trajectories=24))[1]


# ------------------------------------------------------------------------------------------------- numbers of figures
def test_eta_squared_of_signs_is_that_of_a_halved_normal():
    rng = np.random.default_rng(0)
    table = planted_transitions(100, 50)
    motion = rng.normal(size=(5000, 3))
    table = dataclasses.replace(table, motions={"base": motion, "gripper": np.zeros((5000, 1))})
    parts, names = eta_squared(table, (motion[:, 1] > 0).astype(int), 2)
    assert names == ["x (forward)", "y (left)", "z (up)"]  # a gripper that never moves is left out
    assert parts.sum(axis=0) == pytest.approx([0, 2 / np.pi, 0], abs=0.02)


def test_transitions_do_not_cross_trajectories():
    table = planted_transitions(2, 3)
    shares = transition_shares(table, np.array([0, 1, 0, 2, 2, 2]), 3)
    assert shares == pytest.approx(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    assert np.isnan(transition_shares(table, np.array([0, 0, 1, 0, 0, 1]), 3)[1:]).all()


def test_sequence_steps_read_one_for_equal_and_half_for_half_shared_displacement():
    rng = np.random.default_rng(1)
    own = rng.normal(size=(1, 6, 1, 3))
    exact = np.broadcast_to(own, (40, 6, 2, 3)) * np.array([1.0, 2.0])[:, None]
    steps = sequence_steps(exact, np.ones(3), 50)
    assert steps.share["value"] == pytest.approx([1, 1], abs=0.02)
    assert steps.scatter == pytest.approx(0, abs=1e-9)
    assert steps.displacement[1] == pytest.approx(2 * steps.displacement[0])
    shared, alone = rng.normal(size=(1, 40, 1, 3)), rng.normal(size=(200, 40, 1, 3))
    assert sequence_steps(shared + alone, np.ones(3), 50).share["value"][0] == pytest.approx(0.5, abs=0.06)


def test_variance_adds_up_and_what_is_below_zero_is_none(results):
    row = variance_shares(DETAILS)
    assert row == pytest.approx({"code": 0.4, "scene": 0.0, "trajectory": 0.1, "residual": 0.5})
    assert variance_shares({}) == variance_shares({"consistency": {"reason": "no motion"}}) == {}
    by_code, by_scene = consistency_rows(DETAILS, results.codes)
    assert [row["label"] for row in by_scene] == ["scene 7"]
    assert [row["value"] for row in by_code] == [card["ctc"] for card in results.codes]


def test_judges_are_those_that_judged():
    metrics = {name: metric.as_json() for name, metric in commanded().items()}
    assert [judge.title for judge in judges(metrics)] == [
        "own latent action model", "physical read-out", "nearest simulated future",
    ]  # fmt: skip
    assert judges({}) == []


def test_a_dead_and_an_inconsistent_code_fail():
    cards = [
        {"code": 0, "name": "up", "share": 0.995, "ctc": 0.2},
        {"code": 1, "name": "unnamed", "share": 0.005, "ctc": None},
    ]
    found = failing_codes({}, cards)
    assert [row["code"] for row in found] == [0, 1]
    assert "CTC 0.20" in found[0]["reasons"][0]
    assert found[1]["reasons"][0].startswith("dead")


# ----------------------------------------------------------------------------------------------------------- animations
def test_worst_dreams_are_the_worst_on_moving_pixels():
    quality = moving_psnr(planted_dreams())
    assert (np.diff(quality) < 0).all()  # noise grows with the clip
    assert worst(quality).tolist() == list(range(CLIPS - 1, CLIPS - 11, -1))
    still = planted_dreams()
    still.truth[3] = still.truth[3, :1]  # nothing moves in clip 3: it has no such quality
    quality = moving_psnr(still)
    assert np.isnan(quality[3])
    assert 3 not in worst(quality, CLIPS)


def test_noise_where_nothing_moves_does_not_count():
    dreams = planted_dreams()
    before = moving_psnr(dreams)
    dreams.inferred[:, :, 12:] = 0  # the square is never there
    assert moving_psnr(dreams) == pytest.approx(before)


def test_chance_is_the_seeds_and_no_one_elses():
    assert by_chance(100, 3).tolist() == by_chance(100, 3).tolist()
    assert by_chance(100, 3).tolist() != by_chance(100, 4).tolist()
    assert by_chance(4, 0).tolist() == [0, 1, 2, 3]


def test_animation_shows_truth_beside_dream_three_frames_a_second(tmp_path):
    dreams = planted_dreams()
    dream_gif(tmp_path / "one.gif", dreams, np.array([0]), moving_psnr(dreams))
    film = Image.open(tmp_path / "one.gif")
    assert film.n_frames == 6
    film.seek(1)
    assert 300 <= film.info["duration"] <= 340
    frame = np.asarray(film.convert("RGB")).astype(int)
    side = 96
    pictures = [frame[14 : 14 + side, n * (side + 3) : n * (side + 3) + side] for n in range(3)]
    expected = np.repeat(np.repeat(dreams.truth[0, 1], 6, axis=0), 6, axis=1)
    for picture in pictures:
        assert np.abs(picture - expected).mean() < 3


# ---------------------------------------------------------------------------------------------------------- provenance
def test_commit_is_said_in_a_checkout_and_nowhere_else(monkeypatch, tmp_path):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    found = provenance.commit()
    assert (found["commit"] if found else "") == head
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() is None
