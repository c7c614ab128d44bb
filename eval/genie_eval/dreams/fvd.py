"""FVD proper: the Frechet distance of I3D features, with the I3D that published FVDs use, where the user has its file.

The weights are not ours to ship and nothing is downloaded: `--i3d FILE` names the TorchScript `i3d_torchscript.pt` of
StyleGAN-V (the one VideoGPT-style evaluations use too, equal to the tf.hub network of the first FVD). Any other
network gives another number, so what this computes is called FVD only because the caller says what FILE is.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genie_datasets.base.errors import UserError

LEAST_FRAMES = 10  # below this I3D's strides leave nothing of the time axis
ENOUGH = 2048  # clips; a Gaussian in 400 dimensions fitted on fewer makes the distance too large
BATCH = 8  # clips, at 224 x 224
EXPECTED = "--i3d takes StyleGAN-V's i3d_torchscript.pt"


def load_i3d(file: str | Path) -> Any:
    """The TorchScript network.

    Raises:
        UserError: no such file, or not TorchScript.
    """
    import warnings

    import torch

    if not Path(file).is_file():
        raise UserError(f"{file} does not exist: {EXPECTED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is old, and so is this file
            return torch.jit.load(str(file), map_location="cpu").eval()
    except Exception as error:  # torch raises RuntimeError, ValueError or its own, by what is wrong with the bytes
        raise UserError(f"{file} is not a TorchScript file that torch can load: {EXPECTED}") from error


def i3d_features(
    network: Any, clips: UInt8[np.ndarray, "C T H W 3"], file: str | Path = "the network"
) -> Float[np.ndarray, "C F"]:
    """What it returns before its softmax (400 numbers a clip). It gets (B, 3, T, H, W) in 0 .. 255 and resizes itself.

    Raises:
        UserError: the network does not take such clips, or gives something else than one vector a clip.
    """
    import torch

    found = []
    for first in range(0, len(clips), BATCH):
        some = torch.from_numpy(np.ascontiguousarray(clips[first : first + BATCH])).permute(0, 4, 1, 2, 3).float()
        try:
            with torch.no_grad():
                features = network(some, rescale=True, resize=True, return_features=True)
        except RuntimeError as error:
            raise UserError(
                f"{file} does not take (clips, rescale=True, resize=True, return_features=True): {EXPECTED}"
            ) from error
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(some):
            raise UserError(f"{file} does not give one vector of features a clip: {EXPECTED}")
        found.append(features.double().numpy())
    return np.concatenate(found)


def frechet_distance(x: Float[np.ndarray, "N F"], y: Float[np.ndarray, "M F"]) -> float:
    """|m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), covariances with N - 1.

    With S_x = A'A and S_y = B'B the last trace is the sum of the singular values of AB': no root of a singular
    matrix is taken, so fewer clips than features do no numerical harm.
    """
    mean = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    a, b = _root(x), _root(y)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(mean + (a**2).sum() + (b**2).sum() - 2 * cross)


def _root(z: Float[np.ndarray, "N F"]) -> np.ndarray:
    """A with A'A = the covariance, and at most F rows."""
    return np.asarray(np.linalg.qr((z - z.mean(axis=0)) / np.sqrt(len(z) - 1), mode="r"))


def fvd_report(
    truth: UInt8[np.ndarray, "C T H W 3"], shown: dict[str, UInt8[np.ndarray, "C T H W 3"]], file: str | Path
) -> dict[str, Any]:
    """FVD of each set of clips in `shown` to the true ones; or {"reason"} where the clips are too few or too short.

    Raises:
        UserError: see load_i3d, i3d_features.
    """
    network = load_i3d(file)
    clips, frames = truth.shape[:2]
    if frames < LEAST_FRAMES:
        return {"reason": f"I3D needs clips of at least {LEAST_FRAMES} frames, these have {frames}"}
    if clips < 2:
        return {"reason": "a covariance needs at least 2 clips"}
    real = i3d_features(network, truth, file)
    report: dict[str, Any] = {
        "lower_is_better": True, "backbone": f"I3D ({Path(file).name})", "features": real.shape[1],
        "n_clips": clips, "frames": frames, "resolution": list(truth.shape[2:4]),
        "values": {name: frechet_distance(real, i3d_features(network, some, file)) for name, some in shown.items()},
    }  # fmt: skip
    if clips < ENOUGH:
        report["warning"] = (
            f"{clips} clips, fewer than {ENOUGH}: too large by an unknown amount, compare nothing with it"
        )
    return report
