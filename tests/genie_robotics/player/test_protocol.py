"""Messages from the browser: known ones are parsed, all others are errors that say what is expected."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_robotics.player.limits import Limits
from genie_robotics.player.protocol import (
    BadMessage,
    Branch,
    Message,
    Play,
    Preview,
    Restart,
    Save,
    Settings,
    Start,
    Switch,
    Undo,
    Upload,
    parse,
)

GOOD = [
    ({"type": "act", "code": 7}, Play((7,))),
    ({"type": "play", "codes": [0, 7, 7]}, Play((0, 7, 7))),
    ({"type": "undo", "steps": 3}, Undo(3)),
    ({"type": "restart"}, Restart()),
    ({"type": "start", "number": 0}, Start(0)),
    ({"type": "branch"}, Branch()),
    ({"type": "switch", "branch": 1}, Switch(1)),
    ({"type": "preview"}, Preview()),
    ({"type": "settings", "temperature": 1, "maskgit_steps": 12}, Settings(1.0, 12)),
    ({"type": "save", "format": "gif"}, Save("gif")),
    ({"type": "upload", "kind": "clip"}, Upload("clip")),
]
BAD = [
    "", "{", "[]", "3", "null", '"act"', "{}", '{"type": []}', "[" * 5000, "x" * 20_000,
    *(json.dumps(bad) for bad in (
        {"type": "act"}, {"type": "act", "code": 8}, {"type": "act", "code": -1}, {"type": "act", "code": 1.0},
        {"type": "act", "code": True}, {"type": "act", "code": "1"}, {"type": "play", "codes": []},
        {"type": "play", "codes": [9]}, {"type": "play", "codes": [0] * 201}, {"type": "play", "codes": "11"},
        {"type": "undo", "steps": 0}, {"type": "undo", "steps": 10**30}, {"type": "switch"},
        {"type": "settings", "temperature": -1, "maskgit_steps": 12},
        {"type": "settings", "temperature": 1, "maskgit_steps": 10**6},
        {"type": "save", "format": "exe"}, {"type": "save", "format": ["mp4"]}, {"type": "upload", "kind": "../a"},
        {"type": "nonsense" * 100},
    )),
    '{"type": "settings", "temperature": NaN, "maskgit_steps": 12}',
    '{"type": "settings", "temperature": Infinity, "maskgit_steps": 12}',
]  # fmt: skip


@pytest.mark.parametrize(("found", "expected"), GOOD, ids=lambda value: str(value)[:30])
def test_known_messages(found, expected):
    assert parse(json.dumps(found), 8, Limits()) == expected


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:40])
def test_other_messages_are_errors_of_one_line(text):
    with pytest.raises(BadMessage) as caught:
        parse(text, 8, Limits())
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TYPES = st.sampled_from([good["type"] for good, _ in GOOD])
FIELDS = st.sampled_from([name for good, _ in GOOD for name in good])


@given(st.text() | JSON.map(json.dumps) | st.dictionaries(FIELDS, JSON | TYPES | st.integers(0, 9)).map(json.dumps))
@settings(max_examples=1000)
def test_any_text_is_a_message_or_an_error(text):
    with contextlib.suppress(BadMessage):
        assert isinstance(parse(text, 8, Limits()), Message)
