"""Turns an argument list into a dataclass, for every command."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TypeVar, get_args

from genie_datasets.base.errors import UserError

Config = TypeVar("Config")


def parse(config: type[Config], argv: list[str], prog: str, default: Config | None = None) -> Config:
    """Parses `argv` with tyro; a size (a pair of integers) is written HEIGHTxWIDTH.

    Raises UserError, one line, where tyro would print a box.
    """
    import tyro

    argv = ["None" if word == "none" else word for word in argv]  # "all of them"; tyro spells it as Python does
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def size(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if info.type_origin is not tuple or get_args(info.type) != (int, int):
            return None
        from genie_datasets.base.fit import parse_size

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="HxW",
            instance_from_str=lambda words: parse_size(words[0]),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [f"{value[0]}x{value[1]}"],
        )

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            if default is None:
                return tyro.cli(config, args=argv, prog=prog, registry=registry)
            return tyro.cli(config, args=argv, prog=prog, default=default, registry=registry)
    except SystemExit as stop:
        if not stop.code:  # --help
            print(said.getvalue(), end="")
            raise
        words = re.sub(r"[─-╿]+|-{5,}", " ", said.getvalue())
        words = (
            re.sub(r"\s+", " ", words).strip().removeprefix("Parsing error").removeprefix("Required options").strip()
        )
        words = words.partition(" For full helptext")[0]
        raise UserError(f"{words}; see {prog} --help") from None
