"""The options of every command that takes a source."""

from dataclasses import dataclass

from genie_datasets.split import Source


@dataclass
class SourceOptions:
    """Mixed into a command's config: how to read SRC."""

    hz: float | None = None
    """The robot's control rate, frames a second, where the source does not state it."""
    include: str | None = None
    """Only shards or videos that match this glob (several: with commas)."""
    exclude: str | None = None
    """No shards or videos that match this glob."""
    reader: str = "index"
    """index: TFRecord shards without TensorFlow; rlds: through TFDS and rlds.transformations."""
    image_key: str | None = None
    """Which image feature of an RLDS data set, where it has several."""

    def open(self, path_or_name: str) -> Source:
        from genie_datasets.sources import open_source

        return open_source(
            path_or_name,
            hz=self.hz,
            include=self.include,
            exclude=self.exclude,
            reader=self.reader,
            image_key=self.image_key,
        )
