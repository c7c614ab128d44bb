"""What would really have happened: futures of the MuJoCo tabletop from the same starts, one for each latent action.

A code stands for the mean of the robot actions that were really taken where the latent action model saw that code, in
all trajectories but the start's own. Sampled futures take one of those actions at random at every step instead: what a
perfect world model that is told the code, and nothing more, could show.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_datasets.base.errors import UserError
from genie_eval.collect import Evidence
from genie_eval.dreams.starts import Starts

if TYPE_CHECKING:
    from genie_datasets import Split

ACTION_DIM = 7


@dataclass(frozen=True)
class Simulated:
    """Futures of every code from every start (`frames`, fitted to the model's size; `moved` in metres since the start)
    and, from the first P starts, of actions sampled from the code."""

    frames: UInt8[np.ndarray, "S K n H W 3"]
    moved: Float[np.ndarray, "S K n 3"]
    sampled_frames: UInt8[np.ndarray, "P K n H W 3"]
    sampled_moved: Float[np.ndarray, "P K n 3"]
    actions: Float[np.ndarray, "K 7"]


def simulate(
    genie: Any, split: "Split", evidence: Evidence, starts: Starts, steps: int, sampled_starts: int, seed: int,
    progress: bool,
) -> Simulated:  # fmt: skip
    """Raises UserError where the source keeps no simulator state or no actions."""
    from genie_datasets import fit_frames
    from genie_datasets.tabletop.recorded import read_recording
    from genie_datasets.tabletop.render import use_opengl

    first = evidence.trajectories[starts.trajectory[0]]
    read_recording(split, first.episode)  # fails here, before anything is spent
    pool = ActionPool.read(split, evidence, genie.config.num_actions)
    use_opengl()
    rng = np.random.default_rng(seed + 3)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("frames", "moved", "sampled_frames", "sampled_moved")}
    for s in tqdm(range(len(starts)), desc="simulated futures", unit="start", disable=not progress):
        trajectory = evidence.trajectories[starts.trajectory[s]]
        recording = read_recording(split, trajectory.episode)
        simulator = recording.simulator(split.image_size)
        moment = int(trajectory.ids[starts.at[s]])
        repeat = int(trajectory.ids[1] - trajectory.ids[0])  # robot steps in one step of the model
        mean = pool.mean(int(starts.trajectory[s]))
        plans = {"": np.repeat(mean[:, None], steps * repeat, axis=1)}
        if s < sampled_starts:
            drawn = pool.draw(int(starts.trajectory[s]), steps, rng)
            plans["sampled_"] = np.repeat(drawn, repeat, axis=1)
        begin = _position(simulator, recording.states[moment])
        for prefix, plan in plans.items():
            futures = simulator.futures(recording.states[moment], plan)
            seen = slice(repeat - 1, None, repeat)
            frames = fit_frames(futures.frames[:, seen], tuple(genie.config.image_size), genie.config.fit)
            rows[f"{prefix}frames"].append(frames)
            rows[f"{prefix}moved"].append(futures.position[:, seen] - begin)
        simulator.close()
    shape = (0, *rows["frames"][0].shape)
    stacked = {
        name: np.stack(values) if values else np.zeros(shape if "frames" in name else (0, *rows["moved"][0].shape))
        for name, values in rows.items()
    }
    return Simulated(**stacked, actions=pool.mean(None))


def simulate_or_why(
    genie: Any,
    evaluated: "Split",
    evidence: Evidence,
    starts: Starts,
    steps: int,
    sampled_starts: int,
    seed: int,
    progress: bool,
) -> Simulated | str:
    try:
        return simulate(genie, evaluated, evidence, starts, steps, sampled_starts, seed, progress)
    except UserError as error:
        return f"no simulator behind this source: {error}"


def _position(simulator: Any, state: np.ndarray) -> np.ndarray:
    simulator.restore(state)
    return simulator.observe().position


@dataclass(frozen=True)
class ActionPool:
    """The robot actions that were taken under each code. rows[k]: (n, 7); owner[k]: (n,) of which trajectory."""

    rows: list[Float[np.ndarray, "n 7"]]
    owner: list[Int[np.ndarray, " n"]]

    @classmethod
    def read(cls, split: "Split", evidence: Evidence, num_codes: int) -> "ActionPool":
        from genie_datasets.clips.labels import read_actions

        actions = []
        for trajectory in evidence.trajectories:
            taken = read_actions(split, trajectory.episode)
            if taken is None or taken.shape[1] != ACTION_DIM:
                raise UserError(f"{split.episode_name(trajectory.episode)} keeps no 7-dimensional robot actions")
            actions.append(taken[trajectory.ids[:-1]])
        flat, owner = np.concatenate(actions), evidence.table.trajectory
        chosen = [evidence.codes == k for k in range(num_codes)]
        return cls([flat[c] for c in chosen], [owner[c] for c in chosen])

    def mean(self, without: int | None) -> Float[np.ndarray, "K 7"]:
        """Mean displacement and turn, most frequent gripper command; zeros for a code that never occurs."""
        from genie_robotics.labeling.action_map import summarise

        kept = [rows[owner != without] for rows, owner in zip(self.rows, self.owner, strict=True)]
        return np.stack([summarise(rows) for rows in kept])

    def draw(self, without: int, steps: int, rng: np.random.Generator) -> Float[np.ndarray, "K n 7"]:
        plans = []
        for rows, owner in zip(self.rows, self.owner, strict=True):
            kept = rows[owner != without]
            some = kept[rng.integers(len(kept), size=steps)] if len(kept) else np.zeros((steps, ACTION_DIM))
            plans.append(some)
        return np.stack(plans)
