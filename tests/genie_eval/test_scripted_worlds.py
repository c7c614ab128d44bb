"""Scripted worlds whose use of codes is known, from the metrics of dreams to the whole report."""

import base64
import json
import re

import numpy as np
import pytest

from genie_eval import evaluate
from genie_eval.collect import Trajectory
from genie_eval.dreams.action_use import action_use
from genie_eval.dreams.any_start import AnyStartConfig
from genie_eval.dreams.control import ControlConfig
from genie_eval.dreams.fidelity import fidelity
from genie_eval.dreams.generation import choose_clips, dream_set
from genie_eval.dreams.horizon import HorizonConfig
from genie_eval.dreams.pixels import psnr
from genie_eval.dreams.play import constant_sequences, dream_sequences, pairs_in_both_orders, sequences_from_data
from genie_eval.dreams.readout import ReadoutConfig
from genie_eval.dreams.starts import Starts
from genie_eval.inference.level import InferenceConfig
from genie_eval.metrics import plain
from genie_eval.report.write import validate

QUICK = {
    "draws": 200, "swaps": 49, "clips": 12, "figure_rows": 3, "progress": False, "inference": InferenceConfig.quick(),
    "control": ControlConfig(
        starts=6, pairs=4, triples=4, readout=ReadoutConfig(members=2, steps=16, batch=16, width=8)
    ),
    "horizon": HorizonConfig(clips=4, others=8),
    "any_start": AnyStartConfig(pictures=2, steps=(5, 10), tables=2, table_steps=(10,)),
}  # fmt: skip
PROMISED = {
    "codebook_perplexity", "grounding_r2", "ctc", "sequence_consistency", "command_bits", "command_bits_physical",
    "counterfactual_id", "delta_psnr_t4", "action_attributable_fraction", "state_leak", "nuisance_flip_rate",
    "tokenizer_psnr", "dream_psnr",
}  # fmt: skip


def dreams_of(genie, source, clips=24):
    split = source.split("test")
    trajectories = [Trajectory(e, np.arange(20)) for e in range(split.num_episodes)]
    return dream_set(genie, split, trajectories, clips, batch=7, progress=False)


def test_world_that_obeys_reads_high(make_genie, make_video):
    metrics = action_use(dreams_of(make_genie(), make_video()), draws=200)
    assert metrics["delta_psnr_t4"].value > 5
    assert metrics["delta_psnr_t4"].p <= 0.01
    assert metrics["action_attributable_fraction"].value == pytest.approx(1, abs=0.02)
    assert metrics["action_attributable_fraction"].verdict == "pass"


def test_world_that_ignores_codes_reads_zero(make_genie, make_video):
    metrics = action_use(dreams_of(make_genie(obeys=False), make_video()), draws=200)
    assert metrics["delta_psnr_t4"].value == pytest.approx(0, abs=1e-9)
    assert metrics["action_attributable_fraction"].value == pytest.approx(0, abs=1e-9)
    assert metrics["delta_psnr_t4"].verdict == metrics["action_attributable_fraction"].verdict == "fail"
    assert metrics["delta_psnr_t4"].p > 0.5


def test_fidelity_lies_between_copy_last_and_the_tokenizer(make_genie, make_video):
    good = fidelity(dreams_of(make_genie(), make_video()), draws=200)["dream_psnr"]
    bad = fidelity(dreams_of(make_genie(obeys=False), make_video()), draws=200)["dream_psnr"]
    assert good.skill == pytest.approx(1, abs=0.02)
    assert good.verdict == "pass"
    assert bad.skill < 0.1
    assert bad.verdict != "pass"
    assert list(good.more["by_t"]) == ["dream", "copy_last", "tokenizer"]
    assert len(good.more["by_t"]["dream"]) == 8


def test_psnr_of_equal_and_of_opposite_frames():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr(black, white) == pytest.approx(0)
    assert 58 < psnr(black, black) < 60


def test_every_trajectory_gives_a_clip_before_any_gives_a_second():
    trajectories = [Trajectory(e, np.arange(n)) for e, n in enumerate([20, 20, 5, 20, 12])]
    trajectory, start, horizon = choose_clips(trajectories, 8, 8, seed=0)
    assert horizon == 8
    assert np.bincount(trajectory, minlength=5).tolist() == [2, 2, 0, 2, 2]
    assert all(s + 8 < len(trajectories[i].ids) for i, s in zip(trajectory, start, strict=True))


def test_horizon_is_shortened_for_short_episodes():
    trajectories = [Trajectory(e, np.arange(6)) for e in range(5)]
    assert choose_clips(trajectories, 5, 8, seed=0)[2] == 5


def test_every_sequence_is_played_from_every_start(make_genie, make_video):
    genie = make_genie()
    frames = make_video().split("test").frames(0, np.array([3, 9]))
    starts = Starts(np.array([0, 1]), np.array([3, 9]), frames, frames)
    played = dream_sequences(genie, starts, constant_sequences(5, 3), batch=4, seed=0, label="", progress=False)
    assert played.dreams.shape == (2, 5, 3, 32, 32, 3)
    for s, start in enumerate(frames):
        for k in range(5):
            expected = genie.generate(start[None, None], np.full((1, 3), k))[0]
            assert (played.dreams[s, k] == expected).all()


def test_pairs_come_in_both_orders_and_runs_lie_inside_one_trajectory():
    pairs = pairs_in_both_orders(8, 32, seed=0).tolist()
    assert len(pairs) == 32
    assert all([b, a] in pairs and a != b for a, b in pairs)
    codes, trajectory = np.array([0, 1, 2, 3, 4, 5, 6, 7]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    runs = sequences_from_data(codes, trajectory, 3, 9, seed=0).tolist()
    assert sorted(runs) == [[0, 1, 2], [1, 2, 3], [4, 5, 6], [5, 6, 7]]
    often = sequences_from_data(np.tile([1, 1, 1, 2], 500), np.zeros(2000, int), 2, 1, seed=0)
    assert often.shape == (1, 2)


@pytest.fixture(scope="module")
def written(make_genie, make_video, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return out, evaluate(make_genie(), make_video(), out, run="runs/scripted", **QUICK)


def test_report_carries_every_promised_metric(written):
    out, report = written
    assert set(report["metrics"]) >= PROMISED
    validate(report)
    stored = json.loads((out / "report.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert stored == report
    for name, metric in report["metrics"].items():
        assert metric["verdict"] in ("pass", "warn", "fail", "not run")
        assert metric["reason"], name
        assert (metric["value"] is None) == (metric["verdict"] == "not run"), name


def test_perfect_codes_read_as_perfect(written):
    _, report = written
    grounding, ctc = report["metrics"]["grounding_r2"], report["metrics"]["ctc"]
    # x drifts at random and no code can predict it; the oracle spends codes on it, the model does not
    assert grounding["value"] > 0.6
    assert grounding["by_motion"]["image"]["value"] > 0.99
    assert grounding["by_motion"]["gripper"]["value"] is None
    assert ctc["value"] == pytest.approx(1, abs=0.1)
    assert "exploratory" in ctc["reason"]
    assert report["summary"]["answer"].startswith("Probably")


def test_codes_are_named_after_their_motion(written):
    _, report = written
    names = [card["name"] for card in report["codes"]]
    assert names[1:] == ["right", "left", "down", "up"]
    assert names[0] in ("still", "unnamed")
    assert sum(card["share"] for card in report["codes"]) == pytest.approx(1)
    right = report["codes"][1]
    assert right["mean_motion"][1] == pytest.approx(-0.02)
    assert right["ci95"][1] == pytest.approx([-0.02, -0.02])


def test_ladder_has_all_rows(written):
    _, report = written
    names = [row["name"] for row in report["ladder"]]
    assert names == [
        "oracle_motion", "oracle_image", "idm", "flow_kmeans", "pca_kmeans", "untrained", "swapped", "marginal",
        "constant", "permuted_per_trajectory", "phase", "scene", "position", "model",
    ]  # fmt: skip
    model = report["ladder"][-1]
    assert model["grounding_r2"] == pytest.approx(report["metrics"]["grounding_r2"]["value"])
    assert model["ctc"] == pytest.approx(report["metrics"]["ctc"]["value"])


def test_page_is_self_contained_and_has_the_figures(written):
    out, report = written
    page = (out / "report.html").read_text()
    assert set(re.findall(r"""src\s*=\s*["']?(.{5})""", page)) == {"data:"}
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert len(re.findall("data:image/(?:png|gif);base64,", page)) == len(report["figures"]) >= 12
    assert report["summary"]["first_line"].split(" (")[0].split("'")[0] in page
    for name in PROMISED:
        assert f"<code>{name}</code>" in page


def test_figures_are_not_empty(written):
    import cv2

    out, report = written
    for figure in report["figures"]:
        image = cv2.imread(str(out / figure["file"]))
        assert min(image.shape[:2]) > 200, figure
        assert image.std() > 10, figure
        assert len(figure["caption"]) > 80


def test_same_seed_gives_the_same_report(written, make_genie, make_video, no_figures, tmp_path):
    _, report = written
    again = evaluate(make_genie(), make_video(), tmp_path, run="runs/scripted", **QUICK)
    for part in ("metrics", "ladder", "codes", "summary"):
        assert again[part] == report[part]


def test_video_without_truth_gets_the_metrics_that_need_none(make_genie, make_video, tmp_path):
    report = evaluate(make_genie(), make_video(known=False, names=("all",)), tmp_path, **QUICK)
    metrics = report["metrics"]
    for name in ("ctc", "grounding_r2"):
        assert metrics[name]["verdict"] == "not run"
        assert "no true motion" in metrics[name]["reason"]
    for name in ("codebook_perplexity", "delta_psnr_t4", "action_attributable_fraction", "dream_psnr", "ctc_flow"):
        assert metrics[name]["verdict"] != "not run", name
    assert metrics["ctc_flow"]["value"] > 0.8
    assert report["summary"]["answer"] == "Not known"
    assert "This source has no true motion" in (tmp_path / "report.html").read_text()
    assert all(card["name"] == "unnamed" and card["mean_motion"] is None for card in report["codes"])


def test_plain_turns_non_finite_numbers_into_null():
    assert plain({"a": np.float32(np.nan), "b": [np.inf, np.int64(3)], "c": np.array([1.5, np.nan])}) == {
        "a": None, "b": [None, 3], "c": [1.5, None],
    }  # fmt: skip


def test_embedded_figures_are_the_files(written):
    out, report = written
    page = (out / "report.html").read_text()
    for figure in report["figures"]:
        assert base64.b64encode((out / figure["file"]).read_bytes()).decode() in page
