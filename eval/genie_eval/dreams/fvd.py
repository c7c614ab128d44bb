"""FVD (Unterthiner et al. 2018): Frechet distance of I3D features, with the weights of published FVDs.

The weights are not part of this package, and nothing is downloaded: `--i3d FILE` names StyleGAN-V's TorchScript file
`i3d_torchscript.pt`, which equals the tf.hub network of the first FVD. Another network gives another number. Which
network FILE holds is not checked: the result is an FVD only if it is that one.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genie_datasets.base.errors import UserError

MIN_FRAMES = 10  # I3D's strides leave nothing of a shorter clip
ENOUGH = 2048  # clips; with fewer, a Gaussian in 400 dimensions makes the distance too large
BATCH = 8  # clips, at 224 x 224
EXPECTED = "--i3d takes StyleGAN-V's i3d_torchscript.pt"


def load_i3d(file: str | Path) -> Any:
    """Loads the TorchScript network.

    Raises:
        UserError: the file does not exist or is not TorchScript.
    """
    import warnings

    import torch

    if not Path(file).is_file():
        raise UserError(f"{file} does not exist: {EXPECTED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript itself
            return torch.jit.load(str(file), map_location="cpu").eval()
    except Exception as error:  # the class depends on what is wrong with the bytes
        raise UserError(f"{file} is not a TorchScript file that torch can load: {EXPECTED}") from error


def i3d_features(
    network: Any, clips: UInt8[np.ndarray, "C T H W 3"], file: str | Path = "the network"
) -> Float[np.ndarray, "C F"]:
    """Activations before the softmax, 400 numbers per clip. The network gets (B, 3, T, H, W), 0 to 255, and resizes it.

    file: named in errors.

    Raises:
        UserError: the network does not take such clips, or does not return one vector per clip.
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
            raise UserError(f"{file} does not return one feature vector per clip: {EXPECTED}")
        found.append(features.double().numpy())
    return np.concatenate(found)


def frechet_distance(x: Float[np.ndarray, "N F"], y: Float[np.ndarray, "M F"]) -> float:
    """|m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), covariances with N - 1.

    With S_x = A'A and S_y = B'B the last trace is the sum of the singular values of AB'. No root of a singular matrix
    is taken, so fewer clips than features are no numerical problem.
    """
    mean = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    a, b = _root(x), _root(y)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(mean + (a**2).sum() + (b**2).sum() - 2 * cross)


def _root(z: Float[np.ndarray, "N F"]) -> np.ndarray:
    """A with at most F rows, where A'A is the covariance."""
    return np.asarray(np.linalg.qr((z - z.mean(axis=0)) / np.sqrt(len(z) - 1), mode="r"))


def fvd_report(
    truth: UInt8[np.ndarray, "C T H W 3"], shown: dict[str, UInt8[np.ndarray, "C T H W 3"]], file: str | Path
) -> dict[str, Any]:
    """FVD between the true clips and each set of clips in `shown`; or {"reason"} if they are too few or too short.

    Raises:
        UserError: as `load_i3d` and `i3d_features`.
    """
    network = load_i3d(file)
    clips, frames = truth.shape[:2]
    if frames < MIN_FRAMES:
        return {"reason": f"I3D needs clips of at least {MIN_FRAMES} frames, these have {frames}"}
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
            f"{clips} clips, fewer than {ENOUGH}: too large by an unknown amount; do not compare it with other FVDs"
        )
    return report
