"""Options of every command that reads a source."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie_datasets.sources.split import Source


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
        from genie_datasets.sources.opening import open_source

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
