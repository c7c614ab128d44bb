"""Finished reports side by side: what is said of them, and what is refused."""

import copy
import json

import pytest

from genie_datasets.base.errors import UserError
from genie_eval.metrics import METRICS
from genie_eval.report.compare import compare, run_compare

PROMISED = [metric.name for metric in METRICS.values() if metric.always]


def metric(value, low, high, verdict="pass"):
    return {
        "value": value, "null": 0.0, "oracle": 1.0, "skill": value, "ci95": [low, high], "p": 0.001,
        "n_trajectories": 200, "n_seeds": 1, "verdict": verdict, "reason": "as planted",
    }  # fmt: skip


def missing():
    empty = dict.fromkeys(("value", "null", "oracle", "skill", "ci95", "p", "n_trajectories", "n_seeds"))
    return {**empty, "verdict": "not run", "reason": "not asked"}


def report(run="runs/nano", **metrics):
    return {
        "schema_version": 1, "created": "2026-01-01T00:00:00+00:00", "package_version": "0.1.0",
        "run": {"path": run, "preset": "nano", "image_size": [64, 64], "num_actions": 8},
        "data": {"source": "tabletop", "fingerprint": "abc", "n_trajectories": 200, "n_frames": 8000, "split": "test"},
        "settings": {"seed": 0, "draws": 2000},
        "summary": {
            "first_line": "First.", "question": "Same?", "answer": "Yes", "because": "So.", "exploratory": False,
        },
        "metrics": {name: missing() for name in PROMISED} | metrics,
        "ladder": [], "codes": [], "figures": [],
    }  # fmt: skip


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "report.json").write_text(text)
        return folder

    return write


def row(found, name):
    return next(r for r in found["metrics"] if r["name"] == name)


def test_intervals_that_are_apart_are_a_difference_and_overlapping_ones_are_not(put, tmp_path):
    a = put("a", report("runs/a", ctc=metric(0.5, 0.4, 0.6, "warn"), grounding_r2=metric(0.60, 0.5, 0.7)))
    b = put("b", report("runs/b", ctc=metric(0.9, 0.85, 0.95), grounding_r2=metric(0.65, 0.55, 0.75)))
    found = compare([a, b], tmp_path / "out")
    assert found["not_comparable"] == []
    sure, unsure = row(found, "ctc")["difference"], row(found, "grounding_r2")["difference"]
    assert sure["value"] == pytest.approx(0.4)
    assert sure["apart"] is True
    assert sure["better"] == "b"
    assert unsure["apart"] is False
    assert unsure["better"] is None
    assert "overlap" in unsure["words"]
    assert row(found, "command_bits")["difference"] is None
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found


def test_less_is_better_where_it_is(put):
    a = put("a", report("runs/a", nuisance_flip_rate=metric(0.30, 0.28, 0.32, "fail")))
    b = put("b", report("runs/b", nuisance_flip_rate=metric(0.05, 0.04, 0.06)))
    assert row(compare([a, b]), "nuisance_flip_rate")["difference"]["better"] == "b"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("data", "fingerprint"), "other", "fingerprints differ"),
        (("data", "split"), "train", "splits differ"),
        (("data", "n_trajectories"), 100, "trajectories differ"),
        (("settings", "seed"), 1, "seeds of the evaluation"),
        (("run", "num_actions"), 16, "K differ"),
    ],
)
def test_what_must_be_the_same_and_is_not(put, path, value, said):
    first, second = report("runs/a", ctc=metric(0.5, 0.4, 0.6)), report("runs/b", ctc=metric(0.9, 0.85, 0.95))
    second[path[0]][path[1]] = value
    found = compare([put("a", first), put("b", second)])
    assert len(found["not_comparable"]) == 1
    assert said in found["not_comparable"][0]
    assert row(found, "ctc")["difference"]["better"] is None  # nothing is better than what it cannot be compared with


def test_another_version_is_said_but_does_not_stop(put):
    second = report("runs/b") | {"package_version": "0.2.0"}
    found = compare([put("a", report("runs/a")), put("b", second)])
    assert found["not_comparable"] == []
    assert any("package versions differ (a: 0.1.0; b: 0.2.0)" in words for words in found["careful"])


def test_seeds_of_one_recipe_are_grouped_with_mean_and_sd(put):
    values = (0.7, 0.8, 0.9)
    folders = [
        put(f"s{n}", report(f"runs/nano-seed{n}", ctc=metric(v, v - 0.1, v + 0.1))) for n, v in enumerate(values)
    ]
    other = put("other", report("runs/small-seed0", ctc=metric(0.1, 0.0, 0.2)))
    found = compare([*folders, other])
    assert [group["name"] for group in found["groups"]] == ["nano"]
    spread = found["groups"][0]["metrics"]["ctc"]
    assert spread["mean"] == pytest.approx(0.8)
    assert spread["sd"] == pytest.approx(0.1)
    assert spread["n"] == 3
    assert all(r["difference"] is None for r in found["metrics"])  # of more than two there is no single difference


def test_the_same_names_on_other_data_are_not_grouped(put):
    second = report("runs/nano-seed1", ctc=metric(0.5, 0.4, 0.6))
    second["data"]["fingerprint"] = "other"
    found = compare([put("a", report("runs/nano-seed0", ctc=metric(0.9, 0.8, 1.0))), put("b", second)])
    assert found["groups"] == []


def test_command_prints_a_table_and_writes_one_self_contained_page(put, tmp_path, capsys):
    a = put("a", report("runs/a", ctc=metric(0.5, 0.4, 0.6, "warn")))
    b = put("b", report("runs/<b>", ctc=metric(0.9, 0.85, 0.95)))
    out = tmp_path / "out"
    assert run_compare([a, b / "report.json"], out) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("ctc "))
    assert "0.50 [0.40, 0.60] warn" in line
    assert "0.90 [0.85, 0.95] pass" in line
    assert "+0.40 (intervals apart, <b> better)" in line
    page = (out / "compare.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" in page
    assert "data:image/png;base64," in page
    assert "http" not in page.split("base64,")[0]
    for name in PROMISED:
        assert f"<code>{name}</code>" in page


def test_names_stay_apart_when_folders_are_called_alike(put):
    found = compare([put("x/report", report("a/run")), put("y/report", report("b/run"))])
    labels = [run["label"] for run in found["runs"]]
    assert len(set(labels)) == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "cannot be read as JSON"),
        (json.dumps({**report(), "schema_version": 2}), "schema version 2"),
        (json.dumps({"metrics": {}}), "no schema_version"),
        ("[1]", "no schema_version"),
        (json.dumps({**report(), "codes": "none"}), "codes"),
    ],
)
def test_a_file_that_is_no_report_is_one_line(put, content, expected):
    good, bad = put("good", report()), put("bad", content)
    with pytest.raises(UserError) as raised:
        compare([good, bad])
    text = str(raised.value)
    assert expected in text
    assert str(bad) in text
    assert "\n" not in text


def test_too_few_and_missing_reports_are_one_line(put, tmp_path):
    good = put("good", report())
    with pytest.raises(UserError, match="two reports"):
        compare([good])
    with pytest.raises(UserError, match=r"holds no report\.json"):
        compare([good, tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        compare([good, tmp_path / "nowhere"])
    with pytest.raises(UserError, match="is a file"):
        run_compare([good, copy.copy(good)], good / "report.json")


def test_numbers_that_json_does_not_have_and_one_report_twice_are_refused(put, tmp_path):
    good = put("good", report())
    for number in ("NaN", "Infinity", "1e999"):
        bad = put("bad", json.dumps(report(ctc=metric(0.5, 0.4, 0.6))).replace("0.5", number, 1))
        with pytest.raises(UserError, match="report.json"):
            compare([good, bad])
    with pytest.raises(UserError, match="twice"):
        compare([good, good / "report.json"])
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(UserError, match="--out"):
        run_compare([good, put("other", report("runs/b"))], taken / "sub")
