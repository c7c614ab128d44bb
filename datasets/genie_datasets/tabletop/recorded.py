"""Restore recorded episodes: the scene and the simulator states that the records of a data set hold."""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import read_actions
from genie_datasets.sources.rlds.example import bytes_spans, feature_spans, ints
from genie_datasets.sources.split import Split
from genie_datasets.tabletop.mjcf import TEXTURES
from genie_datasets.tabletop.scene import SceneConfig
from genie_datasets.tabletop.simulator import Simulator

STATE = "steps/truth/state"


@dataclass(frozen=True)
class Recording:
    """The scene and the states of an episode of L frames. `states[t]` belongs to frame t."""

    scene: SceneConfig
    mjcf: str
    textures: dict[str, bytes]
    states: Float[np.ndarray, "L S"]
    actions: Float[np.ndarray, "L 7"]  # row t leads from frame t to frame t+1; the last is zero
    seed: int

    def simulator(self, size: tuple[int, int] | None = (64, 64)) -> Simulator:
        """A simulator of the recorded MJCF at the first frame; `restore(states[t])` goes to frame t."""
        sim = Simulator(self.scene, size, (self.mjcf, self.textures))
        sim.restore(self.states[0])
        return sim


def read_recording(split: Split, episode: int) -> Recording:
    """Read the recording of an episode of a tabletop data set. Raises UserError if there is none."""
    if not 0 <= episode < split.num_episodes:
        raise UserError(f"split '{split.name}' has episodes 0 to {split.num_episodes - 1}, got {episode}")
    buffer = split.record(episode)
    spans = {} if buffer is None else feature_spans(buffer, 0, len(buffer))
    if buffer is None or STATE not in spans:
        raise UserError(
            f"{split.episode_name(episode)} keeps no simulator state; pass a data set made with `data tabletop`"
            " (not a frame cache or a mixture of it, and without --reader rlds)"
        )

    def values(key: str) -> list[bytes]:
        return [bytes(buffer[start:end]) for start, end in bytes_spans(buffer, spans[key])]

    try:
        scene = SceneConfig.from_json(values("episode_metadata/scene_config")[0].decode())
        states = np.stack([np.frombuffer(zlib.decompress(state), "<f8") for state in values(STATE)])
        actions = read_actions(split, episode)
        assert actions is not None
        return Recording(
            scene=scene,
            mjcf=values("episode_metadata/mjcf")[0].decode(),
            textures={name: values(f"episode_metadata/texture_{name.removesuffix('.png')}")[0] for name in TEXTURES},
            states=states,
            actions=actions,
            seed=int(ints(buffer, spans["episode_metadata/seed"])[0]),
        )
    except (KeyError, ValueError, TypeError, IndexError, zlib.error) as error:
        raise UserError(
            f"cannot read the simulator state of {split.episode_name(episode)} ({error}); simulate the data set again"
        ) from None
