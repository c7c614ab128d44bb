"""`bench train`: time and memory of training steps, compared with a matrix product on the same machine."""

import math
from contextlib import ExitStack

import torch

from genie_robotics.benchmarks.measure import matrix_flops, memory_of, peak_bytes, seconds
from genie_robotics.estimate.flops import forward_flops
from genie_robotics.genie import Genie
from genie_robotics.models.compilation import compiled_blocks
from genie_robotics.models.config import COMPONENTS, GenieConfig
from genie_robotics.models.dynamics import DynamicsBatch
from genie_robotics.models.presets import preset
from genie_robotics.training.config import LoopConfig, training_preset
from genie_robotics.training.distributed import Setup, set_up
from genie_robotics.training.optimizer import Optimizers
from genie_robotics.training.trainer import prepare


def bench_train(name: str, batch_size: int = 4, loop: LoopConfig | None = None, repeats: int = 5) -> dict[str, float]:
    """Times an optimizer step of each component of the preset `name` on random clips.

    Returns:
        {component}_share: FLOP/s of the step divided by those of a square matrix product at the same precision;
            recomputed activations do not count;
        {component}_tflops: TFLOP/s of the step including recomputation, for `estimate --tflops`;
        {component}_gflop: 1e9 floating-point operations of the model in a step, forward and backward;
        {component}_ms: milliseconds per step; {component}_peak_mb: memory of a step beside weights and moments;
        matmul_share, clips_per_s: smallest share, and clips per second, over the components;
        bytes_per_clip: peak memory per additional clip, largest over the components;
        growth_frames, growth_batch: exponent of the dynamics' step time in the frames of a clip and in the clips of a
            batch (1: linear).
    """
    loop = loop or LoopConfig()
    setup = set_up()
    config = preset(name)
    result: dict[str, float] = {}
    memory: list[float] = []
    for stage in COMPONENTS:
        bench = StepBench(config, stage, batch_size, loop, setup)
        product = matrix_flops(setup.device, setup.precision)  # again for each component: clock rates drift
        time = seconds(bench.step, repeats, setup.device)
        flops = 3 * forward_flops(bench.genie, stage) * batch_size  # backward costs twice the forward
        result[f"{stage}_share"] = flops / time / product
        result[f"{stage}_gflop"], result[f"{stage}_ms"] = flops / 1e9, 1000 * time
        result[f"{stage}_tflops"] = (4 / 3 if loop.checkpoint_activations else 1) * flops / time / 1e12
        result["clips_per_s"] = min(result.get("clips_per_s", math.inf), batch_size / time)
        peak = memory_of(bench.step, setup.device)
        if peak is not None:
            result[f"{stage}_peak_mb"] = peak / 1e6
        memory += bench.bytes_per_clip()
    result["matmul_share"] = min(result[f"{stage}_share"] for stage in COMPONENTS)
    if memory:
        result["bytes_per_clip"] = max(memory)
    return result | growth(config, max(2, batch_size), loop, setup, repeats)


def growth(config: GenieConfig, batch_size: int, loop: LoopConfig, setup: Setup, repeats: int) -> dict[str, float]:
    """Exponents of the dynamics' step time in the frames of a clip and in the clips of a batch."""
    length = config.clip_length

    def step_time(num_frames: int, num_clips: int) -> float:
        config.clip_length = num_frames
        return seconds(StepBench(config, "dynamics", num_clips, loop, setup).step, repeats, setup.device)

    full = step_time(length, batch_size)
    batch_ratio = batch_size / (batch_size // 2)
    exponents = {
        "growth_frames": math.log2(full / step_time(length // 2, batch_size)),
        "growth_batch": math.log2(full / step_time(length, batch_size // 2)) / math.log2(batch_ratio),
    }
    config.clip_length = length
    return exponents


class StepBench:
    """A component with its optimizer and a random batch."""

    def __init__(self, config: GenieConfig, stage: str, batch_size: int, loop: LoopConfig, setup: Setup):
        self.genie = Genie(config).to(setup.device)
        self.stage, self.batch_size, self.setup = stage, batch_size, setup
        self.component = prepare(getattr(self.genie, stage).train(), loop)
        if loop.compile == "yes":
            self.compiled = ExitStack()  # for as long as this object lives
            self.compiled.enter_context(compiled_blocks(self.component))
        self.optimizers = Optimizers(self.component, training_preset(config.preset).stage(stage), setup.precision)
        self.batch = self.random_batch(batch_size)

    def random_batch(self, num: int) -> tuple[torch.Tensor | DynamicsBatch, ...]:
        """Arguments of the component."""
        config, device = self.genie.config, self.setup.device
        height, width = config.image_size
        reference = torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, device=device)
        if self.stage != "dynamics":
            shape = (num, config.clip_length, *config.image_size, 3)
            frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
            return (frames, reference) if self.stage == "tokenizer" else (frames,)
        dynamics = config.dynamics
        tokens = torch.randint(0, dynamics.num_tokens, (num, config.clip_length, dynamics.num_patches), device=device)
        actions = torch.randn(num, config.clip_length - 1, dynamics.action_dim, device=device)
        shape = (num, config.clip_length, *config.image_size, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        return (DynamicsBatch(tokens, actions, context=self.genie.tokenizer.context(frames, reference)),)

    def step(self) -> None:
        with self.setup.autocast():
            loss, _ = self.component(*self.batch)
        loss.backward()
        self.optimizers.step(1.0)

    def bytes_per_clip(self) -> list[float]:
        """Peak memory per additional clip, from one batch and one twice as large; empty if it cannot be measured."""
        peaks: list[int] = []
        for num in (self.batch_size, 2 * self.batch_size):
            self.batch = self.random_batch(num)
            self.step()  # the first step of a size may need more, for plans and compilation
            peak = peak_bytes(self.step, self.setup.device)
            if peak is None:
                return []
            peaks.append(peak)
        return [(peaks[1] - peaks[0]) / self.batch_size]
