"""What the embedding knew of motion before it was quantised: linear and small non-linear probes (level B5)."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.grounding import held_out_r2
from genie_eval.codes.leakage import swapped_rows
from genie_eval.codes.motion import STILL, zscore
from genie_eval.codes.transitions import Transitions

FOLDS = 3
HIDDEN = (64, 64)
EPOCHS = 30
MOST_ROWS = 12_000
MOST_COLUMNS = 64  # principal components, where embeddings are wider
PENALTIES = 10.0 ** np.arange(-4, 3)  # of ridge, times the number of rows


def probe(
    table: Transitions, embedding: Float[np.ndarray, "M E"], codes: Int[np.ndarray, " M"], num_codes: int, seed: int = 0
) -> dict[str, Any]:
    """R2 of base motion in trajectories held out, from the embedding by ridge and by a two-layer perceptron, beside
    that of the code.

    control: the same probe on embeddings swapped between whole trajectories; selectivity: how far the probe is above.
    lost_by_quantisation: the better probe less the code.
    """
    problem = table.why_unusable("base")
    if problem:
        return {"reason": problem}
    if len(embedding) != len(codes):
        return {"reason": f"embedding has {len(embedding)} rows, codes have {len(codes)}"}
    if not np.isfinite(embedding).all():
        return {"reason": "the embedding is not finite"}
    if table.num_trajectories < 2 * FOLDS:
        return {"reason": f"{table.num_trajectories} trajectories: {2 * FOLDS} are needed to predict some from others"}
    if not (embedding.std(axis=0) > STILL).any():
        return {"reason": "the embedding never changes"}
    order = np.random.default_rng(seed).permutation(table.num_trajectories)
    most = max(2 * FOLDS, int(MOST_ROWS * table.num_trajectories / len(codes)))
    chosen = np.isin(np.arange(table.num_trajectories), order[:most])
    rows = chosen[table.trajectory]
    table, embedding, codes = table.of_trajectories(chosen), embedding[rows].astype(np.float64), codes[rows]
    motion, inputs = zscore(table.motions["base"]), _columns(embedding)
    control = inputs[swapped_rows(table, seed)]
    fold = np.random.default_rng(seed).permutation(table.num_trajectories)[table.trajectory] % FOLDS
    result: dict[str, Any] = {}
    for name, fit in (("ridge", _ridge), ("mlp", _mlp)):
        value, null = _held_out(fit, inputs, motion, fold, seed), _held_out(fit, control, motion, fold, seed)
        result[name] = {
            "r2": value["all"], "by_dimension": value["each"], "control": null["all"],
            "selectivity": value["all"] - null["all"],
        }  # fmt: skip
    code = float(held_out_r2(code_sums(codes, motion, table.trajectory, num_codes))[0])
    best = max(result["ridge"]["r2"], result["mlp"]["r2"])
    return {**result, "code_r2": code, "lost_by_quantisation": best - code, "n_trajectories": table.num_trajectories}


def _columns(embedding: Float[np.ndarray, "M E"]) -> Float[np.ndarray, "M E2"]:
    values = embedding[:, embedding.std(axis=0) > STILL]
    if values.shape[1] > MOST_COLUMNS:
        from sklearn.decomposition import PCA

        values = PCA(MOST_COLUMNS, svd_solver="randomized", random_state=0).fit_transform(values)
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), STILL)


def _held_out(fit: Any, inputs: np.ndarray, motion: np.ndarray, fold: np.ndarray, seed: int) -> dict[str, Any]:
    error, spread = np.zeros(motion.shape[1]), np.zeros(motion.shape[1])
    for f in range(FOLDS):
        test, inner = fold == f, fold == (f + 1) % FOLDS
        told = fit(inputs, motion, ~test, inner, seed)(inputs[test])
        error += ((motion[test] - told) ** 2).sum(axis=0)
        spread += ((motion[test] - motion[~test].mean(axis=0)) ** 2).sum(axis=0)
    return {"all": float(1 - error.sum() / spread.sum()), "each": 1 - error / spread}


def _ridge(inputs: np.ndarray, motion: np.ndarray, train: np.ndarray, inner: np.ndarray, seed: int) -> Any:
    """Closed form; the penalty is chosen on the inner fold of trajectories, then everything is fitted again."""

    def solve(rows: np.ndarray, penalty: float) -> Any:
        x, y = inputs[rows], motion[rows]
        center, mean = x.mean(axis=0), y.mean(axis=0)
        gram = (x - center).T @ (x - center) + penalty * len(x) * np.eye(x.shape[1])
        weight = np.linalg.solve(gram, (x - center).T @ (y - mean))
        return lambda new: (new - center) @ weight + mean

    loss = [((solve(train & ~inner, p)(inputs[inner]) - motion[inner]) ** 2).sum() for p in PENALTIES]
    return solve(train, float(PENALTIES[int(np.argmin(loss))]))


def _mlp(inputs: np.ndarray, motion: np.ndarray, train: np.ndarray, inner: np.ndarray, seed: int) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor
    from threadpoolctl import threadpool_limits

    model = MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        alpha=1e-2,
        learning_rate_init=3e-3,
        batch_size=256,
        max_iter=EPOCHS,
        random_state=seed,
    )
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # so few epochs on purpose: more would learn by heart
        model.fit(inputs[train].astype(np.float32), motion[train].astype(np.float32))
    return lambda new: model.predict(new.astype(np.float32)).reshape(len(new), -1)
