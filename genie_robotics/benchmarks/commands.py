"""`genie-robotics bench`: speed, as ratios measured side by side in one run."""

import json
from dataclasses import dataclass
from typing import Literal

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError


@dataclass
class BenchOptions:
    """Speed, as ratios measured side by side in one run."""

    what: tyro.conf.Positional[Literal["loader", "tabletop", "train", "generate", "play", "label"]]
    """loader: ways to read clips; tabletop: episodes made; train: share of the machine's matrix throughput;
    generate: cache against none; play: from action to picture; label: a data set's codes."""
    data: str | None = None
    """loader, label: the RLDS directory to read; without it one is made."""
    preset: str = "nano"
    world: str = "nano-tabletop"
    """play, label: a run folder, or a world that comes with the package."""
    actions: int = 400
    """play: how many."""
    browser: bool = False
    """play: from keys pressed in headless Chromium to its painting, instead of a client that decodes pictures."""
    batch_size: int | None = None
    """train: clips a step (4); generate: dreams at once (1)."""
    checkpoint_activations: bool = False
    """train: with activations computed again in the backward pass."""
    compile: bool = False
    """train: with torch.compile."""
    attention: Literal["auto", "fused", "plain"] = "auto"
    """train, generate: torch's fused kernels, or softmax(QK)V; auto: the faster one of this device."""
    json: bool = False
    """Print one JSON object and nothing else."""


def bench(argv: list[str]) -> int:
    options = parse(BenchOptions, argv, prog="genie-robotics bench")
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {options.batch_size}")
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
            raise UserError(f"--actions {options.actions}: give at least 40, for a 95th percentile")
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
