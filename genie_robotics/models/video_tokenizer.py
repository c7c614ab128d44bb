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
from genie_robotics.models.layers.displacement import Displacement, Motion
from genie_robotics.models.layers.patches import num_patches, patchify, to_uint8, to_unit, unpatchify
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.losses import Logs, motion_weights
from genie_robotics.models.quantizers import QuantizerConfig, make_quantizer

MOTION_LOSS = 1e-3  # weight of the displacement's loss beside the reconstruction's
COMMITMENT = 0.1  # weight of the quantizer's loss beside the reconstruction's
KEEP_BIAS = 2.0  # an untrained decoder nearly copies the reference
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
    """The picture that encoder and decoder see beside the clip: none (paper), or the one from which a dream starts."""
    reference_span: int = 60
    """Largest distance in training from the reference to the clip, in frames of the clip."""

    def __post_init__(self) -> None:
        if self.reference not in TOKENIZERS:
            raise ValueError(f"reference must be one of {', '.join(TOKENIZERS)}, got {self.reference!r}")


@dataclass(frozen=True)
class Origin:
    """Where in the reference the pixels of decoded frames come from."""

    kept: Float[Tensor, "B T H W"]
    """Share of the reference's pixel at the same place."""
    moved: Float[Tensor, "B T H W"]
    """Share of the reference's pixel from which the pixel has moved; the rest is a new color."""
    shift: Int[Tensor, "B T N 2"]
    """From each patch to the place from which it has moved, in pixels: rows, columns."""

    def newest(self) -> "Origin":
        """Of the last frame alone."""
        return Origin(self.kept[:, -1:], self.moved[:, -1:], self.shift[:, -1:])


class VideoTokenizer(nn.Module):
    """Frames to tokens and back. References are accepted and ignored: all tokenizers have one interface."""

    uses_reference: ClassVar[bool] = False
    """True if clips are encoded and decoded relative to a reference."""
    inputs: ClassVar[int] = 1
    """Pictures that the encoder reads beside each other."""
    outputs: ClassVar[int] = 3
    """Channels that the decoder predicts for each pixel."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = c = config
        self.num_patches = num_patches(c.image_size, c.patch_size)
        pixels = c.patch_size**2
        self.patch_in = nn.Linear(3 * pixels * self.inputs, c.encoder_width)
        self.encoder = STTransformer(
            c.encoder_width, c.encoder_num_blocks, c.encoder_num_heads, self.num_patches, c.clip_length
        )
        self.to_latent = nn.Linear(c.encoder_width, c.quantizer.latent_dim)
        self.quantizer = make_quantizer(c.quantizer)
        self.from_latent = nn.Linear(c.quantizer.latent_dim, c.decoder_width)
        self.decoder = STTransformer(
            c.decoder_width, c.decoder_num_blocks, c.decoder_num_heads, self.num_patches, c.clip_length
        )
        self.patch_out = nn.Linear(c.decoder_width, self.outputs * pixels)

    def forward(
        self, batch: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Float[Tensor, ""], Logs]:
        """Reconstruction loss of the clips plus the quantizer's loss."""
        frames, still = to_unit(batch), self.unit_reference(reference)
        vectors, _, commitment = self.quantizer(self.latents(frames, still))
        loss, logs = self.reconstruction(self.pixels(vectors, still), frames)
        return loss + COMMITMENT * commitment, logs | self.quantizer.logs()

    def reconstruction(
        self, shown: Float[Tensor, "B T H W 3"], frames: Float[Tensor, "B T H W 3"]
    ) -> tuple[Float[Tensor, ""], Logs]:
        """Loss of what is shown instead of frames."""
        error = (shown - frames).square()
        loss = (error * motion_weights(frames, self.config.motion_weight)).mean()
        return loss, {"psnr": -10 * torch.log10(error.detach().mean())}

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
        return self.pixels_and_origin(vectors, reference, cache)[0]

    def pixels_and_origin(
        self,
        vectors: Float[Tensor, "B T N L"],
        reference: Float[Tensor, "B 1 H W 3"] | None,
        cache: TemporalCache | None,
    ) -> tuple[Float[Tensor, "B T H W 3"], "Origin | None"]:
        """`pixels`, and where in the reference they come from; None if there is no reference."""
        return self.predict(self.from_latent(vectors), cache) + 0.5, None

    def predict(self, x: Float[Tensor, "B T N D"], cache: TemporalCache | None) -> Float[Tensor, "B T H W C"]:
        """The decoder's channels of each pixel."""
        return self.channels(self.decoder(x, None, cache))

    def channels(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T H W C"]:
        """Channels of each pixel from the decoder's features."""
        return unpatchify(self.patch_out(x).float(), self.config.patch_size, self.config.image_size)

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
        return self.decode_with_origin(tokens, reference, cache)[0]

    def decode_with_origin(
        self,
        tokens: Int[Tensor, "B T N"],
        reference: UInt8[Tensor, "B H W 3"] | None = None,
        cache: TemporalCache | None = None,
    ) -> tuple[UInt8[Tensor, "B T H W 3"], "Origin | None"]:
        """`decode`, and where in the reference the pixels come from; None if there is no reference."""
        vectors = self.quantizer.lookup(tokens)
        frames, origin = self.pixels_and_origin(vectors, self.unit_reference(reference), cache)
        return to_uint8(frames), origin

    def reference_patches(self, reference: UInt8[Tensor, "B H W 3"] | None) -> Float[Tensor, "B 1 N P"] | None:
        """Patches of the reference that the dynamics reads; None if tokens are not relative to one."""
        return None

    def unit_reference(self, reference: UInt8[Tensor, "B H W 3"] | None) -> Float[Tensor, "B 1 H W 3"] | None:
        """The reference in [0, 1], with an axis for time."""
        return None


class ReferenceTokenizer(VideoTokenizer):
    """A tokenizer of what differs from a reference, an earlier frame of the same episode.

    The encoder reads each frame beside its difference to the reference, and where in the reference each of its patches
    comes from, found by a search. The decoder reads the reference too, through a
    block of its own, and mixes three pictures pixel by pixel: the reference, the reference with its patches displaced,
    and a new color. So what has moved looks as it did, whatever it is, and a token need only say from where it came.

    A patch that has not changed has the latent 0, hence one and the same token in every picture, and is the reference's
    bit for bit. So other codes are left for what changes, and the dynamics has one token to predict for all that stands
    still. Video codecs do the same (skipped blocks, motion vectors).
    """

    uses_reference = True
    inputs = 3
    outputs = 6

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        width, num_heads = config.decoder_width, config.decoder_num_heads
        self.reference_in = nn.Linear(3 * config.patch_size**2, width)
        self.reference_encoder = STTransformer(width, 1, num_heads, self.num_patches, 1, temporal=False)
        self.displacement = Displacement(width, config.patch_size, config.image_size)
        choices = self.displacement.num_choices
        self.coarse_in, self.fine_in = (nn.Embedding(number, config.encoder_width) for number in choices)
        with torch.no_grad():
            self.patch_out.bias.view(-1, self.outputs)[:, 3] = KEEP_BIAS

    def forward(
        self, batch: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Float[Tensor, ""], Logs]:
        frames, still = to_unit(batch), needed(self.unit_reference(reference))
        motion = self.displacement.search(frames, still[:, 0])
        vectors, _, commitment = self.quantizer(self.latents(frames, still, motion))
        x = self.features(vectors, still)
        loss, logs = self.reconstruction(self.mixed(x, vectors, still)[0], frames)
        loss = loss + COMMITMENT * commitment + MOTION_LOSS * self.displacement.loss(x, motion)
        return loss, logs | self.quantizer.logs()

    def latents(
        self,
        frames: Float[Tensor, "B T H W 3"],
        reference: Float[Tensor, "B 1 H W 3"] | None = None,
        motion: Motion | None = None,
    ) -> Float[Tensor, "B T N L"]:
        motion = self.displacement.search(frames, needed(reference)[:, 0]) if motion is None else motion
        patches, still = self.patches(frames), self.patches(needed(reference))
        change = patches - still
        x = torch.cat([patches, 2 * change, 2 * (patches - motion.patches.to(patches.dtype) + 0.5)], dim=-1)
        coarse, fine = self.displacement.parts(motion.shift)
        x = self.patch_in(x) + self.coarse_in(coarse) + self.fine_in(fine)
        changed = change.square().mean(dim=-1, keepdim=True) > UNCHANGED**2
        return self.to_latent(self.encoder(x)) * changed

    def pixels_and_origin(
        self,
        vectors: Float[Tensor, "B T N L"],
        reference: Float[Tensor, "B 1 H W 3"] | None,
        cache: TemporalCache | None,
    ) -> tuple[Float[Tensor, "B T H W 3"], "Origin | None"]:
        return self.mixed(self.features(vectors, reference, cache), vectors, reference)

    def features(
        self,
        vectors: Float[Tensor, "B T N L"],
        reference: Float[Tensor, "B 1 H W 3"] | None,
        cache: TemporalCache | None = None,
    ) -> Float[Tensor, "B T N D"]:
        """The decoder's features of each patch."""
        x = self.reference_in(self.patches(needed(reference)))
        x = x + self.reference_encoder(x)
        return self.decoder(self.from_latent(vectors) + x, None, cache)

    def mixed(
        self,
        x: Float[Tensor, "B T N D"],
        vectors: Float[Tensor, "B T N L"],
        reference: Float[Tensor, "B 1 H W 3"] | None,
    ) -> tuple[Float[Tensor, "B T H W 3"], Origin]:
        """Frames that mix the reference, the displaced reference and a color."""
        still, channels = needed(reference), self.channels(x)
        color, share = channels[..., :3] + 0.5, channels[..., 3:].softmax(-1)
        kept = self.is_kept(vectors).unsqueeze(-1).expand(-1, -1, -1, self.config.patch_size**2)
        kept = unpatchify(kept, self.config.patch_size, self.config.image_size)
        share = torch.where(kept, share.new_tensor([1.0, 0.0, 0.0]), share)
        moved = self.displacement(x, still[:, 0])
        frames = share[..., :1] * still + share[..., 1:2] * moved + share[..., 2:] * color
        return frames, Origin(share[..., 0], share[..., 1], self.displacement.shifts(x))

    def is_kept(self, vectors: Float[Tensor, "*S L"]) -> Bool[Tensor, "*S"]:
        """True for quantized latents of patches that are the reference's."""
        zero = self.quantizer.nearest(vectors.new_zeros(1, vectors.shape[-1]))
        return (vectors - self.quantizer.lookup(zero)).square().mean(dim=-1) < KEPT

    def reference_patches(self, reference: UInt8[Tensor, "B H W 3"] | None) -> Float[Tensor, "B 1 N P"] | None:
        return self.patches(needed(self.unit_reference(reference)))

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
