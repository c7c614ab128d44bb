"""The video tokenizer: ST-ViViT, a VQ-VAE whose encoder and decoder are ST-transformers (Genie section 2.1).

Both are causal in time, so the tokens of frame t depend on frames 0 .. t only. `VideoTokenizer` is the paper's.
`ReferenceTokenizer` codes each frame relative to the frame before it and to a reference, the picture from which a dream
starts: they carry the appearance, and the tokens say what changes. A new kind is a subclass and an entry of TOKENIZERS.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from genie_robotics.models.layers.cache import TemporalCache
from genie_robotics.models.layers.displacement import Displacement, Motion
from genie_robotics.models.layers.patches import num_patches, patchify, places, to_uint8, to_unit, unpatchify
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.losses import Logs, motion_weights
from genie_robotics.models.quantizers import QuantizerConfig, make_quantizer

MOTION_LOSS = 1e-3  # weight of the displacement's loss beside the reconstruction's
COMMITMENT = 0.1  # weight of the quantizer's loss beside the reconstruction's
KEEP_BIAS = 2.0  # an untrained decoder nearly copies the frame before
UNCHANGED = 0.02  # RMS difference of a patch to the frame before, where white is 1, up to which it counts as unchanged
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
    """Picture that tokens are relative to, with the frame before: none (paper), or that from which a dream starts."""
    reference_span: int = 60
    """Largest distance in training from the reference to the clip, in frames of the clip."""

    def __post_init__(self) -> None:
        if self.reference not in TOKENIZERS:
            raise ValueError(f"reference must be one of {', '.join(TOKENIZERS)}, got {self.reference!r}")


@dataclass(frozen=True)
class Origin:
    """From where in the start picture the pixels of a frame have come, over all frames since."""

    place: Int[Tensor, "B H W 2"]
    """Row and column."""
    share: Float[Tensor, "B H W"]
    """How much of the pixel comes from there; the rest are new colors, and mixtures."""


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
        frames = to_unit(batch)
        vectors, _, commitment = self.quantizer(self.latents(frames))
        loss, logs = self.reconstruction(self.pixels(vectors), frames)
        return loss + COMMITMENT * commitment, logs | self.quantizer.logs()

    def reconstruction(
        self, shown: Float[Tensor, "B T H W 3"], frames: Float[Tensor, "B T H W 3"]
    ) -> tuple[Float[Tensor, ""], Logs]:
        """Loss of what is shown instead of frames."""
        error = (shown - frames).square()
        loss = (error * motion_weights(frames, self.config.motion_weight)).mean()
        return loss, {"psnr": -10 * torch.log10(error.detach().mean())}

    def latents(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N L"]:
        """Latents before quantization, of frames in [0, 1]."""
        return self.to_latent(self.encoder(self.patch_in(self.patches(frames))))

    def patches(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N P"]:
        """Patches of frames in [0, 1], about zero."""
        return patchify(frames - 0.5, self.config.patch_size)

    def pixels(
        self, vectors: Float[Tensor, "B T N L"], cache: TemporalCache | None = None
    ) -> Float[Tensor, "B T H W 3"]:
        """Frames in [0, 1] (not clamped) from quantized latents.

        cache: of the decoder; the frames follow those in it, and their keys and values are written behind it.
        """
        return self.predict(self.from_latent(vectors), cache) + 0.5

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
        return self.quantizer.nearest(self.latents(to_unit(frames, self.patch_in.weight.dtype)))

    def decode(
        self,
        tokens: Int[Tensor, "B T N"],
        reference: UInt8[Tensor, "B H W 3"] | None = None,
        cache: TemporalCache | None = None,
    ) -> UInt8[Tensor, "B T H W 3"]:
        """Frames of the tokens of a clip of at most `clip_length` frames; cache: see `pixels`."""
        return to_uint8(self.pixels(self.quantizer.lookup(tokens), cache))

    def follow(
        self, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Int[Tensor, "B T N"], UInt8[Tensor, "B T H W 3"]]:
        """Tokens of a clip whose first frame is given, and what they show."""
        tokens = self.encode(frames, reference)
        return tokens, self.decode(tokens, reference)

    def encode_with_context(
        self, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Int[Tensor, "B T N"], Float[Tensor, "B T N C"] | None]:
        """Tokens of a clip whose first frame is given, and what the dynamics reads beside them (None: nothing)."""
        return self.encode(frames, reference), None

    def kept_token(self) -> Int[Tensor, ""] | None:
        """The token of patches that have not changed; None if there is none."""
        return None

    def changed(self, tokens: Int[Tensor, "B T N"]) -> Bool[Tensor, "B T-1 N"]:
        """True for patches of frames 1 .. T-1 that are unlike those of the frame before."""
        return tokens[:, 1:] != tokens[:, :-1]

    def context(
        self, before: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"]
    ) -> Float[Tensor, "B T N C"] | None:
        """Input of the dynamics beside the tokens of frames, given the shown frame before each; None: nothing."""
        return None

    def new_cache(self, num: int) -> TemporalCache | None:
        """An empty cache of the decoder for `num` dreams; None if frames are decoded one by one."""
        return self.decoder.new_cache(num)

    def window(
        self,
        tokens: Int[Tensor, "B T N"],
        shown: UInt8[Tensor, "B T H W 3"] | None,
        reference: UInt8[Tensor, "B H W 3"],
        cache: TemporalCache | None,
    ) -> tuple[Int[Tensor, "B T N"], UInt8[Tensor, "B T H W 3"]]:
        """Tokens and shown frames of a window that begins with the first of these; fills the cache.

        shown: the frames as they were shown, if they were.
        """
        return tokens, self.decode(tokens, reference, cache)

    def next_frame(
        self,
        tokens: Int[Tensor, "B T N"],
        before: UInt8[Tensor, "B H W 3"],
        reference: UInt8[Tensor, "B H W 3"],
        cache: TemporalCache | None,
        origin: Origin | None,
    ) -> tuple[UInt8[Tensor, "B H W 3"], Origin | None]:
        """The frame of the last tokens of a window, and from where in the reference its pixels come.

        before, origin: of the frame before it.
        cache: holds the frames before it; None decodes the whole window again.
        """
        return self.decode(tokens if cache is None else tokens[:, -1:], reference, cache)[:, -1], None

    def origin(self, reference: UInt8[Tensor, "B H W 3"]) -> Origin | None:
        """The origin of the reference itself; None if frames do not come from it."""
        return None


class ReferenceTokenizer(VideoTokenizer):
    """A tokenizer of what changes from one frame to the next.

    Encoder and decoder see the frame before, as it was shown, and the reference. The encoder also reads where in the
    frame before each patch comes from, found by a search. The decoder mixes four pictures pixel by pixel: the frame
    before, the frame before with its patches displaced, the reference (for what the arm uncovers), and a new color. So
    what moves looks as it did, whatever it is, and a token need only say how it moves.

    A patch that does not change has the latent 0, hence one and the same token in every picture, and stays bit for bit.
    So other codes are left for what changes, and the dynamics has one token to predict for all that stands still. Video
    codecs do the same (P-frames, motion vectors, skipped blocks).

    The first frame of a clip is given, and its tokens say that nothing has changed. Blocks have no temporal layer:
    what was shown before holds the past. Frames are coded relative to what is shown, so that errors do not add up.
    """

    uses_reference = True
    inputs = 4
    outputs = 7
    temporal = False

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        c, pixels = config, 3 * config.patch_size**2
        self.context_in = nn.Linear(2 * pixels, c.decoder_width)
        self.displacement = Displacement(c.decoder_width, c.patch_size, c.image_size)
        choices = self.displacement.num_choices
        self.coarse_in, self.fine_in = (nn.Embedding(number, c.encoder_width) for number in choices)
        with torch.no_grad():
            self.patch_out.bias.view(-1, self.outputs)[:, 3] = KEEP_BIAS

    def forward(
        self, batch: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The loss of frames 1 .. T-1, each coded relative to what this tokenizer shows of the frame before."""
        frames, length = to_unit(batch), batch.shape[1] - 1
        still = needed(self.unit_reference(reference)).repeat_interleave(length, dim=0)
        target, before = pairs(frames[:, 1:]), pairs(frames[:, :-1])
        motion = self.displacement.search(target, before[:, 0])
        with torch.no_grad():
            vectors = self.changes(target, before, still, motion)
            vectors = self.quantizer.normalize(vectors) if not self.quantizer.started else self.coded(vectors)
            shown = self.mixed(self.features(vectors, before, still), vectors, before, still)[0]
            shown = to_unit(to_uint8(shown)).view_as(frames[:, 1:])
        before = pairs(torch.cat([frames[:, :1], shown[:, :-1]], dim=1))
        latents = self.changes(target, before, still, motion).view(len(frames), length, self.num_patches, -1)
        vectors, _, commitment = self.quantizer(latents)
        vectors = pairs(vectors)
        x = self.features(vectors, before, still)
        loss, logs = self.reconstruction(self.mixed(x, vectors, before, still)[0].view_as(shown), frames[:, 1:])
        loss = loss + COMMITMENT * commitment + MOTION_LOSS * self.displacement.loss(x, motion)
        return loss, logs | self.quantizer.logs()

    def coded(self, latents: Float[Tensor, "B 1 N L"]) -> Float[Tensor, "B 1 N L"]:
        """The vectors of the nearest codes."""
        return self.quantizer.lookup(self.quantizer.nearest(latents))

    def changes(
        self,
        frames: Float[Tensor, "B 1 H W 3"],
        before: Float[Tensor, "B 1 H W 3"],
        still: Float[Tensor, "B 1 H W 3"],
        motion: Motion | None = None,
    ) -> Float[Tensor, "B 1 N L"]:
        """Latents before quantization; motion: `Displacement.search` in the frame before, if it is known."""
        motion = self.displacement.search(frames, before[:, 0]) if motion is None else motion
        found = self.displacement.patches_at(before[:, 0], motion.shift).to(frames.dtype) - 0.5
        patches, old = self.patches(frames), self.patches(before)
        change = patches - old
        read = torch.cat([patches, 2 * change, 2 * (patches - found), 2 * (patches - self.patches(still))], dim=-1)
        coarse, fine = self.displacement.parts(motion.shift)
        x = self.encoder(self.patch_in(read) + self.coarse_in(coarse) + self.fine_in(fine))
        return self.to_latent(x) * (change.square().mean(dim=-1, keepdim=True) > UNCHANGED**2)

    def features(
        self,
        vectors: Float[Tensor, "B 1 N L"],
        before: Float[Tensor, "B 1 H W 3"],
        still: Float[Tensor, "B 1 H W 3"],
    ) -> Float[Tensor, "B 1 N D"]:
        """The decoder's features of each patch."""
        context = torch.cat([self.patches(before), self.patches(still)], dim=-1)
        return self.decoder(self.from_latent(vectors) + self.context_in(context))

    def mixed(
        self,
        x: Float[Tensor, "B 1 N D"],
        vectors: Float[Tensor, "B 1 N L"],
        before: Float[Tensor, "B 1 H W 3"],
        still: Float[Tensor, "B 1 H W 3"],
    ) -> tuple[Float[Tensor, "B 1 H W 3"], Float[Tensor, "B 1 H W 4"]]:
        """Frames, and the shares in each pixel: frame before, displaced frame before, reference, new color."""
        channels = self.channels(x)
        color, share = channels[..., :3] + 0.5, channels[..., 3:].softmax(-1)
        kept = self.is_kept(vectors).unsqueeze(-1).expand(-1, -1, -1, self.config.patch_size**2)
        kept = unpatchify(kept, self.config.patch_size, self.config.image_size)
        share = torch.where(kept, share.new_tensor([1.0, 0.0, 0.0, 0.0]), share)
        pictures = before, self.displacement(x, before[:, 0]), still, color
        return sum(share[..., i : i + 1] * picture for i, picture in enumerate(pictures)), share

    def is_kept(self, vectors: Float[Tensor, "*S L"]) -> Bool[Tensor, "*S"]:
        """True for quantized latents of patches that have not changed."""
        return (vectors - self.quantizer.lookup(self.kept_token())).square().mean(dim=-1) < KEPT

    def kept_token(self) -> Int[Tensor, ""]:
        return self.quantizer.nearest(self.to_latent.weight.new_zeros(1, self.to_latent.out_features))[0]

    def encode(
        self, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> Int[Tensor, "B T N"]:
        """Tokens of clips of any length, which begin as a change of the reference."""
        return self._sequence(frames, needed(reference), needed(reference))[0]

    def changed(self, tokens: Int[Tensor, "B T N"]) -> Bool[Tensor, "B T-1 N"]:
        return tokens[:, 1:] != self.kept_token()

    def follow(
        self, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Int[Tensor, "B T N"], UInt8[Tensor, "B T H W 3"]]:
        tokens, shown = self._sequence(frames[:, 1:], frames[:, 0], needed(reference))
        kept = self.kept_token().expand(len(frames), 1, self.num_patches)
        return torch.cat([kept, tokens], dim=1), torch.cat([frames[:, :1], shown], dim=1)

    def _sequence(
        self, frames: UInt8[Tensor, "B T H W 3"], before: UInt8[Tensor, "B H W 3"], reference: UInt8[Tensor, "B H W 3"]
    ) -> tuple[Int[Tensor, "B T N"], UInt8[Tensor, "B T H W 3"]]:
        """Tokens of frames that follow `before`, and what they show; each is coded relative to what is shown."""
        still, shown = needed(self.unit_reference(reference)), [before]
        tokens = [torch.zeros(len(frames), 0, self.num_patches, dtype=torch.long, device=frames.device)]
        for t in range(frames.shape[1]):
            frame, old = to_unit(frames[:, t : t + 1], still.dtype), needed(self.unit_reference(shown[-1]))
            tokens.append(self.quantizer.nearest(self.changes(frame, old, still)))
            shown.append(self.next_frame(tokens[-1], shown[-1], reference)[0])
        return torch.cat(tokens, dim=1), torch.stack(shown, dim=1)[:, 1:]

    def decode(
        self,
        tokens: Int[Tensor, "B T N"],
        reference: UInt8[Tensor, "B H W 3"] | None = None,
        cache: TemporalCache | None = None,
    ) -> UInt8[Tensor, "B T H W 3"]:
        """Frames of the tokens of clips of any length, whose first frame is the reference."""
        shown = [needed(reference)]
        for t in range(tokens.shape[1]):
            shown.append(self.next_frame(tokens[:, t : t + 1], shown[-1], reference)[0])
        return torch.stack(shown[1:], dim=1)

    def encode_with_context(
        self, frames: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"] | None = None
    ) -> tuple[Int[Tensor, "B T N"], Float[Tensor, "B T N C"] | None]:
        tokens, shown = self.follow(frames, reference)
        return tokens, self.context(torch.cat([shown[:, :1], shown[:, :-1]], dim=1), needed(reference))

    def context(
        self, before: UInt8[Tensor, "B T H W 3"], reference: UInt8[Tensor, "B H W 3"]
    ) -> Float[Tensor, "B T N C"] | None:
        """Patches of the frame before and of the reference."""
        old = self.patches(to_unit(before, self.patch_in.weight.dtype))
        still = self.patches(needed(self.unit_reference(reference)))
        return torch.cat([old, still.expand_as(old)], dim=-1)

    def new_cache(self, num: int) -> TemporalCache | None:
        return None

    def window(
        self,
        tokens: Int[Tensor, "B T N"],
        shown: UInt8[Tensor, "B T H W 3"] | None,
        reference: UInt8[Tensor, "B H W 3"],
        cache: TemporalCache | None,
    ) -> tuple[Int[Tensor, "B T N"], UInt8[Tensor, "B T H W 3"]]:
        if shown is None:
            shown = self.decode(tokens, reference.expand(len(tokens), -1, -1, -1))
        return torch.cat([self.kept_token().expand_as(tokens[:, :1]), tokens[:, 1:]], dim=1), shown

    def next_frame(
        self,
        tokens: Int[Tensor, "B T N"],
        before: UInt8[Tensor, "B H W 3"],
        reference: UInt8[Tensor, "B H W 3"] | None,
        cache: TemporalCache | None = None,
        origin: Origin | None = None,
    ) -> tuple[UInt8[Tensor, "B H W 3"], Origin | None]:
        vectors = self.quantizer.lookup(tokens[:, -1:])
        old = needed(self.unit_reference(before))
        still = needed(self.unit_reference(reference)).expand_as(old)
        x = self.features(vectors, old, still)
        frames, share = self.mixed(x, vectors, old, still)
        if origin is not None:
            origin = self.moved_origin(origin, share[:, 0], self.displacement.shifts(x)[:, 0])
        return to_uint8(frames[:, 0]), origin

    def moved_origin(self, origin: Origin, share: Float[Tensor, "B H W 4"], shift: Int[Tensor, "B N 2"]) -> Origin:
        """The origin of the next frame: each pixel's is that of the picture of which it has the largest share."""
        size, patch = self.config.image_size, self.config.patch_size
        moved = shift.unflatten(1, (size[0] // patch, -1)).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        largest, chosen = share[..., :3].max(-1)
        own = places(size, shift.device)
        at = own + moved * (chosen == 1).unsqueeze(-1)
        rows, columns = (at[..., axis].clamp(0, size[axis] - 1) for axis in range(2))
        batch = torch.arange(len(share), device=shift.device).view(-1, 1, 1)
        several = (x.expand(len(share), *x.shape[1:]) for x in (origin.place, origin.share))
        place, old_share = (x[batch, rows, columns] for x in several)
        uncovered = chosen == 2
        place = torch.where(uncovered.unsqueeze(-1), own.to(place.dtype), place)
        return Origin(place, largest * torch.where(uncovered, 1.0, old_share))

    def origin(self, reference: UInt8[Tensor, "B H W 3"]) -> Origin | None:
        number, device = len(reference), reference.device
        own = places(self.config.image_size, device).to(torch.int16)
        return Origin(own.expand(number, -1, -1, -1), torch.ones(number, *self.config.image_size, device=device))

    def unit_reference(self, picture: UInt8[Tensor, "B H W 3"] | None) -> Float[Tensor, "B 1 H W 3"] | None:
        """A picture in [0, 1], with an axis for time; None for none."""
        return None if picture is None else to_unit(picture, self.patch_in.weight.dtype).unsqueeze(1)


def pairs(x: Float[Tensor, "B T *S"]) -> Float[Tensor, "B*T 1 *S"]:
    """Frames of clips as clips of one frame."""
    return x.flatten(0, 1).unsqueeze(1)


def needed(reference: Tensor | None) -> Tensor:
    """Raises ValueError if there is no reference."""
    if reference is None:
        raise ValueError("this tokenizer's tokens are relative to a reference; pass reference (B, H, W, 3) uint8")
    return reference


TOKENIZERS: dict[str, type[VideoTokenizer]] = {"none": VideoTokenizer, "start": ReferenceTokenizer}


def make_tokenizer(config: TokenizerConfig) -> VideoTokenizer:
    """The tokenizer that `config.reference` names."""
    return TOKENIZERS[config.reference](config)
