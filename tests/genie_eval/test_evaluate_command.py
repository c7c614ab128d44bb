"""`genie-robotics evaluate` on a real (untrained) model and a real RLDS data set; wrong input is refused."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from genie_eval.commands import evaluate
from genie_eval.results import SIZES
from genie_robotics.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("run"), seed=0)


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("other"), seed=1)


def untrained(folder, seed):
    import torch

    from genie_robotics import Genie
    from tests.genie_robotics.conftest import tiny_config

    torch.manual_seed(seed)
    config = dataclasses.replace(tiny_config("add"), image_size=(32, 32), clip_length=8)
    config.latent_action.quantizer.num_codes = 8
    Genie(config).save_pretrained(folder)
    return folder


@pytest.fixture
def few(monkeypatch):
    """Every part of the report, of fewer starts, sequences and clips."""
    for name, (control, horizon, inference, any_start) in SIZES.items():
        small = (
            dataclasses.replace(control, starts=2, pairs=min(control.pairs, 4), triples=min(control.triples, 4),
                                sampled_starts=1),
            dataclasses.replace(horizon, clips=min(horizon.clips, 4), others=8),
            dataclasses.replace(inference, rendered_trajectories=1),
            dataclasses.replace(any_start, pictures=2, steps=(2, 8), tables=1, table_steps=(8,)),
        )  # fmt: skip
        monkeypatch.setitem(SIZES, name, small)


def test_an_untrained_model_gets_a_whole_and_honest_report(run, tabletop_rlds, few, tmp_path, capsys):
    starts = tmp_path / "starts"
    starts.mkdir()
    cv2.imwrite(str(starts / "sheet.png"), np.full((50, 70, 3), 200, np.uint8))
    argv = [str(run), "--data", str(tabletop_rlds), "--out", str(tmp_path), "--clips", "2", "--figure-rows", "2"]
    assert evaluate([*argv, "--starts", str(starts)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data"]["split"] == "test"
    assert report["metrics"]["grounding_r2"]["verdict"] != "pass"
    assert report["metrics"]["ctc"]["verdict"] != "pass"
    assert {"base", "gripper", "image", "rotation"} <= set(report["data"]["true_motion"])
    oracle = report["ladder"][0]
    assert oracle["name"] == "oracle_motion"
    assert oracle["grounding_r2"] > 0.3
    own = report["details"]["any_start"]["own"]
    assert own["pictures"][0]["name"] == "sheet.png"
    assert own["metrics"]["scene_retention"]["verdict"] == "not run"  # no starts.json
    assert {"object_permanence", "long_command_bits"} <= set(report["metrics"])
    assert {"figures/any_start.png", "figures/own_starts.png", "figures/along_the_dream.png"} <= {
        figure["file"] for figure in report["figures"]
    }
    page = (tmp_path / "report.html").read_text()
    assert 'id="level-I"' in page
    assert "Your own pictures, by kind" in page
    said = capsys.readouterr().out
    assert "report.html" in said
    assert "grounding_r2" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"run": "nowhere"}, "nowhere"),
        ({"--data": "nowhere"}, "nowhere"),
        ({"--split": "validation"}, "train, test"),
        ({"--clips": "0"}, "--clips"),
        ({"--out": "a_file"}, "a_file"),
        ({"--out": "/proc/none/report"}, "another folder with --out"),
        ({"--seed": "-1"}, "--seed must be an integer from 0"),
        ({"--judge": "itself"}, "agrees with itself"),
        ({"--judge": "nowhere"}, "nowhere"),
        ({"--seeds": "itself"}, "the run itself"),
        ({"--i3d": "nowhere.pt"}, "nowhere.pt"),
        ({"--starts": "nowhere"}, "--starts nowhere is not a folder; pass a folder of pictures"),
        ({"--starts": "a_file"}, "a_file is not a folder"),
        ({"--compare": "somewhere"}, "--compare"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(change, expected, run, tabletop_rlds, tmp_path, capsys):
    taken = tmp_path / "a_file"
    taken.write_text("")
    options = {"--data": str(tabletop_rlds), "--out": str(tmp_path / "out"), **change}
    options = {name: str(taken) if value == "a_file" else value for name, value in options.items()}
    options = {name: str(run) if value == "itself" else value for name, value in options.items()}
    first = options.pop("run", str(run))
    assert main(["evaluate", first, *(word for pair in options.items() for word in pair)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error


def test_other_seeds_and_an_independent_judge_stand_beside_the_values(
    run, other_run, tabletop_rlds, few, no_figures, tmp_path
):
    argv = [str(run), "--data", str(tabletop_rlds), "--out", str(tmp_path), "--clips", "2", "--quick"]
    assert evaluate([*argv, "--judge", str(other_run), "--seeds", str(other_run)]) == 0
    metrics = json.loads((tmp_path / "report.json").read_text())["metrics"]
    usage = metrics["codebook_perplexity"]
    assert usage["n_seeds"] == 2
    assert usage["seeds"]["mean"] == pytest.approx(sum(usage["seeds"]["values"]) / 2)
    assert usage["seeds"]["values"][0] == pytest.approx(usage["value"])
    assert metrics["command_bits"]["judges"]["independent"]["bits"] >= 0
    assert metrics["counterfactual_id"]["value"] is not None  # these data keep the simulator's states
    assert "20 training episodes" in metrics["sequence_consistency"]["reason"]


def test_quick_and_i3d_or_full_exclude_each_other(run, tabletop_rlds, tmp_path, capsys):
    argv = ["evaluate", str(run), "--data", str(tabletop_rlds), "--out", str(tmp_path), "--quick"]
    assert main([*argv, "--full"]) == 2
    assert "--full cannot be combined with --quick" in capsys.readouterr().err
    assert main([*argv, "--i3d", "x.pt"]) == 2
    assert "--i3d cannot be combined with --quick" in capsys.readouterr().err
    assert main(["evaluate"]) == 2
    assert "RUN and --data SRC and --out DIR" in capsys.readouterr().err
