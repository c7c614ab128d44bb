"""`bench generate`: sampling with a cache, compared with recomputing the window, at the same frames of a dream."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from genie_robotics.benchmarks.measure import matrix_flops, memory_of, synchronize
from genie_robotics.genie import Genie
from genie_robotics.models.precision import inference_autocast
from genie_robotics.models.presets import preset
from genie_robotics.models.world import World
from genie_robotics.training.distributed import set_up


def bench_generate(name: str, batch_size: int = 1, seed: int = 0) -> dict[str, float]:
    """Generates `batch_size` dreams of one and a half windows, with random weights and the preset's MaskGIT steps.

    The uncached path costs the same for every frame, because its window is padded, so it is timed for the first, middle
    and last frame of the window only.

    Returns:
        uncached: 1, the baseline;
        cached: how many times faster the cache is for these three frames;
        fps: frames per second of the whole cached generation, over all dreams;
        gflop_per_frame: 1e9 floating-point operations of the model per frame and dream, counted by torch;
        matmul_share: FLOP/s of the cached generation divided by those of a square matrix product at the same precision;
        peak_mb: memory that the cached generation takes beside the model, if it can be measured;
        same_tokens: fraction of the compared tokens that are equal (ties in float32 may differ).
    """
    setup = set_up()
    torch.manual_seed(seed)
    genie = Genie(preset(name)).to(setup.device).eval()
    length = genie.config.clip_length
    frames = torch.randint(0, 256, (batch_size, 1, *genie.config.image_size, 3), dtype=torch.uint8)
    codes = torch.randint(0, genie.config.num_actions, (length + length // 2, batch_size))
    genie.start(frames, seed=seed).step(codes[0])  # not timed: first calls are slower
    world = genie.start(frames, seed=seed)
    compared = sorted({1, length // 2, length - 1})
    cached: list[float] = []
    uncached: list[float] = []
    same: list[float] = []
    for number, code in enumerate(codes, start=1):
        if number in compared:
            slow = genie.start(frames, seed=seed, use_cache=False)
            slow.states = [world.state.without_caches()]
        cached.append(timed_step(world, code))
        if number in compared:
            uncached.append(timed_step(slow, code))
            same.append(float((slow.state.tokens[:, -1] == world.state.tokens[:, -1]).float().mean()))
    precision = torch.bfloat16 if inference_autocast(setup.device)._enabled else torch.float32
    with FlopCounterMode(display=False) as counter:
        world.step(codes[0])
    flops = counter.get_total_flops() / batch_size
    fps = batch_size * len(cached) / sum(cached)
    peak = memory_of(lambda: genie.generate(frames, codes.T[:, : length // 2]), setup.device)
    return {
        "uncached": 1.0,
        "cached": sum(uncached) / sum(cached[number - 1] for number in compared),
        "fps": fps,
        "gflop_per_frame": flops / 1e9,
        "matmul_share": fps * flops / matrix_flops(setup.device, precision),
        **({} if peak is None else {"peak_mb": peak / 1e6}),
        "same_tokens": sum(same) / len(same),
    }


def timed_step(world: World, code: torch.Tensor) -> float:
    began = time.perf_counter()
    world.step(code)
    synchronize(world.state.tokens.device)
    return time.perf_counter() - began
