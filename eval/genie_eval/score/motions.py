"""The columns of a file's motion by kind: displacement, rotation, gripper."""

from typing import Any

import numpy as np
from jaxtyping import Float

from genie_datasets.base.errors import UserError

DISPLACEMENT = ("x", "y", "z")
ROTATION = ("roll", "pitch", "yaw")
OTHER_NAMES = {"rx": "roll", "ry": "pitch", "rz": "yaw"}


def assumed_names(given: Any, dims: int, where: str) -> list[str]:
    """Names of the dimensions: the file's, else x, y, z for three and d0, d1 ... otherwise.

    Raises:
        UserError: the file's names are not `dims` different strings.
    """
    if given is None:
        return list(DISPLACEMENT) if dims == 3 else [f"d{d}" for d in range(dims)]
    values = np.asarray(given)
    if values.dtype.kind not in "US" or values.ndim != 1:
        raise UserError(
            f"{where}: 'motion_names' must be {dims} strings, got shape {values.shape} of {values.dtype}; write for "
            "example np.array(['x', 'y', 'z'])"
        )
    names = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    if len(names) != dims or len(set(names)) != dims:
        raise UserError(f"{where}: 'motion_names' must be {dims} different names, got {', '.join(names)}")
    return names


def split_motion(
    motion: Float[np.ndarray, "M D"], names: list[str], notes: list[str], given: bool
) -> tuple[dict[str, Float[np.ndarray, "M D"]], list[str], bool]:
    """(motions by kind, names of the dimensions of "base", whether these are x, y, z).

    "base", the headline motion, is x, y, z where they are among the names, else all columns but rotation and gripper.
    given: whether the names come from the file. notes: lines for the report, to which this function adds.
    """
    plain = [_plain(name) for name in names]
    gripper = [d for d, name in enumerate(plain) if "gripper" in name]
    rotation = [plain.index(name) for name in ROTATION] if set(ROTATION) <= set(plain) else []
    base_frame = set(DISPLACEMENT) <= set(plain)
    if base_frame:
        base = [plain.index(name) for name in DISPLACEMENT]
        left = [names[d] for d in range(len(names)) if d not in base + gripper + rotation]
        if left:
            notes.append(f"Not used of the motion: {', '.join(left)}. The headline motion is x, y, z.")
        if not given:
            notes.append("Motion has three dimensions without names; they are taken as x, y, z of the base frame.")
    else:
        base = [d for d in range(len(names)) if d not in gripper + rotation]
        if not base:  # nothing but a gripper or a rotation
            base, gripper, rotation = list(range(len(names))), [], []
        notes.append(
            f"The headline motion is {', '.join(names[d] for d in base)}. Codes get no names, because these are not "
            "x, y, z of the base frame."
        )
    motions = {"base": motion[:, base]}
    if rotation:
        motions["rotation"] = motion[:, rotation]
    if gripper:
        motions["gripper"] = motion[:, gripper]
    return motions, [names[d] for d in base], base_frame


def _plain(name: str) -> str:
    """Normalized name: "x" for "dx" and "delta_x", "roll" for "rx" and "droll"."""
    low = name.lower().strip()
    for prefix in ("delta_", "d_", "d"):
        short = low.removeprefix(prefix)
        if short != low and OTHER_NAMES.get(short, short) in DISPLACEMENT + ROTATION:
            return OTHER_NAMES.get(short, short)
    return OTHER_NAMES.get(low, low)
