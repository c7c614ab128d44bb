"""`score` on planted latents: the known answer comes back, in whatever form and order the file has it."""

import json
from pathlib import Path

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_eval.codes.nulls import permuted_per_trajectory
from genie_eval.codes.planted import planted_transitions, quantized
from genie_eval.report.write import validate
from genie_eval.score.latents import LatentsConfig, latents
from genie_eval.score.score import ScoreConfig, measure, score
from genie_robotics.cli import main

QUICK = ScoreConfig(draws=60, swaps=19, progress=False)


@pytest.fixture(scope="module")
def table():
    return planted_transitions(60, 24, seed=3)


@pytest.fixture(scope="module")
def columns(table):
    """The oracle's codes, in the format of latents.npz."""
    return {
        "codes": quantized(table.motions["base"]), "motion": table.motions["base"], "trajectory": table.trajectory,
        "step": table.step,
    }  # fmt: skip


def scored(columns, config=QUICK, **options):
    return measure(latents(columns, "file.npz", LatentsConfig(**options)), config)


@pytest.fixture(scope="module")
def oracle(columns):
    return scored(columns)


def test_oracle_codes_read_one(oracle):
    metrics = oracle["metrics"]
    assert metrics["ctc"]["value"] == pytest.approx(1, abs=0.1)
    assert metrics["grounding_r2"]["skill"] == pytest.approx(1, abs=0.05)
    assert metrics["codebook_perplexity"]["value"] > 7
    assert "exploratory" in metrics["ctc"]["reason"]
    assert oracle["summary"]["exploratory"]


def test_private_dictionaries_read_zero(table, columns):
    private = permuted_per_trajectory(columns["codes"], table, 8)
    metrics = scored({**columns, "codes": private})["metrics"]
    assert metrics["ctc"]["value"] == pytest.approx(0, abs=0.08)
    assert metrics["ctc"]["verdict"] == "fail"
    assert metrics["grounding_r2"]["skill"] < 0.1


def test_codes_without_meaning_do_not_pass(columns):
    random = np.random.default_rng(0).integers(8, size=len(columns["codes"]))
    metrics = scored({**columns, "codes": random})["metrics"]
    assert metrics["ctc"]["value"] is None or metrics["ctc"]["verdict"] == "fail"
    assert metrics["grounding_r2"]["verdict"] == "fail"


def test_what_needs_a_model_is_not_run_and_says_so(oracle):
    for name in ("command_bits", "dream_psnr", "counterfactual_id", "delta_psnr_t4"):
        assert oracle["metrics"][name]["verdict"] == "not run"
        assert "needs the model" in oracle["metrics"][name]["reason"]


def test_order_of_rows_and_names_of_trajectories_change_nothing(columns, oracle):
    """Rows shuffled altogether: also steps inside a trajectory, which is said."""
    shuffled = np.random.default_rng(1).permutation(len(columns["codes"]))
    names = 7_000_000 * (columns["trajectory"] - 30) - 5  # negative and sparse, in the same order
    moved = {**{k: v[shuffled] for k, v in columns.items()}, "trajectory": names[shuffled]}
    report = scored(moved)
    for name in ("ctc", "grounding_r2"):
        for key in ("value", "null", "oracle", "ci95", "p"):
            assert report["metrics"][name][key] == oracle["metrics"][name][key]
    assert any("out of order" in note for note in report["data"]["notes"])
    assert not any("out of order" in note for note in oracle["data"]["notes"])


def test_whole_floats_and_columns_of_one_are_codes(columns, oracle):
    report = scored({**columns, "codes": columns["codes"].astype(np.float32)[:, None]})
    assert report["metrics"]["ctc"]["value"] == oracle["metrics"]["ctc"]["value"]


def test_names_of_trajectories_may_be_words(columns, oracle):
    words = np.array([f"episode_{i:03d}" for i in columns["trajectory"]])
    assert scored({**columns, "trajectory": words})["metrics"]["ctc"] == oracle["metrics"]["ctc"]


def test_two_tokens_are_one_code_for_each_pair(columns, oracle):
    """The 8 oracle codes written as two tokens of 4 and 2 values: the joint code is the same partition."""
    tokens = np.stack([columns["codes"] // 2, columns["codes"] % 2 + 3], axis=1)
    report = scored({**columns, "codes": tokens})
    assert report["metrics"]["ctc"]["value"] == pytest.approx(oracle["metrics"]["ctc"]["value"], rel=1e-9)
    assert report["run"]["num_actions"] == 8
    assert report["codes"][0]["label"] == "(0, 3)"
    assert any("2 tokens" in note and "8 occur" in note for note in report["data"]["notes"])


def test_each_token_is_also_measured_alone(columns):
    """Tokens that say whether x and whether y is positive: each tells 2/pi of one dimension of three."""
    tokens = (columns["motion"][:, :2] > 0).astype(int)
    alone = scored({**columns, "codes": tokens})["details"]["tokens"]
    assert [row["num_codes"] for row in alone] == [2, 2]
    for row in alone:
        assert row["grounding_r2"] == pytest.approx(2 / np.pi / 3, abs=0.03)
        assert row["ctc"] == pytest.approx(1, abs=0.15)


def test_codes_too_many_to_speak_of_leave_the_others_right(table, columns, oracle):
    """A fifth of the transitions gets a code of its own: what is left still reads one, and the share is said."""
    rng = np.random.default_rng(0)
    lonely = rng.random(len(columns["codes"])) < 0.2
    codes = np.where(lonely, 8 + np.arange(len(lonely)), columns["codes"])
    report = scored({**columns, "codes": codes})
    assert report["metrics"]["ctc"]["value"] == pytest.approx(1, abs=0.12)
    assert any("occur" in note for note in report["data"]["notes"])
    assert report["metrics"]["grounding_r2"]["share_of_transitions"] == pytest.approx(0.8 + 248 / len(codes), abs=0.02)
    assert report["metrics"]["grounding_r2"]["all_transitions"] < report["metrics"]["grounding_r2"]["value"]
    assert report["metrics"]["codebook_perplexity"]["num_codes"] > 256
    assert len(report["metrics"]["codebook_perplexity"]["reason"]) < 400


def test_an_embedding_without_codes_is_clustered_on_other_trajectories(columns):
    rng = np.random.default_rng(0)
    mixed = columns["motion"] @ rng.normal(size=(3, 12)) + 0.05 * rng.normal(size=(len(columns["codes"]), 12))
    without = {k: v for k, v in columns.items() if k != "codes"} | {"embedding": mixed}
    source = latents(without, "file.npz")
    assert source.num_codes == 8
    assert source.embedding.shape == mixed.shape
    report = measure(source, QUICK)
    assert report["metrics"]["grounding_r2"]["skill"] > 0.8
    assert report["metrics"]["ctc"]["value"] == pytest.approx(1, abs=0.15)
    assert latents(without, "file.npz", LatentsConfig(num_codes=5)).num_codes == 5


def test_motion_by_names_is_split_and_named(table, columns):
    rng = np.random.default_rng(0)
    more = rng.normal(size=(len(columns["codes"]), 4))
    names = np.array(["roll", "z", "pitch", "y", "yaw", "x", "gripper_width"])
    x, y, z = columns["motion"].T
    motion = np.stack([more[:, 0], z, more[:, 1], y, more[:, 2], x, more[:, 3]], axis=1)
    source = latents({**columns, "motion": motion, "motion_names": names}, "file.npz")
    assert source.motion_names == ["x", "y", "z"]
    assert np.array_equal(source.table.motions["base"], table.motions["base"])
    assert source.table.motions["rotation"].shape[1] == 3
    assert source.table.motions["gripper"].shape[1] == 1
    assert not any(word in card["name"] for card in measure(source, QUICK)["codes"] for word in ("opening", "closing"))


def test_seven_dimensions_without_names_get_no_wrong_name(columns, oracle):
    assert any(card["name"] not in ("unnamed", "still") for card in oracle["codes"])
    motion = np.concatenate([columns["motion"], np.random.default_rng(0).normal(size=(len(columns["codes"]), 4))], 1)
    report = scored({**columns, "motion": motion})
    assert {card["name"] for card in report["codes"]} == {"unnamed"}
    assert [c["name"] for c in report["data"]["motion_columns"]] == [f"d{d}, SD" for d in range(7)]
    assert "base frame" not in report["metrics"]["ctc"]["motion"]
    assert report["metrics"]["ctc"]["value"] == pytest.approx(1, abs=0.15)
    assert "base" not in report["details"]["grounding"]["by_motion"]  # which the page would call forward, left, up


def test_an_embedding_of_several_tokens_is_probed(columns):
    rng = np.random.default_rng(0)
    wide = columns["motion"] @ rng.normal(size=(3, 60)) + 0.5 * rng.normal(size=(len(columns["codes"]), 60))
    found = scored({**columns, "embedding": wide.reshape(-1, 6, 10)})["details"]["probe"]
    assert found["ridge"]["r2"] > 0.9
    assert found["ridge"]["control"] < 0.05


def test_an_embedding_too_large_is_left_out_and_said(columns, monkeypatch):
    monkeypatch.setattr("genie_eval.score.latents.MAX_CELLS", 1000)
    large = {**columns, "embedding": np.zeros((len(columns["codes"]), 2))}
    source = latents(large, "file.npz")
    assert source.embedding is None
    assert any("Not read: 'embedding'" in note for note in source.notes)
    large.pop("codes")
    with pytest.raises(UserError, match="pool its tokens"):
        latents(large, "file.npz")


def test_state_and_scene_fill_their_rows_of_the_ladder(table, columns):
    report = scored({**columns, "state": table.position, "scene": table.scene - 100})
    rows = {row["name"]: row for row in report["ladder"]}
    for name in ("position", "scene"):
        assert rows[name]["grounding_r2"] is not None
    assert rows["oracle_motion"]["ctc"] == pytest.approx(1, abs=0.1)
    assert "state" not in report["metrics"]["state_leak"]["reason"] or report["metrics"]["state_leak"]["value"]


def test_uneven_steps_are_said(columns):
    kept = np.random.default_rng(0).random(len(columns["codes"])) < 0.7
    notes = scored({k: v[kept] for k, v in columns.items()})["data"]["notes"]
    assert any("not evenly spaced" in note for note in notes)


def test_trajectories_beyond_the_limit_are_left_out_whole(columns):
    some = latents(columns, "file.npz", LatentsConfig(trajectories=10, seed=4))
    assert some.table.num_trajectories == 10
    assert len(some.codes) == 240
    assert len(some.ids) == len(set(some.ids)) == 10
    assert any("10 of 60" in note for note in some.notes)
    again = latents(columns, "file.npz", LatentsConfig(trajectories=10, seed=4))
    assert np.array_equal(again.ids, some.ids)
    few = latents(columns, "file.npz", LatentsConfig(max_rows=100))
    assert few.table.num_trajectories == 4


def test_the_longest_trajectories_are_cut_and_it_is_said():
    rows = 4000
    columns = {
        "codes": np.arange(rows) % 8, "motion": np.ones((rows, 3)), "trajectory": np.arange(rows) // 2000,
        "step": np.arange(rows),
    }  # fmt: skip
    cut = latents(columns, "file.npz", LatentsConfig(max_rows=2500))
    assert len(cut.codes) == 2 * 1250
    assert (np.diff(cut.table.step)[np.diff(cut.table.trajectory) == 0] == 1).all()
    assert any("cut to a random window" in note for note in cut.notes)


def test_the_command_writes_a_valid_report_that_opens_alone(columns, tmp_path, capsys):
    np.savez(tmp_path / "latents.npz", **columns)
    argv = ["score", str(tmp_path / "latents.npz"), "--out", str(tmp_path / "out"), "--draws", "100", "--unit", "m"]
    assert main(argv) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    validate(report)
    assert report["data"]["n_transitions"] == len(columns["codes"])
    assert len(report["data"]["fingerprint"]) == 16
    titles = {f["title"] for f in report["figures"]}
    assert titles >= {"Comparison with baselines and oracles", "Use of the codes", "Motion of each code"}
    for f in report["figures"]:
        assert (tmp_path / "out" / f["file"]).stat().st_size > 1000
    page = (tmp_path / "out" / "report.html").read_text()
    assert "x, mm" in page
    assert 'src="figures' not in page
    said = capsys.readouterr().out
    assert "note: Motion has three dimensions" in said
    assert "report.html" in said


@pytest.mark.parametrize("form", ["lists", "numbered", "named"])
def test_parquet_reads_as_npz(columns, oracle, tmp_path, form):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    plain = {name: pa.array(columns[name]) for name in ("codes", "trajectory", "step")}
    if form == "lists":
        plain["motion"] = pa.array(columns["motion"].tolist())
    else:
        ends = "012" if form == "numbered" else "xyz"
        plain |= {f"motion_{end}": pa.array(column) for end, column in zip(ends, columns["motion"].T, strict=True)}
    path = Path(tmp_path) / "latents.parquet"
    parquet.write_table(pa.table(plain), path)
    report = score(path, tmp_path / "out", QUICK)
    assert report["metrics"]["ctc"] == oracle["metrics"]["ctc"]


def test_parquet_puts_numbered_columns_in_the_order_of_their_numbers(columns, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    from genie_eval.score.readers import open_columns

    wide = np.arange(24).reshape(2, 12)
    order = sorted(range(12), key=str)  # 0, 1, 10, 11, 2 ...
    parquet.write_table(pa.table({f"embedding_{d}": pa.array(wide[:, d]) for d in order}), tmp_path / "a.parquet")
    with open_columns(tmp_path / "a.parquet") as found:
        assert np.array_equal(found["embedding"], wide)
