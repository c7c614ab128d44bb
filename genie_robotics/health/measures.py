"""Measurements of weights, codes and behavior, for the health checks of training and for `doctor`.

No measurement has side effects: no gradients, no change of the caller's random state or of a quantizer's counters, and
every module stays in its mode (training or evaluation). The same clips and seed give the same figures.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_datasets.clips.motion import BLOCK as MOTION_BLOCK
from genie_datasets.clips.motion import MOTION_SIZE, STATIC_LEVELS
from genie_robotics.genie import Genie
from genie_robotics.models.latent_action import shift_to_next_frame
from genie_robotics.models.layers.patches import to_unit
from genie_robotics.models.video_tokenizer import ReferenceTokenizer

MOVING_LEVELS = 16.0
"""Gray levels by which a pixel must change to count as moving; codecs and sensors change a still one by less."""

CHUNK = 8
"""Clips per forward pass."""

Figures = dict[str, float]
"""Measured values by name; nan if a value could not be measured."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule returns to its own mode."""
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
    """Applies `function` to a few clips at a time, to bound memory, and concatenates the results."""
    return torch.cat([function(*parts) for parts in zip(*(batch.split(CHUNK) for batch in batches), strict=True)])


# ---- codes


def perplexity(counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> float:
    """exp of the entropy of the usage: K if all codes are used equally, 1 if one is; nan without counts."""
    counts = counts.double()
    if not counts.sum() > 0:
        return math.nan
    return float(torch.special.entr(counts / counts.sum()).sum().exp())


def bits_share(counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> float:
    """Entropy of the usage divided by the largest possible: 0 .. 1 for any number of codes."""
    return math.log(perplexity(counts)) / math.log(max(2, len(counts)))


def without_kept(component: nn.Module, counts: Tensor) -> Tensor:
    """The usage of a component's codes without those of patches that have not changed.

    A tokenizer with a reference gives half of all patches that code, which is no sign of a collapse.
    """
    if not isinstance(component, ReferenceTokenizer):
        return counts
    return counts.masked_fill(component.is_kept(component.quantizer.vectors), 0)


def num_dead(counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> int:
    """Number of codes that were never used."""
    return int((counts == 0).sum())


def code_spread(vectors: Float[Tensor, "K L"], counts: Float[Tensor, "K"] | Int[Tensor, "K"]) -> float:
    """Variance of the code vectors divided by their mean square, both weighted by usage: 0 .. 1.

    Near 0 all codes are the same vector and carry no information, even if the perplexity is high.
    """
    if not counts.sum() > 0:
        return math.nan
    vectors, weight = vectors.double(), (counts.double() / counts.sum()).unsqueeze(-1)
    mean = (weight * vectors).sum(0)
    square = (weight * vectors.square()).sum()
    return float((weight * (vectors - mean).square()).sum() / square.clamp_min(1e-12))


def codebook_figures(vectors: Float[Tensor, "K L"], counts: Tensor, name: str) -> Figures:
    """Figures of the usage of K codes; `name` is 'token' or 'code'."""
    return {
        f"{name}_perplexity": perplexity(counts),
        f"{name}_bits": bits_share(counts),
        f"{name}_spread": code_spread(vectors, counts),
    }


# ---- usage of actions


def action_use(
    genie: Genie,
    tokens: Int[Tensor, "B T N"],
    codes: Int[Tensor, "B T-1"],
    seed: int,
    context: Float[Tensor, "B T N C"] | None = None,
) -> Figures:
    """Cross-entropy in nats of masked tokens of the dynamics, given right and wrong actions.

    All see the same masks, drawn as in training. Means over the masked tokens that differ from the previous frame (most
    tokens stand still and need no action, which would hide the difference), nan if there are none:
        true: with the codes of these clips;
        shuffled: with the same codes permuted over all transitions;
        null: with zeros, the action of frame 0.
    Also `all` (true codes, all masked tokens), `num_tokens` (of the means) and `num_codes` (distinct codes; with one,
    shuffling changes nothing).

    context: what the tokenizer gives to be read beside the tokens.
    """
    dynamics, quantizer = genie.dynamics, genie.latent_action.quantizer

    contexts = torch.zeros(len(tokens), 0, device=tokens.device) if context is None else context

    def errors(tokens: Tensor, mask: Tensor, actions: Tensor, read: Tensor) -> Tensor:
        hidden = dynamics.hidden_where_masked(
            tokens, mask, shift_to_next_frame(actions), None if context is None else read
        )
        return F.cross_entropy(dynamics.head(hidden[mask]).float(), tokens[mask], reduction="none")

    with evaluating(genie), seeded(seed, tokens.device):
        mask = dynamics.draw_mask(tokens)
        changed = torch.zeros_like(mask)
        changed[:, 1:] = tokens[:, 1:] != tokens[:, :-1]
        counted = changed[mask]
        figures = {"num_tokens": float(counted.sum()), "num_codes": float(len(codes.unique()))}
        actions = {"true": quantizer.lookup(codes), "shuffled": quantizer.lookup(shuffled(codes))}
        actions["null"] = torch.zeros_like(actions["true"])
        for name, given in actions.items():
            found = by_chunk(errors, tokens, mask, given, contexts)
            figures[name] = float(found[counted].mean())
            if name == "true":
                figures["all"] = float(found.mean())
    return figures


def shuffled(codes: Int[Tensor, "B T-1"]) -> Int[Tensor, "B T-1"]:
    """The codes permuted over all transitions, by torch's random generator."""
    order = torch.randperm(codes.numel(), device=codes.device)
    return codes.flatten()[order].view_as(codes)


def motion_explained(
    genie: Genie, frames: UInt8[Tensor, "B T H W 3"], seed: int
) -> tuple[Figures, Int[Tensor, "B T-1"]]:
    """Prediction errors of the latent action model's decoder, given right and wrong codes; and the codes.

    Squared error of the predicted next frames divided by that of repeating the previous frame: with the `true` codes,
    and with the same codes `shuffled` over all transitions.
    """
    model = genie.latent_action

    def errors(frames: Tensor, codes: Tensor) -> Tensor:
        unit = to_unit(frames)
        prediction = model.predict(unit[:, :-1], model.quantizer.lookup(codes))
        return (prediction - unit[:, 1:]).square().mean((1, 2, 3, 4))

    def copied(frames: Tensor) -> Tensor:
        unit = to_unit(frames)
        return (unit[:, 1:] - unit[:, :-1]).square().mean((1, 2, 3, 4))

    with evaluating(genie), seeded(seed, frames.device):
        codes = by_chunk(model.encode, frames)
        still = by_chunk(copied, frames).mean().clamp_min(1e-6)
        figures = {
            name: float(by_chunk(errors, frames, given).mean() / still)
            for name, given in (("true", codes), ("shuffled", shuffled(codes)))
        }
    return figures, codes


def action_gap(use: Mapping[str, float]) -> float:
    """Fraction by which wrong actions raise the cross-entropy of `action_use` (taken as at least 0.1 nats).

    nan if there is only one code, which is another finding.
    """
    if use["num_codes"] < 2 or math.isnan(use["true"]):
        return math.nan
    return (use["shuffled"] - use["true"]) / max(use["true"], 0.1)


def action_gain(errors: Mapping[str, float]) -> float:
    """Fraction of the error of `motion_explained` that right codes save, compared with wrong ones."""
    return 1 - errors["true"] / max(errors["shuffled"], 1e-12)


# ---- tokenizer


def tokenizer_floor(
    genie: Genie, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"]
) -> tuple[Figures, Int[Tensor, "B T N"]]:
    """Errors of encoding and decoding frames 1 .. T-1; and the tokens.

    reference: of each clip; a tokenizer may ignore it.

    floor: squared error on moving pixels, divided by that of repeating the previous frame; nan if nothing moves. At 1,
        no dynamics on these tokens can predict motion better than a still picture.
    psnr, copy_psnr: PSNR in dB of the decoded frames, and of repeating the previous frame, on all pixels.
    moving: fraction of the pixels that move.
    """

    def sums(frames: Tensor, tokens: Tensor, reference: Tensor) -> Tensor:
        """(1, 6): decoding and copy error on moving pixels, both on all pixels, number of moving pixels, of pixels."""
        current, previous = frames[:, 1:].float(), frames[:, :-1].float()
        error = (genie.tokenizer.decode(tokens, reference)[:, 1:].float() - current).square().mean(-1)
        copied = (previous - current).square().mean(-1)
        moving = (previous - current).abs().mean(-1) > MOVING_LEVELS
        parts = (error[moving], copied[moving], error, copied, moving, torch.ones_like(moving))
        return torch.stack([part.double().sum() for part in parts]).unsqueeze(0)

    with evaluating(genie):
        tokens = by_chunk(genie.tokenizer.encode, frames, reference)
        error, copied, all_error, all_copied, moving, pixels = by_chunk(sums, frames, tokens, reference).sum(0).tolist()
    return {
        "floor": error / copied if moving else math.nan,
        "psnr": psnr(all_error / pixels),
        "copy_psnr": psnr(all_copied / pixels),
        "moving": moving / pixels,
    }, tokens


def psnr(error: float) -> float:
    """PSNR in dB of a mean squared error in gray levels, which is taken as at least 1e-6."""
    return 20 * math.log10(255) - 10 * math.log10(max(error, 1e-6))


# ---- data and numbers


def static_clips(frames: UInt8[Tensor, "B T H W 3"]) -> int:
    """Number of clips without visible motion: no 8x8 block changes by 4 gray levels on average, in any transition.

    As in `data inspect` (genie_datasets.clips.motion, at 64x64), so that sensor and codec noise does not count.
    """
    gray = frames.float().mean(-1)
    if gray.shape[2] > MOTION_SIZE[0] or gray.shape[3] > MOTION_SIZE[1]:
        gray = F.adaptive_avg_pool2d(gray, MOTION_SIZE)
    change = (gray[:, 1:] - gray[:, :-1]).abs()
    change = F.adaptive_avg_pool2d(
        change, (max(1, change.shape[2] // MOTION_BLOCK), max(1, change.shape[3] // MOTION_BLOCK))
    )
    return int((change.amax((2, 3)) < STATIC_LEVELS).all(1).sum())


def static_share(frames: UInt8[Tensor, "B T H W 3"]) -> float:
    """Fraction of the clips without visible motion."""
    return static_clips(frames) / len(frames)


def num_not_finite(module: nn.Module) -> int:
    """Number of weights that are nan or infinite."""
    with torch.no_grad():
        bad = [(~torch.isfinite(p)).sum() for p in module.parameters()]
        return int(torch.stack(bad).sum()) if bad else 0
