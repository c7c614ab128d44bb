"""Episodes as records of a TFDS data set that `tfds.builder_from_directory` opens, and the files that describe it."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from genie_datasets.tabletop.episode import HZ
from genie_datasets.tabletop.features import features_dict
from genie_datasets.tabletop.record import to_example
from genie_datasets.tabletop.shards import NAME, VERSION, Shards
from genie_datasets.tabletop.worker import EncodedEpisode
from genie_datasets.writers.tfds_folder import Records, describe, os_errors, tensorflow

CITATION = (
    "Simulated with MuJoCo by genie_datasets.tabletop; layout of fractal20220817_data (Brohan et al., RT-1, 2022)."
)


class RLDSWriter:
    """Encodes episodes whose frames are of `size` (height, width); safe to use from several threads."""

    def __init__(self, size: tuple[int, int]):
        self._tf = tensorflow()
        self._features = features_dict(size)
        self._records = Records(self._features)

    def record(self, episode: EncodedEpisode) -> bytes:
        """The serialized tf.train.Example of an episode: the same bytes in every process."""
        return self._records.encode(to_example(episode))

    def write(self, path: Path, episode: EncodedEpisode) -> None:
        """Makes `path` a TFRecord file of one record; it appears whole. Raises OSError."""
        partial = path.with_name(f"{path.name}.tmp")
        try:
            with os_errors(), self._tf.io.TFRecordWriter(str(partial)) as writer:
                writer.write(self.record(episode))
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def describe(self, folder: Path, splits: Iterable[str], shards: Shards, metadata: dict) -> None:
        """Writes dataset_info.json, features.json and metadata.json beside the full shards. Raises OSError."""
        describe(
            folder,
            NAME,
            VERSION,
            self._features,
            {split: shards.of(split) for split in splits},
            "Simulated tabletop manipulation in RT-1's view, with exact truth.",
            CITATION,
            {"hz": HZ, **metadata},
        )
