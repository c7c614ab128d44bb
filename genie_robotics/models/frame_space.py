"""What a token-input latent action model works on: the frozen tokenizer's tokens in the place of pixels.

Genie's ablation (section 3.4, table 2) replaces "x with z in figure 5": the encoder reads z_1 .. z_t+1, the decoder
reads z_1 .. z_t and the latent action, and predicts z_t+1. The paper says no more. Here tokens enter as the codebook's
vectors (frozen: nothing of the tokenizer learns), and the prediction is one of the V codes a patch.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genie_robotics.models.video_tokenizer import VideoTokenizer


class TokenInput:
    """Frames, in [0, 1], to tokens and their vectors, and tokens back to frames.

    Not an nn.Module: the tokenizer stays no part of the module that holds this, which neither trains nor stores it.
    """

    def __init__(self, tokenizer: VideoTokenizer):
        self.tokenizer = tokenizer
        self.num_patches = tokenizer.num_patches
        self.num_codes = tokenizer.config.codebook.num_codes
        self.width = tokenizer.config.codebook.latent_dim

    @torch.no_grad()
    def read(self, frames: Float[Tensor, "B T H W 3"]) -> Int[Tensor, "B T N"]:
        """Tokens of at most `clip_length` frames; those of frame t know of frames 0 .. t (if the tokenizer does)."""
        return self.tokenizer.codebook.nearest(self.tokenizer.latents(frames))

    def vectors(self, tokens: Int[Tensor, "B T N"]) -> Float[Tensor, "B T N L"]:
        return self.tokenizer.codebook.lookup(tokens)

    @torch.no_grad()
    def show(self, tokens: Int[Tensor, "B T N"]) -> Float[Tensor, "B T H W 3"]:
        return self.tokenizer.pixels(self.vectors(tokens))
