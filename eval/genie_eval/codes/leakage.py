"""`state_leak`: share of what explains the code that is the arm's state (where it is), not its motion (where it goes).

The code is predicted from motion, from state, and from both, by multinomial logistic models on quadratic features that
were fitted on other trajectories. `state_leak` is the share of the deviance explained by both that motion alone does
not explain: 0 for codes that are any partition of motion, 1 for codes of position. k-means cells, directions and speeds
of all known motions are in the model family, so that none of them counts as an effect of state. (Gradient boosting was
ten times slower and counted image-plane codes as codes of state.) Where base and image motion are both known, their
ratio reveals depth, and codes of position read about 0.8.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_eval.codes.motion import group_sums
from genie_eval.codes.quantize import k_means, nearest_center
from genie_eval.codes.transitions import Transitions
from genie_eval.metrics import Metric, judge, not_run
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, one_sided_p, swap_null, swapped_rows

Codes = Int[np.ndarray, " M"]
MOTIONS = ("base", "image", "rotation", "gripper")  # without flow, which depends on where in the image the arm is
FOLDS = 5
MAX_ROWS = 40_000  # rows of whole trajectories; more only cost time
MAX_CODES = 16  # more codes are merged into so many groups: with few transitions per code the models overfit
STRENGTH, STEPS = 1.0, 60  # of the logistic models: 1 / ridge on whitened features; steps of the solver
MIN_EXPLAINED = 0.01  # of the marginal deviance; if less is explained, shares of it are meaningless
PHASE_BINS = 8
SQUARES_ONLY = 12  # number of columns from which their products are left out
OUTLIER = 4.0  # SD
FLOOR = 0.005  # share of the marginal in every prediction: one surprising label costs at most about 5 nats
MAX_HIDDEN = 0.05  # of the code's entropy: more conditional information withholds a pass
SWAPS = 99  # for the conditional mutual information
TRUST = (1, 3, 10, 30, 100, 1000)  # weights of the marginal, in transitions, where half of a trajectory predicts


def state_leak(
    table: Transitions, codes: Codes, num_codes: int, draws: int = DRAWS, seed: int = 0, oracle: Codes | None = None
) -> Metric:
    """Share of the explained deviance that only the state explains; lower is better.

    null: the same with states swapped between whole trajectories. oracle: the share for these codes, 0 without them.
    p: bootstrap, of "no more than with swapped states". `more.explained`: share of the code's entropy that each group
    of features explains alone, in other trajectories.
    """
    problem = _why_not(table, codes)
    if problem:
        return not_run(problem)
    chosen = _some_trajectories(table, seed)
    rows = chosen[table.trajectory]
    table, codes = table.of_trajectories(chosen), codes[rows]
    oracle = None if oracle is None else oracle[rows]
    groups = None
    if num_codes > MAX_CODES:
        codes, oracle = _grouped(table, codes, seed), None if oracle is None else _grouped(table, oracle, seed)
        groups = num_codes = MAX_CODES
    # without products of different motions: base times image motion depends on where in the image the arm is
    motion = np.concatenate([_features(table.motions[name]) for name in _usable(table)], axis=1)
    assert table.state is not None
    state = _features(table.state)
    with_state = np.concatenate([motion, state], axis=1)
    swapped = _features(table.state[swapped_rows(table.starts, seed)])
    fit = _CrossFit(table, num_codes, seed)
    loss = {
        "motion": fit(codes, motion), "state": fit(codes, state), "both": fit(codes, with_state),
        "swapped": fit(codes, np.concatenate([motion, swapped], axis=1)), "marginal": fit(codes),
        "phase": fit(codes, _one_hot((table.phase * PHASE_BINS).astype(np.int64))),
        "trajectory": _other_half(table, codes, num_codes),
    }  # fmt: skip
    if table.scene is not None and 1 < len(np.unique(table.scene)) <= table.num_trajectories // 4:
        loss["scene"] = fit(codes, _one_hot(table.scene))
    once: dict[str, float] = {name: float(values.sum()) for name, values in loss.items()}
    weights = bootstrap_weights(table.num_trajectories, draws, seed)
    drawn = {name: weights @ values for name, values in loss.items()}
    more: dict[str, Any] = {
        "explained": {
            name: 1 - value / once["marginal"] for name, value in once.items() if name not in ("marginal", "swapped")
        },
        "entropy_bits": once["marginal"] / len(codes) / np.log(2),
        "conditional_mi": conditional_mi(table, codes, num_codes, seed),
        "motions": _usable(table),
        "groups_of_codes": groups,
    }
    best = max(once["both"], 0.0)
    low = interval(drawn["marginal"] - drawn["both"])[0]
    if once["marginal"] - best < MIN_EXPLAINED * once["marginal"] or low <= 0:
        metric = not_run("neither motion nor state explains the codes, so that there is no share to compute")
        metric.more = more
        return metric
    value_draws, null_draws = _share(drawn, "both"), _share(drawn, "swapped")
    ci = interval(value_draws)
    metric = Metric(
        value=float(_share(once, "both")), null=float(_share(once, "swapped")), oracle=0.0, ci95=ci,
        p=one_sided_p(value_draws - null_draws), n_trajectories=table.num_trajectories, more=more,
    )  # fmt: skip
    if oracle is not None and oracle.min() < oracle.max():
        ideal = {"motion": fit(oracle, motion), "both": fit(oracle, with_state), "marginal": fit(oracle)}
        metric.oracle = float(_share({name: values.sum() for name, values in ideal.items()}, "both"))
    hidden = more["conditional_mi"]["excess"] / max(more["entropy_bits"], 1e-9)
    missing = []
    if hidden > MAX_HIDDEN:
        missing.append(f"among equal motions, the state tells {hidden:.0%} of the code in a way these models miss")
    return judge("state_leak", metric, missing=missing)


def conditional_mi(table: Transitions, codes: Codes, num_codes: int, seed: int = 0) -> dict[str, Any]:
    """I(code; state | motion) in bits, motion and state each in `num_codes` k-means cells; with its swap null.

    The cells of motion are coarse, so that motion within a cell can look like state: the excess over the null is an
    upper bound.
    """
    assert table.state is not None
    motion, state = (
        nearest_center(values, k_means(values, num_codes, seed))
        for values in (_standard(table.motions[_usable(table)[0]]), _standard(table.state))
    )

    def bits(state: Codes) -> float:
        count = np.bincount((motion * num_codes + state) * num_codes + codes, minlength=num_codes**3)
        joint = count.reshape(num_codes, num_codes, num_codes) / len(codes)
        top = joint * joint.sum(axis=(1, 2), keepdims=True)
        bottom = joint.sum(axis=1, keepdims=True) * joint.sum(axis=2, keepdims=True)
        seen = joint > 0
        return float((joint[seen] * np.log2(top[seen] / bottom[seen])).sum())

    value, null = bits(state), swap_null(bits, state, table.starts, SWAPS, seed)
    return {"bits": value, "null": null.mean(), "excess": value - null.mean(), "p": (1 + (null >= value).sum()) / 100}


class _CrossFit:
    """Held-out deviance (nats) of each trajectory, under multinomial logistic models fitted on the other folds."""

    def __init__(self, table: Transitions, num_codes: int, seed: int):
        fold = np.random.default_rng(seed).permutation(table.num_trajectories) % min(FOLDS, table.num_trajectories)
        self.trajectory, self.num_codes = table.trajectory, num_codes
        self.fold, self.folds = fold[table.trajectory], int(fold.max()) + 1

    def __call__(self, codes: Codes, features: Float[np.ndarray, "M F"] | None = None) -> Float[np.ndarray, " I"]:
        """features None: the marginal, predicted by the shares of the codes in the other folds."""
        loss = np.empty(len(codes))
        for f in range(self.folds):
            held_out = self.fold == f
            count = np.bincount(codes[~held_out], minlength=self.num_codes) + 0.5
            predicted = np.tile(count / count.sum(), (int(held_out.sum()), 1))
            if features is not None:
                fitted = _predict(features[~held_out], codes[~held_out], features[held_out], self.num_codes)
                predicted = (1 - FLOOR) * fitted + FLOOR * predicted
            loss[held_out] = -np.log(predicted[np.arange(len(predicted)), codes[held_out]])
        return np.bincount(self.trajectory, weights=loss)


def _predict(x: np.ndarray, codes: Codes, new: np.ndarray, num_codes: int) -> Float[np.ndarray, "N K"]:
    """Probability of each code. Features are whitened: the solver then needs tens of steps instead of thousands."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    predicted = np.zeros((len(new), num_codes))
    present = np.unique(codes)
    if len(present) == 1:
        predicted[:, present[0]] = 1
        return predicted
    mean = x.mean(axis=0)
    value, vector = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    kept = value > 1e-6 * value[-1]
    whiten = vector[:, kept] / np.sqrt(value[kept])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # codes that partition motion are separable
        model = LogisticRegression(C=STRENGTH, max_iter=STEPS, tol=1e-3).fit((x - mean) @ whiten, codes)
    predicted[:, model.classes_] = model.predict_proba((new - mean) @ whiten)
    return predicted


def _share(loss: dict[str, Any], both: str) -> Any:
    """(motion - both) / (marginal - both)."""
    return (loss["motion"] - loss[both]) / (loss["marginal"] - np.minimum(loss["both"], loss[both]))


def _other_half(table: Transitions, codes: Codes, num_codes: int) -> Float[np.ndarray, " I"]:
    """Deviance of each trajectory when each half is predicted by the code shares of the other half."""
    half = (table.phase >= 0.5).astype(np.int64)
    cell = (table.trajectory * 2 + half) * num_codes + codes
    count = np.bincount(cell, minlength=table.num_trajectories * 2 * num_codes).reshape(-1, 2, num_codes)
    marginal = (count.sum(axis=(0, 1)) + 0.5) / (count.sum() + 0.5 * num_codes)
    losses = []
    for trust in TRUST:
        predicted = count[:, ::-1] + trust * marginal
        predicted = predicted / predicted.sum(axis=2, keepdims=True)
        losses.append(np.bincount(table.trajectory, weights=-np.log(predicted[table.trajectory, half, codes])))
    return min(losses, key=np.sum)


def _why_not(table: Transitions, codes: Codes) -> str | None:
    if table.state is None:
        return "no state in this source (column 'state': where arm and gripper are before the transition)"
    if not np.isfinite(table.state).all():
        row = int(np.argmax(~np.isfinite(table.state).all(axis=1)))
        return f"state is not finite (first: trajectory {table.trajectory[row]}, step {table.step[row]})"
    if not (table.state.std(axis=0) > 1e-9).any():
        return "state never changes"
    if not _usable(table):
        return table.why_unusable("base") or "no true motion in this source"
    if table.num_trajectories < 2 * FOLDS:
        return f"{2 * FOLDS} trajectories are needed to predict some from others, got {table.num_trajectories}"
    if codes.min() == codes.max():
        return f"one code for everything: all {len(codes)} transitions have code {codes[0]}"
    return None


def _usable(table: Transitions) -> list[str]:
    return [name for name in MOTIONS if table.why_unusable(name) is None]


def _grouped(table: Transitions, codes: Codes, seed: int) -> Codes:
    """Merges codes of similar motion and state, by k-means of each code's mean of both.

    Codes of position stay codes of position, codes of motion codes of motion.
    """
    assert table.state is not None
    parts = [*(_standard(table.motions[name]) for name in _usable(table)), _standard(table.state)]
    label, index = np.unique(codes, return_inverse=True)
    if len(label) <= MAX_CODES:
        return index
    mean = group_sums(np.concatenate(parts, axis=1), index, len(label)) / np.bincount(index)[:, None]
    return nearest_center(mean, k_means(mean, MAX_CODES, seed))[index]


def _some_trajectories(table: Transitions, seed: int) -> Bool[np.ndarray, " I"]:
    """Mask of random trajectories with at most MAX_ROWS rows together, but at least 2 * FOLDS trajectories."""
    length = np.diff(table.starts)
    order = np.random.default_rng(seed).permutation(len(length))
    many = max(int(np.searchsorted(np.cumsum(length[order]), MAX_ROWS, side="right")), 2 * FOLDS)
    return np.isin(np.arange(len(length)), order[:many])


def _standard(values: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M D2"]:
    spread = values.std(axis=0)
    moving = spread > 1e-9
    return np.clip((values[:, moving] - values[:, moving].mean(axis=0)) / spread[moving], -OUTLIER, OUTLIER)


def _features(values: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M F"]:
    """Standardized columns, their squares and, if they are few, their products."""
    values = _standard(values)
    if values.shape[1] >= SQUARES_ONLY:
        return np.concatenate([values, values**2], axis=1)
    i, j = np.triu_indices(values.shape[1])
    return np.concatenate([values, values[:, i] * values[:, j]], axis=1)


def _one_hot(label: Int[np.ndarray, " M"]) -> Float[np.ndarray, "M L"]:
    _, index = np.unique(label, return_inverse=True)
    return np.eye(int(index.max()) + 1)[index]
