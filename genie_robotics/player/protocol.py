"""Messages from the browser: one JSON object each, checked here. The bytes of an upload follow its message."""

import json
from dataclasses import dataclass
from typing import Any

from genie_datasets.base.errors import UserError
from genie_robotics.player.limits import Limits

MAX_CHARACTERS = 16_384  # of a message


class BadMessage(UserError):
    """A message that cannot be understood; the connection stays open."""


@dataclass(frozen=True)
class Play:
    """Play actions in order."""

    codes: tuple[int, ...]


@dataclass(frozen=True)
class Undo:
    steps: int


@dataclass(frozen=True)
class Restart:
    """Return to the start."""


@dataclass(frozen=True)
class Start:
    """Begin again from the start with this index in the list that the page shows."""

    number: int


@dataclass(frozen=True)
class Branch:
    """Keep this moment, to return to it."""


@dataclass(frozen=True)
class Switch:
    """Return to a kept moment."""

    branch: int


@dataclass(frozen=True)
class Preview:
    """Show the next frame of every action."""


@dataclass(frozen=True)
class Settings:
    temperature: float
    maskgit_steps: int


@dataclass(frozen=True)
class Save:
    format: str


@dataclass(frozen=True)
class Upload:
    """The next binary message is a picture to start from, or a clip whose actions are inferred."""

    kind: str


Message = Play | Undo | Restart | Start | Branch | Switch | Preview | Settings | Save | Upload
FORMATS = ("mp4", "gif", "json")
TYPES = ("act", "play", "undo", "restart", "start", "branch", "switch", "preview", "settings", "save", "upload")


def parse(text: str, num_codes: int, limits: Limits) -> Message:
    """The message in `text`; raises BadMessage, which says what is expected."""
    found = json_object(text)
    match found.get("type"):
        case "act":
            return Play((integer(found, "code", 0, num_codes - 1),))
        case "play":
            return Play(code_sequence(found.get("codes"), num_codes, limits.autoplay))
        case "undo":
            return Undo(integer(found, "steps", 1, limits.undo))
        case "restart":
            return Restart()
        case "start":
            return Start(integer(found, "number", 0, 9999))
        case "branch":
            return Branch()
        case "switch":
            return Switch(integer(found, "branch", 0, 9999))
        case "preview":
            return Preview()
        case "settings":
            return Settings(
                number(found, "temperature", 0.0, limits.temperature),
                integer(found, "maskgit_steps", 1, limits.maskgit_steps),
            )
        case "save":
            return Save(one_of(found, "format", FORMATS))
        case "upload":
            return Upload(one_of(found, "kind", ("image", "clip")))
        case other:
            raise BadMessage(f"'type' must be one of {', '.join(TYPES)}, got '{str(other)[:40]}'")


def json_object(text: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise BadMessage(f"a message must have at most {MAX_CHARACTERS:,} characters, got {len(text):,}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadMessage("a message must be a JSON object")
    return found


def integer(found: dict[str, Any], name: str, low: int, high: int) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadMessage(f"'{name}' must be an integer, {low} .. {high}")
    return value


def number(found: dict[str, Any], name: str, low: float, high: float) -> float:
    value = found.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise BadMessage(f"'{name}' must be a number, {low:g} .. {high:g}")
    return float(value)


def one_of(found: dict[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = found.get(name)
    if value not in known or not isinstance(value, str):
        raise BadMessage(f"'{name}' must be one of {', '.join(known)}")
    return value


def code_sequence(value: Any, num_codes: int, longest: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= longest:
        raise BadMessage(f"'codes' must be a list of 1 .. {longest} codes")
    if any(type(code) is not int or not 0 <= code < num_codes for code in value):
        raise BadMessage(f"codes must be integers, 0 .. {num_codes - 1}")
    return tuple(value)
