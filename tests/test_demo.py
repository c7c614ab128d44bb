"""`genie-robotics demo` end to end: data, three trained components, report."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import av
import matplotlib
import pytest

from genie_robotics.cli import main

METRICS = {
    "codebook_perplexity", "grounding_r2", "ctc", "sequence_consistency", "command_bits", "command_bits_physical",
    "counterfactual_id", "delta_psnr_t4", "action_attributable_fraction", "state_leak", "nuisance_flip_rate",
    "tokenizer_psnr", "dream_psnr",
}  # fmt: skip


def read_report(folder: Path) -> dict:
    from genie_robotics import Genie

    assert Genie.from_pretrained(folder / "run").config.preset == "nano"
    report = json.loads((folder / "report" / "report.json").read_text())
    assert set(report["metrics"]) >= METRICS
    html = (folder / "report" / "report.html").read_text()
    assert "data:image/png;base64," in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    for figure in report["figures"]:
        assert (folder / "report" / figure["file"]).stat().st_size > 5_000
    return report


def test_the_demo_on_rlds(tmp_path, tabletop_rlds, small_suite, monkeypatch, capsys):
    """With a small suite; the slow test below evaluates as the command does."""
    argv = ["demo", "--data", str(tabletop_rlds), "--out", str(tmp_path), "--minutes", "0.1", "--clip-length", "8"]
    assert main(argv) == 0
    report = read_report(tmp_path)
    assert report["data"]["split"] == "test"
    # On a busy machine, a few seconds of training can leave a single code, which has no grounding_r2.
    metrics = report["metrics"]
    assert metrics["grounding_r2"]["value"] is not None or metrics["codebook_perplexity"]["value"] < 1.01
    printed = capsys.readouterr().out
    assert printed.startswith("about 6.1 minutes on two cores: training 0.1 > evaluation 6;")
    assert [line.split(" (")[0] for line in printed.splitlines() if line.startswith("[")] == [
        "[1/4] data", "[2/4] training", "[3/4] evaluation", "[4/4] result"
    ]  # fmt: skip
    assert f"report: {tmp_path / 'report' / 'report.html'}" in printed
    # The notebook runs on the output of the demo.
    for name, value in {"RUN": tmp_path / "run", "DATA": tabletop_rlds, "OUT": tmp_path / "look"}.items():
        monkeypatch.setenv(name, str(value))
    matplotlib.use("Agg")
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "notebooks" / "first_look.py"))
    assert {p.name for p in (tmp_path / "look").iterdir()} == {"codes.png", "actions.png"}


def write_videos(source: Path, folder: Path) -> None:
    from genie_datasets import open_source

    split = open_source(str(source)).split("train")
    folder.mkdir()
    for episode in range(split.num_episodes):
        with av.open(str(folder / f"push_the_can_{episode}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.height, stream.width = split.image_size
            for image in split.frames(episode):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())


@pytest.mark.slow
def test_the_demo_on_a_folder_of_mp4(tmp_path, tabletop_rlds):
    write_videos(tabletop_rlds, tmp_path / "videos")
    argv = ["demo", "--data", str(tmp_path / "videos"), "--hz", "3", "--out", str(tmp_path / "out"), "--minutes", "0.2"]
    assert main([*argv, "--clip-length", "8"]) == 0
    report = read_report(tmp_path / "out")
    for name in ("grounding_r2", "ctc"):
        assert report["metrics"][name]["verdict"] == "not run"
        assert "true motion" in report["metrics"][name]["reason"]
    assert report["metrics"]["dream_psnr"]["value"] is not None


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path, tabletop_rlds):
    """`torchrun` with two processes on one machine gives a run folder as one process does."""
    from genie_robotics import Genie

    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "genie_robotics",
        "train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--steps", "3", "--clip-length", "8",
        "--device", "cpu", "--dynamics.width", "64", "--tokenizer.quantizer.vq.quantize-after-steps", "1",
        "--latent-action.quantizer.vq.quantize-after-steps", "1",
    ]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # torchrun leaves a folder there
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 process(es)" in done.stdout
    genie = Genie.from_pretrained(tmp_path / "run")
    assert genie.latent_action.quantizer.started
