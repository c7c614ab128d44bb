"""Two processes compute what one does: the same losses, weights and codebooks for the same batch."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

from genie_datasets import ClipDataset
from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.distributed import gather_rows, mean_over_processes, rand_per_clip
from genie_robotics.models.quantizers import QuantizerConfig, VectorQuantizer
from genie_robotics.run_folder import load_component
from genie_robotics.training.checkpoint import Checkpoints
from genie_robotics.training.config import LoopConfig, StageConfig
from genie_robotics.training.distributed import process_group, set_up
from genie_robotics.training.stages import STAGES
from genie_robotics.training.trainer import Trainer
from tests.genie_robotics.conftest import Squares, random_codes, tiny_config, tiny_options
from tests.genie_robotics.ranks import Ranks, command, run_ranks


def train(job: dict, folder: Path) -> None:
    """The work of a rank: trains the tiny model; rank 0 leaves `result.pt`."""
    stage = job["stage"]
    setup = set_up("cpu", job["precision"])
    config = tiny_config()
    for part in (config.tokenizer, config.latent_action):
        part.quantizer.vq.quantize_after_steps, part.quantizer.vq.dead_code_threshold = 2, job["dead_code_threshold"]
        part.quantizer.vq.num_remembered, part.quantizer.vq.freeze_after_init = 40, job["freeze"]
    if job["dead_code_threshold"]:
        config.latent_action.quantizer.num_codes, config.latent_action.quantizer.vq.decay = 64, 0.5
    config.tokenizer.motion_weight = 0.0 if job["freeze"] else 1.0
    if job["reference"] != "none":  # latents of unchanged patches are equal, so k-means' codes depend on rounding
        config.tokenizer.reference, config.tokenizer.quantizer = job["reference"], QuantizerConfig(15, 8, "fsq")
    config = config.resolved()
    torch.manual_seed(0)
    genie = Genie(config)
    if stage in ("dynamics", "joint") or job["freeze"]:
        for part in (genie.tokenizer, genie.latent_action):
            if isinstance(part.quantizer, VectorQuantizer):
                random_codes(part.quantizer)
    before = {name: value.clone() for name, value in genie.state_dict().items()}
    options = StageConfig(
        steps=job["steps"], schedule="wsd", decay=0.0, batch_size=4, learning_rate=1e-3, warmup_steps=1,
        micro_batches=job["micro_batches"],
    )  # fmt: skip
    clips = ClipDataset(Squares(), clip_length=config.clip_length)
    loop = LoopConfig(log_every=1, health_every=3, sharding=job["sharding"])
    replaced, replace = [], VectorQuantizer._replace

    def counted(self, dead, latents, *rest):
        replaced.append((len(latents) * setup.world_size, int(dead.sum())))
        replace(self, dead, latents, *rest)

    VectorQuantizer._replace = counted  # this process has no other work
    with process_group():
        trainer = Trainer(genie, stage, clips, options, folder / "run", setup, loop, mode=job["mode"])
        trainer.train()
    if job["sharding"] == "full":
        own = sum(p.to_local().numel() for p in trainer.module.parameters())
        assert own < 1.1 * sum(p.numel() for p in trainer.module.parameters()) / setup.world_size
        genie = Genie(config)
        for part in trainer.trained:
            load_component(getattr(genie, part), folder / "run" / part)
    if setup.is_main:
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        found = {"replaced": replaced, "model": genie.state_dict(), "before": before, "loss": losses}
        torch.save({**found, "buffers": dict(genie.named_buffers())}, folder / "result.pt")


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
    reference: str = "none",
) -> dict:
    """Trains to step `steps`, from the last checkpoint in `folder`.

    freeze: codes are frozen from the first step, and no loss is relative to a mean over the batch.
    """
    job = {name: value for name, value in locals().items() if name not in ("folder", "processes")}
    run_ranks(folder, train, job, folder, processes=processes)
    return torch.load(folder / "result.pt")


def same(one: dict, two: dict, within: float = 0.01) -> None:
    """Asserts that weights and codebooks differ by at most the fraction `within` of the distance that training has
    moved them: sums are rounded in another order, and AdamW's first steps have the size of their sign."""
    assert two["loss"] == pytest.approx(one["loss"], rel=2e-4)
    for name, value in one["model"].items():
        moved = (value.float() - one["before"][name].float()).norm()
        assert (two["model"][name].float() - value.float()).norm() <= within * moved + 1e-6, name
    for name, value in one["buffers"].items():
        atol = 1e-3 if value.is_floating_point() else 2  # a latent halfway between two codes is counted for either
        assert torch.allclose(two["buffers"][name].float(), value.float(), rtol=0.01, atol=atol), name


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


@pytest.mark.parametrize(("stage", "sharding"), [("tokenizer", "none"), ("tokenizer", "full"), ("dynamics", "none")])
def test_two_processes_train_as_one_with_a_reference(stage, sharding, tmp_path):
    one = trained(stage, "frozen", tmp_path / "one", 1, reference="start")
    assert len(set(one["loss"])) == len(one["loss"]) > 3
    two = trained(stage, "frozen", tmp_path / "two", 2, reference="start", sharding=sharding)
    same(published(one, stage) if sharding == "full" else one, two)


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
    argv = [
        "train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--preset", "nano", *tiny_options(), "--steps",
        "2", "--device", "cpu", "--health-every", "1", "--sharding", "full",
    ]  # fmt: skip
    no_muon = [
        w for s in ("tokenizer", "latent-action", "dynamics") for w in (f"--training.{s}.muon-learning-rate", "0")
    ]
    for _ in range(2):  # the second time everything is trained already
        run_ranks(tmp_path / "logs", command, [*argv, *no_muon])
    genie = Genie.from_pretrained(tmp_path / "run")
    assert genie.latent_action.quantizer.started
    refused = Ranks(tmp_path / "logs", command, ["train", str(tmp_path / "other"), *argv[2:]])
    assert refused.wait() == [2, 2]
    assert "error: --sharding full cannot be combined with Muon" in refused.output()[0]


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


def save_on_a_full_disk(state: Path, full: int, limit: int, more: int) -> None:
    """The work of a rank: saves twice; the second time no file of rank `full` may have more than `limit` bytes."""
    dist.init_process_group("gloo")
    sharded = distribute_tensor(torch.arange(80_000.0).view(8, -1), DeviceMesh("cpu", [0, 1]), [Shard(0)])
    kept = Checkpoints(state)
    kept.save(1, {"weights": [sharded, 7], "more": torch.ones(2)})
    if dist.get_rank() == full:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        kept.save(2, {"weights": [sharded + 1, 7], "more": torch.ones(more)})
    except UserError as error:
        print(f"error: {error}")
    dist.barrier()
    if dist.get_rank() == 0:
        assert os.listdir(state) == ["step_00000001"]
    step, content = kept.newest(layout={"weights": [sharded]})
    assert step == 1
    assert torch.equal(content["weights"][0].full_tensor(), sharded.full_tensor())
    assert content["weights"][1] == 7


@pytest.mark.parametrize(("full", "limit", "more"), [(1, 4096, 2), (0, 300_000, 200_000)])
def test_a_full_disk_of_one_process_is_one_line_in_each(full, limit, more, tmp_path):
    """A shard of the second process, or the first one's state.pt, cannot be written."""
    for output in run_ranks(tmp_path, save_on_a_full_disk, tmp_path / "state", full, limit, more):
        lines = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, output
        assert "cannot write checkpoint" in lines[0]
        assert "earlier checkpoints are kept" in lines[0]


def prepare_for_longer_than_a_step() -> None:
    """The work of a rank: the first prepares for longer than the timeout of the run's group."""
    dist.init_process_group("gloo")
    dist.barrier()
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=2), dist.group.WORLD)
    made = []
    set_up("cpu", "float32").prepare_on_main(lambda: (time.sleep(5), made.append(1)))
    assert made == [1] * (dist.get_rank() == 0)
    print("continued")


def test_the_first_process_may_prepare_for_longer_than_a_step_may_take(tmp_path):
    assert run_ranks(tmp_path, prepare_for_longer_than_a_step) == ["continued\n"] * 2


def test_a_checkpoint_of_two_processes_resumes_with_one_and_with_four(tmp_path):
    whole = trained("latent_action", "frozen", tmp_path / "whole", 1)
    trained("latent_action", "frozen", tmp_path / "two", 2, steps=4)
    shutil.copytree(tmp_path / "two", tmp_path / "four")
    same(whole, trained("latent_action", "frozen", tmp_path / "two", 1))
    same(whole, trained("latent_action", "frozen", tmp_path / "four", 4))


def training_of_the_tokenizer(run: Path, data: Path, steps: int) -> list[str]:
    return [
        "train", str(run), "--data", str(data), "--stage", "tokenizer", "--preset", "nano", *tiny_options(),
        "--device", "cpu", "--save-every", "2", "--health-every", "0", "--steps", str(steps),
    ]  # fmt: skip


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.glob("state/tokenizer/step_????????"))


def wait_for_checkpoints(run: Path, is_running: Callable[[], bool]) -> None:
    ended = time.monotonic() + 300
    while len(checkpoints(run)) < 2 and is_running() and time.monotonic() < ended:
        time.sleep(0.02)


def test_a_killed_process_ends_the_run_and_the_last_checkpoint_is_whole(tmp_path, tabletop_rlds):
    """With torchrun itself."""
    run = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    job = subprocess.Popen(
        [*launch, "-m", "genie_robotics", *training_of_the_tokenizer(run, tabletop_rlds, 100_000)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        wait_for_checkpoints(run, lambda: job.poll() is None)
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
    steps = max(checkpoints(run)) + 2
    run_ranks(tmp_path / "logs", command, training_of_the_tokenizer(run, tabletop_rlds, steps))
    assert (run / "tokenizer" / "model.safetensors").exists()


def test_a_process_reports_in_one_line_that_another_was_killed(tmp_path, tabletop_rlds):
    """Without torchrun, which may end the process before it notices."""
    run = tmp_path / "run"
    ranks = Ranks(tmp_path / "logs", command, training_of_the_tokenizer(run, tabletop_rlds, 100_000))
    try:
        first, second = ranks.processes
        wait_for_checkpoints(run, first.is_alive)
        second.kill()
        statuses = ranks.wait()
    finally:
        ranks.kill()
    said = ranks.output()[0]
    assert statuses == [2, -signal.SIGKILL], said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    assert lines[0].startswith("error: rank 0: another process of this run has ended (killed,"), said
    assert "Traceback" not in said
    assert len(checkpoints(run)) >= 2


def test_a_single_process_does_not_communicate():
    rows = torch.randn(7, 3)
    assert gather_rows(rows, 7) is rows
    value = torch.tensor(2.0)
    assert mean_over_processes(value) is value
    torch.manual_seed(3)
    drawn = rand_per_clip(4, 2, device=torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4, 2))
