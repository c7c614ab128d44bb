"""The help of a command, made of the dataclass that holds its options."""

import ast
import dataclasses
import inspect
import itertools
import shutil
import textwrap
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

METAVARS = {int: "N", float: "NUMBER", Path: "PATH"}
COLUMN = 26  # where the help of an option begins
MAX_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Option:
    """How the help shows a field: `hz: Annotated[float | None, Option("HZ", group="reading the source")] = None`.

    metavar: placeholder of the value. Default: N, NUMBER, PATH, the choices of a Literal, or the field's name.
    group: heading under which the field, or every field of a nested dataclass, is listed.
    """

    metavar: str = ""
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One argument as the help shows it."""

    name: str
    invocation: str
    help: str
    group: str
    is_positional: bool
    is_required: bool


def help_text(config: type, default: Any, prog: str, example: str) -> str:
    """Usage, description, example, and the arguments by group, of which those that begin with "advanced" come last."""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    rows = help_rows(config, default)
    positional = [row.name if row.is_required else f"[{row.name}]" for row in rows if row.is_positional]
    lines = [" ".join(["usage:", prog, *positional, "[options]"]), ""]
    for paragraph in (inspect.getdoc(config) or "").split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
    if example:
        lines += [f"example: genie-robotics {example}", ""]
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (not row.is_positional, not row.is_required)):
        groups.setdefault(row.group, []).append(row)
    for title, members in sorted(groups.items(), key=lambda item: item[0].startswith("advanced")):
        lines += [f"{title}:", *(line for row in members for line in _lines(row, width)), ""]
    return "\n".join(lines).rstrip()


def _lines(row: Row, width: int) -> list[str]:
    text = textwrap.wrap(row.help, width - COLUMN, break_on_hyphens=False, break_long_words=False)
    first = f"  {row.invocation}"
    if text and len(first) < COLUMN - 1:
        first, text = f"{first:<{COLUMN}}{text[0]}", text[1:]
    return [first, *(" " * COLUMN + line for line in text)]


def help_rows(config: type, default: Any = None, prefix: str = "", group: str = "options") -> list[Row]:
    """The arguments that tyro makes of a dataclass: those of its own fields, then of inherited, then of nested ones."""
    import tyro

    hints, docs = get_type_hints(config, include_extras=True), _field_docs(config)
    declared = {name: cls for cls in reversed(config.__mro__) for name in vars(cls).get("__annotations__", {})}
    rows, nested = [], []
    for field in sorted(dataclasses.fields(config), key=lambda field: config.__mro__.index(declared[field.name])):
        hint = hints[field.name]
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else [hint]
        option = next((note for note in notes if isinstance(note, Option)), Option())
        title = option.group or vars(declared[field.name]).get("GROUP", group)
        own_default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = own_default if default is None else getattr(default, field.name)
        if tyro.conf.Suppress in notes:
            continue
        is_unprefixed = any(getattr(note, "prefix_name", None) is False for note in notes)  # tyro.conf.arg
        name = ("" if is_unprefixed else prefix) + field.name.replace("_", "-")
        if dataclasses.is_dataclass(kind):
            is_flat = any(getattr(note, "name", None) == "" for note in notes)  # tyro.conf.arg(name="")
            title = option.group or vars(kind).get("GROUP", title)
            nested += help_rows(kind, value, prefix if is_flat else f"{name}.", title)  # type: ignore[arg-type]
            continue
        is_required = value is tyro.MISSING or value is dataclasses.MISSING
        words = docs.get(field.name, "")
        if tyro.conf.Positional in notes:
            name = field.name.upper()
            rows.append(Row(name, name, words, "arguments", True, is_required))
            continue
        kind, invocation = without_none(kind), f"--{name}"
        if kind is bool and (value is True or prefix):  # presets set the fields of nested dataclasses
            parent, dot, last = name.rpartition(".")
            invocation += f", --{parent}{dot}no-{last}"
            words += f" (default: {'on' if value else 'off'})"
        elif kind is not bool:
            invocation += f" {option.metavar or _metavar(kind, field.name)}"
            words += " (required)" if is_required else f" (default: {shown})" if (shown := as_typed(value)) else ""
        rows.append(Row(f"--{name}", invocation, words.strip(), title, False, is_required))
    return [*rows, *nested]


def _field_docs(config: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of its bases."""
    docs = {}
    for cls in filter(dataclasses.is_dataclass, reversed(config.__mro__)):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                docs[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return docs


def without_none(kind: Any) -> Any:
    """X of `X | None`; any other type as it is."""
    if get_origin(kind) not in (Union, types.UnionType) or type(None) not in get_args(kind):
        return kind
    rest = [part for part in get_args(kind) if part is not type(None)]
    return rest[0] if len(rest) == 1 else kind


def _metavar(kind: Any, name: str) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_args(kind) == (int, int):
        return "HxW"
    if get_origin(kind) is tuple:
        return f"[{_metavar(get_args(kind)[0], name)} ...]"
    return METAVARS.get(kind, name.rpartition("_")[2].upper())


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line; empty for None and for an empty tuple."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(n, int) for n in value):
        return f"{value[0]}x{value[1]}"
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
