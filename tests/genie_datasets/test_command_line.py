"""The help and the errors of the command line."""

import contextlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import tyro

from genie_datasets.base.command_help import Option, help_rows
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.commands import CacheConfig, InspectConfig, TabletopConfig
from genie_datasets.label_command import LabelsConfig
from genie_robotics.cli import main


@dataclass
class Inner:
    GROUP: ClassVar[str] = "inner fields"

    width: int = 8
    """Width of a thing."""
    is_kept: bool = True
    hidden: tyro.conf.Suppress[bool] = False


@dataclass
class Base:
    seed: int = 0
    """Random seed."""


@dataclass
class Config(Base):
    """Do something.

    And explain it.
    """

    src: tyro.conf.Positional[str] = tyro.MISSING
    """Source."""
    gap: Annotated[float | None, Option("SECONDS")] = 0.5
    """Time; none: no gap."""
    kind: Literal["a", "b"] | None = None
    is_fast: bool = False
    size: tuple[int, int] = (64, 80)
    """Size."""
    extra: Annotated[Path | None, Option(group="rare")] = None
    flat: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
    nested: Inner = field(default_factory=lambda: Inner(3))


COMMANDS = [
    *("data inspect", "data cache", "data tabletop", "labels", "train", "doctor", "play", "label", "estimate", "bench"),
    *("demo", "evaluate", "score", "playback", "ablate", "pretrain"),
]

HELP = """\
usage: prog SRC [options]

Do something.

And explain it.

example: genie-robotics prog data

arguments:
  SRC                     Source.

options:
  --gap SECONDS           Time; none: no gap. (default: 0.5)
  --kind {a,b}
  --is-fast
  --size HxW              Size. (default: 64x80)
  --seed N                Random seed. (default: 0)

rare:
  --extra PATH

inner fields:
  --width N               Width of a thing. (default: 8)
  --is-kept, --no-is-kept
                          (default: on)
  --nested.width N        Width of a thing. (default: 3)
  --nested.is-kept, --nested.no-is-kept
                          (default: on)
"""


def test_the_help_lists_the_arguments_by_group(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(Config, ["--help"], "prog", example="prog data")
    assert not stopped.value.code
    assert capsys.readouterr().out == HELP


def test_arguments_become_fields():
    words = [
        "data",
        "--gap",
        "none",
        "--kind",
        "b",
        "--is-fast",
        "--size",
        "2x3",
        "--width",
        "1",
        "--nested.no-is-kept",
    ]
    found = parse(Config, words, "prog")
    assert (found.src, found.gap, found.kind, found.is_fast, found.size) == ("data", None, "b", True, (2, 3))
    assert (found.seed, found.extra, found.flat, found.nested) == (0, None, Inner(1), Inner(3, False))
    assert parse(Config, ["x"], "prog", default=Config(src="y", gap=2.0)).gap == 2.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "missing SRC"),
        (["x", "--gap", "wide"], "--gap: expected a number, got 'wide'"),
        (["x", "--seed", "1.5"], "--seed: expected a whole number, got '1.5'"),
        (["x", "--seed"], "--seed: expected a value"),
        (["x", "--kind", "c"], "--kind: expected one of a, b, got 'c'"),
        (["x", "--seeed", "1"], "unknown argument --seeed 1: did you mean --seed?"),
        (["x", "y"], "unknown argument y"),
        (["x", "--hidden"], "unknown argument --hidden"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises(UserError) as caught:
        parse(Config, words, "prog")
    assert str(caught.value) == f"{message}; see prog --help"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_names_no_type(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: genie-robotics {command} ")
    assert not re.findall(r"\bSTR\b|\bNone\b|\bINT\b|\bFLOAT\b", said)
    assert f"example: genie-robotics {command} " in said
    assert all(len(line) <= 100 for line in said.splitlines())


@pytest.mark.parametrize("config", [Config, InspectConfig, CacheConfig, TabletopConfig, LabelsConfig])
def test_the_help_lists_what_tyro_parses(config):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        tyro.cli(config, args=["--help"])
    expected = set(re.findall(r"^  (--[a-z][\w.-]*)", said.getvalue(), re.MULTILINE))
    assert {row.name for row in help_rows(config) if not row.is_positional} == expected


@pytest.mark.parametrize("config", [InspectConfig, CacheConfig, TabletopConfig, LabelsConfig])
def test_every_argument_has_a_help(config):
    assert [row.name for row in help_rows(config) if len(row.help) < 10] == []
