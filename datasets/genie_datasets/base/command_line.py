"""Parses the arguments of every command into a dataclass."""

import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from genie_datasets.base.command_help import METAVARS, as_typed, help_rows, help_text, without_none
from genie_datasets.base.errors import UserError

Config = TypeVar("Config")


def parse(config: type[Config], argv: list[str], prog: str, default: Config | None = None, example: str = "") -> Config:
    """Parses `argv` with tyro into the dataclass `config`. A size, a pair of integers, is written HEIGHTxWIDTH; where
    a field has the type `X | None`, "none" gives None.

    --help prints the docstring of `config`, the example (a command without `genie-robotics`), then the arguments with
    the docstring below each field. Positional and required ones come first, and fields of `config` itself before those
    that it inherits or nests. A dataclass with a class variable `GROUP: ClassVar[str]` lists its fields under that
    heading. `command_help.Option` in a field's annotation sets its placeholder or its heading.

    Raises:
        UserError: an argument is missing, unknown or of another type; one line.
        SystemExit: after the help.
    """
    import tyro

    if "-h" in argv or "--help" in argv:
        print(help_text(config, default, prog, example))
        raise SystemExit(0)
    registry = tyro.constructors.ConstructorRegistry()
    for rule in (_plain, _optional):
        registry.primitive_rule(rule)
    options: dict[str, Any] = {} if default is None else {"default": default}
    markers = (tyro.conf.PositionalMetavarFromFieldName,)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(config, args=argv, prog=prog, registry=registry, config=markers, **options)
    except SystemExit:
        required = [row.name for row in help_rows(config, default) if row.is_required]
        raise UserError(f"{_mistake(said.getvalue(), required)}; see {prog} --help") from None


def _mistake(said: str, required: list[str]) -> str:
    """The mistake in the arguments, from the box that tyro prints."""
    words = " ".join(re.sub(r"[─-╿]+|-{5,}", " ", said).partition("For full helptext")[0].split())
    if "Missing from" in words:
        return "missing " + " and ".join(name for name in required if re.search(rf"(?<!\S){name}(?!\S)", words))
    if found := re.search(r"Unrecognized options: (.*?)(?: Perhaps you meant: (--\S+)| Arguments similar|$)", words):
        return f"unknown argument {found[1].replace(', ', ' ')}" + (f": did you mean {found[2]}?" if found[2] else "")
    if found := re.search(r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)", words):
        return f"{found[2]}: expected one of {found[3].replace(chr(39), '')}, got {found[1]}"
    if found := re.search(r"Missing value for argument '(.*?)'", words):
        return f"{found[1]}: expected a value"
    found = re.search(r"Error parsing (.*?)(?: Argument helptext|$)", words)
    return found[1] if found else words


def _plain(info: Any) -> Any:
    """tyro's rule for (height, width), int and float, with errors in plain words."""
    import tyro

    from genie_datasets.base.fit import parse_size

    parse: Callable[[str], Any]
    types: tuple[type, ...]
    if info.type_origin is tuple and get_args(info.type) == (int, int):
        metavar, parse, types = "HxW", parse_size, (tuple,)
    elif info.type in (int, float):
        metavar, parse, types = METAVARS[info.type], functools.partial(_number, info.type), (int, info.type)
    else:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: parse(words[0]),
        is_instance=lambda value: isinstance(value, types) and not isinstance(value, bool),
        str_from_instance=lambda value: [as_typed(value)],
    )


def _number(kind: type, text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"expected {what}, got '{text}'") from None


def _optional(info: Any) -> Any:
    """tyro's rule for `X | None`: that of X, and "none" for None."""
    import tyro

    inner = without_none(info.type)
    if inner is info.type:
        return None
    registry, make = tyro.constructors.ConstructorRegistry, tyro.constructors.PrimitiveTypeInfo.make
    spec = registry.get_primitive_spec(make(inner, info.markers))
    if not isinstance(spec, tyro.constructors.PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        instance_from_str=lambda words: None if words in (["none"], ["None"]) else spec.instance_from_str(words),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: [] if value is None else spec.str_from_instance(value),
    )
