"""SSIM, LPIPS and FVD against the published formula, known Gaussians, and stand-ins for networks."""

import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import scipy.linalg
import torch

from genie_datasets.base.errors import UserError
from genie_eval.collect import Trajectory
from genie_eval.dreams import perceptual
from genie_eval.dreams.action_use import action_use
from genie_eval.dreams.fidelity import fidelity
from genie_eval.dreams.fvd import frechet_distance, fvd_report
from genie_eval.dreams.generation import dream_set
from genie_eval.dreams.ssim import ssim


def slow_ssim(a, b):
    """Wang et al. 2004, equations 13-16, window by window."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    channels = []
    for channel in range(3):
        x, y = a[..., channel].astype(float), b[..., channel].astype(float)
        local = []
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                local.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
        channels.append(np.mean(local))
    return np.mean(channels)


def pictures(shape, seed):
    import cv2

    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, size=(*shape, 3), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in rough])


def test_ssim_equals_the_published_formula():
    a = pictures((4, 17, 23), 0)
    b = a.copy()
    b[0] = np.clip(a[0].astype(int) + np.random.default_rng(1).normal(0, 20, a[0].shape), 0, 255)
    b[1] = 255 - a[1]
    b[2] = np.roll(a[2], 1, axis=1)
    assert ssim(a, b) == pytest.approx([slow_ssim(x, y) for x, y in zip(a, b, strict=True)], abs=1e-9)
    assert ssim(a, b)[3] == pytest.approx(1)
    assert ssim(a, b)[1] < 0


def test_ssim_keeps_leading_axes_and_does_not_mix_frames():
    a, b = pictures((6, 15, 12), 2), pictures((6, 15, 12), 3)
    together = ssim(a.reshape(2, 3, 15, 12, 3), b.reshape(2, 3, 15, 12, 3))
    assert together.shape == (2, 3)
    assert together.ravel() == pytest.approx([ssim(x[None], y[None])[0] for x, y in zip(a, b, strict=True)], abs=1e-12)


def test_ssim_of_flat_frames_is_its_luminance_term_and_of_tiny_ones_nan():
    a, b = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 140, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 140 + c1) / (100**2 + 140**2 + c1))
    assert np.isnan(ssim(a[:10], b[:10])).all()


def test_metrics_of_dreams_report_ssim_and_their_sample(make_genie, make_video):
    split = make_video().split("test")
    trajectories = [Trajectory(e, np.arange(20)) for e in range(split.num_episodes)]
    dreams = dream_set(make_genie(), split, trajectories, 12, batch=6, progress=False)
    metrics = fidelity(dreams, draws=50) | action_use(dreams, draws=50)
    for metric in metrics.values():
        assert metric.more["resolution"] == [32, 32]
        assert metric.more["n_clips"] == 12
        assert metric.more["backbone"] == "none (pixels)"
    own = metrics["dream_psnr"].more["ssim"]
    assert own["dream"] == own["tokenizer"] > own["copy_last"]
    assert len(own["by_t"]["copy_last"]) == 8
    assert metrics["tokenizer_psnr"].more["ssim"]["value"] == pytest.approx(own["tokenizer"], abs=0.01)
    assert metrics["delta_psnr_t4"].more["ssim_inferred"] > metrics["delta_psnr_t4"].more["ssim_random"]


# LPIPS


def test_lpips_reports_what_is_missing(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    reason = perceptual.lpips(np.zeros((2, 40, 40, 3), np.uint8), np.zeros((2, 40, 40, 3), np.uint8))
    assert isinstance(reason, str)
    assert "pip install lpips" in reason


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Path of the weights of a stand-in for `lpips`, whose network returns the mean absolute difference."""

    class Network(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            assert net == "alex"

        def forward(self, x, y):
            assert x.shape[1] == 3
            assert x.min() >= -1
            assert x.max() <= 1
            return (x - y).abs().mean(dim=(1, 2, 3), keepdim=True)

    weights = types.SimpleNamespace(IMAGENET1K_V1=types.SimpleNamespace(url="https://nowhere/alexnet-abc.pth"))
    modules = {
        "lpips": {"LPIPS": Network}, "torchvision": {}, "torchvision.models": {"AlexNet_Weights": weights},
    }  # fmt: skip
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    perceptual._network.cache_clear()
    yield tmp_path / "checkpoints" / "alexnet-abc.pth"
    perceptual._network.cache_clear()


def test_lpips_without_its_backbone_names_the_missing_file(stand_in):
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    assert str(stand_in) in perceptual.lpips(frames, frames)


def test_lpips_with_all_its_parts(stand_in):
    stand_in.parent.mkdir()
    stand_in.touch()
    a, b = np.zeros((2, 70, 32, 32, 3), np.uint8), np.zeros((2, 70, 32, 32, 3), np.uint8)
    b[1] = 255
    found = perceptual.lpips(a, b)
    assert found.shape == (2, 70)
    assert found == pytest.approx(np.array([[0.0] * 70, [2.0] * 70]))
    assert "at least 32 x 32" in perceptual.lpips(a[..., :16, :, :], b[..., :16, :, :])


# FVD


def gaussian(mean, covariance, n, seed):
    """n samples with exactly this mean and covariance."""
    z = np.random.default_rng(seed).normal(size=(n, len(mean)))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return z @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_known_gaussians():
    variances = np.array([[1.0, 4.0, 9.0], [4.0, 1.0, 16.0]])
    x = gaussian(np.zeros(3), np.diag(variances[0]), 50, 0)
    y = gaussian(np.array([1.0, 2.0, 0.0]), np.diag(variances[1]), 80, 1)
    assert frechet_distance(x, y) == pytest.approx(5 + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum())
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute():
    rng = np.random.default_rng(2)
    roots = rng.normal(size=(2, 6, 6))
    one, two = roots[0] @ roots[0].T + np.eye(6), roots[1] @ roots[1].T + np.eye(6)
    x, y = gaussian(np.zeros(6), one, 90, 3), gaussian(np.ones(6), two, 70, 4)
    formula = 6 + np.trace(one + two - 2 * scipy.linalg.sqrtm(one @ two).real)
    assert frechet_distance(x, y) == pytest.approx(formula)


def test_frechet_distance_of_fewer_clips_than_features():
    x = np.random.default_rng(5).normal(size=(10, 40))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 2) == pytest.approx(160)


class MeanColor(torch.nn.Module):
    """Has the interface of the I3D file; returns the mean of each channel, so that the distance is known."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert x.shape[1] == 3
        assert rescale
        assert resize
        assert return_features
        return x.mean(dim=[2, 3, 4])


class OtherCall(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class OtherResult(torch.nn.Module):
    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        return x


def saved(network, path):
    torch.jit.script(network).save(str(path))
    return path


def clips(count=20, frames=12):
    return np.random.default_rng(6).integers(20, 200, size=(count, frames, 8, 8, 3), dtype=np.uint8)


def test_fvd_uses_the_given_network(tmp_path):
    file = saved(MeanColor(), tmp_path / "i3d_torchscript.pt")
    truth = clips()
    report = fvd_report(truth, {"same": truth, "brighter": truth + 10}, file)
    assert report["values"] == pytest.approx({"same": 0, "brighter": 300}, abs=1e-3)
    assert report["n_clips"] == 20
    assert report["frames"] == 12
    assert report["resolution"] == [8, 8]
    assert report["features"] == 3
    assert report["backbone"] == "I3D (i3d_torchscript.pt)"
    assert "20 clips, fewer than 2048" in report["warning"]


def test_fvd_of_short_or_single_clips_is_not_run(tmp_path):
    file = saved(MeanColor(), tmp_path / "i3d.pt")
    assert "at least 10 frames" in fvd_report(clips(frames=9), {}, file)["reason"]
    assert "at least 2 clips" in fvd_report(clips(count=1), {}, file)["reason"]


@pytest.mark.parametrize("kind", ["missing", "rubbish", "call", "result"])
def test_a_file_that_is_not_i3d_is_a_user_error(tmp_path, kind):
    file = tmp_path / "weights.pt"
    if kind == "rubbish":
        file.write_bytes(b"not a network")
    elif kind != "missing":
        saved(OtherCall() if kind == "call" else OtherResult(), file)
    with pytest.raises(UserError, match="weights.pt") as caught:
        fvd_report(clips(), {"same": clips()}, file)
    assert "i3d_torchscript.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
