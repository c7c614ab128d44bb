"""The video tokenizer: ST-ViViT, a VQ-VAE whose encoder and decoder are ST-transformers (Genie section 2.1).

Both are causal in time, so the tokens of frame t carry information of frames 1..t and nothing later.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_robotics.models.distributed import mean_over_processes
from genie_robotics.models.layers.attention import KeyValue
from genie_robotics.models.layers.patches import num_patches, patchify, to_uint8, to_unit, unpatchify
from genie_robotics.models.layers.st_transformer import ATTENTIONS, Past, STTransformer
from genie_robotics.models.quantizers.codebook import Codebook
from genie_robotics.models.quantizers.config import CodebookConfig

Logs = dict[str, Tensor]
"""Named scalars for the log, detached; turned into numbers only when they are printed."""


@dataclass
class TokenizerConfig:
    image_size: tuple[int, int] = (64, 64)
    """(H, W) pixels."""
    clip_length: int = 16
    patch: int = 4
    """Side of a patch; Genie: 4."""
    encoder_width: int = 512
    encoder_blocks: int = 4
    encoder_heads: int = 8
    decoder_width: int = 512
    decoder_blocks: int = 4
    decoder_heads: int = 8
    codebook: CodebookConfig = field(default_factory=lambda: CodebookConfig(num_codes=1024))
    motion_weight: float = 0.0
    """Extra weight of pixels that change between frames: loss weight 1 + motion_weight * |change| / mean |change|."""
    attention: Literal["st", "spatial", "full"] = "st"
    """What the blocks of encoder and decoder attend to: 'st' (paper), or its ablations (table 3) 'spatial', each frame
    on its own (ViT), and 'full', all patches of all frames so far (C-ViViT). As many parameters: see ATTENTIONS."""

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, not {self.attention!r}")


class VideoTokenizer(nn.Module):
    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = c = config
        self.num_patches = num_patches(c.image_size, c.patch)
        pixels = 3 * c.patch**2
        self.patch_in = nn.Linear(pixels, c.encoder_width)
        self.encoder = STTransformer(
            c.encoder_width,
            c.encoder_blocks,
            c.encoder_heads,
            self.num_patches,
            c.clip_length,
            attention=c.attention,
        )
        self.to_latent = nn.Linear(c.encoder_width, c.codebook.latent_dim)
        self.codebook = Codebook(c.codebook)
        self.from_latent = nn.Linear(c.codebook.latent_dim, c.decoder_width)
        self.decoder = STTransformer(
            c.decoder_width,
            c.decoder_blocks,
            c.decoder_heads,
            self.num_patches,
            c.clip_length,
            attention=c.attention,
        )
        self.patch_out = nn.Linear(c.decoder_width, pixels)

    def forward(self, batch: UInt8[Tensor, "B T H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        """Reconstruction loss of the clips plus the codebook's commitment."""
        frames = to_unit(batch)
        quantised, _, commitment = self.codebook(self.latents(frames))
        reconstruction = self.pixels(quantised)
        error = (reconstruction - frames).square()
        loss = (error * motion_weights(frames, self.config.motion_weight)).mean() + 0.1 * commitment
        logs = {"psnr": -10 * torch.log10(error.detach().mean())}
        return loss, logs | self.codebook.logs()

    def latents(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N L"]:
        x = self.patch_in(patchify(frames - 0.5, self.config.patch))
        return self.to_latent(self.encoder(x))

    def pixels(self, quantised: Float[Tensor, "B T N L"]) -> Float[Tensor, "B T H W 3"]:
        return self.pixels_after(quantised, None, keep=False)[0]

    def pixels_after(
        self, quantised: Float[Tensor, "B T N L"], past: Past | None, keep: bool = True
    ) -> tuple[Float[Tensor, "B T H W 3"], list[KeyValue]]:
        x, new = self.decoder.forward_after(self.from_latent(quantised), None, past, keep)
        patches = self.patch_out(x).float()
        return unpatchify(patches, self.config.patch, self.config.image_size) + 0.5, new

    def encode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Int[Tensor, "B T N"]:
        """Tokens of a clip of at most `clip_length` frames."""
        return self.codebook.nearest(self.latents(to_unit(frames, self.patch_in.weight.dtype)))

    def decode(self, tokens: Int[Tensor, "B T N"]) -> UInt8[Tensor, "B T H W 3"]:
        return self.decode_after(tokens, None)[0]

    def decode_after(
        self, tokens: Int[Tensor, "B T N"], past: Past | None
    ) -> tuple[UInt8[Tensor, "B T H W 3"], list[KeyValue]]:
        """Frames of tokens that follow those in `past`, and their keys and values."""
        frames, new = self.pixels_after(self.codebook.lookup(tokens), past)
        return to_uint8(frames), new


def motion_weights(frames: Float[Tensor, "B T H W 3"], strength: float) -> Tensor | float:
    """Loss weights, mean about 1, that favour what moves: robots are small in front of still tables."""
    if not strength:
        return 1.0
    change = (frames[:, 1:] - frames[:, :-1]).abs().mean(-1, keepdim=True)
    change = F.avg_pool2d(change.flatten(0, 1).permute(0, 3, 1, 2), 5, stride=1, padding=2)
    change = change.permute(0, 2, 3, 1).reshape(*frames[:, 1:, ..., :1].shape)
    change = torch.cat([change[:, :1], change], dim=1)
    weight = 1 + strength * change / mean_over_processes(change.mean()).clamp_min(1e-6)
    return weight / (1 + strength)
