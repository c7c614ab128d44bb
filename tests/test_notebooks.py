"""Notebooks: their twins run from top to bottom at small scale, and hold the same cells as what is shown."""

import inspect
import json
import re
import shutil
from functools import partial
from pathlib import Path

import matplotlib
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TWINS = sorted(NOTEBOOKS.glob("0*.py"))


SMALLER = {  # lines of the notebooks, and what stands there in the tests
    r"^EPISODES = \d+": "EPISODES = 4",
    r"^STEPS = \d+$": "STEPS = 2",
    r"^TRAJECTORIES = \d+$": "TRAJECTORIES = 40",
    r'"doctor", run\)$': '"doctor", run, "--clips", 2)',
}


@pytest.fixture
def small(monkeypatch, no_figures, tabletop_rlds):
    """Scores of few draws, dreams of few steps, and the episodes of all tests for new ones."""
    from genie_datasets.tabletop import generate as simulation
    from genie_eval.score import score
    from genie_robotics import Genie

    call, load = inspect.signature(simulation.generate), Genie.from_pretrained

    def copied(*args, **options):
        asked = call.bind(*args, **options)
        asked.apply_defaults()
        names = inspect.signature(simulation._check).parameters
        simulation._check(**{name: asked.arguments[name] for name in names})
        return shutil.copytree(tabletop_rlds.parents[1], asked.arguments["out"])

    def with_fewer_steps(*args):
        genie = load(*args)
        genie.config.dynamics.maskgit_steps = 2
        return genie

    monkeypatch.setattr(simulation, "generate", copied)
    monkeypatch.setattr(score, "ScoreConfig", partial(score.ScoreConfig, draws=100, swaps=19))
    monkeypatch.setattr(Genie, "from_pretrained", with_fewer_steps)


@pytest.mark.parametrize("script", TWINS, ids=lambda script: script.stem)
def test_it_runs(script, tmp_path, monkeypatch, small):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()) or plt.close("all"))
    monkeypatch.chdir(tmp_path)
    text = script.read_text()
    assert re.search(r"^EPISODES = \d+", text, re.MULTILINE)
    for line, smaller in SMALLER.items():
        text = re.sub(line, smaller, text, flags=re.MULTILINE)
    if script.stem == "04_dream_against_mujoco":  # simulates scenes itself
        text = text.replace("\nEPISODES = 4", "\nEPISODES = 2")
    exec(compile(text, script, "exec"), {"__name__": "__main__"})
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
