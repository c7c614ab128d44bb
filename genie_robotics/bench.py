"""`bench train` and `bench generate`: ratios against a named baseline, measured in the same run."""

import statistics
import time
from collections.abc import Callable

import torch

from genie_robotics.dynamics import DynamicsBatch
from genie_robotics.genie import COMPONENTS, Genie
from genie_robotics.presets import preset
from genie_robotics.st_transformer import STBlock, STTransformer
from genie_robotics.training.config import training_preset
from genie_robotics.training.distributed import Setup, set_up
from genie_robotics.training.optimizer import Optimizers

MATRIX = 2048  # side of the matrices whose product is the machine's throughput


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median wall time of `work` after one unmeasured call."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def train(preset_name: str, batch_size: int, repeats: int = 5) -> dict[str, float]:
    """Training steps of the three stages against the matrix product of this machine at the same precision.

    Returns:
        matmul_share: model FLOP/s of the slowest stage over FLOP/s of a square matrix product;
        clips_per_s: of the slowest stage; {stage}_share: the same for each stage;
        bytes_per_clip: memory that a clip adds to a training step (CUDA; on CPU it is not measured and left out).
    """
    setup = set_up()
    genie = Genie(preset(preset_name)).to(setup.device)
    matrix = torch.randn(MATRIX, MATRIX, device=setup.device, dtype=setup.precision)
    height, width = genie.config.image_size
    length = genie.config.clip_length
    frames = torch.randint(0, 256, (batch_size, length, height, width, 3), dtype=torch.uint8, device=setup.device)
    result: dict[str, float] = {}
    for stage in COMPONENTS:
        step = training_step(genie, stage, frames, setup, training_preset(preset_name))
        product = seconds(lambda: matrix @ matrix, 3 * repeats, setup.device)  # beside each stage: clocks drift
        took = seconds(step, repeats, setup.device)
        flops = 3 * forward_flops(genie, stage) * batch_size  # backward costs twice the forward
        result[f"{stage}_share"] = (flops / took) / (2 * MATRIX**3 / product)
        result["clips_per_s"] = min(result.get("clips_per_s", float("inf")), batch_size / took)
    result["matmul_share"] = min(result[f"{stage}_share"] for stage in COMPONENTS)
    if setup.device.type == "cuda":
        result["bytes_per_clip"] = torch.cuda.max_memory_allocated() / batch_size
    return result


def training_step(genie: Genie, stage: str, frames: torch.Tensor, setup: Setup, training) -> Callable[[], None]:
    component = getattr(genie, stage).train()
    optimizers = Optimizers(component, training.stage(stage))
    config = genie.config.dynamics
    batch: torch.Tensor | DynamicsBatch = frames
    if stage == "dynamics":
        shape = (len(frames), config.clip_length, config.num_patches)
        tokens = torch.randint(0, config.num_tokens, shape, device=setup.device)
        actions = torch.randn(len(frames), config.clip_length - 1, config.action_dim, device=setup.device)
        batch = DynamicsBatch(tokens, actions)

    def step() -> None:
        with setup.autocast():
            loss, _ = component(batch)
        loss.backward()
        optimizers.step(1.0)

    return step


def forward_flops(genie: Genie, stage: str) -> float:
    """Floating-point operations of one clip's forward pass: matrix products of blocks, patches and heads."""
    component = getattr(genie, stage)
    length = genie.config.clip_length
    total = 0.0
    for name, module in component.named_modules():
        if isinstance(module, STTransformer):
            num_frames = length - 1 if (stage, name) == ("latent_action", "decoder") else length
            total += transformer_flops(module, num_frames)
    num_patches = component.config.num_patches if stage == "dynamics" else component.num_patches
    outside = [m for n, m in component.named_modules() if isinstance(m, torch.nn.Linear) and ".blocks." not in f".{n}"]
    per_patch = [m for m in outside if m.in_features * m.out_features > 32 * 32]
    return total + sum(2 * m.weight.numel() for m in per_patch) * length * num_patches


def transformer_flops(transformer: STTransformer, num_frames: int) -> float:
    num_patches, width = transformer.space.shape
    tokens = num_frames * num_patches
    total = 0.0
    for block in transformer.blocks:
        assert isinstance(block, STBlock)  # for type checkers
        weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, torch.nn.Linear))
        if block.modulation is not None:
            weights -= block.modulation.weight.numel()
            total += 2 * block.modulation.weight.numel() * num_frames
        total += 2 * weights * tokens + 4 * tokens * num_patches * width
        if block.temporal is not None:
            total += 4 * tokens * num_frames * width
    return total


def generate(preset_name: str, num_frames: int = 15, repeats: int = 1) -> dict[str, float]:
    """Cached sampling against recomputing the padded window, same weights, same tokens, one dream.

    Returns:
        uncached: 1; cached: how many times faster; fps: frames a second with the cache.
    """
    setup = set_up()
    genie = Genie(preset(preset_name)).to(setup.device).eval()
    height, width = genie.config.image_size
    start = torch.randint(0, 256, (1, 1, height, width, 3), dtype=torch.uint8)
    codes = torch.randint(0, genie.config.num_actions, (1, min(num_frames, genie.config.clip_length - 1)))
    cached = seconds(lambda: genie.generate(start, codes, use_cache=True), 3 * repeats, setup.device)
    uncached = seconds(lambda: genie.generate(start, codes, use_cache=False), repeats, setup.device)
    return {"uncached": 1.0, "cached": uncached / cached, "fps": codes.shape[1] / cached}
