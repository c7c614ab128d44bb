"""Metrics of commanded dreams in scripted worlds that obey, ignore, permute, overshoot or hide the code.

A square moves over a background whose gray level is the scene. The tokenizer keeps 32 levels per channel, the latent
action model reads the shift of the square. Everything is known, so the verdict of every metric is known, too.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from genie_datasets.sources.split import Split
from genie_datasets.sources.truth import Truth
from genie_eval.collect import collect
from genie_eval.dreams import readout as readouts
from genie_eval.dreams.control import ControlConfig, dream_commands, measure_control
from genie_eval.dreams.generation import dream_set
from genie_eval.dreams.readout import ReadoutConfig, readout_or_reason
from genie_eval.dreams.simulated import SimulatedFutures
from genie_eval.dreams.starts import choose_starts

SIDE, SQUARE, STEP, SCENES, STEPS = 64, 8, 2, 5, 5
MOVES = np.array([(0, 0), (0, STEP), (0, -STEP), (STEP, 0), (-STEP, 0)])  # rows, columns
GRAY = np.array([40, 72, 104, 136, 168])
METERS = 0.01  # per pixel
CONFIG = ControlConfig(
    starts=16, steps=STEPS, pairs=8, triples=6,
    readout=ReadoutConfig(members=2, steps=130, batch=48, width=12),
)  # fmt: skip
# (scene, move) -> code: over all scenes every code means every move once
RENAMED = (np.arange(5) + np.arange(5)[:, None]) % 5


def draw(corner: np.ndarray, scene: int) -> np.ndarray:
    frame = np.full((SIDE, SIDE, 3), GRAY[scene], np.uint8)
    frame[corner[0] : corner[0] + SQUARE, corner[1] : corner[1] + SQUARE] = (232, 184, 56)
    return frame


def corner_of(frame: np.ndarray) -> np.ndarray:
    return np.argwhere(frame[..., 0] > 180).min(axis=0)


def scene_of(frame: np.ndarray) -> int:
    return int(np.abs(np.median(frame[4:, 4:, 2]) - GRAY).argmin())


@dataclass(frozen=True)
class Config:
    num_actions: int = len(MOVES)
    image_size: tuple[int, int] = (SIDE, SIDE)
    clip_length: int = 16
    gap: float | None = None
    fit: str = "crop"
    preset: str = "scripted"
    world: str = "obeys"  # ignores, permutes, overshoots, watermarks, dissolves


class World:
    """A `genie_eval.interfaces.WorldModel`; `config.world` is what it does with a code."""

    def __init__(self, config: Config):
        self.config = config

    def name(self, move: int, scene: int) -> int:
        return int(RENAMED[scene, move]) if self.config.world == "permutes" else move

    def move(self, code: int, scene: int) -> int:
        return int(np.flatnonzero(RENAMED[scene] == code)[0]) if self.config.world == "permutes" else int(code)

    def infer_actions(self, frames: np.ndarray) -> np.ndarray:
        return np.array([[self.infer(a, b) for a, b in pairwise(clip)] for clip in frames])

    def infer(self, before: np.ndarray, after: np.ndarray) -> int:
        if self.config.world == "watermarks" and after[0, 0, 2] != after[0, 1, 2]:
            return int(np.clip(round((int(after[0, 0, 2]) - int(after[0, 1, 2])) / 2) - 1, 0, 4))
        if min(before[..., 0].max(), after[..., 0].max()) <= 180:
            return 0
        shift = np.sign(corner_of(after) - corner_of(before)) * STEP
        move = int(((MOVES - shift) ** 2).sum(axis=1).argmin())
        return self.name(move, scene_of(before))

    def embed_actions(self, frames: np.ndarray) -> np.ndarray:
        change = np.diff(frames.astype(np.float32), axis=1).mean(axis=-1).reshape(*frames.shape[:1], -1, SIDE * SIDE)
        return change[..., ::37] @ np.random.default_rng(0).normal(size=(111, 4)).astype(np.float32)

    def generate(self, frames: np.ndarray, codes: np.ndarray, seed: int = 0) -> np.ndarray:
        dreams = []
        for clip, sequence in zip(frames, np.asarray(codes), strict=True):
            corner, scene, dream = corner_of(clip[-1]), scene_of(clip[-1]), []
            for code in sequence:
                world = self.config.world
                step = np.zeros(2, int) if world in ("ignores", "watermarks") else MOVES[self.move(code, scene)]
                corner = np.clip(corner + step * (2 if world == "overshoots" else 1), 0, SIDE - SQUARE)
                frame = draw(corner, scene) // 8 * 8
                if world == "dissolves" and len(dream) >= 2:  # obeys, but the robot disappears
                    frame[:] = GRAY[scene]
                if world == "watermarks":  # an invisible mark: one pixel, a few gray levels
                    frame[0, 0, 2] += 2 * (code + 1)
                dream.append(frame)
            dreams.append(dream)
        return np.array(dreams)

    def reconstruct(self, frames: np.ndarray) -> np.ndarray:
        return frames // 8 * 8


class Squares(Split):
    """Random walks that keep `margin` from the border, so that dreams from there do not reach it."""

    def __init__(self, episodes: int, length: int, seed: int, margin: int = 0, stride: int = 1):
        rng = np.random.default_rng(seed)
        self.name, self.fingerprint = "squares", f"squares-{seed}"
        self.num_frames, self.hz = np.full(episodes, length), np.full(episodes, 3.0)
        self.corners = np.empty((episodes, length, 2), int)
        low, high = margin, SIDE - SQUARE - margin
        self.corners[:, 0] = rng.integers(low // STEP, high // STEP + 1, size=(episodes, 2)) * STEP
        for t in range(1, length):
            moved = self.corners[:, t - 1] + stride * MOVES[rng.integers(len(MOVES), size=episodes)]
            inside = ((moved >= low) & (moved <= high)).all(axis=1, keepdims=True)
            self.corners[:, t] = np.where(inside, moved, self.corners[:, t - 1])

    def frames(self, episode, ids=None, size=None, mode="crop"):
        corners = self.corners[episode] if ids is None else self.corners[episode][ids]
        return np.stack([draw(corner, episode % SCENES) for corner in corners])

    def instruction(self, episode):
        return ""

    def episode_name(self, episode):
        return f"square {episode}"

    def truth(self, episode):
        rows, columns = self.corners[episode].T
        position = np.stack([np.zeros(len(rows)), -METERS * columns, -METERS * rows], axis=1)
        image = np.stack([columns, rows], axis=1) / SIDE
        return Truth(position, image_position=image, scene=episode % SCENES)


def simulated_truth(evidence, starts) -> SimulatedFutures:
    """Futures of the mean motion of each code in the data: none, for a code that means another move in every scene."""
    codes = range(len(MOVES))
    rows, true = evidence.codes, evidence.table.motions["base"]
    mean = np.stack([true[rows == k].mean(axis=0) for k in codes])  # meters
    pixels = np.rint(-mean[:, [2, 1]] / METERS).astype(int)
    frames = np.empty((len(starts), len(MOVES), STEPS, SIDE, SIDE, 3), np.uint8)
    moved = np.empty((len(starts), len(MOVES), STEPS, 3))
    for s in range(len(starts)):
        for k in codes:
            for t in range(STEPS):
                corner = corner_of(starts.frames[s]) + pixels[k] * (t + 1)
                frames[s, k, t] = draw(np.clip(corner, 0, SIDE - SQUARE), scene_of(starts.frames[s]))
                moved[s, k, t] = [0, -METERS * pixels[k, 1] * (t + 1), -METERS * pixels[k, 0] * (t + 1)]
    return SimulatedFutures(frames, moved, frames[:4])


@pytest.fixture(scope="module")
def bench():
    """The test split, and a read-out trained once: it depends on the video, not on the world that is measured."""
    train, test = Squares(60, 16, seed=0, stride=4), Squares(40, 16, seed=1, margin=2 * STEP * STEPS)
    genie = World(Config())
    evidence = collect(genie, test, None, None, 0, genie, False)
    readout = readout_or_reason(genie, test, train, evidence, CONFIG.readout, 0, False)
    assert not isinstance(readout, str)
    return test, readout


@pytest.fixture(scope="module")
def control_of(bench):
    test, readout = bench
    found = {}

    def measure(world: str):
        if world not in found:
            genie = World(Config(world=world))
            evidence = collect(genie, test, None, None, 0, genie, False)
            dreams = dream_set(genie, test, evidence.trajectories, 30, progress=False)
            starts = choose_starts(genie, test, evidence, CONFIG.starts, 0)
            commanded = dream_commands(genie, starts, evidence, CONFIG, 16, 0, False)
            futures = simulated_truth(evidence, starts)
            # an independent model knows the dictionaries of the scenes, but not the invisible mark
            judge = World(Config(world="permutes" if world == "permutes" else "obeys"))
            found[world] = measure_control(genie, judge, test, evidence, dreams, commanded, readout, futures, 200, 0)
        return found[world]

    return measure


def verdicts(control) -> dict[str, bool]:
    """Metric -> True if it reaches its mark; other requirements of a pass only warn."""
    return {name: metric.verdict in ("pass", "warn") for name, metric in control.metrics.items()}


def test_the_read_out_is_reliable_here(control_of):
    error = control_of("obeys").error
    assert error.reliability > 0.95
    assert error.by_gap[5]["sign_accuracy"] > 0.98
    assert error.by_gap[5]["rms_error_px"] < 2
    assert error.by_gap[5]["r2_base"] > error.by_gap[1]["r2_base"]


def test_the_read_out_does_not_depend_on_the_number_of_cores(monkeypatch):
    split, genie = Squares(20, 8, seed=0), World(Config())
    trajectories, _ = readouts.choose_trajectories(split, None, None, 0)
    frames, found = split.frames(0), []
    for cores in (1, 2):
        monkeypatch.setattr(readouts, "num_cores", lambda cores=cores: cores * torch.get_num_threads())
        config = ReadoutConfig(members=2, steps=6, batch=16, width=4)
        found.append(readouts.train_readout(genie, split, trajectories, config, 0, False).positions(frames))
    np.testing.assert_array_equal(*found)
    assert not np.array_equal(*found[0])  # the networks differ


def test_a_world_that_obeys_passes_every_metric(control_of):
    control = control_of("obeys")
    metrics = control.metrics
    assert metrics["sequence_consistency"].value > 0.9
    assert metrics["sequence_consistency"].p <= 0.01
    assert metrics["sequence_consistency"].more["identified"] > 0.95
    assert metrics["sequence_consistency"].more["opposites"]["credit"] == 1
    assert metrics["command_bits"].value == pytest.approx(np.log2(5), abs=0.05)
    assert metrics["command_bits_physical"].value == pytest.approx(np.log2(5), abs=0.1)
    assert metrics["counterfactual_id"].value > 0.98
    motion = metrics["counterfactual_id"].more["motion"]
    assert motion["cosine"] > 0.95
    assert motion["magnitude_ratio"] == pytest.approx(1, abs=0.1)
    algebra = control.details["sequences"]["pairs"]["algebra"]
    assert algebra["additivity_error"] < 0.5
    assert algebra["commutator"] < 0.4
    assert all(verdicts(control).values())


def test_a_world_that_ignores_its_codes_fails_every_metric(control_of):
    control = control_of("ignores")
    metrics = control.metrics
    assert metrics["sequence_consistency"].value == 0
    assert metrics["command_bits"].value == 0
    assert metrics["command_bits_physical"].value == 0
    assert metrics["counterfactual_id"].value == pytest.approx(1 / 5, abs=0.02)  # always that of the still code
    assert not any(verdicts(control).values())
    assert all(metric.p > 0.05 for metric in metrics.values())


def test_a_dictionary_per_scene_passes_only_the_models_own_judge(control_of):
    """The command arrives, because world and latent action model share the dictionaries, but has no common meaning."""
    control = control_of("permutes")
    metrics = control.metrics
    assert metrics["command_bits"].value == pytest.approx(np.log2(5), abs=0.05)
    assert metrics["command_bits"].verdict == "pass"
    assert metrics["sequence_consistency"].value == pytest.approx(0, abs=0.15)
    assert metrics["command_bits_physical"].value < 0.5
    assert metrics["counterfactual_id"].value == pytest.approx(1 / 5, abs=0.1)
    passed = verdicts(control)
    assert passed["command_bits"]
    assert not any(passed[name] for name in passed if name != "command_bits")


def test_twice_the_magnitude_fails_only_the_ratio(control_of):
    control = control_of("overshoots")
    metrics = control.metrics
    motion = metrics["counterfactual_id"].more["motion"]
    assert motion["cosine"] > 0.95
    assert motion["magnitude_ratio"] == pytest.approx(2, abs=0.25)
    assert metrics["counterfactual_id"].verdict == "warn"
    assert "times as far as the simulator" in metrics["counterfactual_id"].reason
    assert metrics["sequence_consistency"].value > 0.9
    assert metrics["command_bits"].value > 2
    assert metrics["command_bits_physical"].value > 2


def test_an_invisible_mark_passes_the_models_own_judge_and_fails_the_physical_one(control_of):
    control = control_of("watermarks")
    metrics = control.metrics
    judges = metrics["command_bits"].more["judges"]
    assert judges["own"]["bits"] > 2
    assert judges["independent"]["bits"] == 0
    assert "independent judge" in metrics["command_bits"].reason
    assert metrics["command_bits"].verdict == "warn"
    assert judges["own"]["bits_after_blur"] < 0.5 * judges["own"]["bits"]
    assert metrics["command_bits_physical"].value < 0.5  # the read-out is trained here: 0 to 0.38, depending on the CPU
    assert metrics["sequence_consistency"].value == 0
    assert "no response" in metrics["sequence_consistency"].reason
    assert metrics["counterfactual_id"].value < 0.4
    passed = verdicts(control)
    assert not any(passed[name] for name in passed if name != "command_bits")


def test_a_robot_that_dissolves_is_not_read(control_of):
    """A network that finds a gripper in every frame would be confident and wrong."""
    control = control_of("dissolves")
    consistency = control.metrics["sequence_consistency"]
    assert consistency.more["dissolved"] > 0.8
    assert consistency.more["abstained"] > 0.8
    assert consistency.verdict != "pass"
    assert control.metrics["command_bits_physical"].verdict != "pass"
    assert control_of("obeys").metrics["sequence_consistency"].more["dissolved"] <= 0.1


def test_the_readout_abstains_beyond_its_limit(bench, control_of):
    _, readout = bench
    control = control_of("obeys")
    strict = replace(readout, limit=dict.fromkeys(range(1, 9), -1.0))
    disagreement = np.zeros(4)
    assert strict.abstains(disagreement, 5).all()
    assert not replace(readout, limit={}).abstains(disagreement + 9, 5).any()
    assert 0 <= control.metrics["sequence_consistency"].more["abstained"] < 0.2
