"""Write simulated episodes as a TFDS data set: records, and the files that describe them."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from genie_datasets.tabletop.episode import HZ
from genie_datasets.tabletop.features import features_dict, to_example
from genie_datasets.tabletop.shards import NAME, VERSION, Shards
from genie_datasets.tabletop.worker import EncodedEpisode
from genie_datasets.writers.tfds_folder import Records, describe, os_errors, tensorflow

CITATION = (
    "Simulated with MuJoCo by genie_datasets.tabletop; layout of fractal20220817_data (Brohan et al., RT-1, 2022)."
)


class TabletopWriter:
    """Writes episodes with frames of `size` (height, width). Several threads may use it."""

    def __init__(self, size: tuple[int, int]):
        self._tf = tensorflow()
        self._features = features_dict(size)
        self._records = Records(self._features)

    def write(self, path: Path, episode: EncodedEpisode) -> None:
        """Write a TFRecord file with one record, atomically. Its bytes depend on the episode only. Raises OSError."""
        partial = path.with_name(f"{path.name}.tmp")
        try:
            with os_errors(), self._tf.io.TFRecordWriter(str(partial)) as writer:
                writer.write(self._records.encode(to_example(episode)))
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def describe(self, folder: Path, splits: Iterable[str], shards: Shards, metadata: dict) -> None:
        """Write dataset_info.json, features.json and metadata.json next to the full shards. Raises OSError."""
        describe(
            folder,
            NAME,
            VERSION,
            self._features,
            {split: shards.sizes(split) for split in splits},
            "Simulated tabletop manipulation in RT-1's view, with exact truth.",
            CITATION,
            {"hz": HZ, **metadata},
        )
