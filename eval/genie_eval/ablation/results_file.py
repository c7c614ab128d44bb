"""Measured trials of a study, read from its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_eval.ablation.reading import Reading
from genie_eval.ablation.study import Study
from genie_eval.ablation.trial import MEASURED
from genie_robotics.models.config import read_json


@dataclass(frozen=True)
class Cell:
    variant: str
    seed: int
    readings: dict[str, Reading]
    content: dict[str, Any]


def read_cells(study: Study, out: Path) -> list[Cell]:
    """All measured cells of the study's variants. What was measured in another way than the newest is left out."""
    cells = []
    for variant in study.variants:
        for path in sorted((out / "cells" / variant.name).glob(f"seed*/{MEASURED}")):
            content = read_json(path)
            try:
                with np.load(path.parent / "draws.npz", allow_pickle=False) as stored:
                    draws = dict(stored)
            except (OSError, ValueError, EOFError):
                continue  # was killed between the two files: measured again by the next call
            readings = {
                name: Reading(m["value"], m["ci95"], draws.get(name), m["units"], m["reason"])
                for name, m in content["metrics"].items()
            }
            cells.append(Cell(variant.name, int(content["seed"]), readings, content))
    kinds = {json.dumps(c.content["measured"], sort_keys=True) for c in cells}
    if len(kinds) > 1:
        newest = max(cells, key=lambda c: (out / "cells" / c.variant / f"seed{c.seed}" / MEASURED).stat().st_mtime)
        cells = [c for c in cells if c.content["measured"] == newest.content["measured"]]
    return cells
