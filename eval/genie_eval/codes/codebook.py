"""`codebook_perplexity`: effective number of codes in use, and whether single codes are dead or take too much."""

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import usage
from genie_eval.metrics import DEAD_CODE, MAX_SHARE, Metric, judge, of_eight_codes
from genie_eval.resampling import bootstrap_weights, interval

MAX_LISTED = 8  # dead codes that are listed


def perplexity(count: Float[np.ndarray, "... K"]) -> np.ndarray:
    """exp of the entropy of the codes' shares: 1 when one code is used, K when all are used equally often."""
    share = count / count.sum(axis=-1, keepdims=True)
    return np.exp(-(share * np.log(np.where(share > 0, share, 1))).sum(axis=-1))


def codebook_perplexity(
    codes: Int[np.ndarray, " M"],
    trajectory: Int[np.ndarray, " M"],
    num_codes: int,
    oracle: Int[np.ndarray, " M"] | None,
    seed: int = 0,
) -> Metric:
    """null: one code for everything. oracle: perplexity of these codes, K without them.

    oracle: k-means codes of the true motion, where it is known.
    """
    count = usage(codes, trajectory, num_codes)
    share = count.sum(axis=0) / count.sum()
    ideal = num_codes if oracle is None else perplexity(usage(oracle, trajectory, num_codes).sum(axis=0))
    drawn = perplexity(bootstrap_weights(len(count), seed=seed) @ count)
    ci = interval(drawn - drawn.mean() + perplexity(count.sum(axis=0)))  # draws hold fewer codes: a bias, not a spread
    dead_below, most = DEAD_CODE * min(1, 8 / num_codes), MAX_SHARE * max(1, 8 / num_codes)
    dead = np.flatnonzero(share < dead_below)
    metric = Metric(
        value=float(perplexity(count.sum(axis=0))), null=1.0, oracle=float(ideal), ci95=ci,
        n_trajectories=len(count),
        more={
            "num_codes": num_codes, "dead_codes": dead, "max_share": share.max(),
            "coverage": (count > 0).mean(axis=0),  # share of trajectories in which each code occurs
            "trajectory_perplexity": float(perplexity(count).mean()),
        },
    )  # fmt: skip
    if (share > 0).sum() == 1:
        metric.verdict, metric.reason = "fail", f"one code for everything: all transitions have code {share.argmax()}"
        return metric
    missing = []
    if len(dead):
        listed = ", ".join(map(str, dead[:MAX_LISTED])) + (" ..." if len(dead) > MAX_LISTED else "")
        missing.append(f"{len(dead)} dead codes, each with less than {dead_below:.2g} of all transitions ({listed})")
    if share.max() > most:
        missing.append(f"code {share.argmax()} takes {share.max():.0%} of all transitions, more than {most:.0%}")
    scale = 8 / num_codes  # the marks are those of 8 codes
    value = float(metric.value or 0.0) * scale
    return judge("codebook_perplexity", metric, value, ci * scale, of_eight_codes(num_codes), missing)
