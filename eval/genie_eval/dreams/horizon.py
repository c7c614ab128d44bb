"""Fidelity and use of the latent actions at every frame of a long dream, under several laws of random actions.

`delta_psnr_t4` is one reading at t = 4 against uniform codes. How much codes seem to matter depends on the law they are
drawn from (uniform ones may hit the right code; the marginal law hits it often where one code dominates) and on t
(specification, level F5). So this asks at t = 1 .. 15 under four laws, and again on moving pixels alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_datasets.base.errors import UserError
from genie_eval.collect import Trajectory, read_frames, to_numpy
from genie_eval.dreams.generation import choose_clips
from genie_eval.dreams.perceptual import lpips
from genie_eval.dreams.pixels import decibel, moving_error, moving_pixels, squared_error
from genie_eval.dreams.ssim import ssim
from genie_eval.metrics import plain
from genie_eval.resampling import DRAWS, bootstrap_weights, interval

if TYPE_CHECKING:
    from genie_datasets import Split

LAWS = ("uniform", "marginal", "other_trajectory", "derangement")
MEANINGS = {
    "uniform": "every code equally likely",
    "marginal": "drawn with the shares that the codes have in the evaluated trajectories",
    "other_trajectory": "the codes of another trajectory, as a whole, from the same step where it is long enough",
    "derangement": "any code but the inferred one, all others equally likely",
    "constant": "the most frequent code, always",
}


@dataclass(frozen=True)
class HorizonConfig:
    clips: int = 48
    """Clips to dream from; each costs horizon x (1 + laws) generated frames."""
    horizon: int = 15
    """Frames dreamt after the prompt; fewer where most trajectories are shorter."""
    laws: tuple[str, ...] = LAWS
    """Laws of random actions: any of MEANINGS."""
    others: int = 96
    """Real clips of trajectories that are not dreamt from: against them real clips are compared with real clips."""


@dataclass(frozen=True)
class LongDreams:
    """C clips; clip c is of trajectory owner[c] (its number in the evaluated set) and begins at frame start[c].

    Every dream starts from the prompt frame truth[:, 0] and shares its sampling noise with the others of its clip.
    """

    owner: Int[np.ndarray, " C"]
    start: Int[np.ndarray, " C"]
    truth: UInt8[np.ndarray, "C n+1 H W 3"]  # the prompt frame, then n frames
    rebuilt: UInt8[np.ndarray, "C n+1 H W 3"]  # the tokenizer's reconstruction of them
    inferred: UInt8[np.ndarray, "C n H W 3"]  # dreamt with the codes inferred from the truth
    random: dict[str, UInt8[np.ndarray, "C n H W 3"]]  # law -> dreamt with codes of that law
    codes: Int[np.ndarray, "C n"]
    random_codes: dict[str, Int[np.ndarray, "C n"]]
    other: UInt8[np.ndarray, "P n+1 H W 3"]  # real clips of other trajectories; P may be 0
    other_owner: Int[np.ndarray, " P"]
    absent: dict[str, str] = field(default_factory=dict)  # law -> why it could not be drawn

    @property
    def horizon(self) -> int:
        return self.inferred.shape[1]

    @property
    def copied(self) -> UInt8[np.ndarray, "C n H W 3"]:
        """Copy-last: the prompt frame, n times."""
        return np.broadcast_to(self.truth[:, :1], self.inferred.shape)


def long_dreams(
    genie: Any, split: "Split", trajectories: list[Trajectory], config: HorizonConfig,
    codes_of_others: Sequence[Int[np.ndarray, " n"]], seed: int = 0, batch: int = 16, progress: bool = True,
) -> LongDreams:  # fmt: skip
    """Dreams from one prompt frame each, with the inferred codes and with codes of every law.

    codes_of_others[i]: the model's codes of trajectories[i], whole.

    Raises:
        UserError: a law that does not exist, or lists of different lengths.
    """
    if len(codes_of_others) != len(trajectories):
        raise UserError(f"codes of {len(codes_of_others)} trajectories were given, but there are {len(trajectories)}")
    unknown = [law for law in config.laws if law not in MEANINGS]
    if unknown:
        raise UserError(f"no law of random actions is called '{unknown[0]}': use {', '.join(MEANINGS)}")
    owner, start, horizon = choose_clips(trajectories, config.clips, config.horizon, seed)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("truth", "rebuilt", "codes", "inferred")}
    laws: dict[str, list[np.ndarray]] = {}
    drawn: dict[str, list[np.ndarray]] = {}
    absent: dict[str, str] = {}
    bar = tqdm(total=len(owner), desc="long dreams", unit="clip", disable=not progress)
    for first in range(0, len(owner), batch):
        some = slice(first, first + batch)
        truth = _read(genie, split, trajectories, owner[some], start[some], horizon)
        codes = to_numpy(genie.infer_actions(truth)).astype(np.int64)
        rows["truth"].append(truth)
        rows["rebuilt"].append(to_numpy(genie.detokenize(genie.tokenize(truth))))
        rows["codes"].append(codes)
        rows["inferred"].append(to_numpy(genie.generate(truth[:, :1], codes, seed=seed + first)))
        for number, law in enumerate(config.laws):
            rng = np.random.default_rng([seed, number, first])
            chosen = random_codes(law, codes, owner[some], start[some], codes_of_others, genie.config.num_actions, rng)
            if isinstance(chosen, str):
                absent[law] = chosen
                continue
            drawn.setdefault(law, []).append(chosen)
            laws.setdefault(law, []).append(to_numpy(genie.generate(truth[:, :1], chosen, seed=seed + first)))
        bar.update(len(truth))
    bar.close()
    rest, rest_start = _other_clips(trajectories, owner, horizon, config.others, seed + 1)
    return LongDreams(
        owner, start, **{name: np.concatenate(part) for name, part in rows.items()},
        random={law: np.concatenate(part) for law, part in laws.items() if law not in absent},
        random_codes={law: np.concatenate(part) for law, part in drawn.items() if law not in absent},
        other=_read(genie, split, trajectories, rest, rest_start, horizon), other_owner=rest, absent=absent,
    )  # fmt: skip


def random_codes(
    law: str, inferred: Int[np.ndarray, "B n"], owner: Int[np.ndarray, " B"], start: Int[np.ndarray, " B"],
    codes_of_others: Sequence[Int[np.ndarray, " m"]], num_codes: int, rng: np.random.Generator,
) -> Int[np.ndarray, "B n"] | str:  # fmt: skip
    """Codes by a law (see MEANINGS), or the reason why this law cannot be drawn."""
    if law == "uniform":
        return rng.integers(num_codes, size=inferred.shape)
    if law == "derangement":
        if num_codes < 2:
            return "one code only: no other to draw"
        return (inferred + rng.integers(1, num_codes, size=inferred.shape)) % num_codes
    if law == "other_trajectory":
        length = np.array([len(codes) for codes in codes_of_others])
        n = inferred.shape[1]
        rows = []
        for i, s in zip(owner, start, strict=True):
            donors = np.flatnonzero(length >= n)
            donors = donors[donors != i]
            if len(donors) == 0:
                return f"no other trajectory has {n} transitions"
            donor = rng.choice(donors)
            at = min(s, length[donor] - n)  # the same step, so that what all episodes share at this phase is kept
            rows.append(codes_of_others[donor][at : at + n])
        return np.stack(rows).astype(np.int64)
    shares = np.bincount(np.concatenate(list(codes_of_others)).astype(np.int64), minlength=num_codes).astype(np.float64)
    if law == "constant":
        return np.full(inferred.shape, shares.argmax())
    return rng.choice(num_codes, size=inferred.shape, p=shares / shares.sum())


def _read(
    genie: Any, split: "Split", trajectories: list[Trajectory], owner: np.ndarray, start: np.ndarray, horizon: int
) -> UInt8[np.ndarray, "B n+1 H W 3"]:
    clips = [
        read_frames(split, trajectories[i], genie, slice(s, s + horizon + 1))
        for i, s in zip(owner, start, strict=True)
    ]  # fmt: skip
    return np.stack(clips) if clips else np.zeros((0, horizon + 1, *genie.config.image_size, 3), np.uint8)


def _other_clips(
    trajectories: list[Trajectory], used: np.ndarray, horizon: int, clips: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(owner, start) of one clip each of at most `clips` trajectories that are not in `used`."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(t.ids) for t in trajectories])
    free = np.setdiff1d(np.flatnonzero(lengths > horizon), used)
    owner = np.sort(rng.permutation(free)[:clips])
    return owner, np.array([rng.integers(lengths[i] - horizon) for i in owner], dtype=np.int64)


def horizon_report(dreams: LongDreams, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Every reading at t = 1 .. n, as lists: `value` (n,) and `ci95` (n, 2), a bootstrap of trajectories.

    psnr, psnr_moving, ssim, lpips: of the dream with inferred codes, of the tokenizer's reconstruction and of
    copy-last, each against the truth. laws[LAW]: `delta_psnr` (dB that inferred codes gain over this law's; mean over
    clips of the difference), `aaf` (1 - (MSE_inferred - floor) / (MSE_law - floor), floor = the tokenizer's own error;
    null where this law costs no more than the floor), `aaf_copy_last` (what copy-last would read), `mse_rise`
    (MSE_law / MSE_inferred - 1), `changed` (share of codes that are not the inferred ones), and the same on the pixels
    that differ from the prompt by more than 12 grey levels (`_moving`).
    """
    truth, prompt = dreams.truth[:, 1:], dreams.copied
    shown = {"dream": dreams.inferred, "tokenizer": dreams.rebuilt[:, 1:], "copy_last": prompt}
    moved = moving_pixels(truth, prompt)
    weights = bootstrap_weights(len(np.unique(dreams.owner)), draws, seed)
    plain_error = {name: squared_error(frames, truth) for name, frames in shown.items()}
    moving = {name: moving_error(frames, truth, moved) for name, frames in shown.items()}
    share = moved.mean(axis=(-2, -1))
    pictures = {
        "psnr": {name: decibel(mse) for name, mse in plain_error.items()},
        "psnr_moving": {name: decibel(mse) for name, mse in moving.items()},
        "ssim": {name: ssim(frames, truth) for name, frames in shown.items()},
    }
    report: dict[str, Any] = {
        "n_clips": len(truth), "n_trajectories": weights.shape[1], "resolution": list(truth.shape[2:4]),
        "horizon": dreams.horizon, "prompt_frames": 1, "t": list(range(1, dreams.horizon + 1)),
        "moving_share": _by_trajectory(share, dreams.owner).mean(axis=0),
        **{
            metric: {name: band(values, dreams.owner, weights) for name, values in by_name.items()}
            for metric, by_name in pictures.items()
        },
    }  # fmt: skip
    report["lpips"] = _lpips(shown, truth, dreams.owner, weights)
    report["laws"] = {law: {"meaning": MEANINGS[law], "reason": why} for law, why in dreams.absent.items()}
    for law, frames in dreams.random.items():
        error, error_moving = squared_error(frames, truth), moving_error(frames, truth, moved)
        whole = _use(plain_error, error, np.ones_like(share), dreams.owner, weights)
        part = _use(moving, error_moving, share, dreams.owner, weights)
        report["laws"][law] = {
            "meaning": MEANINGS[law],
            "changed": float((dreams.random_codes[law] != dreams.codes).mean()),
            **whole,
            **{f"{name}_moving": reading for name, reading in part.items()},
        }
    return plain(report)


def _use(
    error: dict[str, Float[np.ndarray, "C n"]], law: Float[np.ndarray, "C n"], area: Float[np.ndarray, "C n"],
    owner: Int[np.ndarray, " C"], weights: Float[np.ndarray, "R I"],
) -> dict[str, Any]:  # fmt: skip
    """error: mean squared error of dream, tokenizer and copy-last over the pixels that count, `area` their share of
    the frame (NaN error where it is 0). dB are compared clip by clip; errors add up over all pixels that count."""
    total = {name: _by_trajectory(np.nan_to_num(mse) * area, owner) for name, mse in {**error, "law": law}.items()}
    harm = weights @ (total["law"] - total["tokenizer"])
    sure = interval(harm)[0] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        harm = np.where(harm > 0, harm, np.nan)

        def fraction(name: str) -> dict[str, np.ndarray]:
            excess = total[name] - total["tokenizer"]
            value = 1 - excess.sum(axis=0) / (total["law"] - total["tokenizer"]).sum(axis=0)
            ci = interval(1 - weights @ excess / harm).T
            return {"value": np.where(sure, value, np.nan), "ci95": np.where(sure[:, None], ci, np.nan)}

        rise = {
            "value": total["law"].sum(axis=0) / total["dream"].sum(axis=0) - 1,
            "ci95": interval(weights @ total["law"] / (weights @ total["dream"]) - 1).T,
        }
        return {
            "delta_psnr": band(decibel(error["dream"]) - decibel(law), owner, weights),
            "aaf": fraction("dream"), "aaf_copy_last": fraction("copy_last"), "mse_rise": rise,
        }  # fmt: skip


def _lpips(shown: dict[str, np.ndarray], truth: np.ndarray, owner: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name, frames in shown.items():
        found = lpips(frames, truth)
        if isinstance(found, str):
            return {"reason": found}
        read[name] = band(found, owner, weights)
    return {"backbone": "alex", "lower_is_better": True, **read}


def band(
    values: Float[np.ndarray, "C n"], owner: Int[np.ndarray, " C"], weights: Float[np.ndarray, "R I"]
) -> dict[str, np.ndarray]:
    """Mean of the trajectories' means and its bootstrap interval, at each t; clips that are NaN there do not count."""
    each = _by_trajectory(values, owner)
    known = np.isfinite(each)
    filled = np.where(known, each, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "value": filled.sum(axis=0) / known.sum(axis=0),
            "ci95": interval(weights @ filled / (weights @ known.astype(np.float64))).T,
        }


def _by_trajectory(values: Float[np.ndarray, "C n"], owner: Int[np.ndarray, " C"]) -> Float[np.ndarray, "I n"]:
    """Mean over the clips of each trajectory, without those that are NaN; NaN where all are."""
    group = np.unique(owner, return_inverse=True)[1]
    known = np.isfinite(values)
    sums = np.zeros((group.max() + 1, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, group, np.where(known, values, 0.0))
    np.add.at(counts, group, known)
    with np.errstate(invalid="ignore"):
        return sums / counts
