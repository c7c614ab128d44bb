"""Training on what a dream looks like from inside: a past with mistakes in it, and actions that nobody told.

In training every token that the dynamics may look at is true; in a dream it is the dynamics' own. These functions
close that gap (GameNGen, section 3.2.1, adds noise to the context frames; scheduled sampling, Bengio et al. 2015, gives
the model its own predictions). Unlike GameNGen's the noise level is NOT told to the model: nobody knows it in a dream,
and a wrong token, other than a noisy latent, can be told from a right one by what surrounds it.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genie_robotics.models.distributed import rand_by_clip

NUM_NEAR = 16  # half of a trained model's mistakes are among the 16 tokens nearest to the true one


def corrupted(tokens: Int[Tensor, "B T N"], most: float, meanings: Float[Tensor, "V D"]) -> Int[Tensor, "B T N"]:
    """`tokens` with a share of them replaced: a rate a clip, drawn uniformly from [0, most]. Frame 0 stays true.

    The replacements are mistakes of the kinds that dreams make, a third each: a token of the frame before, at this
    patch or beside it (what should have moved has not, or not as far); one of the 16 nearest tokens by the cosine of
    their `meanings`; any token of the batch. In dreams of a trained `nano` 29 to 50 % of the wrong tokens were of the
    first kind (with all frames before), 40 to 55 % of the second, and a third of neither. Neighbours are not taken from
    the frame itself, nor from a later one: that would tell what is to be predicted.
    """
    rate = most * torch.rand(len(tokens), 1, 1, device=tokens.device)
    wrong = torch.rand(tokens.shape, device=tokens.device) < rate
    wrong[:, 0] = False
    clip, frame, patch = wrong.nonzero(as_tuple=True)
    kind = torch.randint(3, clip.shape, device=tokens.device)
    stale = tokens[clip, frame - 1, beside(patch, tokens.shape[-1])]
    near = nearest(tokens[clip, frame, patch], meanings)
    anything = tokens.flatten()[torch.randint(tokens.numel(), clip.shape, device=tokens.device)]
    result = tokens.clone()
    result[clip, frame, patch] = torch.stack([stale, near, anything]).gather(0, kind.unsqueeze(0))[0]
    return result


def beside(patch: Int[Tensor, "M"], num_patches: int) -> Int[Tensor, "M"]:
    """A patch of the 3x3 around each, itself included. Of a grid that is not square: one that is not far."""
    width = math.isqrt(num_patches)
    step = torch.randint(-1, 2, (2, len(patch)), device=patch.device)
    row = (patch // width + step[0]).clamp(0, num_patches // width - 1)
    return row * width + (patch % width + step[1]).clamp(0, width - 1)


def nearest(tokens: Int[Tensor, "M"], meanings: Float[Tensor, "V D"]) -> Int[Tensor, "M"]:
    """For each token one of the NUM_NEAR others that mean the most like it, all with equal chance."""
    meanings = F.normalize(meanings.detach().float(), dim=-1)
    likeness = (meanings[tokens] @ meanings.T).scatter(1, tokens.unsqueeze(1), -torch.inf)
    found = likeness.topk(min(NUM_NEAR, len(meanings) - 1), dim=-1).indices
    return found.gather(1, torch.randint(found.shape[1], (len(tokens), 1), device=tokens.device))[:, 0]


def sampled(logits: Float[Tensor, "*S V"], temperature: float) -> Int[Tensor, "*S"]:
    """Tokens drawn as MaskGIT draws them: the largest of the logits with Gumbel noise of this temperature."""
    if not temperature:
        return logits.argmax(-1)
    noise = torch.empty_like(logits).exponential_().clamp_min_(1e-30).log_()
    return (logits - temperature * noise).argmax(-1)


def untold(actions: Float[Tensor, "B T L"], rate: float) -> Float[Tensor, "B T L"]:
    """`actions` with this share of them, frame by frame, replaced by zeros: what frame 0 has, whose action is unknown.

    By frame and not by clip, because guidance asks what would happen if the action of one frame were not told while
    those before are (genie_robotics.models.world).
    """
    told = rand_by_clip(*actions.shape[:2], 1, device=actions.device) >= rate
    return actions * told
