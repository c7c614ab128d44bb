"""Parameters of the presets, beside what the paper prints: docs/parameters.md.

python -m genie_robotics.estimate.parameters > docs/parameters.md
"""

from dataclasses import dataclass

import torch

from genie_robotics.estimate.hyperparameters import table
from genie_robotics.genie import Genie
from genie_robotics.models.config import GenieConfig
from genie_robotics.models.presets import PRESETS, preset


@dataclass(frozen=True)
class Printed:
    """A count that the paper prints."""

    preset: str
    part: str
    """A component's name, or `all`."""
    millions: float
    source: str
    by_leading_digit: bool = False
    """Held to its leading digit only; else to 10 %."""


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

PAGE = """# Parameters

```bash
genie-robotics estimate --preset robotics_2_5b
```

Built without memory (torch's meta device) and counted; `tests/genie_robotics/test_estimate.py` builds them again and
holds this page to it. In millions:

{presets}

## Beside the paper

{printed}

## The hyperparameters

`nano` and `small` are ours throughout ([why](ablations.md)); the last column says where those of the other sizes come
from, by tables and sections of the paper. The `scale_*` presets are `robotics_1b` with table 10's dynamics.

{hyperparameters}

QK-norm is in every attention layer (the paper says it of the dynamics). The loss of predicted frames is divided by that
of repeating the last frame, and each component is clipped by itself: neither the camera nor the other component
decides how large a step is. The tokenizer's commitment counts a tenth in its loss.

**How layers are counted.** Read as that many blocks of spatial attention, temporal attention and a feed-forward, the
printed `num_layers` of table 12 would give 19.1B and not 10.1B. Counted as spatial and temporal layers that take
turns, with one feed-forward (4 times as wide) a pair, the whole series fits, {low:.1f} to {high:+.1f} %. So our
presets have `num_layers / 2` blocks; table 10's 21 layers make 11.

**Where heads are wider or narrower than the model.** Heads times k/q size is not d_model in most of the rows (192M:
18 x 64 = 1152 of 1024; 10.1B: 36 x 128 = 4608 of 5120). `--dynamics.head-dim` has the printed sizes.

**Robotics.** The paper prints no table for it ("the same hyperparameters found to be best on Platformers"), so
`robotics_*` are inferred. For 2.5B that is the model of table 11 (34 layers, 20 heads of 128, width 2560), which the
paper calls 2.3B and we count as {robotics:.2f}B with tokenizer and latent action model. For 1B the dynamics is what
those two leave: 14 layers of width 2048.

**Frames.** 160x90 does not divide by patches of 4 or 16; the paper's token counts fit 92 rows (942B tokens = 125,000
x 512 x 16 x 920). Ours have 96, the least that both patch sizes divide: 960 tokens a frame.

**Where the paper is silent** we chose: learned positions, GELU, pre-norm, no biases in attention, one learned query
to pool the latent action (an `AttentionPool`; the paper does not say how a frame becomes one vector), moving averages
for the codebooks. Optimizers, steps and batches of the paper's sizes are those of
tables 6 to 12 and 15 to 17 (`genie_robotics/training/config.py`); for robotics, which has none, those of table 10.

**Trained by us** are `nano`, and `small` for a quarter of nano's clips (numbers.md); no other.
"""


def count(config: GenieConfig) -> dict[str, float]:
    """Millions of parameters by component, and of `all`."""
    with torch.device("meta"):
        found = {name: value / 1e6 for name, value in Genie(config).num_parameters().items()}
    return found | {"all": sum(found.values())}


def page() -> str:
    counts = {name: count(preset(name)) for name in PRESETS}
    parts = ("tokenizer", "latent_action", "dynamics", "all")
    rows = ["| preset | tokenizer | latent action | dynamics | all |", "|---|---|---|---|---|"]
    rows += [
        f"| `{name}` | " + " | ".join(millions(found[part]) for part in parts) + " |" for name, found in counts.items()
    ]
    beside = ["| printed | | source | ours | |", "|---|---|---|---|---|"]
    for entry in PRINTED:
        ours = counts[entry.preset][entry.part]
        beside.append(
            f"| `{entry.preset}` {entry.part.replace('_', ' ')} | {millions(entry.millions)} | {entry.source} | "
            f"{millions(ours)} | {100 * (ours / entry.millions - 1):+.1f} % |"
        )
    series = [100 * (counts[e.preset]["dynamics"] / e.millions - 1) for e in PRINTED if e.part == "dynamics"]
    return PAGE.format(
        presets="\n".join(rows), hyperparameters=table(), printed="\n".join(beside), low=min(series), high=max(series),
        robotics=counts["robotics_2_5b"]["all"] / 1000,
    )  # fmt: skip


def millions(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    print(page(), end="")
