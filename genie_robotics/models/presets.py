"""Named sizes, from two CPU cores to the paper's largest.

The paper's parameter counts fit `num_layers / 2` ST blocks for its printed `num_layers` (docs/parameters.md). Table
numbers below are the paper's.
"""

from collections.abc import Callable
from functools import partial

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.dynamics import DynamicsConfig
from genie_robotics.models.latent_action import LatentActionConfig
from genie_robotics.models.quantizers import QuantizerConfig, VQConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig


def eight_codes() -> QuantizerConfig:
    """Codes that are found at the end of training, in whitened latents that were learned without a bottleneck.

    Motion in depth then has its own codes. No other choice changed as much (docs/ablations.md).
    """
    vq = VQConfig(
        quantize_after_steps=10**9,
        quantize_after_fraction=0.95,
        num_remembered=8192,
        whiten=0.01,
        freeze_after_init=True,
    )
    return QuantizerConfig(num_codes=8, vq=vq)


def nano() -> GenieConfig:
    """Fewer than 5M parameters; trains in minutes on two CPU cores. Differs from the paper where a small model must."""
    return GenieConfig(
        tokenizer=TokenizerConfig(
            patch_size=8,
            encoder_width=128,
            encoder_num_blocks=2,
            encoder_num_heads=4,
            decoder_width=128,
            decoder_num_blocks=3,
            decoder_num_heads=4,
            quantizer=QuantizerConfig(num_codes=1024, vq=VQConfig(quantize_after_steps=100, num_remembered=16384)),
            motion_weight=1.0,
        ),
        latent_action=LatentActionConfig(
            patch_size=8,
            width=128,
            encoder_num_blocks=3,
            decoder_num_blocks=3,
            num_heads=4,
            encoder_history=False,
            decoder_history=False,
            action_input="adaln",
            quantizer=eight_codes(),
        ),
        dynamics=DynamicsConfig(
            width=128,
            num_blocks=4,
            num_heads=4,
            action_input="adaln",
            maskgit_steps=2,
            temperature=0.25,
            order="halton",
            prev_frame_tokens=True,
        ),
    )


def small() -> GenieConfig:
    """About 29M parameters: nano with smaller patches. Trains in hours on a CPU, in minutes on a GPU."""
    return GenieConfig(
        tokenizer=TokenizerConfig(
            patch_size=4,
            encoder_width=256,
            encoder_num_blocks=3,
            encoder_num_heads=8,
            decoder_width=256,
            decoder_num_blocks=4,
            decoder_num_heads=8,
            quantizer=QuantizerConfig(num_codes=1024, vq=VQConfig(num_remembered=32768)),
            motion_weight=1.0,
        ),
        latent_action=LatentActionConfig(
            patch_size=8,
            width=256,
            encoder_num_blocks=4,
            decoder_num_blocks=4,
            num_heads=8,
            decoder_history=False,
            action_input="adaln",
            quantizer=eight_codes(),
        ),
        dynamics=DynamicsConfig(
            width=256,
            num_blocks=8,
            num_heads=8,
            action_input="adaln",
            maskgit_steps=12,
            temperature=0.25,
            prev_frame_tokens=True,
        ),
    )


def coinrun() -> GenieConfig:
    """The paper's reproducible case study (appendix F, tables 15-17), with 8 codes instead of CoinRun's 6."""
    return GenieConfig(
        tokenizer=TokenizerConfig(),
        latent_action=LatentActionConfig(input_diff=False, predict_diff=False),
        dynamics=DynamicsConfig(temperature=1.0),
    )


def paper(num_layers: int, num_heads: int, width: int, head_dim: int) -> GenieConfig:
    """Tokenizer and latent action model of Platformers (tables 5 and 7), also used for robotics, with a given dynamics.

    Arguments are as printed in the paper. Its frames are 160x90; 96 rows are the next that both patch sizes divide.
    """
    return GenieConfig(
        image_size=(96, 160),
        tokenizer=TokenizerConfig(
            patch_size=4,
            encoder_width=512,
            encoder_num_blocks=blocks(12),
            encoder_num_heads=8,
            decoder_width=1024,
            decoder_num_blocks=blocks(20),
            decoder_num_heads=16,
        ),
        latent_action=LatentActionConfig(
            patch_size=16,
            width=1024,
            encoder_num_blocks=blocks(20),
            decoder_num_blocks=blocks(20),
            num_heads=16,
            input_diff=False,
            predict_diff=False,
        ),
        dynamics=DynamicsConfig(width=width, num_blocks=blocks(num_layers), num_heads=num_heads, head_dim=head_dim),
    )


def blocks(num_layers: int) -> int:
    """Number of ST blocks in `num_layers` layers of the paper: a spatial and a temporal layer each."""
    return -(-num_layers // 2)


SCALING = {
    "scale_41m": (18, 8, 512, 64),
    "scale_96m": (16, 16, 768, 64),
    "scale_192m": (20, 18, 1024, 64),
    "scale_404m": (21, 12, 1536, 128),
    "scale_811m": (20, 20, 2048, 128),
    "scale_1_6b": (28, 22, 2560, 128),
    "scale_2_7b": (36, 22, 3072, 128),
}
"""The paper's scaling series (table 10): (num_layers, num_heads, d_model, k/q size) of the dynamics."""


def robotics_1b() -> GenieConfig:
    """The 1B robotics model of table 2. Its dynamics has about 0.5B parameters; the shape is ours, none is printed."""
    return paper(num_layers=14, num_heads=16, width=2048, head_dim=128)


def robotics_2_5b() -> GenieConfig:
    """The 2.5B robotics model, with the 34 layers of width 2560 of table 11, the only printed model of that size."""
    return paper(num_layers=34, num_heads=20, width=2560, head_dim=128)


def platformers_11b() -> GenieConfig:
    """The final model, table 12: 48 layers of width 5120, 36 heads of 128."""
    return paper(num_layers=48, num_heads=36, width=5120, head_dim=128)


PRESETS: dict[str, Callable[[], GenieConfig]] = {
    f.__name__: f for f in (nano, small, coinrun, robotics_1b, robotics_2_5b, platformers_11b)
} | {name: partial(paper, *shape) for name, shape in SCALING.items()}


def preset(name: str, mode: str = "frozen") -> GenieConfig:
    """The configuration called `name`, as the training mode `mode` needs it; raises UserError that lists the names."""
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}'; expected one of {', '.join(PRESETS)}")
    config = PRESETS[name]()
    config.preset = name
    return for_mode(config, mode)


def for_mode(config: GenieConfig, mode: str) -> GenieConfig:
    """The configuration as the training mode `mode` needs it.

    A dynamics model that learns together with the latent actions needs codes early and gradients through them. Where a
    configuration finds its codes at the end and freezes them, they start after 30 % of the training instead and keep
    learning; after a warm-up they start at the end of it and keep learning.
    """
    vq = config.latent_action.quantizer.vq
    if vq.freeze_after_init and mode != "frozen":
        vq.freeze_after_init = False
        vq.quantize_after_fraction = vq.quantize_after_fraction if mode == "warmup" else 0.3
    return config.resolved()
