"""Whatever is wrong with a file is one line that says what, or a metric that says why it is not run."""

import zipfile

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_eval.score.latents import latents
from genie_eval.score.readers import open_columns
from genie_eval.score.score import ScoreConfig, measure, score
from genie_robotics.cli import main

QUICK = ScoreConfig(draws=40, swaps=9, progress=False)
ROWS, LENGTH = 240, 12


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return {
        "codes": rng.integers(8, size=ROWS), "motion": rng.normal(size=(ROWS, 3)),
        "trajectory": np.arange(ROWS) // LENGTH, "step": np.arange(ROWS) % LENGTH,
    }  # fmt: skip


def changed(values, row, to):
    new = np.asarray(values).astype(np.result_type(values, type(to)))
    new[row] = to
    return new


BAD = {
    "no codes": (lambda c: c.pop("codes"), "no codes (or embedding)"),
    "no motion": (lambda c: c.pop("motion"), "no motion"),
    "no step": (lambda c: c.pop("step"), "no step"),
    "lengths": (lambda c: c.update(step=c["step"][:-1]), "'step' has 239 rows, but 'trajectory' has 240"),
    "motion shorter": (lambda c: c.update(motion=c["motion"][:-5]), "'motion' has 235 rows"),
    "motion of rank 3": (lambda c: c.update(motion=c["motion"][:, :, None]), "shape (M, D), got (240, 3, 1)"),
    "motion beyond sense": (lambda c: c.update(motion=changed(c["motion"], 9, 1e200)), "row 9"),
    "motion of words": (lambda c: c.update(motion=np.full((ROWS, 3), "a")), "must hold numbers"),
    "motion without dimensions": (lambda c: c.update(motion=np.zeros((ROWS, 0))), "'motion' must have shape"),
    "codes of rank 3": (lambda c: c.update(codes=np.zeros((ROWS, 2, 2), int)), "'codes' must have shape"),
    "half codes": (lambda c: c.update(codes=changed(c["codes"], 7, 2.5)), "integers, got 2.5 in row 7"),
    "codes not finite": (lambda c: c.update(codes=changed(c["codes"], 3, np.nan)), "integers, got nan in row 3"),
    "negative codes": (lambda c: c.update(codes=changed(c["codes"], 5, -1)), "got -1 (first below 0: row 5)"),
    "codes as words": (lambda c: c.update(codes=np.full(ROWS, "a")), "must hold integers"),
    "half steps": (lambda c: c.update(step=c["step"] + 0.5), "'step' must hold integers, got 0.5"),
    "a step twice": (lambda c: c.update(step=changed(c["step"], 4, 3)), "trajectory 0 has step 3 twice"),
    "a single value": (lambda c: c.update(trajectory=np.array(3)), "'trajectory' must have shape (M,), got ()"),
    "no rows": (lambda c: c.update({k: v[:0] for k, v in c.items()}), "no transitions"),
    "names too few": (lambda c: c.update(motion_names=np.array(["x", "y"])), "3 different names"),
    "names twice": (lambda c: c.update(motion_names=np.array(["x", "x", "y"])), "3 different names"),
    "names are numbers": (lambda c: c.update(motion_names=np.arange(3)), "must be 3 strings"),
    "scene of rank 2": (lambda c: c.update(scene=np.zeros((ROWS, 2), int)), "'scene' must have shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_columns_are_one_line(case, columns):
    spoil, expected = BAD[case]
    spoil(columns)
    with pytest.raises(UserError) as error:
        latents(columns, "file.npz")
    assert expected in str(error.value)
    assert "file.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_embedding_that_cannot_be_clustered_says_why(columns):
    columns.pop("codes")
    columns["embedding"] = changed(np.zeros((ROWS, 4)), (9, 1), np.inf)
    with pytest.raises(UserError, match="not finite in 1 of 240"):
        latents(columns, "file.npz")
    one = {k: v[:LENGTH] for k, v in columns.items()} | {"embedding": np.zeros((LENGTH, 4))}
    with pytest.raises(UserError, match="2 trajectories"):
        latents(one, "file.npz")


def not_run(columns, words):
    metrics = measure(latents(columns, "file.npz"), QUICK)["metrics"]
    for name in ("ctc", "grounding_r2"):
        assert metrics[name]["verdict"] == "not run"
        assert metrics[name]["value"] is None
        assert words in metrics[name]["reason"]
    return metrics


def test_motion_that_is_not_finite_is_not_run_and_says_where_in_the_file(columns):
    columns["motion"] = changed(columns["motion"], (30, 1), np.nan)
    columns["trajectory"] = columns["trajectory"] * 100 + 7
    metrics = not_run(columns, "1 of 240 transitions (first: trajectory 207, step 6)")
    assert metrics["codebook_perplexity"]["value"] > 1


def test_one_trajectory_is_not_run(columns):
    columns |= {"trajectory": np.zeros(ROWS, int), "step": np.arange(ROWS)}
    not_run(columns, "one trajectory")


def test_one_code_is_not_run(columns):
    columns["codes"] = np.full(ROWS, 5)
    not_run(columns, "one code")


def test_motion_that_never_changes_is_not_run(columns):
    columns["motion"] = np.ones((ROWS, 3))
    not_run(columns, "never changes")


def test_trajectories_of_one_transition_do_not_crash(columns):
    columns |= {"trajectory": np.arange(ROWS), "step": np.zeros(ROWS, int)}
    assert measure(latents(columns, "file.npz"), QUICK)["metrics"]["ctc"]["value"] is None


def test_state_with_holes_leaves_the_rest_whole(columns):
    columns["state"] = changed(np.random.default_rng(0).normal(size=(ROWS, 4)), (3, 2), np.nan)
    metrics = measure(latents(columns, "file.npz"), QUICK)["metrics"]
    assert metrics["grounding_r2"]["value"] is not None
    assert metrics["state_leak"]["verdict"] == "not run"


def objects(path):
    np.savez(path, codes=np.array([1, None], dtype=object), motion=np.zeros((2, 3)), trajectory=[0, 1], step=[0, 0])


def pickled(path):
    import pickle

    path.write_bytes(pickle.dumps({"codes": [1]}))


def truncated(path):
    np.savez(path, codes=np.arange(1000))
    path.write_bytes(path.read_bytes()[:-300])


def damaged(path):
    """The directory of the archive is whole, the array in it is not."""
    rows = 500
    np.savez(
        path, codes=np.arange(rows) % 8, trajectory=np.arange(rows) // 10, step=np.arange(rows), motion=np.zeros(rows)
    )
    content = bytearray(path.read_bytes())
    content[700:760] = b"\x55" * 60
    path.write_bytes(bytes(content))


def not_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("codes", "trajectory", "step", "motion"):
            archive.writestr(f"{name}.txt", "hello")


FILES = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "text": (lambda p: p.write_text("codes,motion\n1,2\n"), "cannot be read as npz"),
    "a single array": (lambda p: p.write_bytes(_npy()), "single array"),
    "objects": (objects, "not unpickled"),
    "pickle": (pickled, "cannot be read as npz"),
    "truncated": (truncated, "cannot be read as npz"),
    "damaged": (damaged, "damaged"),
    "no arrays": (not_arrays, "no codes (or embedding)"),
}  # fmt: skip


def _npy() -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    return buffer.getvalue()


@pytest.mark.parametrize("case", FILES)
def test_bad_files_are_one_line_and_status_2(case, tmp_path, capsys):
    make, expected = FILES[case]
    path = tmp_path / "latents.npz"
    make(path)
    assert main(["score", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert expected in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("nowhere.npz", "no such file"), ("latents.pt", "expected .npz, .parquet"), ("folder.npz", "is a folder")],
)
def test_wrong_paths_are_one_line_and_status_2(name, expected, tmp_path, capsys):
    (tmp_path / "latents.pt").write_bytes(b"x")
    (tmp_path / "folder.npz").mkdir()
    assert main(["score", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert expected in capsys.readouterr().err


def test_wrong_options_are_one_line_and_status_2(columns, tmp_path, capsys):
    path, taken = tmp_path / "latents.npz", tmp_path / "taken"
    np.savez(path, **columns)
    taken.write_text("")
    for argv, expected in (
        (["--out", str(taken)], "is a file"),
        (["--out", str(taken / "below")], "cannot be made or written"),
        (["--out", str(tmp_path / "o"), "--num-codes", "3"], "--num-codes 3"),
        (["--out", str(tmp_path / "o"), "--num-codes", "0"], "at least 1"),
        (["--out", str(tmp_path / "o"), "--trajectories", "0"], "at least 1"),
    ):
        assert main(["score", str(path), *argv]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda t: t | {"codes": [1, None, 2]}, "1 missing values"),
        (lambda t: t | {"motion": [[1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0, 3.0]]}, "differ in length"),
        (lambda t: {k: v for k, v in t.items() if k != "motion"}, "no motion"),
    ],
)
def test_bad_parquet_is_one_line(spoil, expected, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    good = {"codes": [0, 1, 2], "motion": [[1.0, 2.0, 3.0]] * 3, "trajectory": [0, 0, 1], "step": [0, 1, 0]}
    path = tmp_path / "latents.parquet"
    parquet.write_table(pa.table(spoil(good)), path)
    with pytest.raises(UserError, match=expected):
        score(path, tmp_path / "out", QUICK)


def test_parquet_that_is_none_is_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "latents.parquet").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as parquet"), open_columns(tmp_path / "latents.parquet"):
        pass


def test_dead_columns_of_an_embedding_change_nothing(columns):
    rng = np.random.default_rng(1)
    del columns["codes"]
    embedding = columns["motion"] @ rng.normal(size=(3, 8)) + 0.1 * rng.normal(size=(ROWS, 8))
    padded = np.concatenate([embedding, np.zeros((ROWS, 9))], axis=1)
    faint = np.concatenate([embedding, 1e-3 * rng.normal(size=(ROWS, 9))], axis=1)
    plain, *others = (latents({**columns, "embedding": e}, "x").codes for e in (embedding, padded, faint))
    for other in others:  # the same cells, whatever they are called
        together = np.zeros((8, 8))
        np.add.at(together, (plain, other), 1)
        assert together.max(axis=0).sum() > 0.95 * ROWS
        assert together.max(axis=1).sum() > 0.95 * ROWS


def test_a_seed_or_draws_that_cannot_be_are_one_line(columns, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **columns)
    for option, value in (("--seed", "-1"), ("--draws", "1")):
        assert main(["score", str(tmp_path / "a.npz"), "--out", str(tmp_path / "out"), option, value]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith(f"error: {option} must be")
        assert f"got {value}" in error
        assert "\n" not in error
