"""The measurements that sentinel and `doctor` share.

None of them moves anything: no gradient, no random number of the caller's, no counter of a codebook, and each module
is left in the mode (training or evaluation) it was in. The same clips and seed give the same figures.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from genie_datasets.clips.motion import BLOCK as MOTION_BLOCK
from genie_datasets.clips.motion import MOTION_SIZE, STATIC_LEVELS
from genie_robotics.genie import Genie
from genie_robotics.models.latent_action import shift_to_next_frame
from genie_robotics.models.layers.patches import to_unit

MOVING_LEVELS = 16.0
"""Grey levels by which a pixel must change to count as moving: above what codecs and sensors do to a still one."""

CHUNK = 8
"""Clips that are computed at once."""

Figures = dict[str, float]
NAN = math.nan


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Measure in evaluation mode; every part is put back into its own mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def by_chunk(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """`function` of a few clips at a time, one result after the other: memory does not grow with the clips."""
    return torch.cat([function(*parts) for parts in zip(*(batch.split(CHUNK) for batch in batches), strict=True)])


# ---- codebooks


def perplexity(counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> float:
    """exp of the entropy of the use: K when all codes are used alike, 1 when one is; nan when none was counted."""
    counts = counts.double()
    if not counts.sum() > 0:
        return NAN
    return float(torch.special.entr(counts / counts.sum()).sum().exp())


def bits_share(counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> float:
    """Entropy of the use over the largest possible, 0 .. 1: one scale for 8 codes and for 1024."""
    return math.log(perplexity(counts)) / math.log(max(2, len(counts)))


def num_dead(counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> int:
    """Codes that were never used."""
    return int((counts == 0).sum())


def code_spread(vectors: Float[Tensor, "K L"], counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> float:
    """How far apart the codes in use lie, 0 .. 1: their variance over their mean square, weighted by use.

    Near 0 all are the same vector: each is used, none means anything, and perplexity alone would not tell.
    """
    if not counts.sum() > 0:
        return NAN
    vectors, weight = vectors.double(), (counts.double() / counts.sum()).unsqueeze(-1)
    mean = (weight * vectors).sum(0)
    square = (weight * vectors.square()).sum()
    return float((weight * (vectors - mean).square()).sum() / square.clamp_min(1e-12))


def codebook_figures(vectors: Float[Tensor, "K L"], counts: Tensor, name: str) -> Figures:
    """All of the above, under the names of genie_robotics.health.rules; `name` is 'token' or 'code'."""
    return {
        f"{name}_perplexity": perplexity(counts),
        f"{name}_bits": bits_share(counts),
        f"{name}_spread": code_spread(vectors, counts),
    }


# ---- what the dynamics does with its actions


def action_use_gap(genie: Genie, frames: UInt8[Tensor, "B T H W 3"], seed: int) -> Figures:
    """Does the dynamics use its actions? Cross-entropy of masked tokens, in nats, with right and with wrong ones.

    Masks are drawn as in training, the same for all. Returned are `true` (the codes of these clips), `shuffled` (the
    same codes dealt out anew among all transitions: ones the model knows, only not what happened) and `null` (the
    zeros that frame 0 gets), each over the masked tokens that differ from the frame before: most of a frame stands
    still and needs no action, which would bury the gap. Also `all` (true codes, every masked token), `num_tokens`
    (that the first three are means of; without any they are nan) and `num_codes` (distinct codes: with one, shuffling
    changes nothing).
    """
    with untouched(genie):
        tokens = by_chunk(genie.tokenizer.encode, frames)
        codes = by_chunk(genie.latent_action.encode, frames)
    return action_use(genie, tokens, codes, seed)


def action_use(genie: Genie, tokens: Int[Tensor, "B T N"], codes: Int[Tensor, "B T-1"], seed: int) -> Figures:
    """`action_use_gap` of clips that are tokens already."""
    dynamics, book = genie.dynamics, genie.latent_action.codebook

    def errors(tokens: Tensor, mask: Tensor, actions: Tensor) -> Tensor:
        hidden = dynamics.filled(tokens, mask, shift_to_next_frame(actions))
        return F.cross_entropy(dynamics.head(hidden[mask]).float(), tokens[mask], reduction="none")

    with untouched(genie), seeded(seed, tokens.device):
        mask = dynamics.draw_mask(tokens)
        changed = torch.zeros_like(mask)
        changed[:, 1:] = tokens[:, 1:] != tokens[:, :-1]
        asked = changed[mask]
        figures = {"num_tokens": float(asked.sum()), "num_codes": float(len(codes.unique()))}
        actions = {"true": book.lookup(codes), "shuffled": book.lookup(shuffled(codes))}
        actions["null"] = torch.zeros_like(actions["true"])
        for name, given in actions.items():
            found = by_chunk(errors, tokens, mask, given)
            figures[name] = float(found[asked].mean())
            if name == "true":
                figures["all"] = float(found.mean())
    return figures


def shuffled(codes: Int[Tensor, "B T-1"]) -> Int[Tensor, "B T-1"]:
    """The same codes dealt out anew among all transitions. Draws from torch's generator."""
    order = torch.randperm(codes.numel(), device=codes.device)
    return codes.flatten()[order].view_as(codes)


def motion_explained(
    genie: Genie, frames: UInt8[Tensor, "B T H W 3"], seed: int
) -> tuple[Figures, Int[Tensor, "B T-1"]]:
    """Does the latent action model's own decoder use the codes? And the codes.

    Squared errors of the predicted next frames over that of repeating the last one: with the `true` codes, and with
    the same codes `shuffled` among all transitions.
    """
    model = genie.latent_action

    def errors(frames: Tensor, codes: Tensor) -> Tensor:
        unit = to_unit(frames)
        prediction = model.predict(unit[:, :-1], model.codebook.lookup(codes))
        return (prediction - unit[:, 1:]).square().mean((1, 2, 3, 4))

    def copied(frames: Tensor) -> Tensor:
        unit = to_unit(frames)
        return (unit[:, 1:] - unit[:, :-1]).square().mean((1, 2, 3, 4))

    with untouched(genie), seeded(seed, frames.device):
        codes = by_chunk(model.encode, frames)
        still = by_chunk(copied, frames).mean().clamp_min(1e-6)
        figures = {
            name: float(by_chunk(errors, frames, given).mean() / still)
            for name, given in (("true", codes), ("shuffled", shuffled(codes)))
        }
    return figures, codes


# ---- tokenizer


def tokenizer_floor(genie: Genie, frames: UInt8[Tensor, "B T H W 3"]) -> tuple[Figures, Int[Tensor, "B T N"]]:
    """Can the tokens show motion at all? And the tokens.

    `floor`: squared error of the round trip through tokens over that of repeating the frame before, on the pixels that
    move. At 1 no dynamics on these tokens can beat standing still where it matters. `psnr` and `copy_psnr`, in dB: the
    round trip and the repeated frame over the whole of frames 1 .. T-1. `moving`: share of pixels that move; `floor`
    is nan where none does.
    """

    def sums(frames: Tensor, tokens: Tensor) -> Tensor:
        """(1, 6): errors of the round trip and of copying, on what moves and on all; moving pixels, and all."""
        after, before = frames[:, 1:].float(), frames[:, :-1].float()
        error = (genie.tokenizer.decode(tokens)[:, 1:].float() - after).square().mean(-1)
        copied = (before - after).square().mean(-1)
        moving = (before - after).abs().mean(-1) > MOVING_LEVELS
        parts = (error[moving], copied[moving], error, copied, moving, torch.ones_like(moving))
        return torch.stack([part.double().sum() for part in parts]).unsqueeze(0)

    with untouched(genie):
        tokens = by_chunk(genie.tokenizer.encode, frames)
        error, copied, all_error, all_copied, moving, pixels = by_chunk(sums, frames, tokens).sum(0).tolist()
    return {
        "floor": error / copied if moving else NAN,
        "psnr": decibels(all_error / pixels),
        "copy_psnr": decibels(all_copied / pixels),
        "moving": moving / pixels,
    }, tokens


def decibels(error: float) -> float:
    """Mean squared error in grey levels to PSNR; of no error at all, that of a millionth."""
    return 20 * math.log10(255) - 10 * math.log10(max(error, 1e-6))


# ---- data and numbers


def still_transitions(frames: UInt8[Tensor, "B T H W 3"]) -> Bool[Tensor, "B T-1"]:
    """Nothing visible moves: no 8x8 block changes by 4 grey levels on average.

    Counted as in `data inspect` (genie_datasets.clips.motion, at 64x64), so that sensor and codec noise is no motion.
    """
    grey = frames.float().mean(-1)
    if grey.shape[2] > MOTION_SIZE[0] or grey.shape[3] > MOTION_SIZE[1]:
        grey = F.adaptive_avg_pool2d(grey, MOTION_SIZE)
    change = (grey[:, 1:] - grey[:, :-1]).abs()
    change = F.adaptive_avg_pool2d(
        change, (max(1, change.shape[2] // MOTION_BLOCK), max(1, change.shape[3] // MOTION_BLOCK))
    )
    return change.amax((2, 3)) < STATIC_LEVELS


def static_clips(frames: UInt8[Tensor, "B T H W 3"]) -> int:
    """How many of the clips show no motion at all."""
    return int(still_transitions(frames).all(1).sum())


def static_share(frames: UInt8[Tensor, "B T H W 3"]) -> float:
    """Share of clips in which nothing moves."""
    return static_clips(frames) / len(frames)


def num_not_finite(module: nn.Module) -> int:
    """Weights that are nan or infinite."""
    with torch.no_grad():
        bad = [(~torch.isfinite(p)).sum() for p in module.parameters()]
        return int(torch.stack(bad).sum()) if bad else 0
