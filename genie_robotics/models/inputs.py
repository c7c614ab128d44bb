"""Conversion of API arguments to plain integers, numbers, tensors, paths and devices; raises UserError."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError

MOST_SEED = 2**128  # seeds lie between -MOST_SEED and MOST_SEED, both excluded


def integer(value: Any, name: str, least: int | None = None, most: int | None = None, remedy: str = "") -> int:
    """An int from any integer: Python's, numpy's, an array or a tensor without axes, but not a bool.

    Raises:
        UserError: `value` is not an integer of `least` .. `most`.
    """
    try:
        found = operator.index(value) if _is_single(value) else None
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None or (least is not None and found < least) or (most is not None and found > most):
        bounds = "" if least is None else f" of at least {least}" if most is None else f" of {least} .. {most}"
        remedy = remedy or f"pass an int, such as {least or 0}"
        raise UserError(f"{name} must be an integer{bounds}, got {shown(value)}; {remedy}")
    return found


def seed_of(value: Any) -> int:
    """A seed as an int; raises UserError unless it is an integer of at most 128 bits."""
    found = integer(value, "seed")
    if not -MOST_SEED < found < MOST_SEED:
        raise UserError(f"seed must lie between -2**128 and 2**128, got {shown(found)}; pass seed % 2**128")
    return found


def number(value: Any, name: str, least: float = -math.inf, remedy: str = "pass a float") -> float:
    """A finite float of at least `least`; raises UserError."""
    try:
        found = float(value) if _is_single(value) and not isinstance(value, str | bytes) else math.nan
    except (TypeError, ValueError, OverflowError, RuntimeError):
        found = math.nan
    if not math.isfinite(found) or found < least:
        bounds = "" if least == -math.inf else f" of at least {least:g}"
        raise UserError(f"{name} must be a finite number{bounds}, got {shown(value)}; {remedy}")
    return found


def path_of(value: Any, name: str) -> Path:
    """A path; raises UserError."""
    try:
        path = Path(value)
    except TypeError:
        path = None
    if path is None or "\0" in str(path):
        raise UserError(f"{name} must be a path, got {shown(value)}; pass a str or a pathlib.Path")
    return path


def device_of(value: Any) -> torch.device:
    """A device that works on this machine; raises UserError."""
    expected = "expected cpu, or cuda where torch sees a GPU; pass device='cpu'"
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError, ValueError):
        raise UserError(f"unknown device {shown(value)}, {expected}") from None
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0][:120]
        raise UserError(f"device {device} cannot be used here ({reason}), {expected}") from None
    return device


def tensor_of(value: Any) -> Tensor | None:
    """A tensor from an array of numbers (torch, numpy of any layout and byte order, nested lists, a range), or None.

    Shares memory if torch can read the array directly. Read-only arrays are copied, because torch warns about them.
    """
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            return None
        native = array.dtype.newbyteorder("=")
        readable = all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)
        if not (readable and array.flags.writeable and array.dtype == native):
            array = array.astype(native, order="C")
        return torch.from_numpy(array)
    except (TypeError, ValueError, RuntimeError):
        return None


def integers_of(value: Any, most: int, name: str, remedy: str) -> Int[Tensor, "*S"]:
    """int64 from any array of integers of 0 .. `most`, also from an empty list; raises UserError."""
    found = tensor_of(value)
    if found is not None and (not found.numel() or _is_integer(found)):
        whole = found.to(torch.int64)  # uint64 above the range of int64 becomes negative
        if not whole.numel() or 0 <= int(whole.min()) <= int(whole.max()) <= most:
            return whole
    raise UserError(f"{name} must be integers of 0 .. {most}, got {shown(value)}; {remedy}")


def codes_of(value: Any, num_codes: int) -> Int[Tensor, "*S"]:
    """Latent actions as int64; raises UserError for codes outside of 0 .. `num_codes` - 1."""
    return integers_of(value, num_codes - 1, "codes", "pass codes as Genie.infer_actions returns them (counted from 0)")


def frames_of(value: Any, size: tuple[int, int], fit: str, with_pictures: bool = False) -> UInt8[Tensor, "B T H W 3"]:
    """A batch of clips.

    with_pictures: also accepts one clip, or a picture (H, W, 3) of any size, which is fitted to the model's.

    Raises:
        UserError: another dtype, shape or size; it names an expression that converts `frames`.
    """
    return fitted(unfitted_frames(value, size, fit, with_pictures), size, fit)


def unfitted_frames(
    value: Any, size: tuple[int, int], fit: str, with_pictures: bool = False, any_size: bool = False
) -> UInt8[Tensor, "B T H0 W0 3"]:
    """`frames_of` before pictures are fitted; any_size: clips may have any size too."""
    found, (height, width) = tensor_of(value), size
    expected = f"frames must be (B, T, {height}, {width}, 3) uint8"
    if with_pictures:
        expected += f", a clip (T, {height}, {width}, 3) uint8 or a picture (H, W, 3) uint8, a PIL image or a path"
    if found is None or found.ndim < 2:
        raise UserError(f"{expected}, got {shown(value)}; pass a numpy array or a torch tensor of pixels")
    if isinstance(value, list | tuple) and found.dtype == torch.int64 and found.numel():  # a list has no dtype
        found = found.to(torch.uint8) if 0 <= int(found.min()) <= int(found.max()) <= 255 else found
    remedy = _remedy(found, size, fit, with_pictures, any_size)
    if remedy:
        raise UserError(f"{expected}, got {shown(value)}; {remedy}")
    return found.reshape((1,) * (5 - found.ndim) + tuple(found.shape))


def fitted(frames: UInt8[Tensor, "*B H0 W0 3"], size: tuple[int, int], fit: str) -> UInt8[Tensor, "*B H W 3"]:
    """Frames at `size` (H, W)."""
    if tuple(frames.shape[-3:-1]) == tuple(size):
        return frames
    from genie_datasets.base.fit import fit_frames

    return torch.from_numpy(fit_frames(frames.cpu().numpy(), size, fit))


def _remedy(frames: Tensor, size: tuple[int, int], fit: str, with_pictures: bool, any_size: bool) -> str:
    """The remedy for frames with another dtype, shape or size; empty if they are as expected."""
    shape = tuple(frames.shape)
    if frames.dtype != torch.uint8:
        return (
            "pass (255 / white * np.asarray(frames)).round().astype(np.uint8), where white is the value of a white "
            "pixel (1, 255 or 65535)"
        )
    if len(shape) == 2 and with_pictures:
        return "pass a gray picture as np.stack([frames] * 3, axis=-1)"
    if len(shape) not in ((3, 4, 5) if with_pictures else (5,)):
        added = {3: "[None, None]", 4: "[None]"}.get(len(shape))
        return f"pass np.asarray(frames){added}" if added else "pass clips stacked into one array"
    if shape[-1] != 3:
        if shape[-3] == 3:
            return "pass channels last: np.moveaxis(np.asarray(frames), -3, -1)"
        if shape[-1] == 4:
            return "pass RGB without the fourth channel: np.asarray(frames)[..., :3]"
        return "pass gray as np.repeat(np.asarray(frames), 3, axis=-1)" if shape[-1] == 1 else "pass RGB pixels"
    if 0 in shape:
        return "pass at least one frame that has pixels"
    if shape[-3:-1] != tuple(size) and not any_size and not (len(shape) == 3 and with_pictures):
        return f"resize with genie_datasets.fit_frames(np.asarray(frames), {tuple(size)}, {fit!r})"
    return ""


def shown(value: Any) -> str:
    """A value as errors show it: an array by its shape and dtype, or by its entries if they are few."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    found = tensor_of(value) if hasattr(value, "dtype") or isinstance(value, list | tuple | range) else None
    if found is None:
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    dtype = str(found.dtype).removeprefix("torch.")
    if found.numel() <= 8 and found.ndim <= 1:
        return f"{found.tolist()} ({dtype})"
    span = f" of {int(found.min())} .. {int(found.max())}" if found.dtype == torch.int64 and found.numel() else ""
    return f"{tuple(found.shape)} {dtype}{span}"


def _is_integer(found: Tensor) -> bool:
    return not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)


def _is_single(value: Any) -> bool:
    """True if the value has no axes and is not a bool."""
    is_bool = isinstance(value, bool) or getattr(value, "dtype", None) in (np.dtype(bool), torch.bool)
    return not is_bool and not getattr(value, "ndim", None)
