"""The protocols name exactly what the evaluation calls, and other models and simulators can be measured by them."""

from types import SimpleNamespace

import numpy as np
import pytest

from genie_datasets.tabletop import Simulator as Tabletop
from genie_eval.interfaces import Judge, Simulator, WorldModel
from genie_eval.playback import rollout
from genie_eval.playback.starts import Start
from genie_robotics import Genie


def methods(kind: type) -> set[str]:
    """Public names of a class and its bases."""
    return {name for base in kind.__mro__ for name in vars(base) if not name.startswith("_")}


def test_genie_and_the_scripted_world_are_world_models(make_genie):
    assert isinstance(make_genie(), WorldModel)
    assert methods(WorldModel) <= methods(Genie) | {"config"}
    assert not isinstance(SimpleNamespace(config=None), Judge)


def test_the_scripted_world_has_nothing_but_the_protocol(make_genie):
    """So the tests that evaluate it prove that the protocol is enough."""
    assert methods(type(make_genie())) | {"config"} == methods(WorldModel)


def test_the_tabletop_is_a_simulator():
    assert methods(Simulator) <= methods(Tabletop)


class Point:
    """A simulator whose state is the position of a point."""

    def restore(self, state):
        self.position = np.array(state)

    def observe(self):
        return SimpleNamespace(position=self.position.copy(), gripper=0.0, frame=np.zeros((0, 0, 3), np.uint8))

    def step(self, action):
        self.position += action[:3]

    def futures(self, state, actions):
        return SimpleNamespace(frames=None, position=state + actions[..., :3].cumsum(axis=1))

    def close(self):
        pass


def test_playback_executes_in_any_simulator(monkeypatch):
    actions = np.random.default_rng(0).normal(size=(6, 7))
    states = np.concatenate([np.zeros((1, 3)), actions[:-1, :3].cumsum(axis=0)])
    recording = SimpleNamespace(states=states, actions=actions, simulator=lambda size: Point())
    monkeypatch.setattr(rollout, "open_recording", lambda split, episode: recording)
    episode, start = rollout.RecordedEpisode(None, 0), Start(0, 1, 4)
    assert isinstance(episode.simulator, Simulator)
    recorded = episode.recorded(start)
    assert rollout.drift(episode.execute(1, episode.actions(start)), recorded) == pytest.approx(np.zeros(5))
    still = rollout.drift(episode.execute(1, np.zeros((4, 7))), recorded)
    assert still == pytest.approx(100 * np.linalg.norm(states[1:6] - states[1], axis=1))
