"""Do codes hold what is no action: the future, the next frame itself? And is there one for "nothing"? (levels G, H)

Clips of two frames are used wherever one step is altered: a LAM that reads the past has none there, as at the first
step of any clip.
"""

from typing import Any

import numpy as np

from genie_eval.collect import to_numpy
from genie_eval.dreams.pixels import squared_error
from genie_eval.inference.sample import Sample, pairs, share, share_of

IDENTITY_MARK = 0.95
CUT_MARK = 2.0
CUTS = 2  # moments of a trajectory from which its future is replaced


# ------------------------------------------------------------------------------------------------------------ identity
def identity(sample: Sample, every: int = 3) -> dict[str, Any]:
    """Which code has a step on which nothing happens, the same frame twice, and is it always the same one?

    value: share of the commonest code, with interval; `null`: the share of the commonest code among real steps (codes
    that ignore the picture would read that); `share_among_real`: of the null code among real steps.
    """
    found, owner = [], []
    for i in sample.each("nothing happens"):
        frames, at = sample.frames(i), sample.some(i, every)
        found.append(sample.infer(pairs(frames, at, at))[:, 0])
        owner.append(np.full(len(at), i))
    codes, trajectory = np.concatenate(found), np.concatenate(owner)
    counts = np.bincount(codes, minlength=sample.num_codes)
    code = int(counts.argmax())
    held = share_of(codes == code, trajectory, len(sample), sample.seed)
    real = np.bincount(sample.codes, minlength=sample.num_codes) / len(sample.codes)
    return {
        **held.as_json(), "code": code, "null": real.max(), "share_among_real": real[code],
        "shares": counts / counts.sum(), "mark": IDENTITY_MARK, "pass": held.value >= IDENTITY_MARK,
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- future
def causality(sample: Sample, limit: int = 12) -> dict[str, Any]:
    """Codes up to step t when frames t+2 and later are another trajectory's: none may change.

    `changed`: share that did, of `compared` codes. `changed_by_past`: of codes whose past, frames before t, is another
    trajectory's (0: the LAM sees its two frames only; anything else is no fault). `repeatable`: share of codes that are
    the same when inferred again, in another batch.
    """
    changed = compared = by_past = steps = again = 0
    for i in range(min(limit, len(sample))):
        frames, codes = sample.frames(i), sample.codes[sample.rows(i)]
        other = sample.frames((i + 1) % len(sample))
        other = other[np.arange(len(frames)) % len(other)][::-1] if len(sample) > 1 else 255 - frames
        at = sample.rng(i, 3).integers(max(1, len(codes) - 1), size=CUTS)
        ids = np.arange(len(frames))[None, :, None, None, None]
        cut = at[:, None, None, None, None]
        clips = np.concatenate(
            [frames[None], np.where(ids < cut + 2, frames, other), np.where(ids < cut, other, frames)]
        )
        found = sample.infer(clips)
        again, steps = again + int((found[0] == codes).sum()), steps + len(codes)
        upto = np.arange(len(codes)) <= at[:, None]
        changed, compared = changed + int((found[1 : CUTS + 1] != found[0])[upto].sum()), compared + int(upto.sum())
        by_past += int((found[CUTS + 1 :][np.arange(CUTS), at] != found[0][at]).sum())
    trials = CUTS * min(limit, len(sample))
    return {
        "changed": changed / compared, "compared": compared, "pass": changed == 0,
        "changed_by_past": by_past / trials, "repeatable": again / steps,
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- scene cut
def scene_cut(sample: Sample, limit: int = 48, batch: int = 16) -> dict[str, Any]:
    """Codes inferred across a cut (last frame of A, next frame of B) must not carry B's frame into the dream.

    Dreams one frame from A with the code of the cut and with the code of the real step. `ratio`: their mean squared
    errors to B's frame and to A's next frame; about 1 would mean that the code copies the frame (2 or more asked).
    `ratio_without_codes`: the same for repeating A's frame. `told`: share of the cut's error that the code's dream
    saves over the dream of the real step's code, 0 for codes of motion. One cut a trajectory; intervals over them.
    """
    chosen = np.arange(min(limit, len(sample)))
    if len(chosen) < 2:
        return {"reason": "one trajectory: there is no other to cut to"}
    donors = _donors(sample, chosen)
    last, real, foreign = [], [], []
    for i, b in zip(chosen, donors, strict=True):
        frames, other = sample.frames(int(i)), sample.frames(int(b))
        at = int(sample.rng(int(i), 4).integers(len(frames) - 1))
        last.append(frames[at])
        real.append(frames[at + 1])
        foreign.append(other[min(at + 1, len(other) - 1)])
    a, a_next, b_next = np.stack(last), np.stack(real), np.stack(foreign)
    own, cut = (sample.infer(np.stack([a, second], axis=1)) for second in (a_next, b_next))
    dreams = [
        np.concatenate(
            [
                to_numpy(sample.genie.generate(a[s : s + batch, None], codes[s : s + batch], seed=sample.seed + s))[
                    :, 0
                ]
                for s in range(0, len(a), batch)
            ]
        )
        for codes in (own, cut)
    ]
    uncut_error, cut_error = squared_error(dreams[0], a_next), squared_error(dreams[1], b_next)
    blind_error = squared_error(dreams[0], b_next)
    ratio = share(cut_error, uncut_error, sample.seed)
    told = 1 - cut_error.sum() / blind_error.sum() if blind_error.sum() > 0 else None
    still = squared_error(a, a_next).sum()
    return {
        "ratio": ratio.value, "ci95": ratio.ci95, "mark": CUT_MARK, "pass": ratio.value >= CUT_MARK,
        "ratio_without_codes": squared_error(a, b_next).sum() / still if still > 0 else None,
        "told": told, "cuts": len(chosen),
    }  # fmt: skip


def _donors(sample: Sample, chosen: np.ndarray) -> np.ndarray:
    """For each trajectory another one, of another scene where there is one."""
    rng = np.random.default_rng([sample.seed, 5])
    scene = np.arange(len(sample)) if sample.table.scene is None else sample.table.scene[sample.table.starts[:-1]]
    donors = []
    for i in chosen:
        elsewhere = np.flatnonzero(scene != scene[i])
        donors.append(int(rng.choice(elsewhere if len(elsewhere) else np.delete(np.arange(len(sample)), i))))
    return np.array(donors)
