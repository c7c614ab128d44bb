"""MaskGIT sampling of one frame's tokens (Chang et al. 2022; Genie section 3: 25 steps, random sampling).

The noise is a function of (seed, sample, frame, step) alone: it does not depend on the batch, on the device, or on how
the logits were computed. So cached and uncached sampling can be compared token by token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genie_robotics.models.inputs import seed_of

CONFIDENCE_TEMPERATURE = 4.5  # of the noise on confidences, annealed to 0 over the steps (Chang et al.)


def gumbel(seed: int, samples: list[int], frame: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Gumbel noise (len(samples), *shape) in float32, from a counter-based generator.

    No two (seed, sample, frame, step) share noise. Philox has a key of two 64-bit words and a counter of four, of which
    a draw uses the lower half of the first: the words hold the seed's sign and 128 bits, sample, step and frame.
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
    """Tokens still masked after `step` (from 0) of `num_steps`: the cosine schedule, at least one filled per step."""
    if step + 1 >= num_steps:
        return 0
    return min(int(num_patches * math.cos(math.pi / 2 * (step + 1) / num_steps)), num_patches - step - 1)


Order = Callable[[Float[Tensor, "B N"], Float[Tensor, "B N"], float, float], Float[Tensor, "B N"]]
"""An order of unmasking: (log-probability of the chosen tokens, Gumbel noise, temperature, progress 0 .. 1) -> scores;
the masked tokens with the highest scores are filled first."""


def by_confidence(log_prob: Tensor, noise: Tensor, temperature: float, progress: float) -> Tensor:
    """The most confident tokens first, with noise that is annealed to 0."""
    return log_prob + CONFIDENCE_TEMPERATURE * temperature * (1 - progress) * noise


@dataclass(frozen=True)
class Sampler:
    """How the tokens of a frame are sampled."""

    num_steps: int
    """Steps per frame."""
    temperature: float
    """Temperature of the token choice and of the order's noise; 0 is greedy."""
    order: Order = by_confidence

    @torch.no_grad()
    def sample(
        self,
        logits_of: Callable[[Int[Tensor, "B N"]], Float[Tensor, "B N V"]],
        num_patches: int,
        mask_token: int,
        *,
        seed: int,
        samples: list[int],
        frame: int,
        device: torch.device,
    ) -> Int[Tensor, "B N"]:
        """The tokens of one frame.

        Args:
            logits_of: logits of the frame, given its tokens so far (`mask_token` where not filled yet).
            samples: a number for each row of the batch; equal (seed, sample, frame) means equal noise.
            frame: number of the frame in the dream.
        """
        num_steps, temperature = min(self.num_steps, num_patches), self.temperature
        tokens = torch.full((len(samples), num_patches), mask_token, dtype=torch.long, device=device)
        for step in range(num_steps):
            logits = logits_of(tokens)
            noise = torch.zeros(logits.shape[1:] if not temperature else (), device=device, dtype=logits.dtype)
            order_noise = noise[..., 0] if noise.ndim else noise
            if temperature:
                draw = gumbel(seed, samples, frame, step, (num_patches, logits.shape[-1] + 1))
                draw = draw.to(device=device, dtype=logits.dtype)
                noise, order_noise = draw[..., :-1], draw[..., -1]
            masked = tokens == mask_token
            choice = (logits + temperature * noise).argmax(-1)
            log_prob = logits.log_softmax(-1).gather(-1, choice.unsqueeze(-1)).squeeze(-1)
            score = self.order(log_prob, order_noise, temperature, (step + 1) / num_steps)
            tokens = torch.where(masked, choice, tokens)
            num_left = num_masked(step, num_steps, num_patches)
            if num_left:
                lowest = score.masked_fill(~masked, float("inf")).topk(num_left, dim=-1, largest=False).indices
                tokens = tokens.scatter(1, lowest, mask_token)
        return tokens
