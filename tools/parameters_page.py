"""Writes docs/parameters.md, the sizes and hyperparameters of the presets next to the paper's.

python tools/parameters_page.py
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genie_robotics.estimate.commands import num_parameters
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.presets import PRESETS, preset
from genie_robotics.training.config import StageConfig, TrainingConfig, training_preset

PAGE_FILE = Path(__file__).parents[1] / "docs/parameters.md"


@dataclass(frozen=True)
class Printed:
    """A number of parameters that the paper prints."""

    preset: str
    component: str
    """A component's name, or `all`."""
    millions: float
    source: str
    by_leading_digit: bool = False
    """Ours must agree in the leading digit only, otherwise within 10 %."""


PRINTED = (
    Printed("robotics_2_5b", "tokenizer", 200, "section 3, table 7", by_leading_digit=True),
    Printed("robotics_2_5b", "latent_action", 300, "section 3, table 5", by_leading_digit=True),
    Printed("scale_41m", "dynamics", 41, "table 10"),
    Printed("scale_96m", "dynamics", 96, "table 10"),
    Printed("scale_192m", "dynamics", 192, "table 10"),
    Printed("scale_404m", "dynamics", 404, "table 10"),
    Printed("scale_811m", "dynamics", 811, "table 10"),
    Printed("scale_1_6b", "dynamics", 1600, "table 10"),
    Printed("scale_2_7b", "dynamics", 2700, "table 10"),
    Printed("platformers_11b", "dynamics", 10_100, "table 12"),
    Printed("platformers_11b", "all", 10_700, "section 3"),
    Printed("robotics_1b", "all", 1000, "table 2"),
    Printed("robotics_2_5b", "all", 2500, "section 3.2"),
)

SHOWN = ("nano", "small", "coinrun", "robotics_1b", "robotics_2_5b", "platformers_11b")
OURS = "**ours**: not in the paper"


@dataclass(frozen=True)
class Row:
    """A row of the table of hyperparameters."""

    label: str
    value: Callable[[GenieConfig, TrainingConfig], object]
    source: str
    """Tables and sections of the paper that give the values; those of `nano` and `small` are ours."""


def stack(width: int, blocks: int, heads: int, head_dim: int | None = None) -> str:
    return f"{blocks} x {width}, {heads} x {head_dim or width // heads}"


def rates(stage: StageConfig) -> str:
    muon = f", Muon {stage.muon_learning_rate:g}" if stage.muon_learning_rate else ""
    return f"{stage.learning_rate:g} to {stage.learning_rate * stage.final_rate:g}{muon}"


def schedule(stage: StageConfig) -> str:
    return f"wsd, decay {stage.decay:g}" if stage.schedule == "wsd" else stage.schedule


def optimizer(stage: StageConfig) -> str:
    return f"{stage.warmup_steps:,}, {stage.beta1:g} {stage.beta2:g}, {stage.weight_decay:g}"


def last_stage(training: TrainingConfig) -> StageConfig:
    """The stage that trains the dynamics."""
    return training.dynamics if training.mode == "frozen" else training.joint


def quantization_start(config: GenieConfig, component: str) -> str:
    vq = getattr(config, component).quantizer.vq
    if vq.freeze_after_init:
        return f"{vq.quantize_after_fraction:.0%} of the stage, then frozen"
    return f"{vq.quantize_after_steps} steps"


def yes(value: bool) -> str:
    return "yes" if value else "no"


ROWS = (
    Row("height x width, frames", lambda c, t: "{} x {}, {}".format(*c.image_size, c.clip_length),
        "section 3: 160x90, 16; 96 is a multiple of both patch sizes. CoinRun: Procgen's 64x64"),
    Row("**tokenizer**: patch size", lambda c, t: c.tokenizer.patch_size, "tables 7, 15"),
    Row("encoder: blocks x width, heads x head width", lambda c, t: stack(
        c.tokenizer.encoder_width, c.tokenizer.encoder_num_blocks, c.tokenizer.encoder_num_heads), "tables 7, 15"),
    Row("decoder: the same", lambda c, t: stack(
        c.tokenizer.decoder_width, c.tokenizer.decoder_num_blocks, c.tokenizer.decoder_num_heads), "tables 7, 15"),
    Row("codes x width", lambda c, t: f"{c.tokenizer.quantizer.num_codes} x {c.tokenizer.quantizer.latent_dim}",
        "tables 7, 15"),
    Row("quantization starts after", lambda c, t: quantization_start(c, "tokenizer"), OURS),
    Row("motion weight", lambda c, t: f"{c.tokenizer.motion_weight:g}", "0: standard VQ-VAE, section 2.1"),
    Row("steps x clips per step", lambda c, t: f"{t.tokenizer.steps:,} x {t.tokenizer.batch_size}",
        "tables 8, 15; 384 is the larger batch of table 6, the paper does not say which it used"),
    Row("learning rate", lambda c, t: rates(t.tokenizer), "table 8"),
    Row("warm-up steps, betas, weight decay", lambda c, t: optimizer(t.tokenizer), "table 8"),
    Row("**latent action model**: patch size", lambda c, t: c.latent_action.patch_size,
        "table 5; not printed for CoinRun"),
    Row("encoder", lambda c, t: stack(
        c.latent_action.width, c.latent_action.encoder_num_blocks, c.latent_action.num_heads), "tables 5, 16"),
    Row("decoder", lambda c, t: stack(
        c.latent_action.width, c.latent_action.decoder_num_blocks, c.latent_action.num_heads), "tables 5, 16"),
    Row("codes x width", lambda c, t: f"{c.latent_action.quantizer.num_codes} x {c.latent_action.quantizer.latent_dim}",
        "table 5; table 16 has 6 codes for CoinRun, ours 8"),
    Row("quantization starts after", lambda c, t: quantization_start(c, "latent_action"), OURS),
    Row("history in encoder / decoder", lambda c, t:
        f"{yes(c.latent_action.encoder_history)} / {yes(c.latent_action.decoder_history)}", "section 2.1"),
    Row("reads and predicts differences", lambda c, t: yes(c.latent_action.predict_diff),
        "no: frames, through a sigmoid (C.1)"),
    Row("whitening; latents remembered", lambda c, t:
        f"{c.latent_action.quantizer.vq.whiten:g}; {c.latent_action.quantizer.vq.num_remembered:,}", OURS),
    Row("steps x clips per step", lambda c, t: f"{t.latent_action.steps:,} x {t.latent_action.batch_size}"
        if t.mode == "frozen" else "with the dynamics", "section 2.1"),
    Row("learning rate", lambda c, t: rates(t.latent_action if t.mode == "frozen" else t.joint),
        "table 9; for Platformers it is printed for the dynamics only"),
    Row("**dynamics**: blocks x width, heads x head width", lambda c, t: stack(
        c.dynamics.width, c.dynamics.num_blocks, c.dynamics.num_heads, c.dynamics.head_dim),
        "tables 11, 12, 17; 1B is **inferred**, see Robotics"),
    Row("input of actions, in both models", lambda c, t: c.dynamics.action_input, "section 2.1: added"),
    Row("reads the tokens of the previous frame", lambda c, t: yes(c.dynamics.prev_frame_tokens), "no"),
    Row("smallest mask rate", lambda c, t: f"{c.dynamics.min_mask_rate:g}", "section 2.1"),
    Row("MaskGIT steps, temperature", lambda c, t: f"{c.dynamics.maskgit_steps}, {c.dynamics.temperature:g}",
        "section 3; table 17"),
    Row("order of unmasking", lambda c, t: c.dynamics.order, "section 3: MaskGIT's, by confidence"),
    Row("trained with the latent actions", lambda c, t: yes(t.mode != "frozen"), "section 2.1: co-trained"),
    Row("steps x clips per step", lambda c, t: f"{last_stage(t).steps:,} x {last_stage(t).batch_size}",
        "tables 10, 12, F; for robotics those of table 10"),
    Row("learning rate", lambda c, t: rates(last_stage(t)), "table 9"),
    Row("warm-up steps, betas, weight decay", lambda c, t: optimizer(last_stage(t)), "table 9"),
    Row("schedule", lambda c, t: schedule(last_stage(t)), "cosine in table 8, of the tokenizer"),
    Row("**all**: largest gradient norm per component", lambda c, t: f"{last_stage(t).clip_gradient:g}", OURS),
    Row("codebooks: commitment, decay of averages", lambda c, t:
        f"{c.tokenizer.quantizer.vq.commitment:g}, {c.tokenizer.quantizer.vq.decay:g}", OURS),
    Row("dead below this fraction of the mean usage", lambda c, t:
        f"{c.latent_action.quantizer.vq.dead_code_threshold:g}", OURS),
)  # fmt: skip

PAGE = """# Parameters

```bash
genie-robotics estimate --preset robotics_2_5b
```

Millions of parameters of each preset (row) by component (column). The models are built without memory (torch's meta
device) and counted. `python tools/parameters_page.py` writes this page, and `tests/genie_robotics/test_estimate.py`
checks it.

{presets}

## Compared with the paper

Millions of parameters that the paper prints, and ours with their difference in percent.

{printed}

## Hyperparameters

Values of each preset (column). `nano` and `small` are ours ([why](ablations.md)); the last column names the tables and
sections of the paper that give the values of the other presets. The `scale_*` presets are `robotics_1b` with the
dynamics of table 10.

{hyperparameters}

Every attention layer has QK-norm (the paper says so of the dynamics). The loss of predicted frames is divided by that
of repeating the previous frame, and the gradient of each component is clipped separately, so that neither the camera
nor the other component changes the size of a step. The commitment loss of the tokenizer has weight 0.1.

**Number of layers.** If the `num_layers` of table 12 were blocks of spatial attention, temporal attention and a
feed-forward, the model would have 19.1B parameters and not 10.1B. If they are alternating spatial and temporal layers,
with one feed-forward (4 times as wide) per pair, the whole series agrees within {low:.1f} to {high:+.1f} %. So our
presets have `num_layers / 2` blocks; the 21 layers of table 10 make 11 blocks.

**Width of heads.** In most rows, the number of heads times the k/q size is not d_model (192M: 18 x 64 = 1152 with
d_model 1024; 10.1B: 36 x 128 = 4608 with d_model 5120). `--dynamics.head-dim` sets the printed sizes.

**Robotics.** The paper prints no table for it ("the same hyperparameters found to be best on Platformers"), so
`robotics_*` are inferred. The 2.5B model is that of table 11 (34 layers, 20 heads of 128, width 2560), which has 2.3B
parameters in the paper and {robotics:.2f}B in our count, with tokenizer and latent action model. The dynamics of the 1B
model has the parameters that those two leave: 14 layers of width 2048.

**Frames.** 90 rows are not a multiple of the patch sizes 4 and 16; the paper's numbers of tokens agree with 92 (942B
tokens = 125,000 x 512 x 16 x 920). Ours have 96 rows, the smallest multiple of both patch sizes: 960 tokens per frame.

**Not in the paper**, and chosen by us: learned positions, GELU, pre-norm, attention without biases, one learned query
that pools the latent action of a frame (`AttentionPool`), moving averages for the codebooks. Optimizers, steps and
batches of the paper's sizes are those of tables 6 to 12 and 15 to 17 (`genie_robotics/training/config.py`); for
robotics, those of table 10.

**Trained by us**: `nano`, and `small` on a quarter of nano's clips ([numbers](numbers.md)); no other preset.
"""


def hyperparameters() -> str:
    trainings = {name: training_preset(name) for name in SHOWN}
    models = {name: preset(name, training.mode) for name, training in trainings.items()}
    lines = ["| | " + " | ".join(f"`{name}`" for name in SHOWN) + " | source |", "|---" * (len(SHOWN) + 2) + "|"]
    for row in ROWS:
        values = " | ".join(str(row.value(models[name], trainings[name])) for name in SHOWN)
        lines.append(f"| {row.label} | {values} | {row.source} |")
    return "\n".join(lines)


def page() -> str:
    counts = {name: {k: n / 1e6 for k, n in num_parameters(preset(name)).items()} for name in PRESETS}
    presets = ["| preset | tokenizer | latent action | dynamics | all |", "|---|---|---|---|---|"]
    for name, found in counts.items():
        numbers = (millions(found[part]) for part in ("tokenizer", "latent_action", "dynamics", "all"))
        presets.append(f"| `{name}` | " + " | ".join(numbers) + " |")
    printed = ["| preset, component | paper | source | ours | difference |", "|---|---|---|---|---|"]
    series = []
    for entry in PRINTED:
        ours = counts[entry.preset][entry.component]
        difference = 100 * (ours / entry.millions - 1)
        printed.append(
            f"| `{entry.preset}` {entry.component.replace('_', ' ')} | {millions(entry.millions)} | {entry.source} | "
            f"{millions(ours)} | {difference:+.1f} % |"
        )
        if entry.component == "dynamics":
            series.append(difference)
    return PAGE.format(
        presets="\n".join(presets), printed="\n".join(printed), hyperparameters=hyperparameters(),
        low=min(series), high=max(series), robotics=counts["robotics_2_5b"]["all"] / 1000,
    )  # fmt: skip


def millions(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    PAGE_FILE.write_text(page())
