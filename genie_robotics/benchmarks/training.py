"""`bench train`: training steps against the matrix product of this machine, in time and in memory."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from genie_robotics.benchmarks.measure import matrix_flops, peak_bytes, seconds
from genie_robotics.estimate.flops import forward_flops
from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS, GenieConfig
from genie_robotics.models.dynamics import DynamicsBatch
from genie_robotics.models.presets import preset
from genie_robotics.training.config import LoopConfig, training_preset
from genie_robotics.training.distributed import Setup, set_up
from genie_robotics.training.optimizer import Optimizers
from genie_robotics.training.trainer import prepare


def bench_train(name: str, batch_size: int = 4, loop: LoopConfig | None = None, repeats: int = 5) -> dict[str, float]:
    """One optimizer step of each component of the preset `name`, on random clips.

    Returns:
        matmul_share: model FLOP/s of the slowest component over those of a square matrix product at the same
            precision, in the same run; recomputed activations do not count as work;
        clips_per_s: of the slowest component; {component}_share: each one's matmul_share;
        {component}_tflops: TFLOP/s of its step, recomputation counted, as `estimate --tflops` takes it;
        bytes_per_clip: peak memory that one more clip of the batch costs, of the component that needs most;
        growth_frames, growth_batch: exponent of the step's time when the clip's frames or the batch double (1 is
            linear), of the dynamics.
    """
    loop = loop or LoopConfig()
    setup = set_up()
    config = preset(name)
    result: dict[str, float] = {}
    memory: list[float] = []
    for stage in COMPONENTS:
        bench = StepBench(config, stage, batch_size, loop, setup)
        product = matrix_flops(setup.device, setup.precision)  # beside each component: clocks drift
        took = seconds(bench.step, repeats, setup.device)
        flops = 3 * forward_flops(bench.genie, stage) * batch_size  # backward costs twice the forward
        result[f"{stage}_share"] = flops / took / product
        result[f"{stage}_tflops"] = (4 / 3 if loop.checkpoint_activations else 1) * flops / took / 1e12
        result["clips_per_s"] = min(result.get("clips_per_s", math.inf), batch_size / took)
        memory += bench.bytes_per_clip()
    result["matmul_share"] = min(result[f"{stage}_share"] for stage in COMPONENTS)
    if memory:
        result["bytes_per_clip"] = max(memory)
    return result | growth(config, max(2, batch_size), loop, setup, repeats)


def growth(config: GenieConfig, batch_size: int, loop: LoopConfig, setup: Setup, repeats: int) -> dict[str, float]:
    """Exponents of the dynamics' step time in the frames of a clip and in the clips of a batch."""
    length = config.clip_length

    def took(num_frames: int, num_clips: int) -> float:
        config.clip_length = num_frames
        return seconds(StepBench(config, "dynamics", num_clips, loop, setup).step, repeats, setup.device)

    whole = took(length, batch_size)
    exponents = {
        "growth_frames": math.log2(whole / took(length // 2, batch_size)),
        "growth_batch": math.log2(whole / took(length, batch_size // 2)) / math.log2(batch_size / (batch_size // 2)),
    }
    config.clip_length = length
    return exponents


class StepBench:
    """A component, its optimizer and random clips, ready to step."""

    def __init__(self, config: GenieConfig, stage: str, batch_size: int, loop: LoopConfig, setup: Setup):
        self.genie = Genie(config).to(setup.device)
        self.stage, self.batch_size, self.setup = stage, batch_size, setup
        self.component = prepare(getattr(self.genie, stage).train(), loop)
        self.optimizers = Optimizers(self.component, training_preset(config.preset).stage(stage))
        self.batch = self.random(batch_size)

    def random(self, num: int) -> torch.Tensor | DynamicsBatch:
        config, device = self.genie.config, self.setup.device
        if self.stage != "dynamics":
            shape = (num, config.clip_length, *config.image_size, 3)
            return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        dynamics = config.dynamics
        tokens = torch.randint(0, dynamics.num_tokens, (num, config.clip_length, dynamics.num_patches), device=device)
        return DynamicsBatch(tokens, torch.randn(num, config.clip_length - 1, dynamics.action_dim, device=device))

    def autocast(self) -> AbstractContextManager:
        return self.setup.autocast()

    def step(self) -> None:
        with self.autocast():
            loss, _ = self.component(self.batch)
        loss.backward()
        self.optimizers.step(1.0)

    def bytes_per_clip(self) -> list[float]:
        """What one more clip adds to the peak, from batches of one size and twice it; empty where it cannot be told."""
        peaks: list[int] = []
        for num in (self.batch_size, 2 * self.batch_size):
            self.batch = self.random(num)
            work: Callable[[], object] = self.step
            work()  # the first step of a size may take more, for plans and compilation
            peak = peak_bytes(work, self.setup.device)
            if peak is None:
                return []
            peaks.append(peak)
        return [(peaks[1] - peaks[0]) / self.batch_size]
