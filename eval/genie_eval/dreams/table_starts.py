"""`object_permanence` and `long_command_bits`: long dreams of simulated tables, beside the simulator's own future.

The simulator executes the same codes from the recorded state of each start, each code as the mean robot action of the
other trajectories. An arm at its limit cannot obey, so that the bits of a dream stand beside those of the simulator.
Where its arm has been decides which objects count: one is untouched if the simulator never moved it, and is judged on
its pixels that the simulator's arm has never covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from tqdm import tqdm

from genie_datasets import fit_frames
from genie_datasets.base.errors import UserError
from genie_eval.collect import Evidence
from genie_eval.dreams.simulated import CodeActions
from genie_eval.dreams.starts import Starts
from genie_eval.dreams.windows import (
    LongRead,
    bits_json,
    channels,
    dream_long,
    headline,
    judge_bits,
    random_codes,
    read_long,
    window_before,
)
from genie_eval.interfaces import Judge, WorldModel
from genie_eval.metrics import Metric, judge, not_run, plain
from genie_eval.resampling import bootstrap_weights, interval
from genie_eval.simulation import object_positions, open_recording, visible_parts

if TYPE_CHECKING:
    from genie_datasets import Split

JUDGED_AT = 180  # steps at which the two metrics are read
TOUCHED = 0.005  # m; an object that the simulator moves further is touched
SAME_COLOR = 20.0  # CIE76 distance within which a pixel has kept its color
MIN_PIXELS = 6  # counted pixels of an object
MARGIN = 2  # pixels around what the arm has covered, which its shadow or a small difference of poses may change
SWEEP_EVERY = 2  # steps between looks at where the arm is
RING = 2  # pixels: width of the surroundings of an object


@dataclass(frozen=True)
class LongSimulation:
    """The simulator's own future of each of S starts, read as the dreams are.

    objects: number of the visible object at each pixel of the start, or -1. untouched[step][s]: objects that have not
    moved until this step. swept[step]: pixels that the arm has covered.
    """

    found: LongRead
    objects: Int[np.ndarray, "S H W"]
    untouched: dict[int, list[set[int]]]
    swept: dict[int, Bool[np.ndarray, "S H W"]]


@dataclass
class TableDreams:
    """Long dreams of simulated tables, and what was measured on them. A string says why there is no simulation."""

    starts: Starts
    dreamt: LongRead
    simulated: LongSimulation | str
    metrics: dict[str, Metric]
    details: dict[str, Any]


def measure_tables(
    world: WorldModel, reader: Judge | None, split: "Split", evidence: Evidence, starts: Starts,
    steps: tuple[int, ...], draws: int, seed: int, progress: bool,
) -> TableDreams:  # fmt: skip
    """Dreams and simulates the starts, and measures both metrics.

    reader: the independent judge; None: optical flow alone.
    """
    num_codes = world.config.num_actions
    codes = random_codes(num_codes, len(starts), steps, seed + 1)
    dreamt = dream_long(world, reader, starts.frames, codes, steps, seed, progress, "dreams: tables")
    try:
        simulated: LongSimulation | str = simulate_long(world, reader, split, evidence, starts, codes, steps, progress)
    except UserError as error:
        simulated = f"no simulator behind this source: {error}"
    weights = bootstrap_weights(len(starts), draws, seed)
    at = headline(steps, JUDGED_AT)
    by_step: dict[str, Any] = {}
    for step in steps:
        readings = channels(dreamt, step, codes, num_codes)
        by_step[str(step)] = {name: bits_json(reading, weights) for name, reading in readings.items()}
        if not isinstance(simulated, str):
            true = channels(simulated.found, step, codes, num_codes)
            by_step[str(step)]["simulator"] = {name: bits_json(reading, weights) for name, reading in true.items()}
        if step == at:
            name, reading = next(iter(readings.items()))
    oracle = None if isinstance(simulated, str) else by_step[str(at)]["simulator"][name]["value"]
    null, p = reading.chance(seed)
    bits = Metric(
        value=reading.bits, null=null, oracle=oracle, ci95=interval(reading.bits_drawn(weights)), p=p,
        n_trajectories=len(starts), more={"judge": reading.about, "steps": at, "by_step": by_step},
    )  # fmt: skip
    metrics = {"long_command_bits": judge_bits("long_command_bits", bits, num_codes)}
    metrics["object_permanence"] = permanence(starts, dreamt, simulated, at, draws, seed)
    details = {
        "n_tables": len(starts), "steps": list(steps), "headline_step": at,
        "read_windows": {str(step): [w.start + 1, w.stop] for step, w in dreamt.windows.items()},
        "simulator": simulated if isinstance(simulated, str) else "the same codes from the same states",
    }  # fmt: skip
    return TableDreams(starts, dreamt, simulated, metrics, plain(details))


def simulate_long(
    world: WorldModel, reader: Judge | None, split: "Split", evidence: Evidence, starts: Starts,
    codes: Int[np.ndarray, "S n"], steps: Sequence[int], progress: bool,
) -> LongSimulation:  # fmt: skip
    """Executes the codes in the simulator. Only the frames that are read are rendered.

    Raises:
        UserError: the source keeps no simulator state or no actions.
    """
    (height, width), mode = world.config.image_size, world.config.fit
    size = height, width
    windows = {step: window_before(step, world.config.num_actions) for step in steps}
    wanted = {t for w in windows.values() for t in range(w.start, w.stop + 1)} | set(steps)
    actions = CodeActions.read(split, evidence, world.config.num_actions)
    reads, objects = [], []
    untouched: dict[int, list[set[int]]] = {step: [] for step in steps}
    swept: dict[int, list[np.ndarray]] = {step: [] for step in steps}
    for s in tqdm(range(len(starts)), desc="simulated tables", unit="table", disable=not progress):
        number = int(starts.trajectory[s])
        trajectory = evidence.trajectories[number]
        recording = open_recording(split, trajectory.episode)
        simulator = recording.simulator(split.image_size)
        simulator.restore(recording.states[int(trajectory.ids[starts.step[s]])])
        repeat = int(trajectory.ids[1] - trajectory.ids[0])  # robot steps per step of the model
        mean = actions.mean(without=number)
        frames = np.zeros((codes.shape[1] + 1, *size, 3), np.uint8)
        frames[0] = starts.frames[s]
        parts, covered = visible_parts(simulator, split.image_size)
        places = object_positions(simulator)
        furthest = np.zeros(len(places))
        objects.append(fit_parts(parts, size, mode))
        for t, code in enumerate(codes[s], start=1):
            for _ in range(repeat):
                simulator.step(mean[code])
            furthest = np.maximum(furthest, np.linalg.norm(object_positions(simulator) - places, axis=1))
            if t % SWEEP_EVERY == 0 or t in untouched:
                covered |= visible_parts(simulator, split.image_size)[1]
            if t in wanted:
                frames[t] = fit_frames(simulator.observe().frame, size, mode)
            if t in untouched:
                untouched[t].append(set(np.flatnonzero(furthest <= TOUCHED)))
                swept[t].append(fit_mask(covered, size, mode))
        simulator.close()
        reads.append(read_long(frames[None], reader, steps, world.config.num_actions))
    return LongSimulation(
        LongRead.join(reads), np.stack(objects), untouched, {step: np.stack(rows) for step, rows in swept.items()}
    )


def fit_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int], mode: str) -> Bool[np.ndarray, "H W"]:
    """The mask at the model's size; a pixel is True if any part of it was."""
    return fit_frames(np.repeat(mask[..., None], 3, axis=-1).astype(np.uint8) * 255, size, mode)[..., 0] > 0


def fit_parts(parts: Int[np.ndarray, "h w"], size: tuple[int, int], mode: str) -> Int[np.ndarray, "H W"]:
    """The object that covers most of a pixel of the model's size, or -1."""
    fitted = np.full(size, -1)
    for number in range(parts.max() + 1):
        layer = np.repeat((parts == number)[..., None], 3, axis=-1).astype(np.uint8) * 255
        fitted[fit_frames(layer, size, mode)[..., 0] > 127] = number
    return fitted


def permanence(
    starts: Starts, dreamt: LongRead, simulated: LongSimulation | str, at: int, draws: int, seed: int
) -> Metric:
    """object_permanence, with its null and oracle on the same objects."""
    if isinstance(simulated, str):
        return not_run(simulated)
    weights = bootstrap_weights(len(starts), draws, seed)
    by_step: dict[str, Any] = {}
    for n, step in enumerate(dreamt.steps, start=1):
        frames = {"value": dreamt.frames[:, n], "oracle": simulated.found.frames[:, n]}
        kept = {name: kept_objects(starts.frames, shown, simulated, step) for name, shown in frames.items()}
        kept["null"] = kept_objects(starts.frames, None, simulated, step)
        counts = kept["value"][1]
        if not counts.sum():
            by_step[str(step)] = {"n_objects": 0}
            continue
        share = {name: float(held.sum() / counts.sum()) for name, (held, _) in kept.items()}
        with np.errstate(invalid="ignore"):
            drawn = weights @ kept["value"][0] / (weights @ counts)
        by_step[str(step)] = {**share, "ci95": interval(drawn), "n_objects": int(counts.sum())}
    found = by_step[str(at)]
    if not found["n_objects"]:
        return not_run(f"no object stays out of the arm's way for {at} steps; measure more tables")
    metric = Metric(
        value=found["value"], null=found["null"], oracle=found["oracle"], ci95=found["ci95"],
        n_trajectories=len(starts), more={"steps": at, "n_objects": found["n_objects"], "by_step": by_step},
    )  # fmt: skip
    return judge("object_permanence", metric)


def kept_objects(
    before: UInt8[np.ndarray, "S H W 3"], after: UInt8[np.ndarray, "S H W 3"] | None, simulated: LongSimulation,
    step: int,
) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " S"]]:  # fmt: skip
    """Numbers of untouched objects at each start: those that kept their color, and all that count.

    after: frames after the dream; None: every object has vanished, and shows the color around it. An object has kept
    its color if most of its counted pixels have.
    """
    kept, counted = np.zeros(len(before)), np.zeros(len(before))
    for s, objects in enumerate(simulated.objects):
        covered = cv2.dilate(simulated.swept[step][s].astype(np.uint8), square(MARGIN)) > 0
        for number in sorted(simulated.untouched[step][s]):
            whole = objects == number
            pixels = whole & ~covered
            if pixels.sum() < MIN_PIXELS:
                continue
            true = before[s][pixels]
            if after is None:
                ring = (cv2.dilate(whole.astype(np.uint8), square(RING)) > 0) & ~whole & (objects < 0)
                now = np.broadcast_to(np.median(before[s][ring], axis=0).astype(np.uint8), true.shape)
            else:
                now = after[s][pixels]
            counted[s] += 1
            kept[s] += np.median(color_distance(true, now)) <= SAME_COLOR
    return kept, counted


def color_distance(a: UInt8[np.ndarray, "n 3"], b: UInt8[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """CIE76 distance of colors, in CIE Lab."""
    lab = [cv2.cvtColor(colors.astype(np.float32)[None] / 255, cv2.COLOR_RGB2LAB)[0] for colors in (a, b)]
    return np.linalg.norm(lab[0] - lab[1], axis=-1)


def square(reach: int) -> UInt8[np.ndarray, "k k"]:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
