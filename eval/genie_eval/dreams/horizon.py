"""Fidelity of long dreams and their use of the latent actions, at every frame and under several laws of random codes.

`delta_psnr_t4` is one reading, at t = 4 against uniform codes. How much codes seem to matter depends on t and on the
law that random codes are drawn from: uniform codes may hit the right code, and the marginal law hits it often where one
code dominates. `horizon_report` therefore measures t = 1 .. 15 under four laws, and again on moving pixels alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_datasets.base.errors import UserError
from genie_eval.collect import Trajectory, to_numpy
from genie_eval.dreams.generation import choose_clips, read_clips
from genie_eval.dreams.perceptual import lpips
from genie_eval.dreams.pixels import decibel, moving_error, moving_pixels, squared_error
from genie_eval.dreams.ssim import ssim
from genie_eval.interfaces import WorldModel
from genie_eval.metrics import plain
from genie_eval.resampling import DRAWS, bootstrap_weights, interval

if TYPE_CHECKING:
    from genie_datasets import Split

LAWS = ("uniform", "marginal", "other_trajectory", "derangement")
MEANINGS = {
    "uniform": "every code equally likely",
    "marginal": "drawn with the shares that the codes have in the evaluated trajectories",
    "other_trajectory": "the codes of another trajectory, from the same step where it is long enough",
    "derangement": "any code but the inferred one, all others equally likely",
    "constant": "always the most frequent code",
}


@dataclass(frozen=True)
class HorizonConfig:
    """Number and length of the long dreams."""

    clips: int = 48
    """Clips to dream from; each costs horizon x (1 + laws) generated frames."""
    horizon: int = 15
    """Frames generated after the prompt; fewer where most trajectories are shorter."""
    laws: tuple[str, ...] = LAWS
    """Laws of random codes: keys of MEANINGS."""
    others: int = 96
    """Real clips of other trajectories, to compare real clips with real clips."""


@dataclass(frozen=True)
class LongDreams:
    """Dreams of C clips; clip c is part of the evaluated trajectory number trajectory[c].

    Every dream starts from the prompt frame truth[:, 0]. All dreams of a clip share their sampling noise.
    """

    trajectory: Int[np.ndarray, " C"]
    truth: UInt8[np.ndarray, "C n+1 H W 3"]  # the prompt frame, then n frames
    reconstructed: UInt8[np.ndarray, "C n+1 H W 3"]  # by the tokenizer
    inferred: UInt8[np.ndarray, "C n H W 3"]  # generated with the codes inferred from the truth
    random: dict[str, UInt8[np.ndarray, "C n H W 3"]]  # law -> generated with codes of that law
    codes: Int[np.ndarray, "C n"]
    random_codes: dict[str, Int[np.ndarray, "C n"]]
    other: UInt8[np.ndarray, "P n+1 H W 3"]  # real clips of other trajectories; P may be 0
    other_trajectory: Int[np.ndarray, " P"]
    unavailable: dict[str, str] = field(default_factory=dict)  # law -> why its codes could not be drawn

    @property
    def horizon(self) -> int:
        return self.inferred.shape[1]

    @property
    def shown(self) -> dict[str, UInt8[np.ndarray, "C n H W 3"]]:
        """The dream, the tokenizer's reconstruction, and the copy-last baseline: the prompt frame, n times."""
        copied = np.broadcast_to(self.truth[:, :1], self.inferred.shape)
        return {"dream": self.inferred, "tokenizer": self.reconstructed[:, 1:], "copy_last": copied}


def long_dreams(
    world: WorldModel, split: "Split", trajectories: list[Trajectory], config: HorizonConfig,
    trajectory_codes: Sequence[Int[np.ndarray, " n"]], seed: int = 0, batch: int = 16, progress: bool = True,
) -> LongDreams:  # fmt: skip
    """Generates from one prompt frame per clip, with the inferred codes and with codes of every law.

    trajectory_codes[i]: the model's codes of trajectories[i], from its first transition to its last.

    Raises:
        UserError: an unknown law, or lists of different lengths.
    """
    if len(trajectory_codes) != len(trajectories):
        raise UserError(
            f"got the codes of {len(trajectory_codes)} trajectories for {len(trajectories)} trajectories; pass the "
            "codes of each"
        )
    unknown = [law for law in config.laws if law not in MEANINGS]
    if unknown:
        raise UserError(f"unknown law of random codes '{unknown[0]}'; use {', '.join(MEANINGS)}")
    trajectory, start, horizon = choose_clips(trajectories, config.clips, config.horizon, seed)
    clips: dict[str, list[np.ndarray]] = {name: [] for name in ("truth", "reconstructed", "codes", "inferred")}
    random: dict[str, list[np.ndarray]] = {}
    drawn: dict[str, list[np.ndarray]] = {}
    unavailable: dict[str, str] = {}
    bar = tqdm(total=len(trajectory), desc="long dreams", unit="clip", disable=not progress)
    for first in range(0, len(trajectory), batch):
        rows = slice(first, first + batch)
        truth = read_clips(world, split, trajectories, trajectory[rows], start[rows], horizon)
        codes = to_numpy(world.infer_actions(truth)).astype(np.int64)
        clips["truth"].append(truth)
        clips["reconstructed"].append(to_numpy(world.reconstruct(truth)))
        clips["codes"].append(codes)
        clips["inferred"].append(to_numpy(world.generate(truth[:, :1], codes, seed=seed + first)))
        for number, law in enumerate(config.laws):
            rng = np.random.default_rng([seed, number, first])
            chosen = random_codes(
                law, codes, trajectory[rows], start[rows], trajectory_codes, world.config.num_actions, rng
            )
            if isinstance(chosen, str):
                unavailable[law] = chosen
                continue
            drawn.setdefault(law, []).append(chosen)
            random.setdefault(law, []).append(to_numpy(world.generate(truth[:, :1], chosen, seed=seed + first)))
        bar.update(len(truth))
    bar.close()
    other, other_start = _other_clips(trajectories, trajectory, horizon, config.others, seed + 1)
    return LongDreams(
        trajectory, **{name: np.concatenate(part) for name, part in clips.items()},
        random={law: np.concatenate(part) for law, part in random.items() if law not in unavailable},
        random_codes={law: np.concatenate(part) for law, part in drawn.items() if law not in unavailable},
        other=read_clips(world, split, trajectories, other, other_start, horizon), other_trajectory=other,
        unavailable=unavailable,
    )  # fmt: skip


def random_codes(
    law: str, inferred: Int[np.ndarray, "B n"], trajectory: Int[np.ndarray, " B"], start: Int[np.ndarray, " B"],
    trajectory_codes: Sequence[Int[np.ndarray, " m"]], num_codes: int, rng: np.random.Generator,
) -> Int[np.ndarray, "B n"] | str:  # fmt: skip
    """Codes drawn by a law (see MEANINGS), or the reason why they cannot be drawn."""
    if law == "uniform":
        return rng.integers(num_codes, size=inferred.shape)
    if law == "derangement":
        if num_codes < 2:
            return "there is only one code"
        return (inferred + rng.integers(1, num_codes, size=inferred.shape)) % num_codes
    if law == "other_trajectory":
        length = np.array([len(codes) for codes in trajectory_codes])
        n = inferred.shape[1]
        rows = []
        for i, s in zip(trajectory, start, strict=True):
            donors = np.setdiff1d(np.flatnonzero(length >= n), [i])
            if len(donors) == 0:
                return f"no other trajectory has {n} transitions"
            donor = rng.choice(donors)
            first = min(s, length[donor] - n)  # the same step, so that a phase shared by all episodes is kept
            rows.append(trajectory_codes[donor][first : first + n])
        return np.stack(rows).astype(np.int64)
    counts = np.bincount(np.concatenate(list(trajectory_codes)).astype(np.int64), minlength=num_codes)
    if law == "constant":
        return np.full(inferred.shape, counts.argmax())
    return rng.choice(num_codes, size=inferred.shape, p=counts / counts.sum())


def _other_clips(
    trajectories: list[Trajectory], used: np.ndarray, horizon: int, clips: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(trajectory, start) of one clip each of at most `clips` trajectories that are not in `used`."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(t.ids) for t in trajectories])
    free = np.setdiff1d(np.flatnonzero(lengths > horizon), used)
    chosen = np.sort(rng.permutation(free)[:clips])
    return chosen, np.array([rng.integers(lengths[i] - horizon) for i in chosen], dtype=np.int64)


def horizon_report(dreams: LongDreams, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Every reading at t = 1 .. n, as lists: `value` (n,) and `ci95` (n, 2), a bootstrap over trajectories.

    psnr, psnr_moving, ssim, lpips: of the dream with inferred codes, of the tokenizer's reconstruction and of
    copy-last, each against the truth. laws[LAW]: `delta_psnr` (dB that inferred codes gain over codes of this law; mean
    over clips), `aaf` (1 - (MSE_inferred - floor) / (MSE_law - floor), floor = the tokenizer's own error; null where
    this law costs no more than the floor), `aaf_copy_last` (the same for copy-last instead of the dream), `mse_rise`
    (MSE_law / MSE_inferred - 1), `changed` (share of codes that differ from the inferred ones). Names that end in
    `_moving` are the same on the pixels that differ from the prompt by more than 12 gray levels.
    """
    truth, shown = dreams.truth[:, 1:], dreams.shown
    moved = moving_pixels(truth, shown["copy_last"])
    weights = bootstrap_weights(len(np.unique(dreams.trajectory)), draws, seed)
    error = {name: squared_error(frames, truth) for name, frames in shown.items()}
    error_moving = {name: moving_error(frames, truth, moved) for name, frames in shown.items()}
    share = moved.mean(axis=(-2, -1))
    pictures = {
        "psnr": {name: decibel(mse) for name, mse in error.items()},
        "psnr_moving": {name: decibel(mse) for name, mse in error_moving.items()},
        "ssim": {name: ssim(frames, truth) for name, frames in shown.items()},
    }
    report: dict[str, Any] = {
        "n_clips": len(truth), "n_trajectories": weights.shape[1], "resolution": list(truth.shape[2:4]),
        "horizon": dreams.horizon, "prompt_frames": 1, "t": list(range(1, dreams.horizon + 1)),
        "moving_share": _by_trajectory(share, dreams.trajectory).mean(axis=0),
        **{
            metric: {name: mean_with_interval(values, dreams.trajectory, weights) for name, values in by_name.items()}
            for metric, by_name in pictures.items()
        },
    }  # fmt: skip
    report["lpips"] = _lpips(shown, truth, dreams.trajectory, weights)
    report["laws"] = {law: {"meaning": MEANINGS[law], "reason": why} for law, why in dreams.unavailable.items()}
    for law, frames in dreams.random.items():
        law_error, law_error_moving = squared_error(frames, truth), moving_error(frames, truth, moved)
        whole = _code_use(error, law_error, np.ones_like(share), dreams.trajectory, weights)
        moving = _code_use(error_moving, law_error_moving, share, dreams.trajectory, weights)
        report["laws"][law] = {
            "meaning": MEANINGS[law],
            "changed": float((dreams.random_codes[law] != dreams.codes).mean()),
            **whole,
            **{f"{name}_moving": reading for name, reading in moving.items()},
        }
    return plain(report)


def _code_use(
    error: dict[str, Float[np.ndarray, "C n"]], law: Float[np.ndarray, "C n"], area: Float[np.ndarray, "C n"],
    trajectory: Int[np.ndarray, " C"], weights: Float[np.ndarray, "R I"],
) -> dict[str, Any]:  # fmt: skip
    """delta_psnr, aaf, aaf_copy_last and mse_rise of one law.

    error: mean squared error of dream, tokenizer and copy_last over the counted pixels; law: the same of the dream with
    codes of this law. area: share of the frame that is counted; where it is 0 the errors are NaN. dB are compared per
    clip, errors are summed over all counted pixels.
    """
    total = {name: _by_trajectory(np.nan_to_num(mse) * area, trajectory) for name, mse in {**error, "law": law}.items()}
    harm = weights @ (total["law"] - total["tokenizer"])
    significant = interval(harm)[0] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        harm = np.where(harm > 0, harm, np.nan)

        def fraction(name: str) -> dict[str, np.ndarray]:
            excess = total[name] - total["tokenizer"]
            value = 1 - excess.sum(axis=0) / (total["law"] - total["tokenizer"]).sum(axis=0)
            ci = interval(1 - weights @ excess / harm).T
            return {"value": np.where(significant, value, np.nan), "ci95": np.where(significant[:, None], ci, np.nan)}

        rise = {
            "value": total["law"].sum(axis=0) / total["dream"].sum(axis=0) - 1,
            "ci95": interval(weights @ total["law"] / (weights @ total["dream"]) - 1).T,
        }
        return {
            "delta_psnr": mean_with_interval(decibel(error["dream"]) - decibel(law), trajectory, weights),
            "aaf": fraction("dream"), "aaf_copy_last": fraction("copy_last"), "mse_rise": rise,
        }  # fmt: skip


def _lpips(
    shown: dict[str, np.ndarray], truth: np.ndarray, trajectory: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    readings: dict[str, Any] = {}
    for name, frames in shown.items():
        found = lpips(frames, truth)
        if isinstance(found, str):
            return {"reason": found}
        readings[name] = mean_with_interval(found, trajectory, weights)
    return {"backbone": "alex", "lower_is_better": True, **readings}


def mean_with_interval(
    values: Float[np.ndarray, "C n"], trajectory: Int[np.ndarray, " C"], weights: Float[np.ndarray, "R I"]
) -> dict[str, np.ndarray]:
    """Mean of the trajectories' means at each t, and its bootstrap interval; clips that are NaN at t do not count."""
    means = _by_trajectory(values, trajectory)
    known = np.isfinite(means)
    filled = np.where(known, means, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "value": filled.sum(axis=0) / known.sum(axis=0),
            "ci95": interval(weights @ filled / (weights @ known.astype(np.float64))).T,
        }


def _by_trajectory(values: Float[np.ndarray, "C n"], trajectory: Int[np.ndarray, " C"]) -> Float[np.ndarray, "I n"]:
    """Mean over the clips of each trajectory that are not NaN; NaN where all are."""
    group = np.unique(trajectory, return_inverse=True)[1]
    known = np.isfinite(values)
    sums = np.zeros((group.max() + 1, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, group, np.where(known, values, 0.0))
    np.add.at(counts, group, known)
    with np.errstate(invalid="ignore"):
        return sums / counts
