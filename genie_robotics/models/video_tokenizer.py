"""The video tokenizer: ST-ViViT, a VQ-VAE whose encoder and decoder are ST-transformers (Genie section 2.1).

Both are causal in time, so the tokens of frame t depend on frames 0 .. t only.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_robotics.models.layers.cache import TemporalCache
from genie_robotics.models.layers.patches import num_patches, patchify, to_uint8, to_unit, unpatchify
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.losses import Logs, motion_weights
from genie_robotics.models.quantizers import QuantizerConfig, make_quantizer

COMMITMENT = 0.1  # weight of the quantizer's loss beside the reconstruction's


@dataclass
class TokenizerConfig:
    """Sizes of the video tokenizer."""

    GROUP: ClassVar[str] = "advanced: tokenizer"  # heading in --help

    image_size: tuple[int, int] = (64, 64)
    """Height and width in pixels."""
    clip_length: int = 16
    """Frames of a clip."""
    patch_size: int = 4
    """Side of a patch in pixels; Genie: 4."""
    encoder_width: int = 512
    """Width of the encoder."""
    encoder_num_blocks: int = 4
    """ST blocks of the encoder."""
    encoder_num_heads: int = 8
    """Attention heads of the encoder."""
    decoder_width: int = 512
    """Width of the decoder."""
    decoder_num_blocks: int = 4
    """ST blocks of the decoder."""
    decoder_num_heads: int = 8
    """Attention heads of the decoder."""
    quantizer: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(num_codes=1024))
    motion_weight: float = 0.0
    """Extra loss weight of pixels that change: 1 + motion_weight * |change| / mean |change|. 0 (paper): none."""


class VideoTokenizer(nn.Module):
    """Frames to tokens and back."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = c = config
        self.num_patches = num_patches(c.image_size, c.patch_size)
        pixels = 3 * c.patch_size**2
        self.patch_in = nn.Linear(pixels, c.encoder_width)
        self.encoder = STTransformer(
            c.encoder_width, c.encoder_num_blocks, c.encoder_num_heads, self.num_patches, c.clip_length
        )
        self.to_latent = nn.Linear(c.encoder_width, c.quantizer.latent_dim)
        self.quantizer = make_quantizer(c.quantizer)
        self.from_latent = nn.Linear(c.quantizer.latent_dim, c.decoder_width)
        self.decoder = STTransformer(
            c.decoder_width, c.decoder_num_blocks, c.decoder_num_heads, self.num_patches, c.clip_length
        )
        self.patch_out = nn.Linear(c.decoder_width, pixels)

    def forward(self, batch: UInt8[Tensor, "B T H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        """Reconstruction loss of the clips plus the quantizer's loss."""
        frames = to_unit(batch)
        vectors, _, commitment = self.quantizer(self.latents(frames))
        error = (self.pixels(vectors) - frames).square()
        loss = (error * motion_weights(frames, self.config.motion_weight)).mean() + COMMITMENT * commitment
        logs = {"psnr": -10 * torch.log10(error.detach().mean())}
        return loss, logs | self.quantizer.logs()

    def latents(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N L"]:
        """Latents before quantization, of frames in [0, 1]."""
        x = self.patch_in(patchify(frames - 0.5, self.config.patch_size))
        return self.to_latent(self.encoder(x))

    def pixels(
        self, vectors: Float[Tensor, "B T N L"], cache: TemporalCache | None = None
    ) -> Float[Tensor, "B T H W 3"]:
        """Frames in [0, 1] (not clamped) from quantized latents.

        cache: of the decoder; the frames follow those in it, and their keys and values are written behind it.
        """
        patches = self.patch_out(self.decoder(self.from_latent(vectors), None, cache)).float()
        return unpatchify(patches, self.config.patch_size, self.config.image_size) + 0.5

    def encode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Int[Tensor, "B T N"]:
        """Tokens of a clip of at most `clip_length` frames."""
        return self.quantizer.nearest(self.latents(to_unit(frames, self.patch_in.weight.dtype)))

    def decode(self, tokens: Int[Tensor, "B T N"], cache: TemporalCache | None = None) -> UInt8[Tensor, "B T H W 3"]:
        """Frames of the tokens of a clip of at most `clip_length` frames; cache: see `pixels`."""
        return to_uint8(self.pixels(self.quantizer.lookup(tokens), cache))
