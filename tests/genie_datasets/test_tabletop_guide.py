"""The code in docs/tabletop.md runs."""

import re
from pathlib import Path

import numpy as np

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "tabletop.md"


def test_the_guide_runs(tabletop_rlds):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        exec(block.replace("data/tabletop", str(tabletop_rlds)), names)
    assert names["futures"].frames.shape == (2, 4, 64, 64, 3)
    y = names["futures"].position[:, -1, 1]
    assert y[0] - y[1] > 0.25  # the two futures go to the left and to the right
    assert names["what_if"].frames.shape == (1, 4, 64, 64, 3)
    assert np.isfinite(names["seen"].position).all()
    assert (GUIDE.parent / "images" / "tabletop_rt1.jpg").is_file()
