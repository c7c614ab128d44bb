"""`genie-robotics estimate`: what a preset, or any change of it, will cost."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.commands import named
from genie_robotics.training.config import TrainingConfig, check, check_batch, training_preset


@dataclass
class EstimateOptions:
    """Parameters, memory a GPU, operations and time of a model's training and dreams, before anyone trains it."""

    gpus: int = 1
    """Processes, each with a GPU; they share the batch."""
    sharding: Literal["none", "full"] = "none"
    """none: each holds the whole model; full: what is trained is cut over them."""
    gpu: Literal["a100", "h100", "h200", "l40s", "rtx4090"] = "h100"
    """Whose data sheet gives the peak throughput."""
    reached: float = 0.4
    """Share of that peak which training reaches: a guess."""
    tflops: float | None = None
    """TFLOP/s that one GPU reaches, as `genie-robotics bench train` measures it there: instead of the two above."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Memory with the attention that this kind of device takes."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    checkpoint_activations: bool = False
    """Computes activations again in the backward pass."""
    json: bool = False
    """Print one JSON object and nothing else."""
    model: Annotated[GenieConfig, tyro.conf.arg(name="")] = field(default_factory=GenieConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def estimate(argv: list[str]) -> int:
    from genie_robotics.models.presets import preset

    name = named("--preset", argv, "nano")
    training = training_preset(name)
    default = EstimateOptions(model=preset(name, named("--mode", argv, training.mode)), training=training)
    options = parse(EstimateOptions, argv, prog="genie-robotics estimate", default=default)
    if options.gpus < 1 or not 0 < options.reached <= 1 or (options.tflops is not None and options.tflops <= 0):
        raise UserError("--gpus is 1 or more, --reached above 0 and at most 1, --tflops above 0")
    found = cost(options)
    print(json.dumps(found) if options.json else text(options, found))
    return 0


def cost(options: EstimateOptions) -> dict[str, Any]:
    """All figures: bytes, floating-point operations, seconds."""
    from genie_robotics.estimate.memory import step_memory
    from genie_robotics.estimate.parameters import count
    from genie_robotics.estimate.work import FREE, MEMORY, PEAK, frame_flops, step_flops
    from genie_robotics.training.sharding import check_sharding
    from genie_robotics.training.stages import stages_of

    config = options.model.resolved()
    if config.latent_action.input == "tokens":
        raise UserError("estimate knows latent action models that read pixels alone: --latent-action.input pixels")
    rate = 1e12 * (options.tflops or PEAK[options.gpu] * options.reached)
    stages: dict[str, Any] = {}
    for stage in stages_of(options.training.mode):
        of_stage = options.training.stage(stage)
        check(of_stage, stage)
        check_batch(of_stage, stage, options.gpus)
        if options.sharding == "full":
            check_sharding(config, of_stage, stage, options.gpus, labels=False)
        mode = options.training.mode
        memory = step_memory(
            config, stage, of_stage, mode=mode, processes=options.gpus, bfloat16=options.precision == "bfloat16",
            on_gpu=options.device == "cuda", checkpoint_activations=options.checkpoint_activations,
            cut=options.sharding == "full",
        )  # fmt: skip
        flops = step_flops(config, stage, of_stage.batch_size, options.checkpoint_activations, mode)
        seconds = flops / (rate * options.gpus)
        stages[stage] = {
            "memory": {**vars(memory), "total": memory.total},
            "fits": memory.total < FREE * 1e9 * MEMORY[options.gpu], "steps": of_stage.steps,
            "batch_size": of_stage.batch_size, "flops_per_step": flops, "seconds_per_step": seconds,
            "days": seconds * of_stage.steps / 86_400,
        }  # fmt: skip
    frame = frame_flops(config)
    return {
        "parameters": {name: round(1e6 * value) for name, value in count(config).items()}, "stages": stages,
        "flops_per_frame": frame, "seconds_per_frame_at_that_rate": frame / rate, "flops_per_s": rate,
    }  # fmt: skip


def text(options: EstimateOptions, found: dict[str, Any]) -> str:
    given = f"{options.gpus} x {found['flops_per_s'] / 1e12:.0f} TFLOP/s"
    lines = [
        f"{options.model.preset}: "
        + ", ".join(f"{name.replace('_', ' ')} {value / 1e6:,.1f}M" for name, value in found["parameters"].items())
        + " parameters",
        "",
        f"{'a training step':<15}{'clips':>7}{'GB a GPU':>11}{'model':>9}{'pass':>10}{'a clip':>9}{'TFLOP':>10}"
        f"{'s':>10}{'steps':>10}{'days':>9}   ({given})",
    ]
    for stage, row in found["stages"].items():
        memory = row["memory"]
        model = sum(memory[name] for name in ("weights", "gradients", "moments", "frozen"))
        work = memory["fixed"] + memory["per_clip"] * memory["clips"]
        lines.append(
            f"{stage:<15}{row['batch_size']:>7}{memory['total'] / 1e9:>11.2f}{model / 1e9:>9.2f}{work / 1e9:>10.2f}"
            f"{memory['per_clip'] / 1e9:>9.3f}{row['flops_per_step'] / 1e12:>10.2f}{row['seconds_per_step']:>10.3f}"
            f"{row['steps']:>10,}{row['days']:>9.2f}"
        )
    if options.device == "cuda" and not all(row["fits"] for row in found["stages"].values()):
        from genie_robotics.estimate.work import MEMORY

        lines.append(
            f"does not fit: {options.gpu} has {MEMORY[options.gpu]} GB. Less is needed with more --gpus, "
            "--sharding full, --checkpoint-activations, or --training.STAGE.accumulate N, the same batch in N parts"
        )
    if options.sharding == "full":
        whole = 4e-9 * found["parameters"]["all"]
        lines.append(f"on the CPU each process holds the whole model at its start: {whole:,.1f} GB")
    frame = found["flops_per_frame"]
    lines += [
        "",
        f"a dreamt frame: {frame / 1e9:,.1f} GFLOP ({options.model.dynamics.maskgit_steps} MaskGIT steps, cached), "
        f"{found['seconds_per_frame_at_that_rate']:.2g} s at that rate, which one dream alone does not reach",
    ]
    return "\n".join(lines)
