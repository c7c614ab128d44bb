"""`genie-robotics evaluate` on a real (untrained) model and a real RLDS data set; and what it says to wrong input."""

import json

import pytest

from genie_eval.commands import evaluate
from genie_robotics.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import torch

    from genie_robotics import Genie
    from genie_robotics.codebook import CodebookConfig
    from genie_robotics.config import GenieConfig
    from genie_robotics.dynamics import DynamicsConfig
    from genie_robotics.latent_action import LatentActionConfig
    from genie_robotics.video_tokenizer import TokenizerConfig

    torch.manual_seed(0)
    config = GenieConfig(
        image_size=(32, 32),
        clip_length=8,
        tokenizer=TokenizerConfig(
            patch=8, encoder_width=16, encoder_blocks=1, encoder_heads=2, decoder_width=16, decoder_blocks=1,
            decoder_heads=2, codebook=CodebookConfig(num_codes=32),
        ),
        latent_action=LatentActionConfig(
            patch=8, width=16, encoder_blocks=1, decoder_blocks=1, heads=2, codebook=CodebookConfig(num_codes=8)
        ),
        dynamics=DynamicsConfig(width=16, num_blocks=1, heads=2, maskgit_steps=2),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    Genie(config).save_pretrained(folder)
    return folder


def test_an_untrained_model_gets_a_whole_and_honest_report(run, tabletop_rlds, tmp_path, capsys):
    argv = [str(run), "--data", str(tabletop_rlds), "--out", str(tmp_path), "--clips", "2", "--starts", "2"]
    assert evaluate(argv) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data"]["split"] == "test"
    assert report["metrics"]["grounding_r2"]["verdict"] != "pass"
    assert report["metrics"]["ctc"]["verdict"] != "pass"
    assert {"base", "gripper", "image", "rotation"} <= set(report["data"]["true_motion"])
    oracle = report["ladder"][0]
    assert oracle["name"] == "oracle_motion"
    assert oracle["grounding_r2"] > 0.3
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
    ],
)
def test_wrong_input_is_one_line_and_status_2(change, expected, run, tabletop_rlds, tmp_path, capsys):
    taken = tmp_path / "a_file"
    taken.write_text("")
    options = {"--data": str(tabletop_rlds), "--out": str(tmp_path / "out"), **change}
    if change.get("--out"):
        options["--out"] = str(taken)
    first = options.pop("run", str(run))
    assert main(["evaluate", first, *(word for pair in options.items() for word in pair)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error
