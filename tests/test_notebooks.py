"""Notebooks: their twins run from top to bottom at small scale, and hold the same cells as what is shown."""

import json
import re
from pathlib import Path

import matplotlib
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TWINS = sorted(NOTEBOOKS.glob("0*.py"))


@pytest.mark.parametrize("script", TWINS, ids=lambda script: script.stem)
def test_it_runs(script, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()) or plt.close("all"))
    monkeypatch.chdir(tmp_path)
    small, found = re.subn(r"^EPISODES = \d+", "EPISODES = 4", script.read_text(), flags=re.MULTILINE)
    assert found == 1
    small = re.sub(r"^STEPS = \d+$", "STEPS = 2", small, flags=re.MULTILINE)
    small = re.sub(r"^TRAJECTORIES = \d+$", "TRAJECTORIES = 40", small, flags=re.MULTILINE)
    exec(compile(small, script, "exec"), {"__name__": "__main__"})
    assert len(shown) >= 3
    assert all(shown), "every plot shows a figure"


@pytest.mark.parametrize("script", TWINS, ids=lambda script: script.stem)
def test_the_notebook_beside_it_is_the_same_and_opens_with_its_pictures(script):
    jupytext = pytest.importorskip("jupytext")
    shown = json.loads(script.with_suffix(".ipynb").read_text())
    expected = [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in shown["cells"]] == expected, "run `make notebooks`"
    outputs = [output for cell in shown["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert not any(output["output_type"] == "error" for output in outputs)
    assert script.with_suffix(".ipynb").stat().st_size < 2_000_000
