"""The table of metrics is consistent, and the guides, the schema and the columns of ablations follow it."""

import re
from pathlib import Path

import pytest

from genie_eval.ablation.columns import COLUMNS
from genie_eval.metrics import LEVELS, METRICS, Mark, Metric, guide_tables, judge
from genie_eval.report.section import Section
from genie_eval.report.write import LEVEL_TABLES, schema

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"<!-- table: ([\w ]+) -->\n\n(.*?)\n\n<!-- end -->", re.DOTALL)
GUIDES = {"eval/README.md": ["levels", "metrics"], "docs/score_your_latents.md": ["code metrics"]}


@pytest.mark.parametrize("guide", GUIDES)
def test_the_tables_of_the_guides_are_those_of_the_code(guide):
    found = dict(TABLE.findall((ROOT / guide).read_text()))
    assert list(found) == GUIDES[guide]
    for name, text in found.items():
        assert text.splitlines() == guide_tables()[name], f"{guide}: paste from `python -m genie_eval.metrics`"


def test_marks_in_the_readme_are_those_of_the_table():
    """A row of the README begins with one or two metrics; its second cell with their pass marks."""
    page, checked = (ROOT / "README.md").read_text(), set()
    for line in page.splitlines():
        names = [name for name in re.findall(r"`(\w+)`", line.partition("|")[2].partition("|")[0]) if name in METRICS]
        marks = re.findall(r"\d*\.?\d+ ?%?", re.sub(r"\(.*?\)", "", line.split("|")[2])) if names else []
        for name, text in zip(names, marks, strict=False):
            value = float(text.rstrip(" %")) / (100 if "%" in text else 1)
            assert METRICS[name].mark.good == pytest.approx(value), line
            checked.add(name)
    assert {"ctc", "grounding_r2", "command_bits", "state_leak", "nuisance_flip_rate"} <= checked


def test_every_entry_is_whole():
    for metric in METRICS.values():
        assert metric.level in LEVELS
        assert metric.sentence
        assert metric.null
        assert metric.oracle
        assert metric.pass_text()
        assert metric.fail_text()
        if metric.mark is not None:
            assert (metric.mark.good < metric.mark.bad) == metric.lower_is_better
    assert sum(metric.primary for metric in METRICS.values()) == 4


def test_every_metric_stands_in_one_section_and_in_the_schema():
    assert list(LEVEL_TABLES) == list(LEVELS)
    assert sorted(name for level in LEVELS for name in Section(level).metrics) == sorted(METRICS)
    assert schema()["properties"]["metrics"]["required"] == [m.name for m in METRICS.values() if m.always]


def test_columns_of_ablations_take_title_and_direction_from_the_table():
    columns = [column for group in COLUMNS.values() for column in group if column.name in METRICS]
    assert len(columns) >= 9
    for column in columns:
        assert column.title == METRICS[column.name].short
        assert column.lower_is_better == METRICS[column.name].lower_is_better
        assert METRICS[column.name].sentence in column.about


@pytest.mark.parametrize(
    ("name", "score", "interval", "verdict"),
    [
        ("ctc", 0.85, (0.80, 0.90), "pass"),
        ("ctc", 0.85, (0.60, 0.90), "warn"),
        ("ctc", 0.50, (0.45, 0.55), "warn"),
        ("ctc", 0.30, (0.25, 0.35), "fail"),
        ("state_leak", 0.10, (0.05, 0.14), "pass"),
        ("state_leak", 0.40, (0.35, 0.45), "fail"),
    ],
)
def test_a_verdict_follows_the_marks_in_their_direction(name, score, interval, verdict):
    metric = judge(name, Metric(value=score, n_trajectories=500), score, interval)
    assert metric.verdict == verdict
    assert metric.lower_is_better == METRICS[name].lower_is_better
    assert f"the mark of {METRICS[name].mark.good:.2f}" in metric.reason


def test_conditions_that_are_not_met_turn_a_pass_into_a_warning_and_are_kept():
    metric = judge("ctc", Metric(value=0.9, n_trajectories=500), 0.9, (0.85, 0.95), missing=["one code is dead"])
    assert (metric.verdict, metric.missing) == ("warn", ["one code is dead"])
    few = judge("ctc", Metric(value=0.9, n_trajectories=20), 0.9, (0.85, 0.95))
    assert few.verdict == "warn"
    assert few.reason.startswith("exploratory: 20 trajectories, fewer than 200")
    assert Mark(good=1, bad=0).few == 200
