"""A small model on a CPU computes with one thread, unless the user chose a number."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from genie_robotics.labeling.commands import label_episodes
from genie_robotics.models import threads
from genie_robotics.models.threads import default_threads, threads_for
from genie_robotics.player.limits import Limits
from genie_robotics.player.session import PlaySession
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config


@pytest.fixture
def two_threads(monkeypatch):
    """A process on two cores in which the user chose no number of threads."""
    for name in threads.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "default_threads", lambda: frozenset({2}))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def seen(monkeypatch):
    """Numbers of threads with which models computed."""
    found = []
    real = torch.nn.functional.linear

    def linear(*args, **kwargs):
        found.append(torch.get_num_threads())
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    return found


def uses(genie):
    frames = np.zeros((2, 8, 16, 16, 3), np.uint8)
    world = genie.start(frames[0, 0])
    tokens = torch.zeros(1, 2, 16, dtype=torch.long)
    return {
        "infer_actions": lambda: genie.infer_actions(frames),
        "embed_actions": lambda: genie.embed_actions(frames),
        "tokenize": lambda: genie.tokenize(frames),
        "detokenize": lambda: genie.detokenize(tokens),
        "generate": lambda: genie.generate(frames[:, :1], [[1], [2]]),
        "start": lambda: genie.start(frames[0]),
        "step": lambda: world.step(1),
        "preview": lambda: world.preview([0, 1]),
    }


def test_every_use_of_a_small_model_computes_with_one_thread(two_threads, seen):
    for name, use in uses(random_genie(tiny_config())).items():
        seen.clear()
        use()
        assert set(seen) == {1}, name
        assert torch.get_num_threads() == 2, f"after {name} the number is restored"


def test_the_number_comes_back_after_an_error(two_threads):
    def fails():
        with threads_for(torch.nn.Linear(1, 1)):
            raise KeyError(torch.get_num_threads())

    with pytest.raises(KeyError, match="1"):
        fails()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", threads.CHOSEN)
def test_the_environment_is_the_users_choice(two_threads, monkeypatch, seen, name):
    monkeypatch.setenv(name, "2")
    for use in uses(random_genie(tiny_config())).values():
        use()
    assert set(seen) == {2}


def test_set_num_threads_is_the_users_choice(two_threads, seen):
    torch.set_num_threads(3)
    for use in uses(random_genie(tiny_config())).values():
        use()
    assert set(seen) == {3}


def test_a_large_model_keeps_all_threads(two_threads, monkeypatch, seen):
    genie = random_genie(tiny_config())
    parameters = genie.num_parameters()
    monkeypatch.setattr(threads, "SMALL", parameters["tokenizer"] + parameters["dynamics"])  # those of a World
    for use in uses(genie).values():
        use()
    assert set(seen) == {2}


def test_a_model_on_another_device_keeps_all_threads(two_threads):
    with threads_for(torch.nn.Linear(1, 1, device="meta")):
        assert torch.get_num_threads() == 2
    with threads_for(object()):  # a world of a script
        assert torch.get_num_threads() == 1


def test_torch_starts_with_one_of_the_default_numbers():
    environment = {k: v for k, v in os.environ.items() if k not in threads.CHOSEN}
    code = (
        "import torch; from genie_robotics.models.threads import default_threads; "
        "print(torch.get_num_threads() in default_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.strip() == "True", done.stderr
    assert min(default_threads()) >= 1


def test_players_share_the_rule(two_threads, seen):
    session = PlaySession(random_genie(tiny_config()), Limits())
    session.start(np.zeros((16, 16, 3), np.uint8), "black")
    for _ in range(10):
        session.act(1)
    session.undo(9)  # to a moment whose caches are computed again
    session.preview()
    assert set(seen) == {1}


def test_labels_share_the_rule(two_threads, seen):
    list(label_episodes(random_genie(tiny_config()), Squares(), [0]))
    assert set(seen) == {1}
