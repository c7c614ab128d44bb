"""MMD-motion on clips with planted motion and increasing corruption."""

import cv2
import numpy as np
import pytest

from genie_eval.collect import Trajectory
from genie_eval.dreams.distribution import Kernel, describe, mmd_motion, motion_features, paired_mmd, real_against_real
from genie_eval.dreams.horizon import HorizonConfig, LongDreams, long_dreams
from genie_eval.resampling import bootstrap_weights

SIDE, LENGTH, CLIPS = 48, 12, 40
FEATURES = 2 * 4 * 4 * 8 + 12


def film(count, seed):
    """Clips of a textured disc that moves and turns slowly over a textured background."""
    rng = np.random.default_rng(seed)
    ground, texture = (
        cv2.GaussianBlur(np.random.default_rng(9).uniform(0, s, (96, 96, 3)), (0, 0), 1.5) for s in (90, 400)
    )
    clips = []
    for _ in range(count):
        place, angle = rng.uniform(14, SIDE - 14, 2), rng.uniform(0, 2 * np.pi)
        speed, offset = rng.uniform(0.5, 2.5), rng.integers(0, 40, 2)
        clip = []
        for _ in range(LENGTH):
            yy, xx = np.mgrid[:SIDE, :SIDE]
            inside = (yy - place[0]) ** 2 + (xx - place[1]) ** 2 < 64
            matrix = np.float32([[1, 0, place[1] - offset[1] - 24], [0, 1, place[0] - offset[0] - 24]])
            moved = cv2.warpAffine(texture, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_WRAP)
            clip.append(np.where(inside[..., None], moved, ground[:SIDE, :SIDE]))
            angle += rng.normal(0, 0.15)
            place = np.clip(place + speed * np.array([np.sin(angle), np.cos(angle)]), 8, SIDE - 8)
        clips.append(clip)
    return np.clip(clips, 0, 255).astype(np.uint8)


def blurred(clips, sigma):
    return np.stack([[cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip] for clip in clips])


def noisy(clips, sd):
    return np.clip(clips + np.random.default_rng(3).normal(0, sd, clips.shape), 0, 255).astype(np.uint8)


def frozen(clips, share):
    stop = max(1, round((1 - share) * clips.shape[1]))
    return np.concatenate(
        [clips[:, :stop], np.repeat(clips[:, stop - 1 : stop], clips.shape[1] - stop, axis=1)], axis=1
    )


def shuffled(clips, share):
    rng, out = np.random.default_rng(4), clips.copy()
    for clip, source in zip(out, clips, strict=True):
        where = rng.choice(len(clip), round(share * len(clip)), replace=False)
        clip[where] = source[rng.permutation(where)]
    return out


CORRUPTIONS = {
    "blur": (blurred, (1, 2, 4, 8)), "noise": (noisy, (4, 8, 16, 32)),
    "frozen": (frozen, (0.25, 0.5, 0.75, 1)), "shuffled": (shuffled, (0.25, 0.5, 0.75, 1)),
}  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    real, other = film(CLIPS, 0), describe(film(2 * CLIPS, 1))
    kernel = Kernel(other)
    null = real_against_real(kernel, other, CLIPS, splits=300)
    return real, describe(real), kernel, null


def distance(kernel, x, y):
    return paired_mmd(kernel, x, y, np.arange(len(x)), bootstrap_weights(len(x), 10))[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_distance_grows_with_corruption(planted, name):
    real, features, kernel, null = planted
    corrupt, amounts = CORRUPTIONS[name]
    found = [distance(kernel, features, describe(corrupt(real, amount))) for amount in amounts]
    assert (np.diff([0, *found]) > 0).all(), found
    assert found[-1] > np.quantile(null, 0.99), (found, null.std())
    if name != "blur":  # motion features hardly react to blur
        assert found[1] > 3 * null.std(), (found, null.std())


def test_an_untouched_set_is_at_zero_and_real_sets_are_about_zero(planted):
    _, features, kernel, null = planted
    assert distance(kernel, features, features) == pytest.approx(0, abs=1e-12)
    assert abs(null.mean()) < 4 * null.std() / np.sqrt(len(null)) + 0.1 * null.std()
    fresh = describe(film(CLIPS, 2))
    assert distance(kernel, features, fresh) < np.quantile(null, 0.999)


def random_pairs(seed, count=30, shift=0.0, shared=1.0):
    """Features of correlated pairs, with equal distributions unless shifted."""
    rng = np.random.default_rng(seed)
    part = shared * rng.normal(size=(count, FEATURES))
    return part + rng.normal(size=(count, FEATURES)), part + rng.normal(size=(count, FEATURES)) + shift


def test_estimate_is_unbiased_for_correlated_pairs():
    found = []
    for seed in range(60):
        x, y = random_pairs(seed)
        found.append(distance(Kernel(x), x, y))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    x, y = random_pairs(0)
    kernel = Kernel(x)
    n = len(x)
    unpaired = (kernel(x, x).sum() + kernel(y, y).sum()) / (n * (n - 1)) - 2 * kernel(x, y).mean()
    assert unpaired < -5 * np.std(found)  # the bias of comparing a clip with its own dream
    assert distance(kernel, *random_pairs(0, shift=0.5)) > 5 * np.std(found)


def test_estimate_equals_a_plain_loop_over_clips_of_different_trajectories():
    x, y = random_pairs(1, count=9)
    trajectory = np.array([5, 5, 2, 2, 2, 7, 0, 0, 3])
    kernel, total, pairs = Kernel(x), 0.0, 0
    for i in range(9):
        for j in range(9):
            if trajectory[i] != trajectory[j]:
                a, b = slice(i, i + 1), slice(j, j + 1)
                total += (kernel(x[a], x[b]) + kernel(y[a], y[b]) - kernel(x[a], y[b]) - kernel(y[a], x[b])).item()
                pairs += 1
    weights = bootstrap_weights(5, 500)
    value, drawn = paired_mmd(kernel, x, y, trajectory, weights)
    assert value == pytest.approx(total / pairs)
    order = np.random.default_rng(0).permutation(9)
    assert paired_mmd(kernel, x[order], y[order], trajectory[order], weights)[0] == pytest.approx(value)
    once = paired_mmd(kernel, x, y, trajectory, np.ones((1, 5)))[1]
    assert once == pytest.approx([value])


def test_real_against_real_equals_a_plain_estimate():
    x, _ = random_pairs(2, count=12)
    kernel = Kernel(x)
    found = real_against_real(kernel, x, 5, splits=3, seed=4)
    rng = np.random.default_rng(4)
    for value in found:
        order = rng.permutation(12)
        a, b = x[order[:5]], x[order[5:10]]
        within = (kernel(a, a).sum() + kernel(b, b).sum()) / 20
        assert value == pytest.approx(within - 2 * kernel(a, b).mean())


def test_features_of_a_mirrored_clip_are_mirrored():
    """Right and left are exchanged, and the speeds are the same."""
    clip = film(1, 5)[0]
    one, other = motion_features(clip), motion_features(clip[:, :, ::-1])
    directions = one[:128].reshape(4, 4, 8) ** 2
    mirrored = other[:128].reshape(4, 4, 8) ** 2
    back = mirrored[:, ::-1][..., (11 - np.arange(8)) % 8]  # angle a -> pi - a, sector k -> 3 - k
    assert back.sum(axis=(0, 1)) == pytest.approx(directions.sum(axis=(0, 1)), rel=0.1, abs=2e-4)
    assert one[256:] == pytest.approx(other[256:], abs=0.05)
    assert not motion_features(np.repeat(clip[:1], 6, axis=0)).any()


def test_dreams_lie_between_the_tokenizer_and_copy_last(make_genie, make_video):
    genie, split = make_genie(), make_video(episodes=40).split("test")
    trajectories = [Trajectory(e, np.arange(20)) for e in range(40)]
    codes = [genie.infer_actions(split.frames(e)[None])[0] for e in range(40)]
    dreams = long_dreams(genie, split, trajectories, HorizonConfig(20, 12, ("uniform",)), codes, progress=False)
    report = mmd_motion(dreams, draws=200)
    values = {name: reading["value"] for name, reading in report["values"].items()}
    assert values["dream"] == values["tokenizer"]  # this world's dreams are its reconstructions
    assert values["copy_last"] > 0.5
    assert abs(values["dream"]) < 0.1 * values["copy_last"]
    assert report["values"]["copy_last"]["p"] == pytest.approx(0.001)
    low, high = report["values"]["copy_last"]["ci95"]
    assert low < values["copy_last"] < high
    assert (report["n_clips"], report["frames"], report["null"]["size"]) == (20, 12, 10)
    assert report["name"] == "MMD-motion"


def test_clips_that_cannot_be_compared_give_a_reason():
    clips = film(6, 0)

    def report(clips, trajectory, other=clips[:0]):
        dreams = LongDreams(
            trajectory, clips, clips, clips[:, 1:], {}, np.zeros(clips.shape[:2], int), {}, other,
            np.arange(len(other)),
        )  # fmt: skip
        return mmd_motion(dreams, draws=20)

    assert "3 frames" in report(clips[:, :3], np.arange(6))["reason"]
    assert "one trajectory" in report(clips, np.zeros(6, int))["reason"]
    few = report(clips, np.arange(6))
    assert "fewer than 8" in few["null"]["reason"]
    assert few["values"]["dream"]["p"] is None
    assert few["values"]["copy_last"]["value"] > 0.3
