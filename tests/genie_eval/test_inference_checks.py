"""Identity, future, cuts, reversal, sums, round trips: each on a model that has the property and one that lacks it."""

from types import SimpleNamespace

import numpy as np
import pytest

from genie_eval.codes.transitions import Transitions
from genie_eval.inference.algebra import additivity, algebra
from genie_eval.inference.embeddings import embeddings
from genie_eval.inference.sample import Sample, choose_sample, share
from genie_eval.inference.shortcuts import causality, identity, scene_cut
from genie_eval.inference.stability import stability
from tests.genie_eval.lam_readers import MOVES, by_brightness, by_direction, measured, reader, scripted

CELL = 4  # pixels


def corner(frame):
    return np.argwhere(frame[..., 0] > 128).min(axis=0)


def by_cell(clip, t):
    """Position of the square after the step: cells of 4 x 4 pixels, as 5 codes."""
    row, column = corner(clip[t + 1]) // CELL
    return int(row * 2 + column) % 5


def sample_of(genie, source, limit=16):
    return choose_sample(genie, *measured(genie, source), limit)


def embedder(of_step):
    infer = reader(of_step)
    return lambda frames: np.asarray(infer(frames), float)


# ------------------------------------------------------------------------------------------------------------ identity
def test_one_code_for_nothing(make_genie, make_video):
    found = identity(sample_of(scripted(make_genie, by_direction), make_video()))
    assert found["value"] == 1
    assert found["code"] == 0
    assert found["pass"]
    assert 0.1 < found["share_among_real"] < 0.4


def test_codes_of_the_place_have_no_code_for_nothing(make_genie, make_video):
    found = identity(sample_of(scripted(make_genie, by_cell), make_video()))
    assert found["value"] < 0.5
    assert not found["pass"]
    assert found["ci95"][0] < found["value"] < found["ci95"][1]


# -------------------------------------------------------------------------------------------------------------- future
def test_the_future_may_not_be_seen_and_the_past_may(make_genie, make_video):
    own = causality(sample_of(scripted(make_genie, by_direction), make_video()))
    assert own["changed"] == own["changed_by_past"] == 0
    assert own["pass"]
    assert own["repeatable"] == 1
    assert own["compared"] > 50

    peeking = causality(sample_of(scripted(make_genie, lambda clip, t: by_cell(clip, len(clip) - 2)), make_video()))
    assert peeking["changed"] > 0.3
    assert not peeking["pass"]

    # A peek of one frame only, which matters for one code in each clip
    near = causality(sample_of(scripted(make_genie, lambda c, t: by_cell(c, min(t + 1, len(c) - 2))), make_video()))
    assert not near["pass"]

    remembering = causality(sample_of(scripted(make_genie, lambda clip, t: by_cell(clip, -1)), make_video()))
    assert remembering["pass"]
    assert remembering["changed_by_past"] > 0.3


# ----------------------------------------------------------------------------------------------------------------- cut
def test_codes_of_motion_cannot_carry_a_cut(make_genie, make_video):
    found = scene_cut(sample_of(scripted(make_genie, by_direction), make_video()))
    assert found["ratio"] > 2
    assert found["pass"]
    assert found["told"] < 0.4  # the direction of the cut, but not the place


def test_codes_that_copy_the_frame_are_found_out(make_genie, make_video):
    """32 x 32 codes name the square's place, and the dream puts it there: a cut is no harder than any step."""

    def place(clip, t):
        row, column = corner(clip[t + 1])
        return int(row * 32 + column)

    def put(frames, codes, seed=0):
        dream = np.full((len(frames), 1, 32, 32, 3), 32, np.uint8)
        for d, code in zip(dream, codes[:, 0], strict=True):
            d[0, code // 32 : code // 32 + 6, code % 32 : code % 32 + 6] = (224, 176, 48)
        return dream

    found = scene_cut(sample_of(scripted(make_genie, place, generate=put), make_video()))
    assert found["ratio"] == pytest.approx(1, abs=0.01)
    assert not found["pass"]
    assert found["told"] > 0.8


# ---------------------------------------------------------------------------------------------------------- embeddings
def test_embeddings_of_motion(make_genie, make_video):
    genie = scripted(make_genie, by_direction)
    genie.embed_actions = lambda frames: MOVES[genie.infer_actions(frames)].astype(float)
    found = embeddings(sample_of(genie, make_video(episodes=40), 40))
    assert abs(found["s_pcfc"]["raw"]) < 0.15  # steps of a random walk: neither equal nor opposite
    assert found["r_zero"]["raw"] == found["r_zero"]["about_null"] == 0
    assert found["r_zero"]["pass"]
    assert found["r_shift"]["about_null"] > 0.8  # it takes the camera's jerk for a move
    assert found["leakage"]["same_primitive"] > 0.9
    assert found["leakage"]["value"] < -0.9


def test_embeddings_of_the_place(make_genie, make_video):
    """High where one frame is shared, and no origin for "nothing"."""
    genie = scripted(make_genie, by_cell)
    genie.embed_actions = embedder(lambda clip, t: corner(clip[t + 1]) // CELL - 3.0)
    found = embeddings(sample_of(genie, make_video()))
    assert found["s_pcfc"]["raw"] > 0.9  # 1 but for a place at the very origin
    assert found["s_pcfc"]["centred"] == pytest.approx(1)
    assert found["r_zero"]["about_null"] > 0.8
    assert not found["r_zero"]["pass"]


def test_embeddings_of_the_trajectory_leak(make_genie, make_video):
    genie = scripted(make_genie, by_cell)
    genie.embed_actions = embedder(lambda clip, t: corner(clip[0]) - 12.0)
    found = embeddings(sample_of(genie, make_video()))
    assert found["leakage"]["same_trajectory"] == pytest.approx(1)
    assert found["leakage"]["value"] > 0.8
    assert found["leakage"]["ci95"][0] > 0.7


def test_normalised_embeddings_are_read_about_the_latent_of_nothing(make_genie, make_video):
    """One direction for each code, all of length 1, and one for "still": a faultless model, whose raw R_zero is 1."""
    genie = scripted(make_genie, by_direction)
    genie.embed_actions = lambda frames: np.eye(5)[genie.infer_actions(frames)]
    found = embeddings(sample_of(genie, make_video()))
    assert found["r_zero"]["raw"] == pytest.approx(1)
    assert found["r_zero"]["about_mean"] > 0.8
    assert found["r_zero"]["about_null"] == 0


def test_primitives_need_true_motion(make_genie, make_video):
    found = embeddings(sample_of(scripted(make_genie, by_direction), make_video(known=False)))
    assert "no true motion" in found["leakage"]["reason"]
    genie = scripted(make_genie, by_direction)
    sample = sample_of(genie, make_video())

    class CodesOnly:
        config = genie.config

    object.__setattr__(sample, "genie", CodesOnly())
    assert "embed_actions" in embeddings(sample)["reason"]


# ------------------------------------------------------------------------------------------------------------- algebra
def test_backwards_is_the_opposite_and_twice_the_same_is_the_same(make_genie, make_video):
    found = algebra(sample_of(scripted(make_genie, by_direction), make_video()), null_code=0)
    back = found["reversal"]
    assert back["accuracy"] == back["involution"] == 1
    assert back["map"].tolist() == [0, 2, 1, 4, 3]
    assert back["chance"] < 0.4
    assert back["oracle"] > 0.6  # the truth has a third, idle dimension
    assert back["motion_cosine"] > 0.95
    twice = found["additivity"]
    assert twice["equal_steps"]["accuracy"] == twice["with_null"]["accuracy"] == 1
    assert twice["equal_steps"]["chance"] < 0.4
    assert twice["equal_steps"]["oracle"] > 0.6
    assert twice["equal_steps"]["motion_cosine"] == pytest.approx(1)
    assert twice["equal_steps"]["by_code"] == [1, 1, 1, 1, 1]
    assert twice["equal_steps"]["becomes"].tolist() == [0, 1, 2, 3, 4]


def test_two_small_steps_may_make_the_code_of_a_large_one():
    """Codes of direction and size (small and large, right and left): the small ones do not keep their code, yet all
    keep their direction."""
    steps = np.array([1.0, 2.0, -1.0, -2.0])
    codes = np.random.default_rng(0).integers(4, size=(6, 50))
    motion = np.stack([steps[codes], 0 * codes], axis=-1).reshape(-1, 2)
    both = np.where(steps[codes[:, :-1]] + steps[codes[:, 1:]] > 0, 1, 3)  # of two equal steps: a large one
    doubled = np.pad(both, ((0, 0), (0, 1)), constant_values=-1).reshape(-1)
    table = Transitions(np.repeat(np.arange(6), 50), np.tile(np.arange(50), 6), {"base": motion})
    genie = SimpleNamespace(config=SimpleNamespace(num_actions=4))
    twice = additivity(Sample(genie, None, [None] * 6, table, codes.reshape(-1)), doubled, motion[:, :1])["equal_steps"]
    assert twice["by_code"] == [0, 1, 0, 1]
    assert twice["becomes"].tolist() == [1, 1, 3, 3]
    assert twice["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert twice["motion_cosine"] > 0.9


def test_codes_at_random_have_no_way_back(make_genie, make_video):
    rng = np.random.default_rng(0)
    found = algebra(sample_of(scripted(make_genie, lambda clip, t: int(rng.integers(5))), make_video()), null_code=0)
    assert abs(found["reversal"]["skill"]) < 0.15
    assert abs(found["additivity"]["equal_steps"]["skill"]) < 0.2
    assert abs(found["additivity"]["with_null"]["skill"]) < 0.2


def test_a_code_with_two_ways_back_and_a_step_that_does_not_double(make_genie, make_video):
    """To the left by two codes, of even and odd columns: backwards, "right" may be either. Long steps are "nothing"."""

    def one_step(clip, t):
        rows, columns = corner(clip[t + 1]) - corner(clip[t])
        if abs(rows) + abs(columns) != 2:
            return 0
        if columns < 0:
            return 2 + corner(clip[t])[1] // 2 % 2
        return 1 if columns > 0 else 4

    found = algebra(sample_of(scripted(make_genie, one_step), make_video()))
    back = found["reversal"]
    assert 0.8 < back["accuracy"] < 0.97  # right is a fifth of the steps, half of them told wrongly
    assert 0.8 < back["involution"] < 0.95  # one of the two for "left" does not come back
    assert found["additivity"]["equal_steps"]["by_code"][1] == 0
    assert found["additivity"]["equal_steps"]["by_code"][0] == 1
    assert found["additivity"]["equal_steps"]["becomes"][1] == 0


def test_no_truth_no_oracle(make_genie, make_video):
    back = algebra(sample_of(scripted(make_genie, by_direction), make_video(known=False)))["reversal"]
    assert back["accuracy"] == 1
    assert "oracle" not in back
    assert "motion_cosine" not in back


# ----------------------------------------------------------------------------------------------------------- stability
def test_round_trips(make_genie, make_video):
    held = stability(sample_of(scripted(make_genie, by_direction), make_video(), 6))
    assert held["jpeg"]["value"] == held["tokenizer"]["value"] == 1
    assert held["tokenizer"]["pass"]
    lost = stability(sample_of(scripted(make_genie, by_brightness), make_video(), 6))
    assert lost["tokenizer"]["value"] < 0.5  # 16 grey levels of each pixel
    assert not lost["tokenizer"]["pass"]


def test_long_trajectories_are_cut_with_their_codes(make_genie, make_video):
    genie = scripted(make_genie, by_direction)
    split, trajectories, table, codes = measured(genie, make_video(episodes=5, length=120))
    sample = choose_sample(genie, split, trajectories, table, codes, 3)
    assert len(sample) == 3
    assert len(sample.codes) == len(sample.table.trajectory) == 3 * 95
    for i, trajectory in enumerate(sample.trajectories):
        row = table.starts[trajectory.episode]
        assert (sample.codes[sample.rows(i)] == codes[row : row + 95]).all()
        assert (sample.infer(sample.frames(i)[None])[0] == sample.codes[sample.rows(i)]).all()


def test_share_is_of_transitions_and_its_interval_of_trajectories():
    hits, counts = np.array([10.0, 0.0, 5.0]), np.array([10.0, 30.0, 10.0])
    found = share(hits, counts)
    assert found.value == pytest.approx(15 / 50)
    assert found.ci95[0] == 0
    assert found.ci95[1] == pytest.approx(1)
