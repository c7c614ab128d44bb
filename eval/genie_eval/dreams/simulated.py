"""True futures of each latent action: the simulator executes it from the start frames of the commanded dreams.

A code is executed as the mean of the robot actions taken where the latent action model inferred that code, in all
trajectories except the start's own. Sampled futures execute one of those actions at random at every step instead: the
best that a world model could show which is told the code and nothing more.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_datasets.base.errors import UserError
from genie_eval.collect import Evidence, to_numpy
from genie_eval.dreams.starts import Starts
from genie_eval.interfaces import WorldModel
from genie_eval.simulation import open_recording
from genie_robotics.labeling.action_map import ACTION_DIM, summarize_actions

if TYPE_CHECKING:
    from genie_datasets import Split


@dataclass(frozen=True)
class SimulatedFutures:
    """Futures of each of K codes from each of S starts, n steps; sampled futures of the first P starts.

    Frames are fitted to the model's size; moved: end effector, meters since the start, base frame.
    """

    frames: UInt8[np.ndarray, "S K n H W 3"]
    moved: Float[np.ndarray, "S K n 3"]
    sampled_frames: UInt8[np.ndarray, "P K n H W 3"]

    def reconstructed(self, world: WorldModel, starts: Starts) -> "SimulatedFutures":
        """These futures as the model's tokenizer shows them, each read after its start frame."""

        def reconstruct(frames: UInt8[np.ndarray, "R K n H W 3"]) -> UInt8[np.ndarray, "R K n H W 3"]:
            rows = []
            for s in range(len(frames)):
                start = np.broadcast_to(starts.frames[s], (frames.shape[1], 1, *starts.frames.shape[1:]))
                clips = np.concatenate([start, frames[s]], axis=1)
                rows.append(to_numpy(world.reconstruct(clips))[:, 1:])
            return np.stack(rows) if rows else frames

        return replace(self, frames=reconstruct(self.frames), sampled_frames=reconstruct(self.sampled_frames))


def simulate_futures(
    world: WorldModel, split: "Split", evidence: Evidence, starts: Starts, steps: int, sampled_starts: int, seed: int,
    progress: bool,
) -> SimulatedFutures:  # fmt: skip
    """Executes every code for `steps` steps of the model from every start.

    Raises:
        UserError: the source keeps no simulator state or no actions.
    """
    from genie_datasets import fit_frames

    open_recording(split, evidence.trajectories[starts.trajectory[0]].episode)  # fails before time is spent
    actions = CodeActions.read(split, evidence, world.config.num_actions)
    rng, size = np.random.default_rng(seed + 3), tuple(world.config.image_size)
    found: dict[str, list[np.ndarray]] = {"frames": [], "moved": [], "sampled_frames": []}
    for s in tqdm(range(len(starts)), desc="simulated futures", unit="start", disable=not progress):
        number = int(starts.trajectory[s])
        trajectory = evidence.trajectories[number]
        recording = open_recording(split, trajectory.episode)
        simulator = recording.simulator(split.image_size)
        state = recording.states[int(trajectory.ids[starts.step[s]])]
        repeat = int(trajectory.ids[1] - trajectory.ids[0])  # robot steps per step of the model
        executed = slice(repeat - 1, None, repeat)
        mean = actions.mean(without=number)
        sampled = actions.draw(number, steps, rng) if s < sampled_starts else None
        simulator.restore(state)
        start = simulator.observe().position
        futures = simulator.futures(state, np.repeat(mean[:, None], steps * repeat, axis=1))
        found["frames"].append(fit_frames(futures.frames[:, executed], size, world.config.fit))
        found["moved"].append(futures.position[:, executed] - start)
        if sampled is not None:
            futures = simulator.futures(state, np.repeat(sampled, repeat, axis=1))
            found["sampled_frames"].append(fit_frames(futures.frames[:, executed], size, world.config.fit))
        simulator.close()
    none = np.zeros((0, *found["frames"][0].shape))
    return SimulatedFutures(**{name: np.stack(rows) if rows else none for name, rows in found.items()})


@dataclass(frozen=True)
class CodeActions:
    """Robot actions of M transitions, with the codes and the trajectories of these."""

    actions: Float[np.ndarray, "M 7"]
    codes: Int[np.ndarray, " M"]
    trajectory: Int[np.ndarray, " M"]
    num_codes: int

    @classmethod
    def read(cls, split: "Split", evidence: Evidence, num_codes: int) -> "CodeActions":
        """Reads the actions of all evaluated trajectories.

        Raises:
            UserError: an episode keeps no 7-dimensional actions.
        """
        from genie_datasets.clips.labels import read_actions

        taken = []
        for trajectory in evidence.trajectories:
            actions = read_actions(split, trajectory.episode)
            if actions is None or actions.shape[1] != ACTION_DIM:
                raise UserError(f"{split.episode_name(trajectory.episode)} keeps no {ACTION_DIM}-dimensional actions")
            taken.append(actions[trajectory.ids[:-1]])
        return cls(np.concatenate(taken), evidence.codes, evidence.table.trajectory, num_codes)

    def of(self, code: int, without: int | None) -> Float[np.ndarray, "n 7"]:
        """The actions of one code, without one trajectory."""
        return self.actions[(self.codes == code) & (self.trajectory != without)]

    def mean(self, without: int | None) -> Float[np.ndarray, "K 7"]:
        """Mean action of each code (`summarize_actions`)."""
        return np.stack([summarize_actions(self.of(k, without)) for k in range(self.num_codes)])

    def draw(self, without: int, steps: int, rng: np.random.Generator) -> Float[np.ndarray, "K n 7"]:
        """Random actions of each code; zeros for a code that never occurs."""
        drawn = np.zeros((self.num_codes, steps, ACTION_DIM))
        for k in range(self.num_codes):
            rows = self.of(k, without)
            if len(rows):
                drawn[k] = rows[rng.integers(len(rows), size=steps)]
        return drawn
