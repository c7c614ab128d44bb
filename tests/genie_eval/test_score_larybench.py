"""LARYBench's files (written here as its extraction script writes them) read as the same latents in an npz."""

import csv

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_eval.codes.planted import planted_transitions, quantized
from genie_eval.score.latents import latents
from genie_eval.score.readers import open_columns
from genie_eval.score.score import ScoreConfig, score

STRIDE, EPISODES, PAIRS = 5, 30, 14


@pytest.fixture(scope="module")
def table():
    return planted_transitions(EPISODES, PAIRS, seed=5)


def write(folder, table, indices=True, states=True, order=None):
    """A table of CALVIN's form: shuffled pairs, relative paths, states and actions in folders of their own."""
    motion, position = table.motions["base"], table.position
    codes = quantized(motion)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 32))
    rows = []
    for row in rng.permutation(len(codes)):
        first = 1000 + STRIDE * int(table.step[row])
        last, episode = first + STRIDE, f"ep_{table.trajectory[row] * 3 + 1}"
        paths = {
            "src_state": f"{episode}/state_{first:06d}.npy", "tgt_state": f"{episode}/state_{last:06d}.npy",
            "action": f"{episode}/action_{first:06d}to{last - 1:06d}.npy", "la_path": f"latent_action_{row:08d}.npz",
        }  # fmt: skip
        poses = np.zeros((STRIDE, 7))
        poses[:, :3] = position[row] + np.linspace(0, 1, STRIDE)[:, None] * motion[row]
        poses[:, 5] = [3.1, 3.12, 3.14, -3.12, -3.1]  # yaw over the edge of the circle
        arrays = [("actions", paths["action"], poses)]
        if states:
            ends = (("src_state", position[row]), ("tgt_state", position[row] + motion[row]))
            arrays += [("states", paths[name], np.concatenate([at, np.zeros(12)])) for name, at in ends]
        for kind, name, values in arrays:
            target = folder / "data" / kind / name
            target.parent.mkdir(parents=True, exist_ok=True)
            np.save(target, values)
        tokens = centres[codes[row]] + 0.01 * rng.normal(size=32)
        found = np.array([codes[row] // 4, codes[row] % 4]) if indices else np.array([])
        np.savez_compressed(folder / paths["la_path"], tokens=tokens.reshape(2, 16), indices=found)
        rows.append({"dataset": "CALVIN", "src_img": "", "tgt_img": "", **paths})
    path = folder / "val_la_calvin_5_lapa.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path, folder):
    with open_columns(path, (folder / "data",)) as columns:
        return latents(columns, str(path))


def test_states_tokens_and_indices_are_read_in_order(table, tmp_path):
    source = read(write(tmp_path, table), tmp_path)
    assert source.table.num_trajectories == EPISODES
    assert source.base_frame
    order = np.argsort([f"ep_{3 * i + 1}" for i in range(EPISODES)])  # trajectories are numbered by their names
    expected = np.concatenate([table.motions["base"][table.trajectory == i] for i in order])
    assert np.allclose(source.table.motions["base"], expected)
    assert source.tokens.shape == (EPISODES * PAIRS, 2)
    assert source.embedding.shape == (EPISODES * PAIRS, 32)
    assert source.num_codes == 8
    assert source.table.state.shape[1] == 15


def test_without_states_the_action_gives_the_motion_and_angles_do_not_jump(table, tmp_path):
    source = read(write(tmp_path, table, states=False), tmp_path)
    assert np.abs(source.table.motions["rotation"][:, 2]).max() < 0.1
    assert source.table.motions["base"].std() == pytest.approx(table.motions["base"].std(), rel=1e-6)
    assert source.table.state is None


def test_without_indices_tokens_are_clustered(table, tmp_path):
    source = read(write(tmp_path, table, indices=False), tmp_path)
    assert source.tokens is None
    assert source.num_codes == 8


def test_the_report_is_that_of_oracle_codes(table, tmp_path):
    config = ScoreConfig(draws=40, swaps=9, progress=False)
    report = score(write(tmp_path, table), tmp_path / "out", config, (tmp_path / "data",))
    assert report["metrics"]["grounding_r2"]["skill"] == pytest.approx(1, abs=0.08)


def test_what_is_missing_is_one_line(table, tmp_path):
    path = write(tmp_path, table)
    with pytest.raises(UserError, match="--data-root"), open_columns(path):
        pass
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column la_path, action"), open_columns(tmp_path / "other.csv"):
        pass
    (tmp_path / "latent_action_00000000.npz").write_bytes(b"broken")
    with pytest.raises(UserError, match="latent_action_00000000"), open_columns(path, (tmp_path / "data",)):
        pass
