"""tools/calibration.py works in small, and its committed result meets the requirements."""

import json
from pathlib import Path

import pytest

from tools import calibration
from tools.calibration import COVERAGE, MAX_FALSE, calibrate, table_of

RESULT = Path(__file__).parents[2] / "eval" / "reference" / "calibration.json"


def test_a_small_calibration_has_every_row(monkeypatch):
    monkeypatch.setattr(calibration, "BOOTSTRAP", 100)
    monkeypatch.setattr(calibration, "SWAPS", 19)
    result = calibrate({30: 4}, {30: 4}, truth=(1, 500))
    assert [row["case"] for row in result["coverage"]] == ["noisy", "mixed"]
    assert [row["case"] for row in result["false_positives"]] == ["dwelling", "phase_locked"]
    for row in result["coverage"]:
        assert 0 <= row["grounding_r2"] <= 1
        assert row["mean"]["grounding_r2"] == pytest.approx(row["true"]["grounding_r2"], abs=0.1)
        assert row["width"]["ctc"] > 0
    json.dumps(result, allow_nan=False)
    assert table_of(result).count("\n| ") == 6


@pytest.fixture(scope="module")
def committed():
    return json.loads(RESULT.read_text())


def test_committed_intervals_have_the_required_coverage(committed):
    rows = [row for row in committed["coverage"] if row["trajectories"] == 200]
    assert len(rows) == 2
    for row in rows:
        assert row["draws"] >= 200
        for name in ("grounding_r2", "ctc"):
            assert COVERAGE[0] <= row[name] <= COVERAGE[1]


def test_committed_false_positives_are_few(committed):
    rows = committed["false_positives"]
    assert {row["trajectories"] for row in rows} == {200, 100, 40}
    for row in rows:
        assert row["draws"] >= 200
        for name in ("grounding_r2", "ctc"):
            assert row[name] <= MAX_FALSE
            assert row["uniform_p"][name] > 0.001
        assert row["ctc_undefined"] >= 0.9
