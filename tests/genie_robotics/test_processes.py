"""Two processes compute what one does: the same losses, weights and codebooks for the same batch."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from genie_robotics.processes import gather_rows, mean_over_processes, rand_by_clip

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import json, os, sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from genie_datasets import ClipDataset
from genie_robotics.codebook import CodebookConfig
from genie_robotics.genie import Genie
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.distributed import process_group, set_up
from genie_robotics.training.trainer import Trainer
from tests.genie_robotics.conftest import Squares, tiny_config

stage, mode, folder, steps = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
setup = set_up("cpu", sys.argv[7])
config = tiny_config()
for part in (config.tokenizer, config.latent_action):
    part.codebook.start_after, part.codebook.revive_below = 2, 0.0  # which codes are revived is drawn anew
    part.codebook.num_remembered = 40
config.tokenizer.motion_weight = 1.0
torch.manual_seed(0)
genie = Genie(config)
if stage == "dynamics" or stage == "joint":
    for part in (genie.tokenizer, genie.latent_action):
        part.codebook.vq._codebook.embed.copy_(torch.randn(part.codebook.vq._codebook.embed.shape))
        part.codebook.vq._codebook.initted.fill_(True)
before = {name: value.clone() for name, value in genie.state_dict().items()}
options = StageConfig(steps=steps, schedule="wsd", decay=0.0, batch_size=4, learning_rate=1e-3, warmup=1)
options.matrix_rate = float(sys.argv[5])
clips = ClipDataset(Squares(), clip_length=config.clip_length)
loop = LoopConfig(log_every=1, watch_every=3, sharding=sys.argv[6])
with process_group():
    trainer = Trainer(genie, stage, clips, options, folder / "run", setup, loop, mode=mode)
    trainer.train()
if sys.argv[6] == "full":
    own = sum(p.to_local().numel() for p in trainer.module.parameters())
    assert own < 1.1 * sum(p.numel() for p in trainer.module.parameters()) / setup.world_size
    from genie_robotics.run_folder import load_component
    genie = Genie(config)
    for part in trainer.trained:
        load_component(genie, part, folder / "run")
if setup.is_main:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    torch.save({"model": genie.state_dict(), "before": before, "buffers": dict(genie.named_buffers()),
                "loss": [line["loss"] for line in lines if "loss" in line]}, folder / "result.pt")
sys.stdout.flush()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end, after all is done
"""


def trained(
    stage: str,
    mode: str,
    folder: Path,
    processes: int,
    steps: int = 6,
    sharding: str = "none",
    precision: str = "float32",
) -> dict:
    """Trains to step `steps`, from where the folder's last checkpoint is."""
    folder.mkdir(exist_ok=True)
    (folder / "worker.py").write_text(WORKER)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *(launch if processes > 1 else []), str(folder / "worker.py"), stage, mode, str(folder),
         str(steps), "0", sharding, precision],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}:{ROOT / 'eval'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return torch.load(folder / "result.pt")


def same(one: dict, two: dict, within: float = 0.01) -> None:
    """Weights and codebooks differ by no more than this share of how far training has moved them: sums are rounded in
    another order, and AdamW's first steps have the size of their sign."""
    assert two["loss"] == pytest.approx(one["loss"], rel=2e-4)
    for name, value in one["model"].items():
        moved = (value.float() - one["before"][name].float()).norm()
        assert (two["model"][name].float() - value.float()).norm() <= within * moved + 1e-6, name
    for name, value in one["buffers"].items():
        assert torch.allclose(two["buffers"][name].float(), value.float(), rtol=0.01, atol=1e-3), name


@pytest.mark.parametrize(
    ("stage", "mode"),
    [("tokenizer", "frozen"), ("latent_action", "frozen"), ("dynamics", "frozen"), ("joint", "cotrain"),
     ("joint", "end_to_end")],
)  # fmt: skip
def test_two_processes_train_as_one(stage, mode, tmp_path):
    one = trained(stage, mode, tmp_path / "one", 1)
    assert len(one["loss"]) > 3
    assert len(set(one["loss"])) == len(one["loss"])
    same(one, trained(stage, mode, tmp_path / "two", 2))


@pytest.mark.parametrize(("stage", "mode"), [("tokenizer", "frozen"), ("joint", "cotrain"), ("joint", "end_to_end")])
def test_a_model_cut_over_two_processes_trains_as_one(stage, mode, tmp_path):
    one = trained(stage, mode, tmp_path / "one", 1)
    cut = trained(stage, mode, tmp_path / "cut", 2, sharding="full")
    names = ("tokenizer.",) if stage == "tokenizer" else ("latent_action.", "dynamics.")
    one["model"] = {name: value for name, value in one["model"].items() if name.startswith(names)}
    same({**one, "buffers": {}}, cut)


def test_a_cut_model_in_bfloat16_learns_what_a_whole_one_does(tmp_path):
    one = trained("joint", "cotrain", tmp_path / "one", 2, precision="bfloat16")
    cut = trained("joint", "cotrain", tmp_path / "cut", 2, sharding="full", precision="bfloat16")
    assert cut["loss"] == pytest.approx(one["loss"], rel=0.02)


def test_all_stages_of_a_cut_model_by_the_command(tmp_path, tabletop_rlds):
    from genie_robotics import Genie

    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "genie_robotics",
        "train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--preset", "nano", "--steps", "2",
        "--clip-length", "2", "--device", "cpu", "--watch-every", "1", "--sharding", "full",
    ]  # fmt: skip
    no_muon = [w for s in ("tokenizer", "latent-action", "dynamics") for w in (f"--training.{s}.matrix-rate", "0")]
    for _ in range(2):  # the second time everything is there
        done = subprocess.run([*command, *no_muon], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    genie = Genie.from_pretrained(tmp_path / "run")
    assert genie.latent_action.codebook.started
    refused = subprocess.run([*command[:9], str(tmp_path / "other"), *command[10:]], capture_output=True, text=True)
    assert "error: --sharding full goes with AdamW alone (Muon needs whole matrices)" in refused.stderr


def test_a_checkpoint_of_a_cut_model_goes_on_whole_and_cut(tmp_path):
    whole = trained("latent_action", "frozen", tmp_path / "whole", 1)
    trained("latent_action", "frozen", tmp_path / "cut", 2, steps=4, sharding="full")
    shutil.copytree(tmp_path / "cut", tmp_path / "alone")
    same({**whole, "buffers": {}}, trained("latent_action", "frozen", tmp_path / "alone", 1))
    whole["model"] = {name: value for name, value in whole["model"].items() if name.startswith("latent_action.")}
    same({**whole, "buffers": {}}, trained("latent_action", "frozen", tmp_path / "cut", 4, sharding="full"))


def test_a_checkpoint_of_two_goes_on_with_one_and_with_four(tmp_path):
    whole = trained("latent_action", "frozen", tmp_path / "whole", 1)
    trained("latent_action", "frozen", tmp_path / "two", 2, steps=4)
    shutil.copytree(tmp_path / "two", tmp_path / "four")
    same(whole, trained("latent_action", "frozen", tmp_path / "two", 1))
    same(whole, trained("latent_action", "frozen", tmp_path / "four", 4))


def test_a_killed_process_ends_the_run_and_the_last_checkpoint_is_whole(tmp_path, tabletop_rlds):
    small = [word for part in ("tokenizer.encoder", "tokenizer.decoder") for word in (f"--{part}-blocks", "1")]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "genie_robotics",
        "train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--stage", "tokenizer", "--clip-length", "2",
        "--device", "cpu", "--save-every", "2", "--watch-every", "0", *small,
    ]  # fmt: skip
    job = subprocess.Popen([*command, "--steps", "100000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    states = tmp_path / "run" / "state" / "tokenizer"
    ended = time.monotonic() + 120
    while len(list(states.glob("step_????????"))) < 2 and time.monotonic() < ended:
        time.sleep(0.1)
    ranks = {child.environ().get("RANK"): child for child in psutil.Process(job.pid).children(recursive=True)}
    ranks["1"].kill()
    said = job.communicate(timeout=120)[0]
    assert job.returncode != 0
    assert not psutil.pid_exists(ranks["0"].pid)
    assert "genie_robotics/training" not in said, "a traceback of ours"
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    # torchrun may end rank 0 before it has noticed by itself.
    assert lines in ([], [line for line in lines if "another process of this run is gone" in line][:1]), lines
    before = max(int(path.name[5:]) for path in states.glob("step_????????"))
    done = subprocess.run([*command, "--steps", str(before + 2)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "tokenizer" / "model.safetensors").exists()


def test_alone_nothing_is_asked_of_others():
    rows = torch.randn(7, 3)
    assert gather_rows(rows, 7) is rows
    value = torch.tensor(2.0)
    assert mean_over_processes(value) is value
    torch.manual_seed(3)
    drawn = rand_by_clip(4, 2, device=torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4, 2))
