"""Reader of LARYBench's files (meituan-longcat/LARYBench): a table of image pairs, and an npz of `tokens` per pair.

Its extraction writes `{split}_la_{dataset}_{stride}_{model}.csv` with one row per pair. The column `la_path` is the
path of `latent_action_XXXXXXXX.npz`: `tokens` (N, D), the latents after quantization, and `indices`, the numbers of
the codebook, empty where a model has no codebook. `action` is the path of the absolute end-effector poses (stride, A)
between the two images; episode and frame are read from its name. `src_state` and `tgt_state`, where a data set has
them, are the paths of the measured states.
"""

import csv
import re
from pathlib import Path, PurePosixPath

import numpy as np

from genie_datasets.base.errors import UserError
from genie_eval.score.npz import NpzColumns

MAX_CELLS = 50_000_000  # numbers of all tokens together: 400 MB

NEEDED = ("la_path", "action")
POSE = {  # number of columns of an action -> their names in LARYBench's regression
    7: ["x", "y", "z", "roll", "pitch", "yaw", "gripper"],
    12: [f"{arm}_{d}" for arm in "lr" for d in ("x", "y", "z", "roll", "pitch", "yaw")],
    16: [
        *[f"{arm}_{d}" for arm in "lr" for d in "xyz"],
        *[f"{arm}_{d}" for arm in "lr" for d in ("qx", "qy", "qz", "qw")],
        "r_gripper",
        "l_gripper",
    ],
}
ANGLES = ("roll", "pitch", "yaw")


def larybench_columns(path: Path, roots: tuple[Path, ...] = ()) -> dict[str, np.ndarray]:
    """The pairs of one table as the columns of the npz format.

    motion: measured state of the second image minus that of the first where both files exist (the first three numbers:
    position); else the last minus the first pose of the action, as in LARYBench's relative regression.

    Raises:
        UserError: a file is missing or not as LARYBench's extraction writes it.
    """
    rows = _rows(path)
    find = _Finder(path, roots)
    tokens, codes = [], []
    for row in rows:
        with NpzColumns(find(row["la_path"])) as archive:
            if "tokens" not in archive:
                raise UserError(f"{archive.path} has no 'tokens'; run LARYBench's extraction again")
            latent = np.asarray(archive["tokens"]).reshape(-1)
            wide = latent.size * len(rows) > MAX_CELLS
            tokens.append(latent[:0] if wide else latent)
            codes.append(np.asarray(archive.get("indices", [])).reshape(-1))
    place = [_place(row["action"], path) for row in rows]
    columns = {
        "trajectory": np.array([episode for episode, _ in place]),
        "step": np.array([first for _, first in place]),
    }
    if all(len(latent) for latent in tokens):
        columns["embedding"] = _stack(tokens, "tokens", path)
    if any(len(c) for c in codes):
        columns["codes"] = _stack(codes, "indices", path)
    elif "embedding" not in columns:
        raise UserError(f"{path}: no 'indices', and too many numbers in 'tokens' to cluster; pool the tokens first")
    if all(row.get("src_state") and row.get("tgt_state") for row in rows) and find.exists(rows[0]["src_state"]):
        before, after = (
            _stack([_array(find(row[name])) for row in rows], name, path) for name in ("src_state", "tgt_state")
        )
        if before.shape != after.shape or before.shape[1] < 3:
            raise UserError(f"{path}: states must have equal shapes that begin with a position, got {before.shape[1:]}")
        change = after[:, :3] - before[:, :3]
        return columns | {"motion": change, "motion_names": np.array(["x", "y", "z"]), "state": before}
    poses = [_array(find(row["action"])) for row in rows]
    names = _names(poses[0], path)
    paths = [pose.reshape(-1, len(names)) for pose in poses]
    change = _stack([pose[-1] - pose[0] for pose in paths], "action", path)
    for d, name in enumerate(names):
        if name.rpartition("_")[2] in ANGLES:  # from 179 to -179 degrees is 2 degrees
            change[:, d] = (change[:, d] + np.pi) % (2 * np.pi) - np.pi
    if len(names) > 7:  # two arms: rotations are left out, since they are not angles of one frame
        kept = [d for d, name in enumerate(names) if name.rpartition("_")[2] in ("x", "y", "z", "gripper")]
        change, names = change[:, kept], [names[d] for d in kept]
    return columns | {"motion": change, "motion_names": np.array(names)}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as csv ({error}); write it again in UTF-8") from None
    missing = [name for name in NEEDED if not rows or name not in rows[0]]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; pass a table that LARYBench's extraction wrote")
    kept = [row for row in rows if row["la_path"]]  # pairs whose images could not be read have none
    if not kept:
        raise UserError(
            f"{path}: column 'la_path' (files of latents) is empty in all rows; "
            "run LARYBench's latent extraction, which fills it"
        )
    return kept


class _Finder:
    """Finds the files that a table names: next to it, under a root, or in LARYBench's folders below one."""

    def __init__(self, table: Path, roots: tuple[Path, ...]):
        self.table, self.roots = table, (table.parent, *roots)

    def __call__(self, name: str) -> Path:
        for candidate in self._candidates(name):
            if candidate.exists():
                return candidate
        raise UserError(f"{self.table} names {name}, which is not under {self.roots[-1]}; pass --data-root")

    def exists(self, name: str) -> bool:
        return any(candidate.exists() for candidate in self._candidates(name))

    def _candidates(self, name: str) -> list[Path]:
        return [root / folder / name for root in self.roots for folder in ("", "states", "actions")]


def _place(action: str, table: Path) -> tuple[str, int]:
    """(episode, first frame) of "ep_1/action_000065to000069.npy"."""
    name = PurePosixPath(action.replace("\\", "/"))
    match = re.search(r"(\d+)to\d+$", name.stem)
    if not match:
        raise UserError(f"{table}: 'action' must be .../EPISODE/action_FIRSTtoLAST.npy, got {action}")
    return str(name.parent), int(match.group(1))


def _array(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (ValueError, TypeError, OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or "not a file of numpy, or damaged"
        raise UserError(f"{path} cannot be read as an array of numbers ({why}); save it with np.save") from None


def _names(pose: np.ndarray, table: Path) -> list[str]:
    width = pose.shape[-1] if pose.ndim > 1 else 0
    if width not in POSE:
        expected = " or ".join(map(str, POSE))
        raise UserError(
            f"{table}: the actions of a pair must be (steps, {expected}), got {pose.shape}; "
            "run LARYBench's extraction again"
        )
    return POSE[width]


def _stack(parts: list[np.ndarray], name: str, table: Path) -> np.ndarray:
    flat = [part.reshape(-1) for part in parts]
    if len({len(part) for part in flat}) != 1:
        raise UserError(f"{table}: '{name}' must have the same length in all pairs")
    return np.stack(flat)
