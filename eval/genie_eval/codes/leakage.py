"""`state_leak`: does the code tell where the arm is, rather than where it goes? (specification, level G1)

The code is predicted from motion, from state, and from both, by multinomial logistic models on quadratic features,
fitted on other trajectories. Of all deviance that motion and state explain together, `state_leak` is the share that
motion alone does not: 0 for codes that are any cells of motion, 1 for codes of position. k-means cells, directions and
speeds of every known motion lie in the model family, so that none of them is taken for an effect of state. (Gradient
boosting was tried in its place: ten times slower, and it took image-plane codes for codes of state.) Where base and
image motion are both known, the size of one against the other tells depth, and codes of position read about .8.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_eval.codes.nulls import k_means, nearest_centre
from genie_eval.codes.transitions import Transitions
from genie_eval.metric import Metric, not_run
from genie_eval.resampling import DRAWS, bootstrap_weights, interval, one_sided_p, swap_codes
from genie_eval.verdicts import judge

Codes = Int[np.ndarray, " M"]
MOTIONS = ("base", "image", "rotation", "gripper")  # flow is no truth: it knows where in the image the arm is
FOLDS = 5
MOST_ROWS = 40_000  # of whole trajectories; more only cost time
MOST_CODES = 16  # more are put into so many groups: too few transitions each, and a model of all would only overfit
STRENGTH, STEPS = 1.0, 60  # of the logistic models: 1 / ridge on whitened features; steps of the solver
EXPLAINED = 0.01  # of the marginal deviance: if less is explained, there is nothing to take shares of
PHASE_BINS = 8
SQUARES_ONLY = 12  # from so many columns on, without their products
OUTLIER = 4.0  # SD
FLOOR = 0.005  # of every prediction is the marginal: one surprising label costs at most about 5 nats
HIDDEN = 0.05  # of the code's entropy: conditional information beyond this withholds a pass
SWAPS = 99  # for the conditional mutual information
TRUST = (1, 3, 10, 30, 100, 1000)  # transitions' worth of the marginal, where a trajectory's other half predicts


def state_leak(
    table: Transitions,
    codes: Codes,
    num_codes: int,
    draws: int = DRAWS,
    seed: int = 0,
    oracle: Codes | None = None,
) -> Metric:
    """Share of the explained deviance that only state explains; less is better.

    null: the same with states swapped between whole trajectories. oracle: the share for these codes, 0 if not given.
    p: bootstrap, of "no more than with swapped states". `more.explained`: share of the code's entropy that each group
    of features explains alone, in trajectories it was not fitted on.
    """
    problem = _why_not(table, codes)
    if problem:
        return not_run(problem)
    chosen = _some_trajectories(table, seed)
    rows = chosen[table.trajectory]
    table, codes = table.of_trajectories(chosen), codes[rows]
    oracle = None if oracle is None else oracle[rows]
    groups = None
    if num_codes > MOST_CODES:
        codes, oracle = _grouped(table, codes, seed), None if oracle is None else _grouped(table, oracle, seed)
        groups = num_codes = MOST_CODES
    # no products of different motions: base and image motion multiplied would tell where in the image the arm is
    motion = _beside(*(_features(table.motions[name]) for name in _usable(table)))
    assert table.state is not None
    state = _features(table.state)
    swapped = _features(table.state[swapped_rows(table, seed)])
    fit = _CrossFit(table, num_codes, seed)
    of = {"motion": fit(codes, motion), "state": fit(codes, state), "both": fit(codes, _beside(motion, state))}
    of["swapped"], of["marginal"] = fit(codes, _beside(motion, swapped)), fit.marginal(codes)
    of["phase"] = fit(codes, _one_hot((table.phase * PHASE_BINS).astype(np.int64)))
    of["trajectory"] = _other_half(table, codes, num_codes)
    if table.scene is not None and 1 < len(np.unique(table.scene)) <= table.num_trajectories // 4:
        of["scene"] = fit(codes, _one_hot(table.scene))

    once: dict[str, float] = {name: float(loss.sum()) for name, loss in of.items()}
    weights = bootstrap_weights(table.num_trajectories, draws, seed)
    drawn = {name: weights @ loss for name, loss in of.items()}
    explained = {
        name: 1 - loss / once["marginal"] for name, loss in once.items() if name not in ("marginal", "swapped")
    }
    more: dict[str, Any] = {
        "explained": explained,
        "entropy_bits": once["marginal"] / len(codes) / np.log(2),
        "conditional_mi": conditional_mi(table, codes, num_codes, seed),
        "motions": _usable(table),
        "groups_of_codes": groups,
    }
    best = max(once["both"], 0.0)
    low = interval(drawn["marginal"] - drawn["both"])[0]
    if once["marginal"] - best < EXPLAINED * once["marginal"] or low <= 0:
        metric = not_run("nothing to take shares of: multinomial models of motion and state find nothing of the code")
        metric.more = more
        return metric
    value_draws, null_draws = _share(drawn, "both"), _share(drawn, "swapped")
    metric = Metric(
        value=float(_share(once, "both")), null=float(_share(once, "swapped")), oracle=0.0, ci95=interval(value_draws),
        p=one_sided_p(value_draws - null_draws), n_trajectories=table.num_trajectories, lower_is_better=True, more=more,
    )  # fmt: skip
    if oracle is not None and oracle.min() < oracle.max():
        ideal = {"motion": fit(oracle, motion), "both": fit(oracle, _beside(motion, state))}
        ideal["marginal"] = fit.marginal(oracle)
        metric.oracle = float(_share({name: loss.sum() for name, loss in ideal.items()}, "both"))
    value, (low, high) = float(metric.value or 0.0), np.asarray(metric.ci95).tolist()
    hidden = more["conditional_mi"]["excess"] / max(more["entropy_bits"], 1e-9)
    also = []
    if hidden > HIDDEN:
        also.append(f"in cells of equal motion, state tells {hidden:.0%} of the code in a way these models do not see")
    return judge("state_leak", metric, value, (low, high), also=also)


def conditional_mi(table: Transitions, codes: Codes, num_codes: int, seed: int = 0) -> dict[str, Any]:
    """I(code; state | motion) in bits, motion and state each in `num_codes` k-means cells; beside its swap null.

    Cells of motion are coarse, so that motion inside a cell can look like state: read the excess over the null as an
    upper bound.
    """
    assert table.state is not None
    cells = [
        nearest_centre(values, k_means(values, num_codes, seed))
        for values in (_standard(table.motions[_usable(table)[0]]), _standard(table.state))
    ]
    motion, state = cells

    def bits(state: Codes) -> float:
        count = np.bincount((motion * num_codes + state) * num_codes + codes, minlength=num_codes**3)
        joint = count.reshape(num_codes, num_codes, num_codes) / len(codes)
        top = joint * joint.sum(axis=(1, 2), keepdims=True)
        bottom = joint.sum(axis=1, keepdims=True) * joint.sum(axis=2, keepdims=True)
        seen = joint > 0
        return float((joint[seen] * np.log2(top[seen] / bottom[seen])).sum())

    rng = np.random.default_rng(seed)
    null = np.array(
        [bits(swap_codes(state, table.starts, rng.permutation(table.num_trajectories))) for _ in range(SWAPS)]
    )
    value = bits(state)
    return {"bits": value, "null": null.mean(), "excess": value - null.mean(), "p": (1 + (null >= value).sum()) / 100}


class _CrossFit:
    """Held-out deviance (nats) of each trajectory, under multinomial logistic models fitted on the other folds."""

    def __init__(self, table: Transitions, num_codes: int, seed: int):
        fold = np.random.default_rng(seed).permutation(table.num_trajectories) % min(FOLDS, table.num_trajectories)
        self.trajectory, self.num_codes = table.trajectory, num_codes
        self.fold, self.folds = fold[table.trajectory], int(fold.max()) + 1

    def marginal(self, codes: Codes) -> Float[np.ndarray, " I"]:
        loss = np.empty(len(codes))
        for f in range(self.folds):
            held_out = self.fold == f
            loss[held_out] = -np.log(self._shares(codes[~held_out])[codes[held_out]])
        return self._by_trajectory(loss)

    def __call__(self, codes: Codes, features: Float[np.ndarray, "M F"]) -> Float[np.ndarray, " I"]:
        loss = np.empty(len(codes))
        for f in range(self.folds):
            held_out = self.fold == f
            shares = self._shares(codes[~held_out])
            told = _predict(features[~held_out], codes[~held_out], features[held_out], self.num_codes)
            told = (1 - FLOOR) * told + FLOOR * shares
            loss[held_out] = -np.log(told[np.arange(len(told)), codes[held_out]])
        return self._by_trajectory(loss)

    def _shares(self, codes: Codes) -> Float[np.ndarray, " K"]:
        count = np.bincount(codes, minlength=self.num_codes) + 0.5
        return count / count.sum()

    def _by_trajectory(self, loss: np.ndarray) -> np.ndarray:
        return np.bincount(self.trajectory, weights=loss)


def _predict(x: np.ndarray, codes: Codes, new: np.ndarray, num_codes: int) -> Float[np.ndarray, "N K"]:
    """Probability of each code. Whitened first: then the solver needs tens of steps instead of thousands."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    told = np.zeros((len(new), num_codes))
    present = np.unique(codes)
    if len(present) == 1:
        told[:, present[0]] = 1
        return told
    mean = x.mean(axis=0)
    value, vector = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    kept = value > 1e-6 * value[-1]
    whiten = vector[:, kept] / np.sqrt(value[kept])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # codes that are cells of motion are separable
        model = LogisticRegression(C=STRENGTH, max_iter=STEPS, tol=1e-3).fit((x - mean) @ whiten, codes)
    told[:, model.classes_] = model.predict_proba((new - mean) @ whiten)
    return told


def _share(loss: dict[str, Any], both: str) -> Any:
    """(motion - both) / (marginal - both)."""
    return (loss["motion"] - loss[both]) / (loss["marginal"] - np.minimum(loss["both"], loss[both]))


def _other_half(table: Transitions, codes: Codes, num_codes: int) -> Float[np.ndarray, " I"]:
    """Deviance of each trajectory when each of its halves is predicted by the code shares of the other: its style."""
    half = (table.phase >= 0.5).astype(np.int64)
    cell = (table.trajectory * 2 + half) * num_codes + codes
    count = np.bincount(cell, minlength=table.num_trajectories * 2 * num_codes).reshape(-1, 2, num_codes)
    marginal = (count.sum(axis=(0, 1)) + 0.5) / (count.sum() + 0.5 * num_codes)
    best: np.ndarray | None = None
    for trust in TRUST:
        told = count[:, ::-1] + trust * marginal
        told = told / told.sum(axis=2, keepdims=True)
        loss = np.bincount(table.trajectory, weights=-np.log(told[table.trajectory, half, codes]))
        best = loss if best is None or loss.sum() < best.sum() else best
    assert best is not None
    return best


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
        return f"{table.num_trajectories} trajectories: {2 * FOLDS} are needed to predict some from others"
    if codes.min() == codes.max():
        return f"one code for everything: all {len(codes)} transitions have code {codes[0]}"
    return None


def _usable(table: Transitions) -> list[str]:
    return [name for name in MOTIONS if table.why_unusable(name) is None]


def _grouped(table: Transitions, codes: Codes, seed: int) -> Codes:
    """Codes of like motion and state as one: k-means of each code's mean of both. Codes of position stay codes of
    position, codes of motion codes of motion."""
    assert table.state is not None
    values = _beside(*(_standard(table.motions[name]) for name in _usable(table)), _standard(table.state))
    label, index = np.unique(codes, return_inverse=True)
    if len(label) <= MOST_CODES:
        return index
    count = np.bincount(index)
    mean = np.stack([np.bincount(index, weights=column) / count for column in values.T], axis=1)
    return nearest_centre(mean, k_means(mean, MOST_CODES, seed))[index]


def _some_trajectories(table: Transitions, seed: int) -> Bool[np.ndarray, " I"]:
    """As many trajectories as MOST_ROWS allows, at least 2 * FOLDS."""
    length = np.diff(table.starts)
    order = np.random.default_rng(seed).permutation(len(length))
    many = max(int(np.searchsorted(np.cumsum(length[order]), MOST_ROWS, side="right")), 2 * FOLDS)
    return np.isin(np.arange(len(length)), order[:many])


def swapped_rows(table: Transitions, seed: int) -> Int[np.ndarray, " M"]:
    """For each row the row of another trajectory at the same phase (nobody keeps their own)."""
    order = np.random.default_rng(seed).permutation(table.num_trajectories)
    donor = np.empty_like(order)
    donor[order] = np.roll(order, 1)
    return swap_codes(np.arange(len(table.trajectory)), table.starts, donor)


def _standard(values: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M D2"]:
    spread = values.std(axis=0)
    moving = spread > 1e-9
    return np.clip((values[:, moving] - values[:, moving].mean(axis=0)) / spread[moving], -OUTLIER, OUTLIER)


def _features(values: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M F"]:
    """Standardised columns, their squares and, if they are few, their products."""
    values = _standard(values)
    if values.shape[1] >= SQUARES_ONLY:
        return np.concatenate([values, values**2], axis=1)
    i, j = np.triu_indices(values.shape[1])
    return np.concatenate([values, values[:, i] * values[:, j]], axis=1)


def _one_hot(label: Int[np.ndarray, " M"]) -> Float[np.ndarray, "M L"]:
    _, index = np.unique(label, return_inverse=True)
    return np.eye(int(index.max()) + 1)[index]


def _beside(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1)
