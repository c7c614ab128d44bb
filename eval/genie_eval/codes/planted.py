"""Planted data: trajectories and codes with a known relation, on which the metrics themselves are tested."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.transitions import Transitions


def planted_transitions(
    trajectories: int = 200, length: int = 40, dims: int = 3, smooth: float = 0.7, style: float = 0.3,
    profile: float = 0.5, scenes: int = 4, seed: int = 0,
) -> Transitions:  # fmt: skip
    """Autocorrelated motion (AR(1) with coefficient `smooth`) plus a shared phase profile and a mean per trajectory.

    style: SD of the trajectories' means. profile: amplitude of the phase profile.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(trajectories, length, dims))
    motion = np.empty_like(noise)
    motion[:, 0] = noise[:, 0]
    for t in range(1, length):
        motion[:, t] = smooth * motion[:, t - 1] + np.sqrt(1 - smooth**2) * noise[:, t]
    motion += profile * np.sin(2 * np.pi * np.arange(length) / length)[:, None]
    motion += style * rng.normal(size=(trajectories, 1, dims))
    position = np.cumsum(motion, axis=1) - motion
    return Transitions(
        trajectory=np.repeat(np.arange(trajectories), length),
        step=np.tile(np.arange(length), trajectories),
        motions={"base": motion.reshape(-1, dims)},
        position=position.reshape(-1, dims),
        state=position.reshape(-1, dims),
        scene=np.repeat(rng.integers(scenes, size=trajectories), length),
    )


def seen_by_camera(table: Transitions, depth: float = 40.0, focal: float = 100.0) -> Transitions:
    """Adds the "image" motion (M, 2) of a pinhole camera: equal base motions look different from place to place.

    depth: distance of the camera from the origin along the third axis; points nearer than a fifth of it are projected
    from there.
    """
    assert table.position is not None

    def project(point: np.ndarray) -> np.ndarray:
        return focal * point[:, :2] / np.maximum(depth + point[:, 2:3], depth / 5)

    image = project(table.position + table.motions["base"]) - project(table.position)
    return dataclasses.replace(table, motions={**table.motions, "image": image})


def autocorrelated_codes(
    trajectories: int, length: int, num_codes: int = 8, stay: float = 0.7, seed: int = 0
) -> Int[np.ndarray, " M"]:
    """Codes that are unrelated to any motion but are held for several steps as real ones are."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(num_codes, size=(trajectories, length))
    for t in range(1, length):
        codes[:, t] = np.where(rng.random(trajectories) < stay, codes[:, t - 1], codes[:, t])
    return codes.reshape(-1)


def with_label_noise(codes: Int[np.ndarray, " M"], share: float, num_codes: int, seed: int = 0) -> np.ndarray:
    """The codes, of which a `share` is replaced by uniform random ones."""
    rng = np.random.default_rng(seed)
    noisy = rng.random(len(codes)) < share
    return np.where(noisy, rng.integers(num_codes, size=len(codes)), codes)


def quantized(motion: Float[np.ndarray, "M D"], num_codes: int = 8, seed: int = 0) -> Int[np.ndarray, " M"]:
    """k-means codes of the motion itself."""
    from sklearn.cluster import KMeans

    return KMeans(num_codes, n_init=4, random_state=seed).fit_predict(motion).astype(np.int64)
