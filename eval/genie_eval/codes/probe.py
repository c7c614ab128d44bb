"""Probes: how well the embedding predicts motion before it is quantized, linearly and by a small network (level B)."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import code_sums
from genie_eval.codes.grounding import held_out_r2
from genie_eval.codes.motion import STILL, zscore
from genie_eval.codes.transitions import Transitions
from genie_eval.resampling import swapped_rows

FOLDS = 3
HIDDEN = (64, 64)
EPOCHS = 30
MAX_ROWS = 12_000
MAX_COLUMNS = 64  # principal components, where embeddings are wider
PENALTIES = 10.0 ** np.arange(-4, 3)  # of ridge, times the number of rows


def probe(
    table: Transitions, embedding: Float[np.ndarray, "M E"], codes: Int[np.ndarray, " M"], num_codes: int, seed: int = 0
) -> dict[str, Any]:
    """R2 of base motion in other trajectories, predicted from the embedding by ridge and by a two-layer perceptron.

    code_r2: the same for the code. control: the same probe on embeddings swapped between whole trajectories.
    selectivity: R2 minus control. lost_by_quantisation: R2 of the better probe minus that of the code.
    """
    problem = _why_not(table, embedding, codes)
    if problem:
        return {"reason": problem}
    order = np.random.default_rng(seed).permutation(table.num_trajectories)
    most = max(2 * FOLDS, int(MAX_ROWS * table.num_trajectories / len(codes)))
    chosen = np.isin(np.arange(table.num_trajectories), order[:most])
    rows = chosen[table.trajectory]
    table, embedding, codes = table.of_trajectories(chosen), embedding[rows].astype(np.float64), codes[rows]
    motion, inputs = zscore(table.motions["base"]), _columns(embedding)
    control = inputs[swapped_rows(table.starts, seed)]
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


def _why_not(table: Transitions, embedding: np.ndarray, codes: np.ndarray) -> str | None:
    problem = table.why_unusable("base")
    if problem:
        return problem
    if len(embedding) != len(codes):
        return f"embedding has {len(embedding)} rows, codes have {len(codes)}"
    if not np.isfinite(embedding).all():
        return "the embedding is not finite"
    if table.num_trajectories < 2 * FOLDS:
        return f"{2 * FOLDS} trajectories are needed to predict some from others, got {table.num_trajectories}"
    if not (embedding.std(axis=0) > STILL).any():
        return "the embedding never changes"
    return None


def _columns(embedding: Float[np.ndarray, "M E"]) -> Float[np.ndarray, "M E2"]:
    """Standardized columns of the embedding, or of its principal components where it is wide."""
    values = embedding[:, embedding.std(axis=0) > STILL]
    if values.shape[1] > MAX_COLUMNS:
        from sklearn.decomposition import PCA

        values = PCA(MAX_COLUMNS, svd_solver="randomized", random_state=0).fit_transform(values)
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), STILL)


def _held_out(fit: Any, inputs: np.ndarray, motion: np.ndarray, fold: np.ndarray, seed: int) -> dict[str, Any]:
    """Cross-fitted R2 over all dimensions, and of each."""
    error, spread = np.zeros(motion.shape[1]), np.zeros(motion.shape[1])
    for f in range(FOLDS):
        test, inner = fold == f, fold == (f + 1) % FOLDS
        predicted = fit(inputs, motion, ~test, inner, seed)(inputs[test])
        error += ((motion[test] - predicted) ** 2).sum(axis=0)
        spread += ((motion[test] - motion[~test].mean(axis=0)) ** 2).sum(axis=0)
    return {"all": float(1 - error.sum() / spread.sum()), "each": 1 - error / spread}


def _ridge(inputs: np.ndarray, motion: np.ndarray, train: np.ndarray, inner: np.ndarray, seed: int) -> Any:
    """Closed form; the penalty is chosen on the inner fold of trajectories, then all training rows are fitted again."""

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
        batch_size=min(256, int(train.sum())),
        max_iter=EPOCHS,
        random_state=seed,
    )
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # few epochs on purpose: more would overfit
        model.fit(inputs[train].astype(np.float32), motion[train].astype(np.float32))
    return lambda new: model.predict(new.astype(np.float32)).reshape(len(new), -1)
