"""Shortcuts of a latent action model: does it encode the future, or the next frame? And is there a null code?

(Levels G and H.) Steps are altered in clips of two frames, where the LAM has no past, as at the first step of any clip.
"""

from typing import Any

import numpy as np

from genie_eval.collect import to_numpy
from genie_eval.dreams.pixels import squared_error
from genie_eval.inference.sample import Sample, pairs, share, share_of

IDENTITY_MARK = 0.95
CUT_MARK = 2.0
CUTS = 2  # moments per trajectory from which its future is replaced


def identity(sample: Sample, every: int = 3) -> dict[str, Any]:
    """The null code: the most common code of two equal frames, and how often they have it.

    value: share of the null code among pairs of equal frames, with interval. null: share of the most common code among
    real steps, which codes that ignore the picture would read. share_among_real: of the null code among real steps.
    """
    found, owner = [], []
    for i in sample.each("nothing happens"):
        frames, at = sample.frames(i), sample.some(i, every)
        found.append(sample.infer(pairs(frames, at, at))[:, 0])
        owner.append(np.full(len(at), i))
    codes, trajectory = np.concatenate(found), np.concatenate(owner)
    counts = np.bincount(codes, minlength=sample.num_codes)
    code = int(counts.argmax())
    kept = share_of(codes == code, trajectory, len(sample), sample.seed)
    real = np.bincount(sample.codes, minlength=sample.num_codes) / len(sample.codes)
    return {
        **kept.as_json(), "code": code, "null": real.max(), "share_among_real": real[code],
        "shares": counts / counts.sum(), "mark": IDENTITY_MARK, "pass": kept.value >= IDENTITY_MARK,
    }  # fmt: skip


def causality(sample: Sample, limit: int = 12) -> dict[str, Any]:
    """Codes up to step t when frames t+2 and later are those of another trajectory: none may change.

    changed: share of the `compared` codes that changed. changed_by_past: share of codes that change when the frames
    before t are another trajectory's (0: the LAM sees its two frames only; other values are no fault). repeatable:
    share of codes that are equal when inferred again in another batch.
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


def scene_cut(sample: Sample, limit: int = 48, batch: int = 16) -> dict[str, Any]:
    """Test of copying: the code of a cut (last frame of A, next frame of B) must not carry B's frame into the dream.

    One frame is dreamt from A with the code of the cut, and one with the code of the real step.

    ratio: mean squared error of the first to B's frame over that of the second to A's next frame; about 1 means that
    the code copies the frame (at least 2 expected). ratio_without_codes: the same when A's frame is repeated. told:
    share of the cut's error that its code saves over the real step's code, 0 for codes of motion. One cut per
    trajectory; intervals over trajectories.
    """
    chosen = np.arange(min(limit, len(sample)))
    if len(chosen) < 2:
        return {"reason": "only one trajectory: there is no other to cut to"}
    donors = _donors(sample, chosen)
    rows = []
    for i, b in zip(chosen, donors, strict=True):
        frames, other = sample.frames(int(i)), sample.frames(int(b))
        at = int(sample.rng(int(i), 4).integers(len(frames) - 1))
        rows.append((frames[at], frames[at + 1], other[min(at + 1, len(other) - 1)]))
    a, a_next, b_next = (np.stack(part) for part in zip(*rows, strict=True))

    def dream(codes: np.ndarray) -> np.ndarray:
        """One frame after each of A's frames."""
        parts = [
            to_numpy(sample.genie.generate(a[s : s + batch, None], codes[s : s + batch], seed=sample.seed + s))[:, 0]
            for s in range(0, len(a), batch)
        ]
        return np.concatenate(parts)

    own, cut = (sample.infer(np.stack([a, second], axis=1)) for second in (a_next, b_next))
    own_dream, cut_dream = dream(own), dream(cut)
    uncut_error, cut_error = squared_error(own_dream, a_next), squared_error(cut_dream, b_next)
    blind_error = squared_error(own_dream, b_next)
    ratio = share(cut_error, uncut_error, sample.seed)
    saved = 1 - cut_error.sum() / blind_error.sum() if blind_error.sum() > 0 else None
    still = squared_error(a, a_next).sum()
    return {
        "ratio": ratio.value, "ci95": ratio.ci95, "mark": CUT_MARK, "pass": ratio.value >= CUT_MARK,
        "ratio_without_codes": squared_error(a, b_next).sum() / still if still > 0 else None,
        "told": saved, "cuts": len(chosen),
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
