"""`genie-robotics estimate`: cost of a preset, or of any change of it, before training."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.commands import named
from genie_robotics.training.config import TrainingConfig, check, check_batch, training_preset


class GPU(NamedTuple):
    """Numbers of a data sheet."""

    tflops: float
    """Peak of dense bfloat16, TFLOP/s."""
    memory: float
    """GB."""


GPUS = {
    "a100": GPU(312, 80), "h100": GPU(989, 80), "h200": GPU(989, 141), "l40s": GPU(362, 48), "rtx4090": GPU(165, 24)
}  # fmt: skip
USABLE = 0.9  # fraction of the memory; the rest is for the driver, communication and fragmentation


@dataclass
class EstimateOptions:
    """Estimate parameters, memory per GPU, operations and time of a model's training and dreams."""

    gpus: int = 1
    """Number of GPUs, with one process each; they share the batch."""
    sharding: Literal["none", "full"] = "none"
    """none: each GPU holds the whole model; full: weights, gradients and optimizer state are sharded."""
    gpu: Literal["a100", "h100", "h200", "l40s", "rtx4090"] = "h100"
    """Kind of GPU; its data sheet gives peak throughput and memory."""
    reached: Annotated[float, Option("FRACTION")] = 0.4
    """Fraction of the peak throughput that training reaches; the default is a guess."""
    tflops: Annotated[float | None, Option("TFLOPS")] = None
    """TFLOP/s that one GPU reaches, as measured by `genie-robotics bench train`; replaces --gpu and --reached."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Kind of device, whose attention is used to estimate memory."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of activations."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass."""
    json: bool = False
    """Print one JSON object and nothing else."""
    model: Annotated[GenieConfig, tyro.conf.arg(name="")] = field(default_factory=GenieConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def estimate(argv: list[str]) -> int:
    from genie_robotics.models.presets import preset

    name = named("--preset", argv, "nano")
    training = training_preset(name)
    default = EstimateOptions(model=preset(name, named("--mode", argv, training.mode)), training=training)
    example = "estimate --preset coinrun --gpus 8 --checkpoint-activations"
    options = parse(EstimateOptions, argv, prog="genie-robotics estimate", default=default, example=example)
    if options.gpus < 1:
        raise UserError(f"--gpus must be at least 1, got {options.gpus}")
    if not 0 < options.reached <= 1:
        raise UserError(f"--reached must be above 0 and at most 1, got {options.reached:g}")
    if options.tflops is not None and options.tflops <= 0:
        raise UserError(f"--tflops must be above 0, got {options.tflops:g}")
    found = cost(options)
    print(json.dumps(found) if options.json else text(options, found))
    return 0


def cost(options: EstimateOptions) -> dict[str, Any]:
    """All estimates: numbers of parameters, bytes, floating-point operations, seconds."""
    from genie_robotics.estimate.flops import frame_flops
    from genie_robotics.training.stages import stages_of

    config = options.model.resolved()
    if config.latent_action.frame_space == "tokens":
        raise UserError("estimate supports only --latent-action.frame-space pixels, got tokens; use pixels here")
    stages = stages_of(options.training.mode)
    for stage in stages:  # a mistake is reported before anything is measured, which takes seconds
        check_stage(options, config, stage)
    rate = 1e12 * (options.tflops or GPUS[options.gpu].tflops * options.reached)
    frame = frame_flops(config)
    return {
        "parameters": num_parameters(config),
        "stages": {stage: stage_cost(options, config, stage, rate) for stage in stages},
        "flops_per_frame": frame,
        "seconds_per_frame_at_that_rate": frame / rate,
        "flops_per_s": rate,
    }


def check_stage(options: EstimateOptions, config: GenieConfig, stage: str) -> None:
    """Raises UserError if the stage cannot be trained like this."""
    from genie_robotics.training.sharding import check_sharding

    training = options.training.stage(stage)
    check(training, stage)
    check_batch(training, stage, options.gpus)
    if options.sharding == "full":
        check_sharding(config, training, stage, options.gpus, labels=False)


def stage_cost(options: EstimateOptions, config: GenieConfig, stage: str, rate: float) -> dict[str, Any]:
    """Estimates of one stage; `rate`: FLOP/s per GPU."""
    from genie_robotics.estimate.flops import step_flops
    from genie_robotics.estimate.memory import step_memory

    mode, training = options.training.mode, options.training.stage(stage)
    memory = step_memory(
        config, stage, training, mode=mode, processes=options.gpus, bfloat16=options.precision == "bfloat16",
        on_gpu=options.device == "cuda", checkpoint_activations=options.checkpoint_activations,
        sharded=options.sharding == "full",
    )  # fmt: skip
    flops = step_flops(config, stage, training.batch_size, options.checkpoint_activations, mode)
    seconds = flops / (rate * options.gpus)
    return {
        "memory": {**vars(memory), "total": memory.total},
        "fits": memory.total < USABLE * 1e9 * GPUS[options.gpu].memory,
        "steps": training.steps,
        "batch_size": training.batch_size,
        "flops_per_step": flops,
        "seconds_per_step": seconds,
        "days": seconds * training.steps / 86_400,
    }


def num_parameters(config: GenieConfig) -> dict[str, int]:
    """Number of parameters of each component, and of `all`."""
    import torch

    from genie_robotics.genie import Genie

    with torch.device("meta"):
        found = Genie(config).num_parameters()
    return found | {"all": sum(found.values())}


def text(options: EstimateOptions, found: dict[str, Any]) -> str:
    """The estimates as a table for people."""
    parameters = ", ".join(f"{name.replace('_', ' ')} {n / 1e6:,.1f}M" for name, n in found["parameters"].items())
    lines = [
        f"{options.model.preset}: {parameters} parameters",
        "",
        f"{'training step':<15}{'clips':>7}{'GB/GPU':>9}{'model':>9}{'pass':>9}{'per clip':>10}{'TFLOP':>10}"
        f"{'s':>10}{'steps':>10}{'days':>9}   ({options.gpus} x {found['flops_per_s'] / 1e12:.0f} TFLOP/s)",
    ]
    for stage, row in found["stages"].items():
        memory = row["memory"]
        model = sum(memory[name] for name in ("weights", "gradients", "moments", "frozen"))
        pass_memory = memory["fixed"] + memory["per_clip"] * memory["clips"]
        lines.append(
            f"{stage:<15}{row['batch_size']:>7}{memory['total'] / 1e9:>9.2f}{model / 1e9:>9.2f}"
            f"{pass_memory / 1e9:>9.2f}{memory['per_clip'] / 1e9:>10.3f}{row['flops_per_step'] / 1e12:>10.2f}"
            f"{row['seconds_per_step']:>10.3f}{row['steps']:>10,}{row['days']:>9.2f}"
        )
    if options.device == "cuda" and not all(row["fits"] for row in found["stages"].values()):
        lines.append(
            f"does not fit: {options.gpu} has {GPUS[options.gpu].memory} GB. Use more --gpus, --sharding full, "
            "--checkpoint-activations, or --training.STAGE.micro-batches N"
        )
    if options.sharding == "full":
        whole = 4e-9 * found["parameters"]["all"]
        lines.append(f"CPU memory per process at the start, for the whole model: {whole:,.1f} GB")
    frame = found["flops_per_frame"]
    lines += [
        "",
        f"dreamed frame: {frame / 1e9:,.1f} GFLOP ({options.model.dynamics.maskgit_steps} MaskGIT steps, cached), "
        f"{found['seconds_per_frame_at_that_rate']:.2g} s at this rate, which a single dream does not reach",
    ]
    return "\n".join(lines)
