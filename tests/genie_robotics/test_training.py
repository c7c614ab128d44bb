"""Training: interrupted equals uninterrupted, stages connect, mistakes are named in one line."""

import copy
import json
import weakref

import pytest
import torch
from safetensors.torch import load_file

from genie_datasets.base.errors import UserError
from genie_robotics import training
from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS
from genie_robotics.models.layers.attention import SelfAttention
from genie_robotics.models.layers.st_transformer import STBlock
from genie_robotics.run_folder import save_config
from genie_robotics.training.config import LoopConfig, StageConfig, check_batch
from genie_robotics.training.distributed import set_up
from genie_robotics.training.optimizer import Optimizers, rate_at
from genie_robotics.training.stages import MODES, STAGES
from genie_robotics.training.trainer import Trainer, prepare
from tests.genie_robotics.conftest import random_codes, random_genie

STAGE = StageConfig(
    steps=12, batch_size=2, learning_rate=1e-3, muon_learning_rate=0.01, warmup_steps=2, schedule="wsd", decay=0.4
)


JOINT = [mode for mode, stages in MODES.items() if "joint" in stages]


def trainer(run, config, clips, stage, save_every=1000, seed=0, mode="cotrain", **changes) -> Trainer:
    torch.manual_seed(0)
    genie = Genie(config)
    stage_config = StageConfig(**{**vars(STAGE), **changes})
    loop = LoopConfig(seed=seed, save_every=save_every, log_every=1, quiet=True)
    return Trainer(genie, stage, clips, stage_config, run, set_up("cpu", "float32"), loop, mode=mode)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("choice", "steps", "seconds", "expected"),
    [("auto", 499, None, False), ("auto", 500, None, True), ("auto", 500, 239.0, False), ("auto", 5, 240.0, True),
     ("yes", 1, None, True), ("no", 10**6, None, False)],
)  # fmt: skip
def test_long_stages_are_compiled_whatever_is_left_of_them(choice, steps, seconds, expected):
    assert LoopConfig(compile=choice).compiles(steps, seconds) == expected


def test_without_a_compiler_training_goes_on_unless_it_was_asked_for(tmp_path, config, clips, monkeypatch, capsys):
    monkeypatch.setattr("genie_robotics.training.trainer.why_not_compiled", lambda device: "no C++ compiler")
    job = trainer(tmp_path, config, clips, "dynamics", steps=600)
    job.loop.quiet, job.take_steps = False, lambda *_: None
    monkeypatch.setattr(job, "finish", lambda: None)
    assert job.train()
    assert "dynamics: not compiled (no C++ compiler), so steps are slower" in capsys.readouterr().out
    job.loop.compile = "yes"
    with pytest.raises(UserError, match=r"--compile yes: no C\+\+ compiler; install it, or pass --compile no"):
        job.train()


def kill_after(trainer: Trainer, num_steps: int) -> None:
    """Runs a trainer and kills it at the start of its step `num_steps`."""
    whole = trainer.train_step

    def step(module, frames):
        if trainer.step == num_steps:
            raise Killed
        return whole(module, frames)

    trainer.train_step = step
    with pytest.raises(Killed):
        trainer.train()


@pytest.mark.parametrize(("stage", "mode"), [*((c, "frozen") for c in COMPONENTS), *(("joint", m) for m in JOINT)])
@pytest.mark.parametrize("killed_at", [2, 7])  # before the codebook starts, and after
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path, config, clips, stage, mode, killed_at):
    trainer(tmp_path / "whole", config, clips, stage, mode=mode, ema=0.9).train()
    kill_after(trainer(tmp_path / "cut", config, clips, stage, save_every=1, mode=mode, ema=0.9), killed_at)
    job = trainer(tmp_path / "cut", config, clips, stage, mode=mode, ema=0.9)
    assert job.train()
    assert job.first_step == killed_at
    for part in job.trained:
        whole, cut = (load_file(tmp_path / run / part / "model.safetensors") for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        for name in whole:
            assert torch.equal(whole[name], cut[name]), name
    lines = [[comparable(line) for line in (tmp_path / run / "metrics.jsonl").open()] for run in ("whole", "cut")]
    assert lines[0] == lines[1], "one line per step"


@pytest.mark.slow  # 10 to 60 s of compilation
def test_a_killed_compiled_run_resumes_to_the_same_weights_bit_for_bit(tmp_path, config, clips):
    jobs = [trainer(tmp_path / name, config, clips, "tokenizer", save_every=1) for name in ("whole", "cut", "cut")]
    for job in jobs:
        job.loop.compile = "yes"
    jobs[0].train()
    kill_after(jobs[1], 7)
    jobs[2].train()
    whole, cut = (load_file(tmp_path / run / "tokenizer" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def comparable(line: str) -> dict:
    return {name: value for name, value in json.loads(line).items() if name != "frames_per_s"}


def test_the_seed_matters(tmp_path, config, clips):
    for seed in (0, 1):
        trainer(tmp_path / str(seed), config, clips, "latent_action", seed=seed).train()
    a, b = (load_file(tmp_path / run / "latent_action" / "model.safetensors") for run in ("0", "1"))
    assert not torch.equal(a["pool.query"], b["pool.query"])


def test_the_same_call_does_not_train_twice(tmp_path, config, clips):
    assert trainer(tmp_path, config, clips, "tokenizer").train()
    before = load_file(tmp_path / "tokenizer" / "model.safetensors")
    assert not trainer(tmp_path, config, clips, "tokenizer").train()
    after = load_file(tmp_path / "tokenizer" / "model.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_is_named_and_training_resumes_from_the_checkpoint_before(tmp_path, config, clips, capsys):
    trainer(tmp_path / "whole", config, clips, "tokenizer").train()
    kill_after(trainer(tmp_path / "cut", config, clips, "tokenizer", save_every=2), 9)
    flip(tmp_path / "cut" / "state" / "tokenizer" / "step_00000008" / "state.pt")
    job = trainer(tmp_path / "cut", config, clips, "tokenizer", save_every=2)
    assert job.train()
    assert job.first_step == 6
    assert "step_00000008 is damaged" in capsys.readouterr().out
    whole, cut = (load_file(tmp_path / run / "tokenizer" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_with_every_checkpoint_damaged_nothing_is_trained(tmp_path, config, clips):
    trainer(tmp_path, config, clips, "tokenizer").train()
    flip(tmp_path / "state" / "tokenizer" / "step_00000012" / "state.pt")
    with pytest.raises(UserError, match=r"damaged .*state\.pt.*; delete .*state/tokenizer to retrain this stage"):
        trainer(tmp_path, config, clips, "tokenizer").train()


@pytest.mark.parametrize("stage", ["tokenizer", "joint"])
def test_a_kill_between_the_last_checkpoint_and_the_result_loses_nothing(tmp_path, config, clips, stage, monkeypatch):
    import genie_robotics.training.trainer as module

    whole = trainer(tmp_path / "whole", config, clips, stage, ema=0.9)
    whole.train()

    def killed(*_, **__):
        raise Killed

    monkeypatch.setattr(module, "save_component", killed)
    with pytest.raises(Killed):
        trainer(tmp_path / "cut", config, clips, stage, ema=0.9).train()
    monkeypatch.undo()
    assert not trainer(tmp_path / "cut", config, clips, stage, ema=0.9).train(), "all steps were done already"
    for name in whole.trained:
        a, b = (load_file(tmp_path / run / name / "model.safetensors") for run in ("whole", "cut"))
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_average_is_the_result_and_the_live_weights_stay_in_the_checkpoint(tmp_path, config, clips):
    job = trainer(tmp_path, config, clips, "latent_action", ema=0.9)
    job.train()
    content = job.checkpoints.newest()[1]
    stored = load_file(tmp_path / "latent_action" / "model.safetensors")
    assert torch.equal(stored["pool.query"], content["average"]["latent_action.pool.query"])
    assert not torch.equal(stored["pool.query"], content["components"]["latent_action"]["model"]["pool.query"])
    with pytest.raises(UserError, match="trained with other options .*ema"):
        trainer(tmp_path, config, clips, "latent_action", steps=20).train()


def test_recomputed_activations_give_the_same_gradients(config, frames):
    """There is no dropout, so that recomputation is exact."""
    found, calls = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = prepare(STAGES["joint"](Genie(config), "warmup"), LoopConfig(checkpoint_activations=recompute))
        calls.append(0)
        for block in (part for part in module.modules() if isinstance(part, STBlock)):
            block.register_forward_pre_hook(lambda *_: calls.append(calls.pop() + 1))
        torch.manual_seed(1)
        loss, _ = module(frames[:, :6])
        loss.backward()
        found.append({name: p.grad for name, p in module.named_parameters()})
    assert calls[1] == 2 * calls[0] > 0, "every block is computed again in the backward pass"
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("stage", ["tokenizer", "latent_action", "dynamics", "joint"])
def test_recomputed_activations_keep_no_keys_and_values_of_earlier_blocks(config, frames, stage):
    """They are for caches; in training they would stay in memory until the last block is done."""
    module = prepare(STAGES[stage](random_genie(config), "cotrain"), LoopConfig(checkpoint_activations=True))
    keys = []
    for part in module.modules():
        if isinstance(part, SelfAttention):
            part.register_forward_hook(lambda _, __, output: keys.append(weakref.ref(output[1][0])))
    loss, _ = module(frames[:, :6])
    assert len(keys) >= 2
    assert all(key() is None for key in keys)
    loss.backward()


@pytest.mark.slow
def test_compiled_training_learns_the_same(tmp_path, config, clips):
    losses = []
    for compiled in ("no", "yes"):
        job = trainer(tmp_path / compiled, config, clips, "tokenizer")
        job.loop.compile = compiled
        job.train()
        losses.append([json.loads(x)["loss"] for x in (tmp_path / compiled / "metrics.jsonl").open()])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_old_checkpoints_are_removed_but_for_milestones(tmp_path, config, clips):
    job = trainer(tmp_path, config, clips, "latent_action", save_every=1)
    job.checkpoints.keep_every = 5
    job.train()
    assert sorted(job.checkpoints.paths()) == [5, 10, 11, 12]


def test_a_stage_changes_only_its_own_component(tmp_path, config, clips):
    job = trainer(tmp_path, config, clips, "dynamics")
    before = {k: v.clone() for k, v in job.genie.state_dict().items()}
    job.train()
    moved = {k.split(".")[0] for k, v in job.genie.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"dynamics"}


def test_training_for_a_time_ends_and_follows_the_clock(tmp_path, config, clips):
    job = trainer(tmp_path, config, clips, "tokenizer", steps=10**9)
    job.seconds = 1.0
    job.train()
    assert 1.0 <= job.elapsed < 20
    assert 0 < job.step < 10**9


@pytest.mark.parametrize("stage", ["tokenizer", "latent_action"])
@pytest.mark.parametrize("started", [False, True])
def test_micro_batches_add_up_to_their_mean_and_the_last_one_updates_the_codes(tmp_path, config, clips, stage, started):
    frames = clips.batch([0, 5, 9, 14])
    getattr(config, stage).quantizer.vq.dead_code_threshold = 0  # random
    job = trainer(tmp_path, config, clips, stage, batch_size=4, micro_batches=2, clip_gradient=1e9)
    job.optimizers.step = lambda *_: None
    if started:
        random_codes(getattr(job.genie, stage).quantizer)
    expected, copies = [], [copy.deepcopy(job.module) for _ in range(2)]
    for module, part in zip(copies, frames.chunk(2), strict=True):
        expected.append(module(part)[0])
        expected[-1].backward()
    values, _ = job.train_step(job.module, frames)
    assert float(values["loss"]) == pytest.approx(sum(loss.item() for loss in expected) / 2, rel=1e-6)
    for own, *others in zip(job.module.parameters(), *(module.parameters() for module in copies), strict=True):
        if own.grad is not None:
            torch.testing.assert_close(own.grad, (others[0].grad + others[1].grad) / 2)
    quantizer, last = getattr(job.genie, stage).quantizer, getattr(copies[1], stage).quantizer
    for name in ("codebook", "ema_count", "ema_sum", "num_updates", "share"):
        assert torch.equal(getattr(quantizer, name), getattr(last, name)), name
    of_both = sum(getattr(module, stage).quantizer.usage for module in copies)
    assert torch.equal(quantizer.usage, of_both)
    assert bool(of_both.any()) == started


@pytest.mark.parametrize("killed_at", [2, 7])
def test_a_killed_run_with_micro_batches_resumes_to_the_same_weights(tmp_path, config, clips, killed_at):
    config.latent_action.quantizer.vq.dead_code_threshold = 0.5
    options = {"mode": "cotrain", "micro_batches": 2}
    trainer(tmp_path / "whole", config, clips, "joint", **options).train()
    kill_after(trainer(tmp_path / "cut", config, clips, "joint", save_every=1, **options), killed_at)
    trainer(tmp_path / "cut", config, clips, "joint", **options).train()
    for part in ("latent_action", "dynamics"):
        whole, cut = (load_file(tmp_path / run / part / "model.safetensors") for run in ("whole", "cut"))
        assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("processes", "micro_batches", "labels", "words"),
    [(1, 3, False, r"--training.tokenizer.batch-size 4 must be a multiple of 1 processes and 3 micro-batches"),
     (2, 4, False, r"2 processes and 4 micro-batches \(--training.tokenizer.micro-batches\)"),
     (3, 1, False, "batch-size 4 must be a multiple of 3 processes; it counts the clips of all processes"),
     (1, 2, True, "--training.tokenizer.micro-batches cannot be combined with --labels")],
)  # fmt: skip
def test_a_batch_that_cannot_be_divided_is_one_line(processes, micro_batches, labels, words):
    with pytest.raises(UserError, match=words) as caught:
        check_batch(StageConfig(batch_size=4, micro_batches=micro_batches), "tokenizer", processes, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pace", "steps"),
    [([0.3] * 9, 5), ([2.0] * 9, 2), ([0.4, 0.7, 0.1], 3), ([0.5, *[0.04] * 99], 14),
     ([*[0.04] * 10, 0.3, *[0.04] * 99], 19)],
)  # fmt: skip
def test_a_run_by_time_ends_with_codes_and_does_not_start_them_early(tmp_path, config, clips, monkeypatch, pace, steps):
    """Codes are due at 95 % of the time, after which a short run may have no step left."""
    vq = config.latent_action.quantizer.vq
    vq.quantize_after_steps, vq.quantize_after_fraction = 10**9, 0.95
    job = trainer(tmp_path, config, clips, "latent_action", mode="frozen")
    job.seconds = 1.0
    clock = [0.0]
    monkeypatch.setattr(training.trainer.time, "monotonic", lambda: clock[0])
    whole = job.train_step

    started = []

    def step(module, frames):
        clock[0] += pace[job.step]
        found = whole(module, frames)
        started.append(job.genie.latent_action.quantizer.started)
        return found

    job.train_step = step
    job.train()
    assert job.step == steps
    assert started.index(True) + 1 == steps
    assert not trainer(tmp_path, config, clips, "latent_action", mode="frozen").lacks_codes, (
        "a run by steps needs no further step"
    )


def test_metrics_are_one_json_object_per_logged_step(tmp_path, config, clips):
    trainer(tmp_path, config, clips, "latent_action").train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all({"stage", "loss", "error_share", "frames_per_s", "rate"} <= set(line) for line in lines)
    assert "perplexity" in lines[-1]


def test_a_loss_that_is_not_finite_stops_training(tmp_path, config, clips):
    job = trainer(tmp_path, config, clips, "tokenizer")
    job.genie.tokenizer.patch_in.weight.data.fill_(float("nan"))
    before = {name: value.clone() for name, value in job.genie.tokenizer.state_dict().items()}
    with pytest.raises(UserError, match="loss nan and gradient norm nan at step 1 are not finite .*learning-rate"):
        job.train()
    after = job.genie.tokenizer.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k != "patch_in.weight"), "no step was taken"
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["loss"] is None
    assert [f["name"] for f in line["findings"]] == ["not_finite"]


def test_figures_of_health_checks_are_logged_and_not_on_the_status_line(tmp_path, config, clips, capsys):
    job = trainer(tmp_path, config, clips, "tokenizer")
    job.loop.health_every, job.loop.log_every, job.loop.quiet = 5, 7, False
    job.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [(line["step"], "not_finite" in line) for line in lines] == [(5, True), (7, False), (10, True), (12, True)]
    shown = [line for line in capsys.readouterr().out.splitlines() if "frames/s" in line]
    assert shown
    assert not any("not_finite" in line for line in shown)


def test_health_checks_change_no_weight_however_often_they_run(tmp_path, config, clips):
    for run, every in (("never", 0), ("often", 2)):
        job = trainer(tmp_path / run, config, clips, "joint")
        job.loop.health_every = every
        job.train()
    for part in ("latent_action", "dynamics"):
        a, b = (load_file(tmp_path / run / part / "model.safetensors") for run in ("never", "often"))
        assert all(torch.equal(a[k], b[k]) for k in a)
    lines = [json.loads(line) for line in (tmp_path / "often" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "not_finite" in line] == [2, 4, 6, 8, 10, 12]


def test_wsd_warms_up_holds_and_falls():
    config = StageConfig(warmup_steps=10, schedule="wsd", decay=0.5, final_rate=0.01)
    rates = [rate_at(step / 100, step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:50] == [1.0] * 40
    assert rates[75] == pytest.approx(0.505)
    assert rates[100] == pytest.approx(0.01)


def test_cosine_goes_from_the_peak_to_the_final_rate():
    config = StageConfig(warmup_steps=1, schedule="cosine", final_rate=0.1)  # the paper: 3e-5 to 3e-6
    assert rate_at(0.0, 10, config) == 1
    assert rate_at(0.5, 50, config) == pytest.approx(0.55)
    assert rate_at(1.0, 100, config) == pytest.approx(0.1)
    constant = StageConfig(warmup_steps=1, final_rate=1.0)  # the paper's tokenizer: 3e-4 to 3e-4
    assert {rate_at(p, 10, constant) for p in (0.0, 0.3, 1.0)} == {1.0}


def test_muon_gets_the_matrices_of_the_blocks_and_adamw_everything_else(config):
    component = Genie(config).dynamics
    adamw, muon = Optimizers(component, STAGE).optimizers
    in_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in component.named_parameters() if id(p) in in_muon}
    assert names
    assert all(".blocks." in name and "modulation" not in name for name in names)
    num = sum(len(group["params"]) for part in (adamw, muon) for group in part.param_groups)
    assert num == len(list(component.parameters()))
    assert len(Optimizers(component, StageConfig()).optimizers) == 1, "the paper uses AdamW only"


def test_a_component_that_is_not_trained_yet_may_change(tmp_path, config):
    from genie_robotics.training.run import check_run_folder

    save_config(config, tmp_path)
    (tmp_path / "state" / "tokenizer").mkdir(parents=True)
    config.dynamics.width = 32
    config.latent_action.width = 32
    check_run_folder(tmp_path, config)
    (tmp_path / "dynamics").mkdir()
    (tmp_path / "dynamics" / "model.safetensors").touch()  # copied from elsewhere
    with pytest.raises(UserError, match=r"another configuration \(dynamics.width: 16 / 32\)"):
        check_run_folder(tmp_path, config)
    config.dynamics.width = 16
    config.tokenizer.encoder_width = 32
    with pytest.raises(UserError, match=r"another configuration \(tokenizer.encoder_width: 16 / 32\)"):
        check_run_folder(tmp_path, config)


def test_the_run_folder_refuses_another_configuration(tmp_path, config):
    from genie_robotics.training.run import check_run_folder

    save_config(config, tmp_path)
    check_run_folder(tmp_path, config)
    (tmp_path / "state" / "joint").mkdir(parents=True)  # it trains the dynamics
    config.dynamics.width = 32
    with pytest.raises(UserError, match=r"another configuration \(dynamics.width: 16 / 32\)"):
        check_run_folder(tmp_path, config)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and not a run folder"):
        check_run_folder(other, config)
