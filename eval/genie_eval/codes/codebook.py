"""`codebook_perplexity`: how many codes are in use, in effect; and whether single ones are dead or take everything."""

import numpy as np
from jaxtyping import Float, Int

from genie_eval.metric import Metric
from genie_eval.resampling import bootstrap_weights, interval
from genie_eval.verdicts import DEAD_CODE, MAX_SHARE, judge

NAMED = 8  # dead codes that are listed


def usage(codes: Int[np.ndarray, " M"], trajectory: Int[np.ndarray, " M"], num_codes: int) -> Float[np.ndarray, "I K"]:
    """Transitions by trajectory and code."""
    cell = trajectory * num_codes + codes
    return np.bincount(cell, minlength=(int(trajectory[-1]) + 1) * num_codes).reshape(-1, num_codes).astype(float)


def perplexity(count: Float[np.ndarray, "... K"]) -> np.ndarray:
    """exp of the entropy of the codes' shares: 1 when one code is used, K when all are used alike."""
    share = count / count.sum(axis=-1, keepdims=True)
    return np.exp(-(share * np.log(np.where(share > 0, share, 1))).sum(axis=-1))


def codebook_perplexity(
    codes: Int[np.ndarray, " M"],
    trajectory: Int[np.ndarray, " M"],
    num_codes: int,
    oracle: Int[np.ndarray, " M"] | None,
    seed: int = 0,
) -> Metric:
    """null: one code for everything. oracle: the usage of k-means of the true motion, or all alike without one."""
    count = usage(codes, trajectory, num_codes)
    share = count.sum(axis=0) / count.sum()
    ideal = num_codes if oracle is None else perplexity(usage(oracle, trajectory, num_codes).sum(axis=0))
    drawn = perplexity(bootstrap_weights(len(count), seed=seed) @ count)
    ci = interval(drawn - drawn.mean() + perplexity(count.sum(axis=0)))  # fewer draws see fewer codes: not our question
    dead = np.flatnonzero(share < DEAD_CODE * min(1, 8 / num_codes))
    metric = Metric(
        value=float(perplexity(count.sum(axis=0))), null=1.0, oracle=float(ideal), ci95=ci,
        n_trajectories=len(count),
        more={
            "num_codes": num_codes, "dead_codes": dead, "max_share": share.max(),
            "coverage": (count > 0).mean(axis=0),  # share of trajectories in which each code occurs
            "trajectory_perplexity": float(perplexity(count).mean()),
        },
    )  # fmt: skip
    also = []
    if len(dead):
        some = ", ".join(map(str, dead[:NAMED])) + (" ..." if len(dead) > NAMED else "")
        also.append(f"dead codes (under {DEAD_CODE * min(1, 8 / num_codes):.2g} of all): {len(dead)} ({some})")
    most = MAX_SHARE * max(1, 8 / num_codes)
    if share.max() > most:
        also.append(f"code {share.argmax()} takes {share.max():.0%} of all transitions, more than {most:.0%}")
    per_eight = 8 / num_codes  # the marks are those of 8 codes
    value = float(metric.value or 0.0) * per_eight
    what = "" if num_codes == 8 else f"(of {num_codes} codes, counted as of 8) "
    if (share > 0).sum() == 1:
        metric.verdict, metric.reason = "fail", f"one code for everything: all transitions have code {share.argmax()}"
        return metric
    return judge("codebook_perplexity", metric, value, (ci[0] * per_eight, ci[1] * per_eight), what=what, also=also)
