"""The latent action model (Genie section 2.1): which of K codes explains the step from one frame to the next?

ALIGNMENT, defined here and nowhere else: the latent action a_t, t = 0 .. T-2, is what happened from frame t to
frame t+1. It is read from frames 0 .. t+1. Whatever generates frame t+1 receives a_t.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_robotics.models.frame_space import FrameSpace, PixelSpace, TokenSpace
from genie_robotics.models.layers.conditioning import ActionInput, check_action_input
from genie_robotics.models.layers.patches import to_unit
from genie_robotics.models.layers.pooling import AttentionPool
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.losses import Logs
from genie_robotics.models.missing import MissingModule
from genie_robotics.models.quantizers import QuantizerConfig, make_quantizer
from genie_robotics.models.video_tokenizer import VideoTokenizer

NO_DECODER = (
    "this latent action model was exported without its decoder, which only training needs; "
    "train one (genie-robotics train) to predict frames from latent actions"
)


@dataclass
class LatentActionConfig:
    """Sizes and inputs of the latent action model."""

    GROUP: ClassVar[str] = "advanced: latent action model"  # heading in --help

    image_size: tuple[int, int] = (64, 64)
    """Height and width in pixels."""
    clip_length: int = 16
    """Frames of a clip."""
    patch_size: int = 16
    """Side of a patch in pixels; Genie: 16. Small moving parts need smaller patches."""
    width: int = 512
    """Width of encoder and decoder."""
    encoder_num_blocks: int = 4
    """ST blocks of the encoder."""
    decoder_num_blocks: int = 4
    """ST blocks of the decoder."""
    num_heads: int = 8
    """Attention heads."""
    quantizer: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(num_codes=8))
    input_diff: bool = True
    """The encoder reads the difference x_t - x_{t-1} beside the frame x_t."""
    encoder_history: bool = True
    """The encoder reads all frames up to t+1 (paper); otherwise only frames t and t+1."""
    decoder_history: bool = True
    """The decoder reads all frames up to t (paper); otherwise only frame t, so that a_t must carry the motion."""
    action_input: ActionInput = "add"
    """How a_t enters the decoder: added to every patch (paper), as a token before them, or by adaLN in every block."""
    predict_diff: bool = True
    """The decoder predicts x_{t+1} - x_t instead of x_{t+1} through a sigmoid (paper)."""
    motion_weight: float = 0.0
    """Extra loss weight of pixels that change, as in the tokenizer; pixel space only."""
    frame_space: Literal["pixels", "tokens"] = "pixels"
    """Input and target: pixels (paper), or the tokenizer's tokens (paper's ablation, table 2)."""

    def __post_init__(self) -> None:
        if self.frame_space not in ("pixels", "tokens"):
            raise ValueError(f"frame_space must be pixels or tokens, got {self.frame_space!r}")
        if self.frame_space == "tokens" and self.motion_weight:
            raise ValueError("motion_weight must be 0 with frame_space tokens")
        check_action_input(self.action_input)


class Explained(NamedTuple):
    """Result of the model for clips in training."""

    actions: Float[Tensor, "B T-1 L"]
    """Quantized latent actions; gradients pass straight through."""
    loss: Float[Tensor, ""]
    logs: Logs


class LatentActionModel(nn.Module):
    """An encoder that reads latent actions from frames, and a decoder that predicts the next frame from them.

    Args:
        tokenizer: read by a model of frame space 'tokens'; it is neither trained nor stored with this model.
    """

    def __init__(self, config: LatentActionConfig, tokenizer: VideoTokenizer | None = None):
        super().__init__()
        self.config = c = config
        self.space = make_space(config, tokenizer)
        self.num_patches = self.space.num_patches
        pairs = c.input_diff or not c.encoder_history
        self.encoder_in = nn.Linear(self.space.input_width * (2 if pairs else 1), c.width)
        self.encoder = STTransformer(
            c.width, c.encoder_num_blocks, c.num_heads, self.num_patches, c.clip_length, temporal=c.encoder_history
        )
        self.pool = AttentionPool(c.width, c.num_heads)
        self.to_latent = nn.Linear(c.width, c.quantizer.latent_dim)
        self.quantizer = make_quantizer(c.quantizer)
        self.from_latent = nn.Linear(c.quantizer.latent_dim, c.width)
        self.decoder_in = nn.Linear(self.space.input_width, c.width)
        self.decoder = STTransformer(
            c.width,
            c.decoder_num_blocks,
            c.num_heads,
            self.num_patches,
            c.clip_length,
            temporal=c.decoder_history,
            action_input=c.action_input,
        )
        self.patch_out = nn.Linear(c.width, self.space.output_width)
        if c.predict_diff:
            nn.init.zeros_(self.patch_out.weight)  # starts at "nothing moves"
            nn.init.zeros_(self.patch_out.bias)

    def forward(self, batch: UInt8[Tensor, "B T H W 3"]) -> tuple[Float[Tensor, ""], Logs]:
        """Loss of predicting every next frame from the past and the quantized latent action."""
        _, loss, logs = self.explain(batch)
        return loss, logs

    def explain(self, batch: UInt8[Tensor, "B T H W 3"], predict: bool = True) -> Explained:
        """Latent actions of clips, the loss, and the logs.

        predict: False leaves the decoder out; the loss is then the quantizer's alone, and another loss must train the
            actions.
        """
        observed = self.space.read(to_unit(batch))
        features = self.space.features(observed)
        actions, _, loss = self.quantizer(self._latents(features))
        logs = self.quantizer.logs()
        if not predict:
            return Explained(actions, loss, logs)
        error, share = self.space.loss(self._decode(features[:, :-1], actions), observed)
        return Explained(actions, error + loss, {"error_share": share} | logs)

    def latents(self, frames: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B T-1 L"]:
        """Latent actions before quantization, of frames in [0, 1]."""
        return self._latents(self.space.features(self.space.read(frames)))

    def _latents(self, features: Float[Tensor, "B T N P"]) -> Float[Tensor, "B T-1 L"]:
        x = self.encoder(self.encoder_in(self.pair_with_previous(features)))
        return self.to_latent(self.pool(x))[:, 1:]

    def pair_with_previous(self, features: Float[Tensor, "B T N P"]) -> Float[Tensor, "B T N M"]:
        """The encoder's input: each frame beside its difference to the previous one, or beside the previous one."""
        previous = torch.cat([features[:, :1], features[:, :-1]], dim=1)
        if self.config.input_diff:
            return torch.cat([features, 2 * (features - previous)], dim=-1)
        return features if self.config.encoder_history else torch.cat([features, previous], dim=-1)

    def _decode(self, features: Float[Tensor, "B T N P"], actions: Float[Tensor, "B T L"]) -> Float[Tensor, "B T N Q"]:
        return self.patch_out(self.decoder(self.decoder_in(features), self.from_latent(actions)))

    def predict(
        self, frames: Float[Tensor, "B T H W 3"], actions: Float[Tensor, "B T L"]
    ) -> Float[Tensor, "B T H W 3"]:
        """Entry t predicts frame t+1 from frames 0 .. t (or t alone) and a_t."""
        observed = self.space.read(frames)
        return self.space.show(self._decode(self.space.features(observed), actions), observed)

    def embed(self, frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T-1 L"]:
        """Latent actions before quantization, normalized as the quantizer sees them."""
        return self.quantizer.normalize(self.latents(to_unit(frames, self.encoder_in.weight.dtype)))

    def encode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Int[Tensor, "B T-1"]:
        """Codes of a clip of at most `clip_length` frames."""
        return self.quantizer.nearest(self.latents(to_unit(frames, self.encoder_in.weight.dtype)))

    def decoder_parts(self) -> dict[str, nn.Module]:
        """Submodules that only prediction needs, and that are discarded after training (Genie section 2.1), by name:
        more than half of the model."""
        return {name: getattr(self, name) for name in ("from_latent", "decoder_in", "decoder", "patch_out")}

    @property
    def has_decoder(self) -> bool:
        return not isinstance(self.decoder, MissingModule)

    def drop_decoder(self) -> None:
        """Removes the decoder; using it raises UserError from then on."""
        for name in self.decoder_parts():
            setattr(self, name, MissingModule(NO_DECODER))


def make_space(config: LatentActionConfig, tokenizer: VideoTokenizer | None) -> FrameSpace:
    """The frame space that `config` names."""
    if config.frame_space == "pixels":
        return PixelSpace(config.image_size, config.patch_size, config.predict_diff, config.motion_weight)
    if tokenizer is None:
        raise ValueError("a latent action model of frame space 'tokens' needs the tokenizer")
    return TokenSpace(tokenizer, config.clip_length, config.predict_diff)


def shift_to_next_frame(actions: Float[Tensor, "B T-1 L"]) -> Float[Tensor, "B T L"]:
    """Puts a_t where frame t+1 is generated; no known action led to frame 0, which gets zeros."""
    return F.pad(actions, (0, 0, 1, 0))
