"""MaskGIT sampling of one frame's tokens (Chang et al. 2022; Genie section 3: 25 steps, random sampling).

The noise is a function of (seed, sample, frame, step) alone: it does not depend on the batch, on the device, or on how
the logits were computed. So cached and uncached sampling can be compared token by token.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genie_robotics.models.inputs import seed_of

CONFIDENCE_TEMPERATURE = 4.5  # of the noise on confidences, annealed to 0 over the steps (Chang et al.)


def uniform(seed: int, samples: list[int], frame: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform numbers (len(samples), *shape) in (0, 1), float32, from a counter-based generator.

    SplitMix64 (Steele et al. 2014) in integers, which are exact on every device: entry i is a hash of the key plus i.
    The key is 64 bits of a hash of (seed, sample, frame).
    """
    seed = seed_of(seed)
    keys = [hashlib.blake2b(f"{seed} {sample} {frame}".encode(), digest_size=8).digest() for sample in samples]
    start = torch.tensor([int.from_bytes(key, "little", signed=True) for key in keys], device=device)
    count = torch.arange(math.prod(shape), device=device)
    bits = start.unsqueeze(1) + count * -0x61C8864680B583EB  # the golden ratio's 64 bits, as a signed number
    bits = (bits ^ (bits >> 30 & 2**34 - 1)) * -0x40A7B892E31B1A47
    bits = (bits ^ (bits >> 27 & 2**37 - 1)) * -0x6B2FB644ECCEEE15
    bits = (bits ^ (bits >> 31 & 2**33 - 1)) >> 41 & 2**23 - 1
    return ((bits + 0.5) * 2**-23).view(len(samples), *shape)


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


def halton(grid: tuple[int, int]) -> Order:
    """Patches of a (rows, columns) grid in the order of a Halton sequence: each step's lie far apart.

    Besnier et al. 2025 (https://arxiv.org/abs/2503.17076): tokens of one step are drawn independently, which fits the
    better the less they tell of each other. The same order for all frames; the noise has no part in it.
    """
    rows, columns = grid
    order: list[int] = []
    seen, number = set(), 1
    while len(order) < rows * columns:
        patch = int(radical_inverse(number, 2) * rows) * columns + int(radical_inverse(number, 3) * columns)
        if patch not in seen:
            seen.add(patch)
            order.append(patch)
        number += 1
    scores = -torch.tensor(order).argsort().float()

    def by_place(log_prob: Tensor, noise: Tensor, temperature: float, progress: float) -> Tensor:
        return scores.to(log_prob.device).expand_as(log_prob)

    return by_place


def radical_inverse(number: int, base: int) -> float:
    """The digits of `number` mirrored at the point: 6 = 110 in base 2 becomes 0.011 = 0.375."""
    value, digit = 0.0, 1.0 / base
    while number:
        number, last = divmod(number, base)
        value, digit = value + last * digit, digit / base
    return value


OrderName = Literal["confidence", "halton"]
"""Name of an order, as in configurations."""


def make_order(name: OrderName, grid: tuple[int, int]) -> Order:
    """grid: rows and columns of patches."""
    return halton(grid) if name == "halton" else by_confidence


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
        kept_token: Int[Tensor, ""] | None = None,
    ) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B"]]:
        """The tokens of one frame, and the mean log-probability at which they were chosen.

        Args:
            logits_of: logits of the frame, given its tokens so far (`mask_token` where not filled yet).
            samples: a number for each row of the batch; equal (seed, sample, frame) means equal noise.
            frame: number of the frame in the dream.
            kept_token: the token of patches that do not change, if there is one; see `choose`.
        """
        num_steps, temperature = min(self.num_steps, num_patches), self.temperature
        tokens = torch.full((len(samples), num_patches), mask_token, dtype=torch.long, device=device)
        noise = uniform(seed, samples, frame, (num_steps, 2, num_patches), device)
        gumbel = -torch.log(-torch.log(noise[:, :, 1]))
        chosen_at = torch.zeros(len(samples), num_patches, device=device)
        for step in range(num_steps):
            logits = logits_of(tokens)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            choice = choose(logits, noise[:, step, 0], temperature, kept_token)
            masked = tokens == mask_token
            tokens = torch.where(masked, choice, tokens)
            log_prob = logits.gather(-1, choice.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
            chosen_at = torch.where(masked, log_prob.float(), chosen_at)
            num_left = num_masked(step, num_steps, num_patches)
            if num_left:
                score = self.order(log_prob, gumbel[:, step], temperature, (step + 1) / num_steps)
                lowest = score.masked_fill(~masked, float("inf")).topk(num_left, dim=-1, largest=False).indices
                tokens = tokens.scatter(1, lowest, mask_token)
        return tokens, chosen_at.mean(-1)


def choose(
    logits: Float[Tensor, "B N V"],
    noise: Float[Tensor, "B N"],
    temperature: float,
    kept_token: Int[Tensor, ""] | None = None,
) -> Int[Tensor, "B N"]:
    """A token of each patch from softmax(logits / temperature), or the most likely one at temperature 0.

    noise: where in the cumulative distribution, 0 .. 1. One number per token instead of one per token and code.
    kept_token: one token that competes with all others together: first the patch is kept or not, then changed in one of
        many ways, both at this temperature. In a plain softmax below temperature 1 it would win long before it is more
        likely than all the others together, and dreams would freeze.
    """
    if kept_token is None:
        return inverse_cdf((logits / temperature).softmax(-1), noise) if temperature else logits.argmax(-1)
    others = logits.index_fill(-1, kept_token.view(1), -math.inf)
    odds = logits[..., kept_token] - others.logsumexp(-1)  # log of p / (1 - p)
    if not temperature:
        return torch.where(odds < 0, others.argmax(-1), kept_token)
    kept = torch.sigmoid(odds / temperature)
    rest = ((noise - kept) / (1 - kept)).clamp(0, 1)
    return torch.where(noise < kept, kept_token, inverse_cdf((others / temperature).softmax(-1), rest))


def inverse_cdf(probabilities: Float[Tensor, "B N V"], noise: Float[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    cumulative = probabilities.cumsum(-1)
    place = noise.unsqueeze(-1).to(cumulative.dtype) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, place).squeeze(-1).clamp_max(probabilities.shape[-1] - 1)
