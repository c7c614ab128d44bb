"""`genie-robotics bench`: measure speed, as ratios to a baseline in the same run."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError


@dataclass
class BenchOptions:
    """Measure speed, as ratios to a baseline in the same run."""

    what: tyro.conf.Positional[Literal["loader", "tabletop", "train", "generate", "play", "label"]]
    """loader: read clips; tabletop: simulate episodes; train: training steps; generate: sample with a cache; play: time
    from action to picture; label: infer codes of a data set."""
    data: Annotated[str | None, Option("DIR")] = None
    """loader, label: RLDS directory to read (default: a simulated one)."""
    preset: Annotated[str, Option("NAME")] = "nano"
    """train, generate: preset of the model."""
    world: Annotated[str, Option("RUN")] = "nano-tabletop"
    """play, label: run folder, or name of a world that comes with the package."""
    actions: int = 400
    """play: number of actions."""
    browser: bool = False
    """play: measure from a key press to the painted frame in headless Chromium, not in a WebSocket client."""
    batch_size: int | None = None
    """Clips per step of train (default: 4), or parallel dreams of generate (default: 1)."""
    checkpoint_activations: bool = False
    """train: recompute activations in the backward pass."""
    compile: Annotated[Literal["yes", "no"], Option("{yes,no}")] = "no"
    """train: compile the transformer blocks."""
    attention: Literal["auto", "fused", "plain"] = "auto"
    """train, generate: torch's fused attention, plain softmax(QK)V, or the faster one on this device (auto)."""
    json: bool = False
    """Print one JSON object and nothing else."""


def bench(argv: list[str]) -> int:
    options = parse(BenchOptions, argv, prog="genie-robotics bench", example="bench train --preset nano")
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {options.batch_size}")
    if options.what == "loader":
        from genie_datasets import bench as bench_loader

        bench_loader.run(options.data, json=options.json)
        return 0
    if options.what == "tabletop":
        from genie_datasets.tabletop import bench as bench_tabletop

        bench_tabletop.run(json=options.json)
        return 0
    if options.what == "train":
        from genie_robotics.benchmarks.training import bench_train
        from genie_robotics.models.layers.attention import attention_by
        from genie_robotics.training.config import LoopConfig

        loop = LoopConfig(checkpoint_activations=options.checkpoint_activations, compile=options.compile)
        with attention_by(None if options.attention == "auto" else options.attention):
            result = bench_train(options.preset, options.batch_size or 4, loop)
    elif options.what == "play":
        from genie_robotics.benchmarks.playing import bench_play

        if options.actions < 40:
            raise UserError(f"--actions must be at least 40, got {options.actions}")
        result = bench_play(options.world, options.actions, options.browser)
    elif options.what == "label":
        from genie_robotics.benchmarks.labeling import bench_label

        result = bench_label(options.world, options.data)
    else:
        from genie_robotics.benchmarks.sampling import bench_generate
        from genie_robotics.models.layers.attention import attention_by

        with attention_by(None if options.attention == "auto" else options.attention):
            result = bench_generate(options.preset, options.batch_size or 1)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:<22}{value:>10,.3g}")
    return 0
