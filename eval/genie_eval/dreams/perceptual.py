"""LPIPS, where its weights are already on this machine. Nothing is ever downloaded."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

BACKBONE = "alex"  # the network of most published LPIPS numbers, and the fastest
AT_ONCE = 64  # frames
LEAST_SIDE = 32  # pixels; its strides leave nothing of smaller frames


def lpips(a: UInt8[np.ndarray, "... H W 3"], b: UInt8[np.ndarray, "... H W 3"]) -> Float[np.ndarray, "..."] | str:
    """LPIPS 0.1 (AlexNet) of each frame, lower is closer; or, as one sentence, what is missing.

    The `lpips` package brings its linear layers; the AlexNet under them is torchvision's file, looked for where
    torch.hub keeps its files (`TORCH_HOME` moves that place).
    """
    import torch

    missing = why_not()
    if missing is not None:
        return missing
    if min(a.shape[-3:-1]) < LEAST_SIDE:
        return f"AlexNet needs frames of at least {LEAST_SIDE} x {LEAST_SIDE} pixels"
    network = _network()
    lead, frame = a.shape[:-3], a.shape[-3:]
    x, y = (frames.reshape(-1, *frame) for frames in (a, b))
    found = []
    with torch.no_grad():
        for i in range(0, len(x), AT_ONCE):
            found.append(network(_signed(x[i : i + AT_ONCE]), _signed(y[i : i + AT_ONCE])).reshape(-1).numpy())
    return np.concatenate(found).astype(np.float64).reshape(lead)


def why_not() -> str | None:
    """None where LPIPS can be computed without a download; else what to install."""
    if find_spec("lpips") is None or find_spec("torchvision") is None:
        return "LPIPS needs the package lpips (pip install lpips) and the AlexNet weights of torchvision"
    try:
        file = _backbone_file()
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        return f"LPIPS needs a torchvision that fits this torch; importing it ends in: {str(error).splitlines()[0]}"
    if not file.is_file():
        return f"LPIPS needs the AlexNet weights of torchvision, and {file} does not exist: put that file there"
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
        warnings.simplefilter("ignore")  # it calls torchvision by an older form
        return LPIPS(net=BACKBONE, verbose=False).eval()


def _signed(frames: UInt8[np.ndarray, "F H W 3"]) -> Any:
    """(F, 3, H, W) in -1 .. 1."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
