"""LPIPS, if its weights are already on this machine. Nothing is downloaded."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

BACKBONE = "alex"  # the network of most published LPIPS numbers, and the fastest
BATCH = 64  # frames
MIN_SIDE = 32  # pixels; the strides leave nothing of smaller frames


def lpips(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."] | str:
    """LPIPS 0.1 (AlexNet) of each frame, lower is closer; or a sentence that says what is missing.

    The linear layers come with the package `lpips`. The AlexNet weights are torchvision's file, looked up in the
    folder of torch.hub (set `TORCH_HOME` to move it).
    """
    import torch

    missing = missing_parts()
    if missing is not None:
        return missing
    if min(a.shape[-3:-1]) < MIN_SIDE:
        return f"AlexNet needs frames of at least {MIN_SIDE} x {MIN_SIDE} pixels"
    network = _network()
    lead, frame = a.shape[:-3], a.shape[-3:]
    x, y = (frames.reshape(-1, *frame) for frames in (a, b))
    batches = [slice(i, i + BATCH) for i in range(0, len(x), BATCH)]
    with torch.no_grad():
        found = [network(_signed(x[some]), _signed(y[some])).reshape(-1).numpy() for some in batches]
    return np.concatenate(found).astype(np.float64).reshape(lead)


def missing_parts() -> str | None:
    """A sentence that says what to install, or None if LPIPS can be computed without a download."""
    if find_spec("lpips") is None or find_spec("torchvision") is None:
        return "LPIPS needs the package lpips (pip install lpips) and the AlexNet weights of torchvision"
    try:
        file = _backbone_file()
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another torch
        return f"LPIPS needs a torchvision that fits this torch; importing it failed: {str(error).splitlines()[0]}"
    if not file.is_file():
        return f"LPIPS needs the AlexNet weights of torchvision, but {file} does not exist; download it"
    return None


def _backbone_file() -> Path:
    import torch
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]


@cache
def _network() -> Any:
    import warnings

    from lpips import LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips uses a deprecated argument of torchvision
        return LPIPS(net=BACKBONE, verbose=False).eval()


def _signed(frames: UInt8[np.ndarray, "F H W 3"]) -> Any:
    """(F, 3, H, W) float, -1 to 1."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
