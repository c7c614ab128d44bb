"""Two processes compute what one does: the same losses, weights and codebooks for the same batch."""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from genie_robotics.models.distributed import gather_rows, mean_over_processes, rand_per_clip
from genie_robotics.training.checkpoint import Checkpoints
from genie_robotics.training.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import json, os, sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from genie_datasets import ClipDataset
from genie_robotics.models.quantizers import VectorQuantizer
from genie_robotics.genie import Genie
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.distributed import process_group, set_up
from genie_robotics.training.trainer import Trainer
from tests.genie_robotics.conftest import Squares, random_codes, tiny_config

job = json.loads(sys.argv[1])
stage, folder = job["stage"], Path(job["folder"])
setup = set_up("cpu", job["precision"])
config = tiny_config()
for part in (config.tokenizer, config.latent_action):
    part.quantizer.vq.quantize_after_steps, part.quantizer.vq.dead_code_threshold = 2, job["dead_code_threshold"]
    part.quantizer.vq.num_remembered, part.quantizer.vq.freeze_after_init = 40, job["freeze"]
if job["dead_code_threshold"]:
    config.latent_action.quantizer.num_codes, config.latent_action.quantizer.vq.decay = 64, 0.5
config.tokenizer.motion_weight = 0.0 if job["freeze"] else 1.0
torch.manual_seed(0)
genie = Genie(config)
if stage == "dynamics" or stage == "joint" or job["freeze"]:
    for part in (genie.tokenizer, genie.latent_action):
        random_codes(part.quantizer)
before = {name: value.clone() for name, value in genie.state_dict().items()}
options = StageConfig(steps=job["steps"], schedule="wsd", decay=0.0, batch_size=4, learning_rate=1e-3, warmup_steps=1)
options.micro_batches = job["micro_batches"]
clips = ClipDataset(Squares(), clip_length=config.clip_length)
loop = LoopConfig(log_every=1, health_every=3, sharding=job["sharding"])
replaced, replace = [], VectorQuantizer._replace
def counted(self, dead, latents, count):
    replaced.append((len(latents), int(dead.sum())))
    replace(self, dead, latents, count)
VectorQuantizer._replace = counted
with process_group():
    trainer = Trainer(genie, stage, clips, options, folder / "run", setup, loop, mode=job["mode"])
    trainer.train()
if job["sharding"] == "full":
    own = sum(p.to_local().numel() for p in trainer.module.parameters())
    assert own < 1.1 * sum(p.numel() for p in trainer.module.parameters()) / setup.world_size
    from genie_robotics.run_folder import load_component
    genie = Genie(config)
    for part in trainer.trained:
        load_component(getattr(genie, part), folder / "run" / part)
if setup.is_main:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    torch.save({"replaced": replaced, "model": genie.state_dict(), "before": before,
                "buffers": dict(genie.named_buffers()),
                "loss": [line["loss"] for line in lines if "loss" in line]}, folder / "result.pt")
sys.stdout.flush()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end, after everything is done
"""


def trained(
    stage: str,
    mode: str,
    folder: Path,
    processes: int,
    *,
    steps: int = 6,
    sharding: str = "none",
    precision: str = "float32",
    dead_code_threshold: float = 0.0,
    micro_batches: int = 1,
    freeze: bool = False,
) -> dict:
    """Trains to step `steps`, from the last checkpoint in `folder`.

    freeze: codes are frozen from the first step, and no loss is relative to a mean over the batch.
    """
    job = {**locals(), "folder": str(folder)}
    folder.mkdir(exist_ok=True)
    (folder / "worker.py").write_text(WORKER)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *(launch if processes > 1 else []), str(folder / "worker.py"), json.dumps(job)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}:{ROOT / 'eval'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return torch.load(folder / "result.pt")


def same(one: dict, two: dict, within: float = 0.01) -> None:
    """Asserts that weights and codebooks differ by at most the fraction `within` of the distance that training has
    moved them: sums are rounded in another order, and AdamW's first steps have the size of their sign."""
    assert two["loss"] == pytest.approx(one["loss"], rel=2e-4)
    for name, value in one["model"].items():
        moved = (value.float() - one["before"][name].float()).norm()
        assert (two["model"][name].float() - value.float()).norm() <= within * moved + 1e-6, name
    for name, value in one["buffers"].items():
        assert torch.allclose(two["buffers"][name].float(), value.float(), rtol=0.01, atol=1e-3), name


@pytest.mark.parametrize(
    ("stage", "mode"),
    [("tokenizer", "frozen"), ("latent_action", "frozen"), ("dynamics", "frozen"), ("joint", "cotrain"),
     ("joint", "end_to_end"), ("joint", "warmup")],
)  # fmt: skip
def test_two_processes_train_as_one(stage, mode, tmp_path):
    one = trained(stage, mode, tmp_path / "one", 1)
    assert len(one["loss"]) > 3
    assert len(set(one["loss"])) == len(one["loss"])
    same(one, trained(stage, mode, tmp_path / "two", 2))


@pytest.mark.parametrize(("processes", "micro_batches", "sharding"), [(1, 4, "none"), (2, 2, "none"), (2, 2, "full")])
def test_micro_batches_accumulate_the_gradient_of_the_whole_batch(processes, micro_batches, sharding, tmp_path):
    one = trained("tokenizer", "frozen", tmp_path / "one", 1, freeze=True)
    assert len(set(one["loss"])) == len(one["loss"])
    one["buffers"] = {n: v for n, v in one["buffers"].items() if not n.endswith(".share")}  # of the last micro-batch
    options = {"freeze": True, "micro_batches": micro_batches, "sharding": sharding}
    parts = trained("tokenizer", "frozen", tmp_path / "parts", processes, **options)
    same(published(one, "tokenizer") if sharding == "full" else one, parts)


def published(result: dict, *components: str) -> dict:
    """The part of a result that the run folder has of these components: no buffers of training."""
    names = tuple(f"{name}." for name in components)
    return {**result, "model": {n: v for n, v in result["model"].items() if n.startswith(names)}, "buffers": {}}


@pytest.mark.parametrize(
    ("stage", "mode", "sharding"),
    [("tokenizer", "frozen", "none"), ("tokenizer", "frozen", "full"), ("latent_action", "frozen", "none"),
     ("dynamics", "frozen", "none"), ("joint", "cotrain", "none")],
)  # fmt: skip
def test_two_processes_with_micro_batches_train_as_one_with_micro_batches(stage, mode, sharding, tmp_path):
    """Masks, motion, codes and their replacements are those of one process with as many micro-batches."""
    options = {"micro_batches": 2, "dead_code_threshold": 0.5}
    one = trained(stage, mode, tmp_path / "one", 1, **options)
    two = trained(stage, mode, tmp_path / "two", 2, sharding=sharding, **options)
    assert two["replaced"] == one["replaced"]
    assert bool(one["replaced"]) == (stage != "dynamics")
    same(published(one, stage) if sharding == "full" else one, two)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_relative_to_a_mean_is_relative_to_its_micro_batch(processes, tmp_path):
    """The latent action model's loss is relative to the motion of the micro-batch, so it differs slightly."""
    one = trained("latent_action", "frozen", tmp_path / "one", 1)
    parts = trained("latent_action", "frozen", tmp_path / "parts", processes, micro_batches=2)
    assert parts["loss"] != pytest.approx(one["loss"], rel=1e-5)
    assert parts["loss"] == pytest.approx(one["loss"], rel=0.02)


@pytest.mark.parametrize("stage", ["tokenizer", "latent_action"])
def test_two_processes_replace_the_same_codes_as_one(stage, tmp_path):
    one = trained(stage, "frozen", tmp_path / "one", 1, dead_code_threshold=0.5)
    assert sum(count for _, count in one["replaced"]) >= 2, "nothing was replaced: this test shows nothing"
    two = trained(stage, "frozen", tmp_path / "two", 2, dead_code_threshold=0.5)
    assert two["replaced"] == one["replaced"]  # from as many latents, as many codes
    same(one, two)


@pytest.mark.parametrize(
    ("stage", "mode"), [("tokenizer", "frozen"), ("joint", "cotrain"), ("joint", "end_to_end"), ("joint", "warmup")]
)
def test_a_model_sharded_over_two_processes_trains_as_one(stage, mode, tmp_path):
    one = trained(stage, mode, tmp_path / "one", 1)
    sharded = trained(stage, mode, tmp_path / "sharded", 2, sharding="full")
    same(published(one, *STAGES[stage].trains), sharded)


def test_a_sharded_model_in_bfloat16_learns_what_a_whole_one_does(tmp_path):
    one = trained("joint", "cotrain", tmp_path / "one", 2, precision="bfloat16")
    sharded = trained("joint", "cotrain", tmp_path / "sharded", 2, sharding="full", precision="bfloat16")
    assert sharded["loss"] == pytest.approx(one["loss"], rel=0.02)


def test_all_stages_of_a_sharded_model_by_the_command(tmp_path, tabletop_rlds):
    from genie_robotics import Genie

    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "genie_robotics",
        "train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--preset", "nano", "--steps", "2",
        "--clip-length", "2", "--device", "cpu", "--health-every", "1", "--sharding", "full",
    ]  # fmt: skip
    no_muon = [
        w for s in ("tokenizer", "latent-action", "dynamics") for w in (f"--training.{s}.muon-learning-rate", "0")
    ]
    for _ in range(2):  # the second time everything is trained already
        done = subprocess.run([*command, *no_muon], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    genie = Genie.from_pretrained(tmp_path / "run")
    assert genie.latent_action.quantizer.started
    refused = subprocess.run([*command[:9], str(tmp_path / "other"), *command[10:]], capture_output=True, text=True)
    assert "error: --sharding full cannot be combined with Muon" in refused.stderr


class Harm:
    def __reduce__(self):
        return os.system, ("echo harm > /dev/null",)


def list_again(shards: Path) -> None:
    """Rewrites SHA256SUMS for the changed files."""
    names = ["state.pt", *(f"shards/{path.name}" for path in sorted(shards.iterdir()))]
    done = subprocess.run(["sha256sum", *names], cwd=shards.parent, capture_output=True, check=True)
    (shards.parent / "SHA256SUMS").write_bytes(done.stdout)


def strange_layout(shards: Path) -> None:
    (shards / ".metadata").write_bytes(pickle.dumps(Harm()))
    list_again(shards)


def strange_file(shards: Path) -> None:
    layout = pickle.loads((shards / ".metadata").read_bytes())
    next(iter(layout.storage_data.values())).relative_path = "../elsewhere"
    (shards / ".metadata").write_bytes(pickle.dumps(layout))
    list_again(shards)


def unlisted(shards: Path) -> None:
    sums = shards.parent / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "shards" not in line))


def test_a_checkpoint_of_a_sharded_model_resumes_whole_and_sharded(tmp_path):
    whole = trained("latent_action", "frozen", tmp_path / "whole", 1)
    trained("latent_action", "frozen", tmp_path / "sharded", 2, steps=4, sharding="full")
    kept = tmp_path / "sharded/run/state/latent_action/step_00000004"
    assert sorted(path.name for path in (kept / "shards").iterdir()) == [".metadata", "__0_0.distcp", "__1_0.distcp"]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=kept, check=True)
    rest = torch.load(kept / "state.pt", weights_only=True)
    assert all(v.is_meta for name, v in rest["components"]["latent_action"]["model"].items() if "encoder" in name)
    content = Checkpoints(kept.parent).newest()[1]  # in one process, as `doctor` reads it
    assert not any(value.is_meta for value in content["components"]["latent_action"]["model"].values())
    for harm, why in (
        (strange_layout, ".metadata imports posix.system, which is not allowed"),
        (strange_file, ".metadata names ../elsewhere, which SHA256SUMS does not list"),
        (unlisted, "SHA256SUMS does not list its shards"),
        (lambda shards: (shards / "__0_0.distcp").unlink(), "shards/__0_0.distcp cannot be read: No such file"),
    ):
        shutil.rmtree(kept.with_name("step_00000009"), ignore_errors=True)
        shutil.copytree(kept, kept.with_name("step_00000009"))
        harm(kept.with_name("step_00000009") / "shards")
        said = []
        assert Checkpoints(kept.parent).newest(said.append)[0] == 4
        assert len(said) == 1
        assert why in said[0]
    shutil.rmtree(kept.with_name("step_00000009"))
    shutil.copytree(tmp_path / "sharded", tmp_path / "alone")
    same({**whole, "buffers": {}}, trained("latent_action", "frozen", tmp_path / "alone", 1))
    # a later one of which a shard is damaged: all processes skip it
    shutil.copytree(kept, kept.with_name("step_00000005"))
    shard = kept.with_name("step_00000005") / "shards/__1_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-100] + bytes(100))
    said = []
    assert Checkpoints(kept.parent).newest(said.append)[0] == 4
    assert "the SHA-256 of shards/__1_0.distcp differs" in said[0]
    resumed = trained("latent_action", "frozen", tmp_path / "sharded", 4, sharding="full")
    same(published(whole, "latent_action"), resumed)


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_interrupted_processes_end_bit_for_bit_as_uninterrupted_ones(sharding, tmp_path):
    straight = trained("latent_action", "frozen", tmp_path / "straight", 2, sharding=sharding)
    trained("latent_action", "frozen", tmp_path / "cut", 2, steps=4, sharding=sharding)
    resumed = trained("latent_action", "frozen", tmp_path / "cut", 2, sharding=sharding)
    for name, value in straight["model"].items():
        assert torch.equal(resumed["model"][name], value), name
    assert resumed["loss"][-2:] == straight["loss"][-2:]


FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor
from genie_datasets.base.errors import UserError
from genie_robotics.training.checkpoint import Checkpoints
from genie_robotics.training.stages import STAGES

dist.init_process_group("gloo")
cut = distribute_tensor(torch.arange(80_000.0).view(8, -1), DeviceMesh("cpu", [0, 1]), [Shard(0)])
kept = Checkpoints(Path(sys.argv[1]))
kept.save(1, {"weights": [cut, 7], "more": torch.ones(2)})
if dist.get_rank() == int(sys.argv[2]):  # its disk takes no more than this
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    kept.save(2, {"weights": [cut + 1, 7], "more": torch.ones(int(sys.argv[4]))})
except UserError as error:
    print(f"rank {dist.get_rank()}: {error}", flush=True)
dist.barrier()
if dist.get_rank() == 0:
    print("left:", sorted(os.listdir(sys.argv[1])), flush=True)
step, content = kept.newest(layout={"weights": [cut]})
assert step == 1 and torch.equal(content["weights"][0].full_tensor(), cut.full_tensor()) and content["weights"][1] == 7
os._exit(0)
"""


@pytest.mark.parametrize(("full", "limit", "rest"), [(1, 4096, 2), (0, 300_000, 200_000)])
def test_a_full_disk_of_one_process_is_one_line_in_each(full, limit, rest, tmp_path):
    """A shard of the second process, or the first one's state.pt, cannot be written."""
    (tmp_path / "worker.py").write_text(FULL_DISK)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "worker.py")]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "state"), str(full), str(limit), str(rest)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}:{ROOT / 'eval'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("rank "))
    assert [line[:7] for line in lines] == ["rank 0:", "rank 1:"]
    assert all("cannot write checkpoint" in line and "earlier checkpoints are kept" in line for line in lines), lines
    assert "left: ['step_00000001']" in done.stdout


SLOW_FIRST = """
import os, time
from datetime import timedelta
import torch.distributed as dist
from genie_robotics.training.distributed import set_up
dist.init_process_group("gloo")
dist.barrier()
dist.distributed_c10d._set_pg_timeout(timedelta(seconds=2), dist.group.WORLD)
made = []
set_up("cpu", "float32").prepare_on_main(lambda: (time.sleep(5), made.append(1)))
assert made == [1] * (dist.get_rank() == 0)
print("continued", flush=True)
dist.barrier()
os._exit(0)
"""


def test_the_first_process_may_prepare_for_longer_than_a_step_may_take(tmp_path):
    (tmp_path / "worker.py").write_text(SLOW_FIRST)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "worker.py")]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}:{ROOT / 'eval'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("continued") == 2


def test_a_checkpoint_of_two_processes_resumes_with_one_and_with_four(tmp_path):
    whole = trained("latent_action", "frozen", tmp_path / "whole", 1)
    trained("latent_action", "frozen", tmp_path / "two", 2, steps=4)
    shutil.copytree(tmp_path / "two", tmp_path / "four")
    same(whole, trained("latent_action", "frozen", tmp_path / "two", 1))
    same(whole, trained("latent_action", "frozen", tmp_path / "four", 4))


def test_a_killed_process_ends_the_run_and_the_last_checkpoint_is_whole(tmp_path, tabletop_rlds):
    small = [word for part in ("tokenizer.encoder", "tokenizer.decoder") for word in (f"--{part}-num-blocks", "1")]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "genie_robotics",
        "train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--stage", "tokenizer", "--clip-length", "2",
        "--device", "cpu", "--save-every", "2", "--health-every", "0", *small,
    ]  # fmt: skip
    job = subprocess.Popen([*command, "--steps", "100000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    states = tmp_path / "run" / "state" / "tokenizer"
    ended = time.monotonic() + 300
    try:
        while len(list(states.glob("step_????????"))) < 2 and job.poll() is None and time.monotonic() < ended:
            time.sleep(0.1)
        ranks = {child.environ().get("RANK"): child for child in psutil.Process(job.pid).children(recursive=True)}
        ranks["1"].kill()
        said = job.communicate(timeout=300)[0]
    finally:
        job.terminate()  # torchrun takes its processes with it
    assert job.returncode != 0
    assert not psutil.pid_exists(ranks["0"].pid)
    assert "genie_robotics/training" not in said, "a traceback of ours"
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    # torchrun may end rank 0 before it notices.
    assert lines in ([], [line for line in lines if "another process of this run has ended" in line][:1]), lines
    before = max(int(path.name[5:]) for path in states.glob("step_????????"))
    done = subprocess.run([*command, "--steps", str(before + 2)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "tokenizer" / "model.safetensors").exists()


def test_a_process_reports_in_one_line_that_another_was_killed(tmp_path, tabletop_rlds):
    """Without torchrun, which may end the process before it notices."""
    small = [word for part in ("tokenizer.encoder", "tokenizer.decoder") for word in (f"--{part}-num-blocks", "1")]
    command = [
        sys.executable, "-m", "genie_robotics", "train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--stage",
        "tokenizer", "--clip-length", "2", "--device", "cpu", "--save-every", "2", "--health-every", "0", "--steps",
        "100000", *small,
    ]  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    jobs = [
        subprocess.Popen(command, env={**meeting, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
        for rank in ("0", "1")
    ]  # fmt: skip
    states, ended = tmp_path / "run" / "state" / "tokenizer", time.monotonic() + 300
    try:
        while len(list(states.glob("step_????????"))) < 2 and jobs[0].poll() is None and time.monotonic() < ended:
            time.sleep(0.1)
        jobs[1].kill()
        said = jobs[0].communicate(timeout=300)[0]
    finally:
        for job in jobs:
            job.kill()
    assert jobs[0].returncode == 2, said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    assert lines[0].startswith("error: rank 0: another process of this run has ended (killed,"), said
    assert "Traceback" not in said
    assert len(list(states.glob("step_????????"))) >= 2


def test_a_single_process_does_not_communicate():
    rows = torch.randn(7, 3)
    assert gather_rows(rows, 7) is rows
    value = torch.tensor(2.0)
    assert mean_over_processes(value) is value
    torch.manual_seed(3)
    drawn = rand_per_clip(4, 2, device=torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4, 2))
