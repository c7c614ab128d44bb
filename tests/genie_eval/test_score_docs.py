"""The guide's code runs as it stands, and what it makes reads as it says."""

import json
import re
from pathlib import Path

import pytest

from genie_robotics.cli import main

GUIDE = Path(__file__).parents[2] / "docs" / "score_your_latents.md"


def test_the_guide_runs_and_its_latents_read_one(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    assert names["roll_pitch_yaw"].shape == (5, 3)
    assert main(["score", "latents.npz", "--out", "report", "--draws", "100"]) == 0
    report = json.loads(Path("report/report.json").read_text())
    assert report["metrics"]["ctc"]["value"] == pytest.approx(1, abs=0.1)
    assert report["metrics"]["ctc"]["verdict"] == "pass"
    assert "exploratory" in report["metrics"]["ctc"]["reason"]
    assert report["summary"]["exploratory"]
    assert {card["name"] for card in report["codes"]} != {"unnamed"}


def test_the_windows_of_a_longer_gap_line_up_with_their_motion(tmp_path):
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL).group(1), names)
    import numpy as np

    positions = np.arange(12, dtype=float)[:, None] ** 2 * np.ones(3)
    names["export"](tmp_path / "a.npz", [(positions, np.arange(9))], gap=3)
    with np.load(tmp_path / "a.npz") as made:
        assert made["motion"].shape == (9, 3)
        assert made["motion"][2, 0] == 5**2 - 2**2
