"""Trust: does a world say when its dreams are wrong? The calibration of trust.json, and the metric `trust_auroc`.

A dream and the simulator execute the same codes from the same state. A dreamed frame is wrong if it is further from the
simulator's frame than the start picture is: repeating the start would have been better. The calibration fits the
probability of a right frame to the signs of one set of dreams; the metric is read on others.

`python -m genie_eval.dreams.trust RUN SRC [SPLIT]` writes RUN/trust.json, calibrated on tables of a split (`train`).
"""

import argparse
import hashlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from tqdm import tqdm

from genie_datasets import fit_frames, open_source
from genie_datasets.base.errors import UserError
from genie_eval.codes.baselines import Features
from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Evidence, choose_trajectories, read_frames, scenes_of, to_numpy
from genie_eval.dreams.simulated import CodeActions
from genie_eval.dreams.starts import Starts, choose_starts
from genie_eval.interfaces import TrustedWorld, WorldModel
from genie_eval.metrics import Metric, judge, not_run, plain
from genie_eval.resampling import bootstrap_weights, interval, permutation_p
from genie_eval.simulation import open_recording
from genie_robotics.genie import Genie
from genie_robotics.models.trust import SIGNS, TrustModel
from genie_robotics.models.windows import read_transitions
from genie_robotics.pretrained import locate

if TYPE_CHECKING:
    from genie_datasets import Split

STEPS = 64  # of a dream
TABLES = 64  # of a calibration
TRAJECTORIES = 200  # from which the mean action of each code is read
AT_ONCE = 16  # dreams of a calibration
SWAPS = 199  # exchanges of trust between tables
BINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of trust, for its reliability
PENALTY = 1.0  # on squared weights of standardized signs, against as many steps as there are


# ------------------------------------------------------------------------------------------------------ dream and truth
def uniform_codes(num_codes: int, dreams: int, steps: int, seed: int) -> Int[np.ndarray, "S n"]:
    return np.random.default_rng([seed, 41]).integers(num_codes, size=(dreams, steps))


def simulate_frames(
    world: WorldModel, split: "Split", evidence: Evidence, starts: Starts, codes: Int[np.ndarray, "S n"],
    progress: bool = False,
) -> UInt8[np.ndarray, "S n+1 H W 3"]:  # fmt: skip
    """Executes the codes in the simulator, each as the mean action of the other trajectories; frame 0 is the start.

    Raises:
        UserError: the source keeps no simulator state or no actions.
    """
    actions = CodeActions.read(split, evidence, world.config.num_actions)
    found = np.zeros((len(starts), codes.shape[1] + 1, *starts.frames.shape[1:]), np.uint8)
    found[:, 0] = starts.frames
    for s in tqdm(range(len(starts)), desc="trust: simulator", unit="table", disable=not progress):
        number = int(starts.trajectory[s])
        trajectory = evidence.trajectories[number]
        recording = open_recording(split, trajectory.episode)
        simulator = recording.simulator(split.size_of(trajectory.episode))
        simulator.restore(recording.states[int(trajectory.ids[starts.step[s]])])
        repeat = int(trajectory.ids[1] - trajectory.ids[0])  # robot steps per step of the model
        mean = actions.mean(without=number)
        for t, code in enumerate(codes[s], start=1):
            for _ in range(repeat):
                simulator.step(mean[code])
            found[s, t] = fit_frames(simulator.observe().frame, tuple(world.config.image_size), world.config.fit)
        simulator.close()
    return found


def is_wrong(
    dreams: UInt8[np.ndarray, "S n H W 3"], simulated: UInt8[np.ndarray, "S n+1 H W 3"]
) -> Bool[np.ndarray, "S n"]:
    """True where a dreamed frame is further from the simulator's frame than the start picture is."""
    wrong = np.zeros(dreams.shape[:2], bool)
    for s, (dream, true) in enumerate(zip(dreams, simulated, strict=True)):
        future, start = true[1:].astype(np.float32), true[0].astype(np.float32)
        wrong[s] = ((dream - future) ** 2).mean((1, 2, 3)) > ((start - future) ** 2).mean((1, 2, 3))
    return wrong


# ---------------------------------------------------------------------------------------------------------- calibration
def calibrate(
    genie: Genie, split: "Split", tables: int = TABLES, steps: int = STEPS, seed: int = 0, progress: bool = True
) -> TrustModel:
    """Fits trust to dreams from the tables of a split; genie is not changed.

    Raises:
        UserError: the source keeps no simulator state or no actions.
    """
    open_recording(split, 0)  # fails before time is spent
    evidence = codes_of_split(genie, split, seed)
    starts = choose_starts(genie, split, evidence, tables, seed + 5)
    codes = uniform_codes(genie.config.num_actions, len(starts), steps, seed + 5)
    simulated = simulate_frames(genie, split, evidence, starts, codes, progress)
    signs, dreams = dream_with_signs(genie, starts.frames, codes, seed, progress)
    wrong = is_wrong(dreams, simulated)
    about = {"tables": len(starts), "steps": steps, "split": split.name, "wrong_share": float(wrong.mean())}
    return fit_trust(signs, wrong, about)


def codes_of_split(genie: Genie, split: "Split", seed: int) -> Evidence:
    """Trajectories of a split with the codes that the model infers, and no features."""
    trajectories, skipped = choose_trajectories(split, genie.config.gap, TRAJECTORIES, seed)
    videos = (read_frames(genie, split, trajectory.episode, trajectory.ids) for trajectory in trajectories)
    inferred = read_transitions(genie.config, videos, lambda clips: [to_numpy(genie.infer_actions(clips))])
    codes = [found for (found,) in inferred]
    lengths = [len(found) for found in codes]
    truths = [split.truth(trajectory.episode) for trajectory in trajectories]
    table = Transitions(
        np.repeat(np.arange(len(lengths)), lengths),
        np.concatenate([np.arange(n) for n in lengths]),
        scene=scenes_of(truths, lengths),
    )
    return Evidence(trajectories, table, np.concatenate(codes).astype(np.int64), Features(), skipped)


def dream_with_signs(
    genie: Genie, pictures: UInt8[np.ndarray, "S H W 3"], codes: Int[np.ndarray, "S n"], seed: int, progress: bool
) -> tuple[Float[np.ndarray, "S n F"], UInt8[np.ndarray, "S n H W 3"]]:
    """Dreams from pictures, and the signs of every frame."""
    signs = np.zeros((*codes.shape, len(SIGNS)))
    frames = np.zeros((*codes.shape, *pictures.shape[1:]), np.uint8)
    with tqdm(total=len(codes), desc="trust: dreams", unit="dream", disable=not progress) as bar:
        for begin in range(0, len(codes), AT_ONCE):
            rows = slice(begin, begin + AT_ONCE)
            world = genie.start(pictures[rows, None], seed=seed + begin)
            for t in range(codes.shape[1]):
                world.step(codes[rows, t])
                del world.states[:-1]
                frames[rows, t] = to_numpy(world.state.frame)
                signs[rows, t] = to_numpy(world.trust_signs)
            bar.update(len(pictures[rows]))
    return signs, frames


def fit_trust(
    signs: Float[np.ndarray, "S n F"], wrong: Bool[np.ndarray, "S n"], about: dict[str, Any] | None = None
) -> TrustModel:
    """Logistic regression of right frames on signs, by Newton's method, with a penalty on the weights.

    One right and one wrong frame with mean signs are added, so that dreams that are all right give a finite answer.
    """
    rows, right = signs.reshape(-1, signs.shape[-1]), ~wrong.reshape(-1)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    design = np.c_[np.ones(len(rows) + 2), np.r_[(rows - mean) / scale, np.zeros((2, rows.shape[1]))]]
    target = np.r_[right, True, False].astype(float)
    penalty = PENALTY * np.r_[0, np.ones(rows.shape[1])]
    weights = np.zeros(design.shape[1])
    for _ in range(100):
        predicted = sigmoid(design @ weights)
        slope = design.T @ (predicted - target) + penalty * weights
        curvature = (design * (predicted * (1 - predicted) + 1e-9)[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step / max(1.0, np.abs(step).max())  # at most 1, which keeps Newton's method from diverging
        if np.abs(step).max() < 1e-9:
            break
    return TrustModel(
        tuple(mean.tolist()), tuple(scale.tolist()), tuple(weights[1:].tolist()), float(weights[0]), plain(about or {})
    )


def sigmoid(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return 0.5 * (1 + np.tanh(x / 2))


def calibrate_run(
    run: Path, split: "Split", fingerprint: str, tables: int = TABLES, steps: int = STEPS, progress: bool = True
) -> TrustModel:
    """Writes RUN/trust.json and returns its content; a file of the same weights and data is kept."""
    genie = Genie.from_pretrained(run)
    wanted = {"weights": weights_digest(run), "data": fingerprint, "steps": steps, "split": split.name}
    found = genie.trust_model
    if found is not None and all(found.calibration.get(key) == value for key, value in wanted.items()):
        return found
    made = calibrate(genie, split, tables, steps, progress=progress)
    made = TrustModel(made.mean, made.scale, made.weights, made.bias, made.calibration | wanted)
    made.write(run)
    return made


def weights_digest(run: Path) -> str:
    """SHA-256 of the weight files of a world, without its judge's."""
    found = hashlib.sha256()
    for path in sorted(run.glob("*/model.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()


# --------------------------------------------------------------------------------------------------------------- metric
def measure_trust(
    world: WorldModel, split: "Split", evidence: Evidence, tables: int, steps: int, draws: int, seed: int,
    progress: bool,
) -> Metric:  # fmt: skip
    """`trust_auroc` on dreams from other tables than those of the calibration."""
    trusted = cast(TrustedWorld, world)
    if getattr(trusted, "trust_model", None) is None:
        return not_run("the world has no trust.json; make it with python -m genie_eval.dreams.trust")
    starts = choose_starts(world, split, evidence, tables, seed)
    codes = uniform_codes(world.config.num_actions, len(starts), steps, seed)
    try:
        simulated = simulate_frames(world, split, evidence, starts, codes, progress)
    except UserError as error:
        return not_run(f"no simulator behind this source: {error}")
    dreams, trust = trusted.generate(starts.frames[:, None], codes, seed=seed, return_trust=True)
    return trust_metric(to_numpy(trust), is_wrong(to_numpy(dreams), simulated), draws, seed)


def trust_metric(trust: Float[np.ndarray, "S n"], wrong: Bool[np.ndarray, "S n"], draws: int, seed: int) -> Metric:
    """AUROC of trust against right frames, with an interval over tables.

    p: share of exchanges of trust between whole tables that reach the value. It says whether trust knows more than the
    number of steps, which all tables share. more: the AUROC of the steps alone, and how often frames of some trust are
    right.
    """
    if wrong.all() or not wrong.any():
        return not_run(f"{'all' if wrong.all() else 'no'} frames are wrong, so that there is nothing to tell apart")
    value, drawn = auroc(trust, wrong, bootstrap_weights(len(trust), draws, seed))
    fewer_steps = np.broadcast_to(-np.arange(trust.shape[1], dtype=float), trust.shape)
    rng = np.random.default_rng([seed, 43])
    swapped = np.array([auroc(trust[rng.permutation(len(trust))], wrong)[0] for _ in range(SWAPS)])
    bins = []
    for low, high in itertools.pairwise(BINS):
        inside = (trust >= low) & ((trust < high) | (high == 1))
        share = float((~wrong[inside]).mean()) if inside.any() else None
        bins.append({"from": low, "to": high, "frames": int(inside.sum()), "right": share})
    metric = Metric(
        value=value, null=0.5, oracle=1.0, ci95=interval(drawn), p=permutation_p(value, swapped),
        n_trajectories=len(trust),
        more={
            "steps": trust.shape[1], "wrong_share": float(wrong.mean()), "steps_alone": auroc(fewer_steps, wrong)[0],
            "bins": bins,
        },
    )  # fmt: skip
    return judge("trust_auroc", metric)


def auroc(
    score: Float[np.ndarray, "S n"], wrong: Bool[np.ndarray, "S n"], weights: Float[np.ndarray, "R S"] | None = None
) -> tuple[float, Float[np.ndarray, " R"]]:
    """Probability that a right frame has a higher score than a wrong one (ties count half), and the same under weights
    of the tables."""
    num = len(score)
    right_of, wrong_of = ([score[s][mask[s]] for s in range(num)] for mask in (~wrong, wrong))
    wins = np.zeros((num, num))  # pairs of a right frame of one table and a wrong frame of another
    for j in range(num):
        below = np.sort(wrong_of[j])
        for i in range(num):
            found = np.searchsorted(below, right_of[i], "left") + np.searchsorted(below, right_of[i], "right")
            wins[i, j] = found.sum() / 2
    num_right, num_wrong = (np.array([len(row) for row in rows], dtype=float) for rows in (right_of, wrong_of))
    value = float(wins.sum() / (num_right.sum() * num_wrong.sum()))
    if weights is None:
        return value, np.zeros(0)
    with np.errstate(invalid="ignore"):
        drawn = np.einsum("ri,ij,rj->r", weights, wins, weights) / ((weights @ num_right) * (weights @ num_wrong))
    return value, drawn


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m genie_eval.dreams.trust", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("run", help="run folder of a world")
    parser.add_argument("source", help="data set of the simulated tabletop, other than that of the report")
    parser.add_argument("split", nargs="?", default="train", help="split of the data set (default: train)")
    options = parser.parse_args(argv)
    run = locate(options.run)
    source = open_source(options.source)
    made = calibrate_run(Path(run), source.split(options.split), source.fingerprint)
    print(f"{Path(run) / 'trust.json'}: {made.calibration}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
