"""`estimate`: numbers of parameters as the paper prints them, memory as torch allocates it, operations as torch counts
them."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from genie_robotics.benchmarks.training import StepBench
from genie_robotics.cli import main
from genie_robotics.estimate.commands import num_parameters
from genie_robotics.estimate.flops import frame_flops, step_flops
from genie_robotics.estimate.memory import pass_bytes, step_memory
from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS, GenieConfig
from genie_robotics.models.dynamics import DynamicsBatch
from genie_robotics.models.presets import preset
from genie_robotics.training.config import LoopConfig, StageConfig, training_preset
from genie_robotics.training.distributed import set_up
from genie_robotics.training.stages import STAGES
from genie_robotics.training.trainer import prepare

SPEC = importlib.util.spec_from_file_location(
    "parameters_page", Path(__file__).resolve().parents[2] / "tools/parameters_page.py"
)
parameters_page = importlib.util.module_from_spec(SPEC)
sys.modules["parameters_page"] = parameters_page  # for its dataclasses
SPEC.loader.exec_module(parameters_page)

DEPTHS = (
    "tokenizer.encoder_num_blocks", "tokenizer.decoder_num_blocks", "latent_action.encoder_num_blocks",
    "latent_action.decoder_num_blocks", "dynamics.num_blocks",
)  # fmt: skip
SHALLOW = [word for name in DEPTHS for word in (f"--{name.replace('_', '-')}", "1")]  # options of the command


def shallow(name: str = "nano", mode: str = "frozen", num_blocks: int = 2) -> GenieConfig:
    """A preset with few blocks: more of the same blocks take longer and show no more."""
    config = preset(name, mode)
    for path in DEPTHS:
        component, _, field = path.partition(".")
        setattr(getattr(config, component), field, num_blocks)
    return config


@pytest.mark.parametrize("printed", parameters_page.PRINTED, ids=lambda entry: f"{entry.preset}-{entry.component}")
def test_presets_have_as_many_parameters_as_the_paper_prints(printed):
    ours = num_parameters(preset(printed.preset))[printed.component] / 1e6
    if printed.by_leading_digit:
        assert f"{ours:.0e}"[0] == f"{printed.millions:.0e}"[0]
    else:
        assert ours == pytest.approx(printed.millions, rel=0.1)


def test_the_page_of_parameters_is_up_to_date():
    assert parameters_page.PAGE_FILE.read_text() == parameters_page.page(), "run tools/parameters_page.py"


def allocated(module: torch.nn.Module, batch: tuple[torch.Tensor | DynamicsBatch, ...], path: Path) -> int:
    """Peak bytes of torch's allocator in one forward and backward pass."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = module(*batch)
        loss.backward()
    module.zero_grad(set_to_none=True)
    profiled.export_chrome_trace(str(path))
    events = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    totals = [event["args"]["Total Allocated"] for event in events]
    return max(totals) - (totals[0] - events[0]["args"]["Bytes"])


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("part", COMPONENTS)
def test_memory_of_a_pass_is_what_the_allocator_holds(part, checkpoint, tmp_path):
    config = shallow()
    torch.manual_seed(0)
    bench = StepBench(config, part, 1, LoopConfig(checkpoint_activations=checkpoint), set_up(precision="bfloat16"))
    bench.step()
    found = []
    for clips in (1, 3):
        bench.batch = bench.random_batch(clips)
        found.append(allocated(bench.component, bench.batch, tmp_path / f"{clips}.json"))
    few, many = (
        pass_bytes(config, part, clips, mode="frozen", on_gpu=False, checkpoint=checkpoint) for clips in (1, 3)
    )
    assert many == pytest.approx(found[1], rel=0.1)
    assert many - few == pytest.approx(found[1] - found[0], rel=0.1)


@pytest.mark.parametrize(
    ("stage", "mode", "checkpoint"),
    [*(("joint", mode, checkpoint) for mode in ("cotrain", "end_to_end", "warmup") for checkpoint in (False, True)),
     ("dynamics", "frozen", False)],
)  # fmt: skip
def test_memory_of_a_stage_is_what_the_allocator_holds(stage, mode, checkpoint, tmp_path):
    """Including the frozen models that it reads, and its quantizers."""
    config = shallow(mode=mode)
    torch.manual_seed(0)
    genie = Genie(config)
    for part in (genie.tokenizer, genie.latent_action):
        part.quantizer.has_started.fill_(True)
    module = prepare(STAGES[stage](genie, mode), LoopConfig(checkpoint_activations=checkpoint))
    frames = torch.randint(0, 256, (6, 16, 64, 64, 3), dtype=torch.uint8)
    allocated(module, (frames[:1],), tmp_path / "plans.json")
    found = allocated(module, (frames,), tmp_path / "6.json")
    assert pass_bytes(config, stage, 6, mode=mode, on_gpu=False, checkpoint=checkpoint) == pytest.approx(found, rel=0.1)


def test_memory_of_the_model_is_that_of_its_tensors():
    config, training = shallow(), training_preset("nano").dynamics
    torch.manual_seed(0)
    bench = StepBench(config, "dynamics", 1, LoopConfig(), set_up(precision="float32"))
    bench.step()
    state = [v for part in bench.optimizers.optimizers for values in part.state.values() for v in values.values()]
    moments = sum(v.nbytes for v in state if v.ndim)
    memory = partial(step_memory, config, "dynamics", training, mode="frozen")
    one, two, sharded = memory(), memory(processes=2), memory(processes=2, sharded=True)
    assert one.moments == two.moments == moments
    assert one.weights == two.weights == two.gradients == sum(p.nbytes for p in bench.component.parameters())
    assert 0 <= one.gradients < 0.2 * one.weights, "most are made after their activations are freed"
    parts = {
        n: step_memory(config, "dynamics", replace(training, micro_batches=2), mode="frozen", processes=n)
        for n in (1, 2)
    }
    assert parts[1].gradients == one.weights, "accumulated ones live during the second micro-batch"
    assert parts[2].gradients == 2 * one.weights, "accumulated ones and DDP's buckets"
    halves = (one.weights / 2, two.gradients / 2, one.moments / 2)
    assert (sharded.weights, sharded.gradients, sharded.moments) == halves
    assert sharded.per_clip == pytest.approx(one.per_clip, rel=0.01)
    assert 0 < sharded.fixed < one.weights
    averaged = step_memory(config, "dynamics", StageConfig(ema=0.999), mode="frozen")
    assert averaged.moments == 3 * one.weights  # AdamW's two and the average


@pytest.mark.parametrize("reference", ["none", "start"])
@pytest.mark.parametrize("stage", COMPONENTS)
def test_operations_of_a_step_are_those_that_torch_counts(stage, reference):
    config = shallow()
    config.tokenizer.reference = reference
    config = config.resolved()
    genie = Genie(config)
    module = STAGES[stage](genie, "frozen")
    if stage != "latent_action":  # its encoder learns only before quantization starts
        for part in (genie.tokenizer, genie.latent_action):
            part.quantizer.has_started.fill_(True)
    frames = torch.randint(0, 256, (2, 16 + module.clips_have_reference, 64, 64, 3), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        module(frames)[0].backward()
    assert step_flops(config, stage, 2) == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.parametrize("reference", ["none", "start"])
def test_operations_of_a_dreamed_frame_are_those_that_torch_counts(reference):
    config = shallow()
    config.tokenizer.reference = reference
    config = config.resolved()
    torch.manual_seed(0)
    genie = Genie(config).eval()
    for part in (genie.tokenizer, genie.latent_action):
        part.quantizer.has_started.fill_(True)
    world = genie.start(torch.zeros(64, 64, 3, dtype=torch.uint8))
    for _ in range(14):  # so that the window is full
        world.step(0)
    with FlopCounterMode(display=False) as counter:
        world.step(0)
    assert frame_flops(config) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_command_prints_a_table_or_one_object(capsys):
    assert main(["estimate", "--preset", "small", "--gpus", "2", *SHALLOW]) == 0
    table = capsys.readouterr().out
    dynamics = num_parameters(shallow("small", num_blocks=1))["dynamics"] / 1e6
    assert re.match(rf"small: tokenizer .*M, latent action .*M, dynamics {dynamics:.1f}M, all .*M parameters", table)
    assert "latent_action" in table
    assert "does not fit" not in table
    assert main(["estimate", *SHALLOW, "--dynamics.width", "256", "--json", "--tflops", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["dynamics"] > 2 * num_parameters(shallow(num_blocks=1))["dynamics"]  # width 128
    stage = found["stages"]["dynamics"]
    assert stage["seconds_per_step"] == pytest.approx(stage["flops_per_step"] / 1e12)


@pytest.mark.parametrize(
    ("argv", "words"),
    [("--training.dynamics.micro-batches 0", "--training.dynamics.micro-batches must be at least 1, got 0"),
     ("--latent-action.frame-space tokens", "--latent-action.frame-space pixels"),
     ("--gpus 3", "batch-size 4 must be a multiple of 3 processes"),
     ("--gpus 2 --sharding full", "--sharding full cannot be combined with Muon"),
     ("--preset coinrun --sharding full", "start them with torchrun"),
     ("--mode end_to_end --latent-action.quantizer.vq.freeze-after-init", "with freeze-after-init they pass none")],
)  # fmt: skip
def test_options_that_cannot_be_trained_are_refused(argv, words, capsys):
    assert main(["estimate", *SHALLOW, *argv.split()]) == 2
    assert words in capsys.readouterr().err


def estimated(capsys, *argv: str) -> dict:
    assert main(["estimate", *SHALLOW, *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["stages"]


def test_estimates_follow_what_is_trained(capsys):
    """Micro-batches need less memory for the same operations; without the frames' decoder both are less."""
    both, alone, parts = (
        estimated(capsys, "--mode", *options)["joint"]
        for options in (["cotrain"], ["end_to_end"], ["cotrain", "--training.joint.micro-batches", "4"])
    )
    assert (both["memory"]["clips"], parts["memory"]["clips"]) == (4, 1)
    assert parts["memory"]["total"] < 0.5 * both["memory"]["total"]
    assert parts["flops_per_step"] == both["flops_per_step"]
    assert alone["memory"]["per_clip"] < 0.9 * both["memory"]["per_clip"]
    assert alone["flops_per_step"] < 0.9 * both["flops_per_step"]


def test_a_model_too_large_for_the_gpu_does_not_fit(capsys):
    assert main(["estimate", "--preset", "robotics_1b", "--gpus", "8", "--gpu", "rtx4090", *SHALLOW]) == 0
    assert "does not fit: rtx4090 has 24 GB. Use more --gpus" in capsys.readouterr().out
