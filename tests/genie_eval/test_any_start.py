"""Any start: worlds that are perfect, frozen, forgetful or dissolving get the values that they must get."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from genie_datasets import open_source
from genie_datasets.clips.labels import read_actions
from genie_eval.codes.baselines import Features
from genie_eval.codes.transitions import Transitions
from genie_eval.collect import Evidence, choose_trajectories
from genie_eval.dreams.any_start import AnyStartConfig, measure_any_start
from genie_eval.dreams.picture_starts import CAP, dream_pictures, measure_pictures
from genie_eval.dreams.starts import Starts
from genie_eval.dreams.table_starts import LongSimulation, kept_objects, measure_tables, permanence
from genie_eval.dreams.windows import LongRead, dream_long, flow_codes, random_codes, window_before
from genie_eval.report.start_charts import along_the_dream, start_sheet
from genie_eval.report.write import schema
from genie_eval.start_pictures.picture import StartPicture

SIDE, ARM = 48, 8
MOVES = np.array([(0, 0), (0, 2), (0, -2), (2, 0), (-2, 0)])  # rows, columns
STEPS = (5, 20, 40)
COLOR = np.array([250, 10, 250], np.uint8)  # of the arm: no other pixel has it


@dataclass(frozen=True)
class Config:
    num_actions: int = len(MOVES)
    image_size: tuple[int, int] = (SIDE, SIDE)
    clip_length: int = 16
    gap: float | None = None
    fit: str = "crop"
    world: str = "perfect"


def corner_of(frame):
    found = np.argwhere((frame == COLOR).all(axis=-1))
    return found.min(axis=0) if len(found) else np.zeros(2, int)


class World:
    """A square arm on any background, which `config.world` treats in its way."""

    def __init__(self, world="perfect", **changes):
        self.config = Config(world=world, **changes)

    def reconstruct(self, frames):
        return frames

    def infer_actions(self, frames):
        """The judge: which way the arm goes, whatever is behind it; the borders stop it."""
        corners = np.array([[corner_of(frame) for frame in clip] for clip in frames])
        distance = ((np.diff(corners, axis=1)[:, :, None] - MOVES) ** 2).sum(axis=-1)
        return distance.argmin(axis=-1)

    def generate(self, frames, codes, seed=0):
        return np.stack([self.dream(clip[-1], row) for clip, row in zip(frames, codes, strict=True)])

    def dream(self, start, codes):
        background, corner, frames = start.copy(), corner_of(start), []
        background[tuple(slice(c, c + ARM) for c in corner)] = start[0, 0]
        if self.config.world == "own table":
            background[:] = (90, 120, 60)
        for t, code in enumerate(codes, start=1):
            if self.config.world == "frozen":
                frames.append(start)
                continue
            corner = np.clip(corner + MOVES[code], 0, SIDE - ARM)
            frame = background.copy()
            if self.config.world == "dissolves":
                fade = min(1, t / STEPS[-1])
                frame = np.rint((1 - fade) * frame + fade * 128).astype(np.uint8)
            frame[tuple(slice(c, c + ARM) for c in corner)] = COLOR
            frames.append(frame)
        return np.stack(frames)


@pytest.fixture(scope="module")
def pictures():
    """Noise in coarse squares, an arm in the middle, and a border that it does not reach."""
    rng = np.random.default_rng(0)
    made = []
    for n in range(18):
        picture = np.repeat(np.repeat(rng.integers(0, 200, (12, 12, 3)), 4, axis=0), 4, axis=1).astype(np.uint8)
        picture[20 : 20 + ARM, 20 : 20 + ARM] = COLOR
        reach = np.ones((SIDE, SIDE), bool)
        reach[:, :3] = reach[:3] = False
        made.append(StartPicture(f"picture {n}", "even" if n % 2 else "odd", picture, True, reach))
    return made


def measured(world, pictures, judge="perfect"):
    reader = None if judge is None else World(judge)
    dreams = dream_pictures(World(world), reader, pictures, STEPS, 0, progress=False)
    metrics, details = measure_pictures(World(world), dreams, 200, 0)
    return metrics, details, dreams


def test_a_perfect_world_keeps_the_picture_and_obeys(pictures):
    metrics, details, _ = measured("perfect", [*pictures, dataclasses.replace(pictures[0], has_arm=False)])
    assert metrics["start_psnr"].value == pytest.approx(CAP)
    kept = metrics["scene_retention"]
    assert [row["value"] for row in kept.more["by_step"].values()] == pytest.approx([CAP] * len(STEPS), abs=1)
    bits = metrics["start_command_bits"]
    assert bits.n_trajectories == 18  # the picture without an arm is not judged
    assert bits.value > 0.9 * np.log2(len(MOVES))
    assert bits.null < 0.2
    assert [metric.verdict for metric in metrics.values()] == ["pass"] * 3
    assert details["n_pictures"] == 19
    assert {row["kind"]: row["n"] for row in details["kinds"]} == {"odd": 10, "even": 9}


def test_a_frozen_world_keeps_every_pixel_and_fails(pictures):
    metrics, _, _ = measured("frozen", pictures)
    kept, bits = metrics["scene_retention"], metrics["start_command_bits"]
    assert kept.value == pytest.approx(CAP)
    for row in bits.more["by_step"].values():
        assert row["independent"]["value"] == row["flow"]["value"] == 0  # exactly: all codes are sent equally often
    assert bits.more["repeated_start"] == 0
    assert kept.verdict == bits.verdict == "fail"
    assert "a frozen picture keeps every pixel" in kept.reason


def test_a_world_that_obeys_in_its_own_picture_fails(pictures):
    metrics, _, _ = measured("own table", pictures)
    assert metrics["start_psnr"].value == pytest.approx(CAP)  # step 0 is right, and then it is lost
    assert metrics["start_command_bits"].value > 2
    assert metrics["scene_retention"].value < 20
    assert metrics["start_command_bits"].verdict == metrics["scene_retention"].verdict == "fail"
    assert "another one may be what obeys" in metrics["start_command_bits"].reason


def test_a_world_that_dissolves_keeps_less_and_less(pictures):
    by_step = measured("dissolves", pictures)[0]["scene_retention"].more["by_step"]
    values = [row["value"] for row in by_step.values()]
    assert values[0] > values[1] + 5 > values[2] + 10
    for row in by_step.values():
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]


def test_without_a_judge_optical_flow_reads_the_command(pictures):
    bits = measured("perfect", pictures, judge=None)[0]["start_command_bits"]
    assert "optical flow" in bits.more["judge"]
    assert bits.value > 1
    assert "repeated_start" not in bits.more
    assert measured("frozen", pictures, judge=None)[0]["start_command_bits"].value == 0


def test_pictures_without_mask_or_arm_are_not_judged(pictures):
    unknown = [dataclasses.replace(picture, reach=None) for picture in pictures]
    metrics, details, _ = measured("perfect", unknown)
    assert metrics["scene_retention"].verdict == "not run"
    assert "starts.json" in metrics["scene_retention"].reason
    assert metrics["start_command_bits"].verdict == "warn"  # it counts only beside retention
    assert details["kinds"][0]["retention"] == [None] * len(STEPS)
    still = [dataclasses.replace(picture, has_arm=False) for picture in pictures]
    metrics, _, _ = measured("perfect", still)
    assert metrics["start_command_bits"].verdict == "not run"
    assert metrics["scene_retention"].verdict == "warn"


def test_a_judge_with_other_names_and_more_codes_reads_the_same(pictures):
    class Renamed(World):
        def infer_actions(self, frames):
            return 11 - 2 * super().infer_actions(frames)

    reader = Renamed()
    dreams = dream_pictures(World(), reader, pictures, STEPS, 0, progress=False)
    bits = measure_pictures(World(), dreams, 100, 0)[0]["start_command_bits"]
    assert bits.value == pytest.approx(measured("perfect", pictures)[0]["start_command_bits"].value)


def test_a_world_is_asked_for_step_0_by_start_if_it_can(pictures):
    class Started(World):
        def start(self, frames, seed=0):
            return type("Playing", (), {"frame": frames[:, 0] // 2})

    dreams = dream_pictures(Started(), None, pictures[:2], STEPS, 0, progress=False)
    assert (dreams.found.frames[:, 0] == dreams.starts.frames // 2).all()


def test_dreams_in_parts_are_those_at_once(pictures, monkeypatch):
    frames = np.stack([picture.picture for picture in pictures])
    codes = random_codes(5, len(frames), STEPS, 0)
    whole = dream_long(World(), World(), frames, codes, STEPS, 0)
    monkeypatch.setattr("genie_eval.dreams.windows.MEMORY", 7 * codes.shape[1] * frames[0].size)
    parts = dream_long(World(), World(), frames, codes, STEPS, 0)
    assert (whole.frames == parts.frames).all()
    for step in STEPS:
        assert (whole.judged[step] == parts.judged[step]).all()
        assert (whole.flow[step] == parts.flow[step]).all()


# -------------------------------------------------------------------------------------------------------------- windows
@pytest.mark.parametrize("num_codes", [2, 5, 8, 64])
def test_every_code_is_sent_equally_often_in_every_window(num_codes):
    steps = (16, 64, 180, 500)
    codes = random_codes(num_codes, 6, steps, 0)
    assert codes.shape == (6, 500)
    for step in steps:
        window = window_before(step, num_codes)
        assert 0 <= window.start < window.stop <= step
        if step >= num_codes:
            counts = [np.bincount(row, minlength=num_codes) for row in codes[:, window]]
            assert np.ptp(counts) == 0
    assert (random_codes(num_codes, 6, steps, 0) == codes).all()
    assert (random_codes(num_codes, 6, steps, 1) != codes).any()


def test_flow_without_motion_is_one_code():
    assert (flow_codes(np.zeros((3, 8, 2)), 4) == 0).all()


# --------------------------------------------------------------------------------------------------------------- tables
def planted_objects():
    """Two tables of one color with three objects each; the arm has covered the third."""
    before = np.full((2, SIDE, SIDE, 3), (180, 170, 160), np.uint8)
    objects = np.full((2, SIDE, SIDE), -1)
    for n, color in enumerate([(200, 20, 20), (30, 60, 200), (240, 200, 20)]):
        objects[:, 4:12, 4 + 14 * n : 12 + 14 * n] = n
        before[objects == n] = color
    swept = np.zeros((2, SIDE, SIDE), bool)
    swept[:, :, 32:] = True
    found = LongRead((9,), np.stack([before, before], axis=1), {}, {}, {})
    return before, LongSimulation(found, objects, {9: [{0, 1, 2}, {0}]}, {9: swept})


def test_objects_that_keep_their_color_are_counted():
    before, simulated = planted_objects()
    kept, counted = kept_objects(before, before, simulated, 9)
    assert counted.tolist() == [2, 1]  # not the covered one, and not those that were moved
    assert kept.tolist() == [2, 1]
    after = before.copy()
    after[0][simulated.objects[0] == 1] = (180, 170, 160)  # vanished
    after[1] = np.clip(after[1].astype(int) - 12, 0, 255)  # a little darker
    assert kept_objects(before, after, simulated, 9)[0].tolist() == [1, 1]
    assert kept_objects(before, None, simulated, 9)[0].tolist() == [0, 0]


def test_object_permanence_has_its_null_and_oracle():
    before, simulated = planted_objects()
    starts = Starts(np.arange(2), np.zeros(2, int), before, before)
    gray = np.full_like(before, 128)
    dreamt = LongRead((9,), np.stack([before, gray], axis=1), {}, {}, {})
    metric = permanence(starts, dreamt, simulated, 9, 100, 0)
    assert (metric.value, metric.null, metric.oracle) == (0, 0, 1)
    assert metric.more["n_objects"] == 3
    perfect = permanence(starts, simulated.found, simulated, 9, 100, 0)
    assert (perfect.value, perfect.verdict) == (1, "pass")
    nothing = dataclasses.replace(simulated, untouched={9: [set(), set()]})
    assert "no object stays out of the arm's way" in permanence(starts, dreamt, nothing, 9, 100, 0).reason
    assert permanence(starts, dreamt, "no simulator", 9, 100, 0).verdict == "not run"


class Tabletop(World):
    """A world that repeats the start, for frames of the simulator; its judge reads the change of the mean color."""

    def __init__(self):
        super().__init__("frozen", num_actions=4, image_size=(64, 64))

    def infer_actions(self, frames):
        return (np.abs(np.diff(frames.astype(int), axis=1)).sum(axis=(2, 3, 4)) % 4).astype(int)


@pytest.fixture(scope="module")
def tables(tabletop_rlds):
    """The test split, and codes that are the direction of the commanded motion in the plane of the table."""
    split = open_source(str(tabletop_rlds)).split("test")
    trajectories, _ = choose_trajectories(split, None, None, 0)
    codes, owner = [], []
    for i, trajectory in enumerate(trajectories):
        x, y = read_actions(split, trajectory.episode)[trajectory.ids[:-1], :2].T
        codes.append(np.where(np.abs(x) > np.abs(y), np.where(x > 0, 0, 1), np.where(y > 0, 2, 3)))
        owner.append(np.full(len(codes[-1]), i))
    table = Transitions(np.concatenate(owner), np.concatenate([np.arange(len(c)) for c in codes]))
    return split, Evidence(trajectories, table, np.concatenate(codes), Features(), 0)


def test_long_dreams_stand_beside_the_simulator(tables, pictures, no_figures):
    split, evidence = tables
    world = Tabletop()
    config = AnyStartConfig(pictures=0, tables=3, table_steps=(4, 12))
    found = measure_any_start(world, world, config, split=split, evidence=evidence, draws=50, progress=False)
    assert list(found.metrics) == ["long_command_bits", "object_permanence", "trust_auroc"]
    bits, objects = found.metrics["long_command_bits"], found.metrics["object_permanence"]
    assert bits.value == 0  # the world is frozen, the simulator is not
    assert bits.more["by_step"]["12"]["simulator"]["flow"]["value"] > 0.5
    assert objects.value == 1  # and it keeps every object
    assert objects.oracle == 1
    assert objects.null < 0.7
    simulated = found.tables.simulated
    assert (simulated.found.frames[:, 0] == found.tables.starts.frames).all()
    assert (simulated.objects.max(axis=(1, 2)) >= 1).sum() >= 2  # in one table the arm hides them all
    assert all(simulated.swept[12][s].sum() >= simulated.swept[4][s].sum() > 20 for s in range(3))


def test_without_a_simulator_only_the_bits_of_the_dream_are_read(make_genie, make_video):
    genie, split = make_genie(), make_video().split("test")
    trajectories, _ = choose_trajectories(split, None, None, 0)
    frames = np.stack([split.frames(t.episode, t.ids[:1])[0] for t in trajectories[:6]])
    evidence = Evidence(trajectories, Transitions(np.zeros(1, int), np.zeros(1, int)), np.zeros(1, int), Features(), 0)
    starts = Starts(np.arange(6), np.zeros(6, int), frames, frames)
    found = measure_tables(genie, genie, split, evidence, starts, (10,), 50, 0, progress=False)
    assert found.metrics["long_command_bits"].value > 1
    assert found.metrics["long_command_bits"].oracle is None
    assert "no simulator behind this source" in found.metrics["object_permanence"].reason


# --------------------------------------------------------------------------------------------------------------- report
def test_figures_and_schema_take_what_is_measured(pictures, tmp_path):
    import jsonschema

    metrics, details, dreams = measured("perfect", pictures)
    stated = {name: metric.as_json() for name, metric in metrics.items()}
    assert "Better:" in start_sheet(tmp_path / "sheet.png", dreams)
    assert "Higher is better" in along_the_dream(tmp_path / "along.png", stated)
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("sheet.png", "along.png"))
    content = schema()
    rules = {**content["properties"]["metrics"], "required": [], "$defs": content["$defs"]}
    jsonschema.validate(json.loads(json.dumps(stated, allow_nan=False)), rules)
    json.dumps(details, allow_nan=False)


def test_sheets_for_the_guide_are_small_files(tmp_path):
    from tools.any_start_sheets import MAX_BYTES, save, sheet

    frames = np.random.default_rng(0).integers(0, 255, (8, 7, 64, 64, 3)).astype(np.uint8)
    save(sheet(frames), tmp_path / "sheet.jpg")
    assert 0 < Path(tmp_path / "sheet.jpg").stat().st_size <= MAX_BYTES
