"""The options of every command that reads a source."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, ClassVar

from genie_datasets.base.command_help import Option

if TYPE_CHECKING:
    from genie_datasets.sources.split import Source


@dataclass
class SourceOptions:
    """Base class of a command's options, with the options of `open_source`."""

    GROUP: ClassVar[str] = "reading the source"

    hz: Annotated[float | None, Option("HZ")] = None
    """Control rate of the robot: the rate of the stored frames, per second."""
    resample: Annotated[float | None, Option("HZ")] = None
    """Video files only: take frames at this rate by the clock of the container."""
    include: Annotated[str | None, Option("GLOBS")] = None
    """Read only shards or files that match one of these globs, separated by commas."""
    exclude: Annotated[str | None, Option("GLOBS")] = None
    """Skip shards and files that match one of these globs, separated by commas."""
    reader: Annotated[str, Option("{index,rlds}")] = "index"
    """index: TFRecord shards without TensorFlow; rlds: through TFDS and rlds.transformations."""
    image_key: Annotated[str | None, Option("CAMERA")] = None
    """Camera, if the data set has several."""
    unfiltered: bool = False
    """Also read episodes that the catalog leaves out, such as those of kuka without success."""
    skip_damaged: bool = False
    """Skip and count what cannot be read; every image is decoded once to find it."""

    def non_defaults(self) -> dict[str, str | float | bool]:
        """The options above that are not at their defaults."""
        values = ((field, getattr(self, field.name)) for field in fields(SourceOptions))
        return {field.name: value for field, value in values if value != field.default}

    def open(self, path_or_name: str) -> Source:
        """Opens a source with these options. Raises UserError."""
        from genie_datasets.sources.opening import open_source

        return open_source(path_or_name, **self.non_defaults())  # type: ignore[arg-type]
