"""Episodes as a TFDS data set that `tfds.builder_from_directory` opens, in the order in which they are given."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from genie_datasets.tabletop.episode import HZ
from genie_datasets.tabletop.features import features_dict
from genie_datasets.tabletop.record import to_example
from genie_datasets.tabletop.worker import EncodedEpisode

NAME, VERSION = "tabletop", "1.0.0"
EPISODES_PER_SHARD = 200
CITATION = (
    "Simulated with MuJoCo by genie_datasets.tabletop; layout of fractal20220817_data (Brohan et al., RT-1, 2022)."
)


def write_errors() -> tuple[type[Exception], ...]:
    """What writing to a full or vanished disk raises."""
    import tensorflow as tf

    return (OSError, tf.errors.OpError)


class RLDSWriter:
    """Writes splits of known length into `out`/tabletop/1.0.0, which appears when `finish` is called, whole.

    Used as a context manager: leaving it without `finish` removes what was written.
    """

    def __init__(self, out: Path, size: tuple[int, int], lengths: dict[str, int], metadata: dict):
        import tensorflow as tf
        import tensorflow_datasets as tfds

        self._tf, self._tfds = tf, tfds
        self._folder = out / NAME / VERSION
        self._partial = out / NAME / f"{VERSION}.incomplete"
        self._partial.mkdir(parents=True)
        self._lengths = lengths
        self._features = features_dict(size)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=NAME, version=tfds.core.Version(VERSION), data_dir=str(self._partial), module_name=__name__
        )
        self._info = tfds.core.DatasetInfo(
            builder=identity,
            features=self._features,
            description="Simulated tabletop manipulation in RT-1's view, with exact truth.",
            citation=CITATION,
            metadata=tfds.core.MetadataDict({"hz": HZ, **metadata}),
        )
        self._shards: dict[str, list[tuple[int, int]]] = {name: [] for name in lengths}  # (episodes, bytes)
        self._writer: Any = None  # of the shard under way
        self._split = ""

    def __enter__(self) -> "RLDSWriter":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()  # only if nothing is in it, so that the same command can run again

    def _template(self, split: str):
        return self._tfds.core.ShardedFileTemplate(
            data_dir=self._partial, dataset_name=NAME, split=split, filetype_suffix="tfrecord"
        )

    def add(self, split: str, episode: EncodedEpisode) -> None:
        """Appends an episode; those of a split must come one after another."""
        shards = self._shards[split]
        if split != self._split or shards[-1][0] == EPISODES_PER_SHARD:
            self._close_shard()
            count = -(-self._lengths[split] // EPISODES_PER_SHARD)
            path = self._template(split).sharded_filepath(shard_index=len(shards), num_shards=count)
            self._writer = self._tf.io.TFRecordWriter(str(path))
            self._split = split
            shards.append((0, 0))
        record = self._features.serialize_example(to_example(episode))
        self._writer.write(record)
        shards[-1] = (shards[-1][0] + 1, shards[-1][1] + len(record))

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> Path:
        """Writes dataset_info.json and features.json, and gives the folder its name, which is returned."""
        self._close_shard()
        self._info.set_splits(
            self._tfds.core.splits.SplitDict(
                [
                    self._tfds.core.SplitInfo(
                        name=name,
                        shard_lengths=[episodes for episodes, _ in shards],
                        num_bytes=sum(size for _, size in shards),
                        filename_template=self._template(name),
                    )
                    for name, shards in self._shards.items()
                ]
            )
        )
        self._info.write_to_directory(str(self._partial))
        self._partial.rename(self._folder)
        return self._folder
