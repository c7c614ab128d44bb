"""Use of the codes along and between trajectories, whatever they mean (level A)."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genie_eval.codes.code_sums import usage
from genie_eval.codes.transitions import Transitions
from genie_eval.resampling import swap_null

Codes = Int[np.ndarray, " M"]
SWAPS = 99
CHAINS = 20  # simulated data sets for the null of the divergence
EVERYWHERE = 0.8  # share of a scene's trajectories in which every code should occur


def codebook_details(table: Transitions, codes: Codes, num_codes: int, seed: int = 0) -> dict[str, Any]:
    """Entropies, divergences and informations in bits; dwell times in transitions."""
    count = usage(codes, table.trajectory, num_codes)
    each = entropy_bits(count)
    low, middle, high = np.quantile(each, [0.05, 0.5, 0.95])
    return {
        "trajectory_entropy_bits": {"mean": each.mean(), "p05": low, "median": middle, "p95": high},
        "divergence_bits": _divergence(table, codes, num_codes, seed),
        "effective_trajectories": _effective_trajectories(count),
        **_dwelling(table, codes, num_codes),
        "next_code_information_bits": _next_code(table, codes, num_codes, seed),
        "coverage_by_scene": _coverage(table, count),
    }


def entropy_bits(count: Float[np.ndarray, "... K"]) -> np.ndarray:
    share = count / np.maximum(count.sum(axis=-1, keepdims=True), 1)
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=-1)


def divergence(count: Float[np.ndarray, "I K"]) -> float:
    """Jensen-Shannon divergence of all trajectories: entropy of the pooled shares minus the mean of their own."""
    weight = count.sum(axis=1) / count.sum()
    return float(entropy_bits(count.sum(axis=0)) - weight @ entropy_bits(count))


def _divergence(table: Transitions, codes: Codes, num_codes: int, seed: int) -> dict[str, float]:
    """Divergence with its null: trajectories of the same lengths that all follow the pooled Markov chain.

    They differ only because they are short and hold codes. The excess belongs to trajectories: a code for a scene, a
    style, a camera.
    """
    value = divergence(usage(codes, table.trajectory, num_codes))
    rng, length = np.random.default_rng(seed), np.diff(table.starts)
    chain = transition_counts(table, codes, num_codes) + 1e-9
    steps = np.cumsum(chain / chain.sum(axis=1, keepdims=True), axis=1)
    first = np.bincount(codes, minlength=num_codes) / len(codes)
    null = []
    for _ in range(CHAINS):
        state = rng.choice(num_codes, size=len(length), p=first)
        count = np.zeros((len(length), num_codes))
        for t in range(int(length.max())):
            if t:
                state = np.minimum((rng.random(len(length))[:, None] > steps[state]).sum(axis=1), num_codes - 1)
            alive = np.flatnonzero(t < length)
            count[alive, state[alive]] += 1
        null.append(divergence(count))
    return {"value": value, "null": float(np.mean(null)), "excess": value - float(np.mean(null))}


def _effective_trajectories(count: Float[np.ndarray, "I K"]) -> dict[str, Any]:
    """exp of the entropy of a code's transitions over trajectories: 1 for a code that occurs in one only."""
    effective = np.where(count.sum(axis=0) > 0, 2 ** entropy_bits(count.T), 0.0)
    return {"by_code": effective, "least": effective.min(), "share_of_all": effective / len(count)}


def _dwelling(table: Transitions, codes: Codes, num_codes: int) -> dict[str, Any]:
    """How long codes are held."""
    new = np.ones(len(codes), dtype=bool)
    new[1:] = (np.diff(codes) != 0) | (np.diff(table.trajectory) != 0)
    runs = np.bincount(codes[new], minlength=num_codes)
    total = np.bincount(codes, minlength=num_codes)
    pairs = transition_counts(table, codes, num_codes)
    share = total / total.sum()
    return {
        "dwell": {"mean": len(codes) / new.sum(), "by_code": np.where(runs > 0, total / np.maximum(runs, 1), 0.0)},
        "self_transition": {
            "value": float(np.trace(pairs) / max(pairs.sum(), 1)),
            "if_independent": float((share**2).sum()),
        },
    }


def transition_counts(table: Transitions, codes: Codes, num_codes: int) -> Float[np.ndarray, "K K"]:
    """Number of times that each code (row) is followed by each code (column) within trajectories."""
    together = np.diff(table.trajectory) == 0
    return pair_counts(codes[:-1][together], codes[1:][together], num_codes)


def pair_counts(first: Codes, second: Codes, num_codes: int) -> Float[np.ndarray, "K K"]:
    return np.bincount(first * num_codes + second, minlength=num_codes**2).reshape(num_codes, -1).astype(float)


def _next_code(table: Transitions, codes: Codes, num_codes: int, seed: int) -> dict[str, Any]:
    """I(c_t; c_t+1); null: the next code is taken from another trajectory at the same phase."""
    together = np.diff(table.trajectory) == 0
    if not together.any():
        return {"reason": "trajectories of one transition have no next code"}

    def bits(following: Codes) -> float:
        return pair_bits(pair_counts(codes[:-1][together], following[1:][together], num_codes))

    value = bits(codes)
    if table.num_trajectories < 2:
        return {"value": value, "reason": "no null with only one trajectory"}
    null = float(swap_null(bits, codes, table.starts, SWAPS, seed).mean())
    return {"value": value, "null": null, "excess": value - null}


def pair_bits(pairs: Float[np.ndarray, "A B"]) -> float:
    """Plug-in mutual information of a table of counts."""
    return float(entropy_bits(pairs.sum(axis=0)) + entropy_bits(pairs.sum(axis=1)) - entropy_bits(pairs.reshape(-1)))


def _coverage(table: Transitions, count: Float[np.ndarray, "I K"]) -> dict[str, Any]:
    """Share of each scene's trajectories in which each code occurs."""
    if table.scene is None:
        return {"reason": "this source does not name scenes"}
    scene = table.scene[table.starts[:-1]]
    scenes = np.unique(scene)
    share = np.array([(count[scene == s] > 0).mean(axis=0) for s in scenes])
    worst = np.unravel_index(share.argmin(), share.shape)
    return {
        "scenes": scenes,
        "trajectories": np.array([(scene == s).sum() for s in scenes]),
        "share": share,
        "least": {"scene": scenes[worst[0]], "code": worst[1], "share": share[worst]},
        "asked": EVERYWHERE,
        "reached": bool(share.min() >= EVERYWHERE),
    }
