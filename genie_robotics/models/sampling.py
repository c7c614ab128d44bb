"""MaskGIT sampling of one frame's tokens (Chang et al. 2022; Genie section 3: 25 steps, random sampling).

The noise is a function of (seed, sample, frame, step) alone: it does not depend on the batch a sample is in, on the
device, or on how the logits were computed. That is what makes cached and uncached sampling comparable token by token.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genie_robotics.models.inputs import seed_of

CHOICE_TEMPERATURE = 4.5  # of the noise on confidences, annealed to 0 over the steps (Chang et al.)


def gumbel(seed: int, samples: list[int], frame: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Gumbel noise (len(samples), *shape) in float32, from a counter-based generator.

    No two quadruples share noise. Philox has a key of two 64-bit words and a counter of four, of which a draw uses the
    lower half of the first alone: the words hold the seed's sign and 128 bits, sample, step and frame.
    """
    seed = seed_of(seed)
    high, low = divmod(abs(seed), 2**64)
    counter = np.array([2**63 * (seed < 0), high, step, frame], np.uint64)
    rows = []
    for sample in samples:
        bits = np.random.Philox(key=np.array([low, sample], np.uint64), counter=counter)
        rows.append(np.random.Generator(bits).standard_exponential(size=shape, dtype=np.float32))
    return -torch.from_numpy(np.stack(rows)).clamp_min(1e-30).log()


def num_masked(step: int, num_steps: int, num_patches: int) -> int:
    """Tokens still masked after `step` (0-based) of `num_steps`: the cosine schedule, at least one filled a step."""
    if step + 1 >= num_steps:
        return 0
    return min(int(num_patches * math.cos(math.pi / 2 * (step + 1) / num_steps)), num_patches - step - 1)


@torch.no_grad()
def sample_frame(
    logits_of: Callable[[Int[Tensor, "B N"]], Float[Tensor, "B N V"]],
    num_patches: int,
    mask_token: int,
    *,
    seed: int,
    samples: list[int],
    frame: int,
    num_steps: int,
    temperature: float,
    device: torch.device,
) -> Int[Tensor, "B N"]:
    """Fills one frame in `num_steps`, most confident tokens first.

    Args:
        logits_of: logits of the frame, given its tokens so far (`mask_token` where not filled yet).
        samples: an id for each row of the batch; equal (seed, sample, frame) means equal noise.
        frame: number of the frame in the dream, counted from its start.
        temperature: of the token choice and of the confidence noise; 0 is greedy.
    """
    num_steps = min(num_steps, num_patches)
    tokens = torch.full((len(samples), num_patches), mask_token, dtype=torch.long, device=device)
    for step in range(num_steps):
        logits = logits_of(tokens)
        noise = torch.zeros(logits.shape[1:] if not temperature else (), device=device, dtype=logits.dtype)
        rank_noise = noise[..., 0] if noise.ndim else noise
        if temperature:
            draw = gumbel(seed, samples, frame, step, (num_patches, logits.shape[-1] + 1))
            draw = draw.to(device=device, dtype=logits.dtype)
            noise, rank_noise = draw[..., :-1], draw[..., -1]
        masked = tokens == mask_token
        choice = (logits + temperature * noise).argmax(-1)
        log_prob = logits.log_softmax(-1).gather(-1, choice.unsqueeze(-1)).squeeze(-1)
        annealed = CHOICE_TEMPERATURE * temperature * (1 - (step + 1) / num_steps)
        confidence = (log_prob + annealed * rank_noise).masked_fill(~masked, float("inf"))
        tokens = torch.where(masked, choice, tokens)
        num_left = num_masked(step, num_steps, num_patches)
        if num_left:
            least = confidence.topk(num_left, dim=-1, largest=False).indices
            tokens = tokens.scatter(1, least, mask_token)
    return tokens
