"""The video tokenizer: ST-ViViT, a VQ-VAE whose encoder and decoder are ST-transformers (Genie section 2.1).

Both are causal in time, so the tokens of frame t depend on frames 0 .. t only. `VideoTokenizer` is the paper's.
`ReferenceTokenizer` also sees a reference, the picture from which a dream starts: the reference carries the appearance
and the tokens say what has changed since. A new kind is a subclass and an entry of TOKENIZERS.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from genie_robotics.models.layers.cache import TemporalCache
from genie_robotics.models.layers.patches import num_patches, patchify, to_uint8, to_unit, unpatchify
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.losses import Logs, motion_weights
from genie_robotics.models.quantizers import QuantizerConfig, make_quantizer

COMMITMENT = 0.1  # weight of the quantizer's loss beside the reconstruction's
GATE_BIAS = 2.0  # of an untrained gate, which nearly copies the reference
UNCHANGED = 0.02  # RMS difference of a patch to the reference, where white is 1, up to which it counts as unchanged
KEPT = 1e-3  # mean square distance of a vector to that of unchanged patches up to which they are the same code


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
    reference: Literal["none", "start"] = "none"
    """The picture that tokens are relative to: none (paper), or the one from which a dream starts."""
    reference_span: int = 60
    """Largest distance in training from the reference to the clip, in frames of the clip."""

    def __post_init__(self) -> None:
        if self.reference not in TOKENIZERS:
            raise ValueError(f"reference must be one of {', '.join(TOKENIZERS)}, got {self.reference!r}")


class VideoTokenizer(nn.Module):
    """Frames to tokens and back. References are accepted and ignored: all tokenizers have one interface."""

    uses_reference: ClassVar[bool] = False
    """True if clips are encoded and decoded relative to a reference."""
    inputs: ClassVar[int] = 1
    """Pictures that the encoder reads beside each other."""
    outputs: ClassVar[int] = 3
    """Channels that the decoder predicts for each pixel."""
    temporal: ClassVar[bool] = True
    """False if frames are coded one by one, so that blocks have no temporal layer."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = c = config
        self.num_patches = num_patches(c.image_size, c.patch_size)
        pixels = c.patch_size**2
        self.patch_in = nn.Linear(3 * pixels * self.inputs, c.encoder_width)
        self.encoder = STTransformer(
            c.encoder_width, c.encoder_num_blocks, c.encoder_num_heads, self.num_patches, c.clip_length,
            temporal=self.temporal,
        )  # fmt: skip
        self.to_latent = nn.Linear(c.encoder_width, c.quantizer.latent_dim)
        self.quantizer = make_quantizer(c.quantizer)
        self.from_latent = nn.Linear(c.quantizer.latent_dim, c.decoder_width)
        self.decoder = STTransformer(
            c.decoder_width, c.decoder_num_blocks, c.decoder_num_heads, self.num_patches, c.clip_length,
            temporal=self.temporal,
        )  # fmt: skip
        self.patch_out = nn.Linear(c.decoder_width, self.outputs * pixels)

    def forward(
        self, batch: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Float[Tensor, ""], Logs]:
        """Reconstruction loss of the clips plus the quantizer's loss."""
        frames, still = to_unit(batch), self.unit_reference(reference)
        vectors, _, commitment = self.quantizer(self.latents(frames, still))
        error = (self.pixels(vectors, still) - frames).square()
        loss = (error * motion_weights(frames, self.config.motion_weight)).mean() + COMMITMENT * commitment
        logs = {"psnr": -10 * torch.log10(error.detach().mean())}
        return loss, logs | self.quantizer.logs()

    def latents(
        self, frames: Float[Tensor, "B T H W 3"], reference: Float[Tensor, "B 1 H W 3"] | None = None
    ) -> Float[Tensor, "B T N L"]:
        """Latents before quantization, of frames in [0, 1]."""
        return self.to_latent(self.encoder(self.patch_in(self.patches(frames))))

    def patches(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N P"]:
        """Patches of frames in [0, 1], about zero."""
        return patchify(frames - 0.5, self.config.patch_size)

    def pixels(
        self,
        vectors: Float[Tensor, "B T N L"],
        reference: Float[Tensor, "B 1 H W 3"] | None = None,
        cache: TemporalCache | None = None,
    ) -> Float[Tensor, "B T H W 3"]:
        """Frames in [0, 1] (not clamped) from quantized latents.

        cache: of the decoder; the frames follow those in it, and their keys and values are written behind it.
        """
        return self.pixels_and_gate(vectors, reference, cache)[0]

    def pixels_and_gate(
        self,
        vectors: Float[Tensor, "B T N L"],
        reference: Float[Tensor, "B 1 H W 3"] | None,
        cache: TemporalCache | None,
    ) -> tuple[Float[Tensor, "B T H W 3"], Float[Tensor, "B T H W"] | None]:
        """`pixels`, and the share of the reference in each; None if there is no reference."""
        return self.predict(self.from_latent(vectors), cache) + 0.5, None

    def predict(self, x: Float[Tensor, "B T N D"], cache: TemporalCache | None) -> Float[Tensor, "B T H W C"]:
        """The decoder's channels of each pixel."""
        patches = self.patch_out(self.decoder(x, None, cache)).float()
        return unpatchify(patches, self.config.patch_size, self.config.image_size)

    def encode(
        self, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> Int[Tensor, "B T N"]:
        """Tokens of a clip of at most `clip_length` frames."""
        still = self.unit_reference(reference)
        return self.quantizer.nearest(self.latents(to_unit(frames, self.patch_in.weight.dtype), still))

    def decode(
        self,
        tokens: Int[Tensor, "B T N"],
        reference: UInt8[Tensor, "B H W 3"] | None = None,
        cache: TemporalCache | None = None,
    ) -> UInt8[Tensor, "B T H W 3"]:
        """Frames of the tokens of a clip of at most `clip_length` frames; cache: see `pixels`."""
        return self.decode_with_gate(tokens, reference, cache)[0]

    def decode_with_gate(
        self,
        tokens: Int[Tensor, "B T N"],
        reference: UInt8[Tensor, "B H W 3"] | None = None,
        cache: TemporalCache | None = None,
    ) -> tuple[UInt8[Tensor, "B T H W 3"], UInt8[Tensor, "B T H W"] | None]:
        """`decode`, and the gate of each pixel: 255 where it is the reference's; None if there is no reference."""
        frames, gate = self.pixels_and_gate(self.quantizer.lookup(tokens), self.unit_reference(reference), cache)
        return to_uint8(frames), None if gate is None else to_uint8(gate)

    def newest(
        self, tokens: Int[Tensor, "B T N"], reference: UInt8[Tensor, "B H W 3"], cache: TemporalCache | None
    ) -> tuple[UInt8[Tensor, "B H W 3"], UInt8[Tensor, "B H W"] | None]:
        """The last frame of a window, and its gate; cache: holds the frames before it, None decodes them again."""
        alone = cache is not None or not self.temporal
        frames, gates = self.decode_with_gate(tokens[:, -1:] if alone else tokens, reference, cache)
        return frames[:, -1], None if gates is None else gates[:, -1]

    def new_cache(self, num: int) -> TemporalCache | None:
        """An empty cache of the decoder for `num` dreams; None if frames are decoded one by one."""
        return self.decoder.new_cache(num) if self.temporal else None

    def kept_token(self) -> Int[Tensor, ""] | None:
        """The token of patches that are the reference's; None if there is none."""
        return None

    def context(
        self, before: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"]
    ) -> Float[Tensor, "B T N C"] | None:
        """Input of the dynamics beside the tokens of frames, given the shown frame before each; None: nothing."""
        return None

    def clip_context(
        self, tokens: Int[Tensor, "B T N"], reference: UInt8[Tensor, "B H W 3"] | None
    ) -> Float[Tensor, "B T N C"] | None:
        """`context` of a clip's tokens. Before its first frame, which is given, that frame itself is read."""
        if not self.uses_reference:
            return None
        shown = self.decode(tokens, reference)
        return self.context(torch.cat([shown[:, :1], shown[:, :-1]], dim=1), needed(reference))

    def unit_reference(self, reference: UInt8[Tensor, "B H W 3"] | None) -> Float[Tensor, "B 1 H W 3"] | None:
        """The reference in [0, 1], with an axis for time."""
        return None


class ReferenceTokenizer(VideoTokenizer):
    """A tokenizer of what differs from a reference, an earlier frame of the same episode.

    The encoder reads each frame beside its difference to the reference. The decoder reads the reference too, and
    predicts a color and a gate for each pixel: 1 keeps the reference's pixel, 0 takes the color.

    A patch that has not changed has the latent 0, hence one and the same token in every picture, and its gate is 1. So
    the frame is the reference where nothing has changed, whatever it shows; other codes are left for what changes, and
    the dynamics has one token to predict for all that stands still. Video codecs do the same (skipped blocks).

    Frames are coded one by one: all that has changed is drawn from the frame's own tokens, so that errors of one frame
    are not handed on to the next.
    """

    uses_reference = True
    inputs = 2
    outputs = 4
    temporal = False

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        self.reference_in = nn.Linear(3 * config.patch_size**2, config.decoder_width)
        with torch.no_grad():
            self.patch_out.bias.view(-1, self.outputs)[:, 3] = GATE_BIAS

    def latents(
        self, frames: Float[Tensor, "B T H W 3"], reference: Float[Tensor, "B 1 H W 3"] | None = None
    ) -> Float[Tensor, "B T N L"]:
        change = patchify(frames - needed(reference), self.config.patch_size)
        changed = change.square().mean(dim=-1, keepdim=True) > UNCHANGED**2
        read = torch.cat([self.patches(frames), 2 * change], dim=-1)
        return self.to_latent(self.encoder(self.patch_in(read))) * changed

    def pixels_and_gate(
        self,
        vectors: Float[Tensor, "B T N L"],
        reference: Float[Tensor, "B 1 H W 3"] | None,
        cache: TemporalCache | None,
    ) -> tuple[Float[Tensor, "B T H W 3"], Float[Tensor, "B T H W"] | None]:
        still = needed(reference)
        kept = self.is_kept(vectors).unsqueeze(-1).expand(-1, -1, -1, self.config.patch_size**2)
        x = self.predict(self.from_latent(vectors) + self.reference_in(self.patches(still)), cache)
        gate = torch.sigmoid(x[..., 3:])
        gate = gate.masked_fill(unpatchify(kept, self.config.patch_size, self.config.image_size), 1)
        color = x[..., :3] + 0.5
        return torch.lerp(color, still.to(color.dtype).expand_as(color), gate), gate[..., 0]

    def is_kept(self, vectors: Float[Tensor, "*S L"]) -> Bool[Tensor, "*S"]:
        """True for quantized latents of patches that are the reference's."""
        return (vectors - self.quantizer.lookup(self.kept_token())).square().mean(dim=-1) < KEPT

    def kept_token(self) -> Int[Tensor, ""]:
        return self.quantizer.nearest(self.to_latent.weight.new_zeros(1, self.to_latent.out_features))[0]

    def context(
        self, before: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"]
    ) -> Float[Tensor, "B T N C"]:
        """Patches of the frame before and of the reference."""
        old = self.patches(to_unit(before, self.patch_in.weight.dtype))
        still = self.patches(needed(self.unit_reference(reference)))
        return torch.cat([old, still.expand_as(old)], dim=-1)

    def unit_reference(self, reference: UInt8[Tensor, "B H W 3"] | None) -> Float[Tensor, "B 1 H W 3"] | None:
        return to_unit(needed(reference), self.patch_in.weight.dtype).unsqueeze(1)


def needed(reference: Tensor | None) -> Tensor:
    """Raises ValueError if there is no reference."""
    if reference is None:
        raise ValueError("this tokenizer's tokens are relative to a reference; pass reference (B, H, W, 3) uint8")
    return reference


TOKENIZERS: dict[str, type[VideoTokenizer]] = {"none": VideoTokenizer, "start": ReferenceTokenizer}


def make_tokenizer(config: TokenizerConfig) -> VideoTokenizer:
    """The tokenizer that `config.reference` names."""
    return TOKENIZERS[config.reference](config)
