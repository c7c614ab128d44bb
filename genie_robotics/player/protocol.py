"""What a browser may send: one JSON object a message, checked here, or the bytes of an upload that was announced."""

import json
from dataclasses import dataclass
from typing import Any

from genie_datasets.base.errors import UserError
from genie_robotics.player.limits import Limits

MOST_TEXT = 16_384  # characters of a message


class BadMessage(UserError):
    """The message is none of these; the connection goes on."""


@dataclass(frozen=True)
class Act:
    code: int


@dataclass(frozen=True)
class Play:
    """Several actions in turn."""

    codes: tuple[int, ...]


@dataclass(frozen=True)
class Undo:
    steps: int


@dataclass(frozen=True)
class Restart:
    pass


@dataclass(frozen=True)
class Start:
    """From the start with this number in the list that the page was given."""

    number: int


@dataclass(frozen=True)
class Branch:
    """Keeps this moment to come back to."""


@dataclass(frozen=True)
class Switch:
    """Back to a kept moment."""

    branch: int


@dataclass(frozen=True)
class Preview:
    """What each action would do from here."""


@dataclass(frozen=True)
class Settings:
    temperature: float
    maskgit_steps: int


@dataclass(frozen=True)
class Save:
    format: str


@dataclass(frozen=True)
class Upload:
    """The next binary message is a picture to start from, or a clip whose actions are wanted."""

    kind: str


Message = Act | Play | Undo | Restart | Start | Branch | Switch | Preview | Settings | Save | Upload
FORMATS = ("mp4", "gif", "json")


def parse(text: str, num_codes: int, limits: Limits) -> Message:
    """Raises BadMessage, whose text says what would have been right."""
    if len(text) > MOST_TEXT:
        raise BadMessage(f"a message has at most {MOST_TEXT} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage("a message is a JSON object") from None
    if not isinstance(found, dict):
        raise BadMessage("a message is a JSON object")
    match found.get("type"):
        case "act":
            return Act(whole(found, "code", 0, num_codes - 1))
        case "play":
            return Play(sequence(found.get("codes"), num_codes, limits.autoplay))
        case "undo":
            return Undo(whole(found, "steps", 1, limits.undo))
        case "restart":
            return Restart()
        case "start":
            return Start(whole(found, "number", 0, 9999))
        case "branch":
            return Branch()
        case "switch":
            return Switch(whole(found, "branch", 0, 9999))
        case "preview":
            return Preview()
        case "settings":
            return Settings(
                fraction(found, "temperature", 0.0, limits.temperature),
                whole(found, "maskgit_steps", 1, limits.maskgit_steps),
            )
        case "save":
            return Save(one_of(found, "format", FORMATS))
        case "upload":
            return Upload(one_of(found, "kind", ("image", "clip")))
        case other:
            raise BadMessage(f"'{str(other)[:40]}' is no type of message")


def whole(found: dict[str, Any], name: str, least: int, most: int) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadMessage(f"'{name}' must be a whole number of {least} .. {most}")
    return value


def fraction(found: dict[str, Any], name: str, least: float, most: float) -> float:
    value = found.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise BadMessage(f"'{name}' must be a number of {least:g} .. {most:g}")
    return float(value)


def one_of(found: dict[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = found.get(name)
    if value not in known or not isinstance(value, str):
        raise BadMessage(f"'{name}' must be one of {', '.join(known)}")
    return value


def sequence(value: Any, num_codes: int, most: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= most:
        raise BadMessage(f"'codes' must be 1 to {most} actions")
    if any(type(code) is not int or not 0 <= code < num_codes for code in value):
        raise BadMessage(f"actions are whole numbers of 0 .. {num_codes - 1}")
    return tuple(value)
