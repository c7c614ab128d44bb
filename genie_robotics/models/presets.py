"""Named sizes, from two CPU cores to the paper's largest.

The paper's parameter counts fit `num_layers / 2` ST blocks of its printed `num_layers` (docs/LOG.md); tables named
below are the paper's.
"""

from collections.abc import Callable
from functools import partial

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.dynamics import DynamicsConfig
from genie_robotics.models.latent_action import LatentActionConfig
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.video_tokenizer import TokenizerConfig


def eight_codes() -> CodebookConfig:
    """Learnt without a bottleneck, quantised at the end where distances are whitened: depth then has its own codes.

    No other choice that was tried changed as much (docs/ablations.md).
    """
    return CodebookConfig(num_codes=8, start_after=10**9, start_share=0.95, num_remembered=8192, whiten=0.01, hold=True)


def nano() -> GenieConfig:
    """Under 5M parameters; trains in minutes on two CPU cores. Departs from the paper where a small model must."""
    return GenieConfig(
        tokenizer=TokenizerConfig(
            patch=8,
            encoder_width=128,
            encoder_blocks=2,
            encoder_heads=4,
            decoder_width=128,
            decoder_blocks=3,
            decoder_heads=4,
            codebook=CodebookConfig(num_codes=1024, start_after=100, num_remembered=16384),
            motion_weight=1.0,
        ),
        latent_action=LatentActionConfig(
            patch=8,
            width=128,
            encoder_blocks=3,
            decoder_blocks=3,
            heads=4,
            encoder_history=False,
            decoder_history=False,
            action_input="modulate",
            codebook=eight_codes(),
        ),
        dynamics=DynamicsConfig(
            width=128,
            num_blocks=4,
            heads=4,
            action_input="modulate",
            maskgit_steps=8,
            temperature=0.25,
            see_before=True,
        ),
    )


def small() -> GenieConfig:
    """About 29M parameters, nano's choices on a finer grid: hours on a CPU, minutes on a GPU."""
    return GenieConfig(
        tokenizer=TokenizerConfig(
            patch=4,
            encoder_width=256,
            encoder_blocks=3,
            encoder_heads=8,
            decoder_width=256,
            decoder_blocks=4,
            decoder_heads=8,
            codebook=CodebookConfig(num_codes=1024, num_remembered=32768),
            motion_weight=1.0,
        ),
        latent_action=LatentActionConfig(
            patch=8,
            width=256,
            encoder_blocks=4,
            decoder_blocks=4,
            heads=8,
            decoder_history=False,
            action_input="modulate",
            codebook=eight_codes(),
        ),
        dynamics=DynamicsConfig(
            width=256,
            num_blocks=8,
            heads=8,
            action_input="modulate",
            maskgit_steps=12,
            temperature=0.25,
            see_before=True,
        ),
    )


def coinrun() -> GenieConfig:
    """The paper's reproducible case study (appendix F, tables 15-17), with 8 codes instead of CoinRun's 6."""
    return GenieConfig(
        tokenizer=TokenizerConfig(),
        latent_action=LatentActionConfig(see_change=False, predict_change=False),
        dynamics=DynamicsConfig(temperature=1.0),
    )


def paper(num_layers: int, heads: int, width: int, head_dim: int) -> GenieConfig:
    """Platformers' tokenizer and LAM (tables 5 and 7), which the paper kept for robotics, with a given dynamics.

    Arguments as the paper prints them. Frames are 160x90 there; 96 rows are the next that both patch sizes divide.
    """
    return GenieConfig(
        image_size=(96, 160),
        tokenizer=TokenizerConfig(
            patch=4,
            encoder_width=512,
            encoder_blocks=blocks(12),
            encoder_heads=8,
            decoder_width=1024,
            decoder_blocks=blocks(20),
            decoder_heads=16,
        ),
        latent_action=LatentActionConfig(
            patch=16,
            width=1024,
            encoder_blocks=blocks(20),
            decoder_blocks=blocks(20),
            heads=16,
            see_change=False,
            predict_change=False,
        ),
        dynamics=DynamicsConfig(width=width, num_blocks=blocks(num_layers), heads=heads, head_dim=head_dim),
    )


def blocks(num_layers: int) -> int:
    """ST blocks that the paper's `num_layers` layers make: one of space and one of time each."""
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
"""Table 10, the paper's scaling series: (num_layers, num_heads, d_model, k/q size) of the dynamics."""


def robotics_1b() -> GenieConfig:
    """The 1B robotics model of table 2: about 0.5B of dynamics (its shape is not printed) beside tokenizer and LAM."""
    return paper(num_layers=14, heads=16, width=2048, head_dim=128)


def robotics_2_5b() -> GenieConfig:
    """The 2.5B robotics model: table 11's 34 layers of width 2560, its only model of that size."""
    return paper(num_layers=34, heads=20, width=2560, head_dim=128)


def platformers_11b() -> GenieConfig:
    """The final model, table 12: 48 layers of width 5120, 36 heads of 128."""
    return paper(num_layers=48, heads=36, width=5120, head_dim=128)


PRESETS: dict[str, Callable[[], GenieConfig]] = {
    f.__name__: f for f in (nano, small, coinrun, robotics_1b, robotics_2_5b, platformers_11b)
} | {name: partial(paper, *shape) for name, shape in SCALING.items()}


def preset(name: str, mode: str = "frozen") -> GenieConfig:
    """The configuration called `name`, as `mode` of training needs it; raises UserError that lists the names.

    A dynamics that learns beside the latent actions needs codes from early on: where the preset would hold them back
    to the end, they start at 30 % of the training instead and go on learning, straight through. After a warm-up they
    are there, and only go on learning: through codes that are held no gradient of the dynamics would arrive.
    """
    if name not in PRESETS:
        raise UserError(f"no preset '{name}'; there are: {', '.join(PRESETS)}")
    config = PRESETS[name]()
    config.preset = name
    codebook = config.latent_action.codebook
    if codebook.hold and mode != "frozen":
        codebook.hold = False
        codebook.start_share = codebook.start_share if mode == "warmup" else 0.3
    return config.resolved()
