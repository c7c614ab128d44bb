"""What all commands share: how an argument list becomes a dataclass, and the options of those that take a source."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar, get_args

from genie_datasets.errors import UserError

if TYPE_CHECKING:
    from genie_datasets.split import Source

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
        from genie_datasets.fit import parse_size

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


@dataclass
class SourceOptions:
    """Mixed into a command's config: how to read SRC."""

    hz: float | None = None
    """The robot's control rate, frames per second: declares the rate of the stored frames."""
    resample: float | None = None
    """Video files: take this many frames per second by the container's clock, instead of the stored frames."""
    include: str | None = None
    """Only shards or videos that match this glob (several: with commas)."""
    exclude: str | None = None
    """No shards or videos that match this glob (several: with commas)."""
    reader: str = "index"
    """index: TFRecord shards without TensorFlow; rlds: through TFDS and rlds.transformations."""
    image_key: str | None = None
    """Which camera, where a data set has several."""
    unfiltered: bool = False
    """Also episodes that the catalogue leaves out (kuka: those without success)."""
    skip_damaged: bool = False
    """Without the episodes or videos that cannot be read, counted. Every image is decoded once to find them."""

    def said(self) -> dict[str, str | float | bool]:
        """Of the options above, those that are not their defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(SourceOptions)}
        return {name: value for name, value in values.items() if value != getattr(SourceOptions, name)}

    def open(self, path_or_name: str) -> Source:
        from genie_datasets.sources import open_source

        return open_source(
            path_or_name,
            hz=self.hz,
            include=self.include,
            exclude=self.exclude,
            reader=self.reader,
            image_key=self.image_key,
            unfiltered=self.unfiltered,
            skip_damaged=self.skip_damaged,
            resample=self.resample,
        )
