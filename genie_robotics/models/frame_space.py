"""Frame spaces: what a latent action model reads and predicts, behind one interface.

`PixelSpace` is the paper's. `TokenSpace` is its ablation (Genie section 3.4, table 2), which replaces "x with z in
figure 5": the encoder reads z_1 .. z_t+1, the decoder reads z_1 .. z_t and the latent action, and predicts z_t+1.
A new space (features of a frozen encoder) is another class with the methods of `FrameSpace`, chosen in `make_space`.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genie_robotics.models.distributed import mean_over_processes
from genie_robotics.models.layers.patches import num_patches, patchify, unpatchify
from genie_robotics.models.losses import motion_weights
from genie_robotics.models.video_tokenizer import VideoTokenizer


class FrameSpace(Protocol):
    """Observations are what `read` makes of frames; the model's encoder and decoder see their features."""

    num_patches: int
    """N of a frame."""
    input_width: int
    """P, numbers per patch that are read."""
    output_width: int
    """Q, numbers per patch that are predicted."""

    def read(self, frames: Float[Tensor, "B T H W 3"]) -> Tensor:
        """Observations (B, T, ...) of frames in [0, 1]."""
        ...

    def features(self, observed: Tensor) -> Float[Tensor, "B T N P"]:
        """The model's input for observations."""
        ...

    def copy_error(self, observed: Tensor) -> Float[Tensor, ""]:
        """The error of repeating the previous observation, above 0."""
        ...

    def loss(self, output: Float[Tensor, "B T-1 N Q"], observed: Tensor) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss of predicting observations 1 .. T-1, and `error_share`: the error divided by that of repeating the
        previous frame; 1 means that the actions explain nothing."""
        ...

    def show(self, output: Float[Tensor, "B T N Q"], observed: Tensor) -> Float[Tensor, "B T H W 3"]:
        """Predicted frames; entry t follows observation t."""
        ...


class PixelSpace:
    """Reads pixels and predicts pixels."""

    def __init__(self, image_size: tuple[int, int], patch_size: int, predict_diff: bool, motion_weight: float):
        self.image_size, self.patch_size = image_size, patch_size
        self.predict_diff, self.motion_weight = predict_diff, motion_weight
        self.num_patches = num_patches(image_size, patch_size)
        self.input_width = self.output_width = 3 * patch_size**2

    def read(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T H W 3"]:
        return frames

    def features(self, observed: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N P"]:
        return patchify(observed - 0.5, self.patch_size)

    def copy_error(self, observed: Float[Tensor, "B T H W 3"]) -> Float[Tensor, ""]:
        change = (observed[:, 1:] - observed[:, :-1]).square().mean()
        return mean_over_processes(change).clamp_min(1e-6)

    def loss(
        self, output: Float[Tensor, "B T-1 N Q"], observed: Float[Tensor, "B T H W 3"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        error = (self.show(output, observed[:, :-1]) - observed[:, 1:]).square()
        weights = motion_weights(observed, self.motion_weight)
        weights = weights[:, 1:] if isinstance(weights, Tensor) else weights
        still = self.copy_error(observed)
        # Relative to repeating the previous frame: the loss then has one scale for every camera and gap.
        return (error * weights).mean() / still, error.detach().mean() / still

    def show(
        self, output: Float[Tensor, "B T N Q"], observed: Float[Tensor, "B T H W 3"]
    ) -> Float[Tensor, "B T H W 3"]:
        pixels = unpatchify(output.float(), self.patch_size, self.image_size)
        return observed + pixels if self.predict_diff else torch.sigmoid(pixels)


class TokenSpace:
    """Reads the frozen tokenizer's tokens as code vectors, and predicts the next frame's tokens.

    The tokenizer is not a submodule of the latent action model, which neither trains nor stores it.
    """

    def __init__(self, tokenizer: VideoTokenizer, clip_length: int, predict_diff: bool):
        self.tokenizer, self.clip_length, self.predict_diff = tokenizer, clip_length, predict_diff
        self.num_patches = tokenizer.num_patches
        self.input_width = tokenizer.config.quantizer.latent_dim
        self.output_width = tokenizer.config.quantizer.num_codes

    @torch.no_grad()
    def read(self, frames: Float[Tensor, "B T H W 3"]) -> Int[Tensor, "B T N"]:
        return self.tokenizer.quantizer.nearest(self.tokenizer.latents(frames))

    def features(self, observed: Int[Tensor, "B T N"]) -> Float[Tensor, "B T N P"]:
        return self.tokenizer.quantizer.lookup(observed)

    def logits(self, output: Float[Tensor, "B T N V"], observed: Int[Tensor, "B T N"]) -> Float[Tensor, "B T N V"]:
        """Logits of the tokens after those observed."""
        logits = output.float()
        if not self.predict_diff:
            return logits
        # Starts at "nothing moves": the previous token is as likely as all others together.
        stay = torch.full_like(observed[..., None], math.log(logits.shape[-1]), dtype=logits.dtype)
        return logits.scatter_add(-1, observed[..., None], stay)

    def copy_error(self, observed: Int[Tensor, "B T N"]) -> Float[Tensor, ""]:
        """Fraction of the tokens that change."""
        return (observed[:, :-1] != observed[:, 1:]).float().mean().clamp_min(1e-3)

    def loss(
        self, output: Float[Tensor, "B T-1 N V"], observed: Int[Tensor, "B T N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of the next tokens in nats; and the number of wrong tokens over that of changed ones."""
        logits, following = self.logits(output, observed[:, :-1]), observed[:, 1:]
        wrong = (logits.detach().argmax(-1) != following).float().mean()
        return F.cross_entropy(logits.flatten(0, -2), following.flatten()), wrong / self.copy_error(observed)

    @torch.no_grad()
    def show(self, output: Float[Tensor, "B T N V"], observed: Int[Tensor, "B T N"]) -> Float[Tensor, "B T H W 3"]:
        """The most likely tokens, decoded as one clip; the tokenizer's own error is part of them."""
        following = self.logits(output, observed).argmax(-1)
        clip = torch.cat([observed[:, :1], following], dim=1)[:, -self.clip_length :]
        return self.tokenizer.pixels(self.features(clip))[:, -following.shape[1] :]
