"""Episodes as records of a TFDS data set that `tfds.builder_from_directory` opens, and the files that describe it."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from genie_datasets.tabletop.episode import HZ
from genie_datasets.tabletop.features import features_dict
from genie_datasets.tabletop.record import to_example
from genie_datasets.tabletop.shards import NAME, VERSION, Shards, os_errors, tensorflow
from genie_datasets.tabletop.worker import EncodedEpisode

CITATION = (
    "Simulated with MuJoCo by genie_datasets.tabletop; layout of fractal20220817_data (Brohan et al., RT-1, 2022)."
)


class RLDSWriter:
    """Encodes episodes whose frames are of `size` (height, width); safe to use from several threads."""

    def __init__(self, size: tuple[int, int]):
        self._tf = tensorflow()
        import tensorflow_datasets as tfds

        self._tfds = tfds
        self._features = features_dict(size)
        self._serializer = tfds.core.example_serializer.ExampleSerializer(self._features.get_serialized_info())

    def record(self, episode: EncodedEpisode) -> bytes:
        """The serialized tf.train.Example of an episode: the same bytes in every process.

        Not `features.serialize_example`: it writes the keys in an order that changes from process to process.
        """
        example = self._serializer.get_tf_example(self._features.encode_example(to_example(episode)))
        return example.SerializeToString(deterministic=True)

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
        core = self._tfds.core
        identity = core.dataset_info.DatasetIdentity(
            name=NAME, version=core.Version(VERSION), data_dir=str(folder), module_name=__name__
        )
        info = core.DatasetInfo(
            builder=identity,
            features=self._features,
            description="Simulated tabletop manipulation in RT-1's view, with exact truth.",
            citation=CITATION,
            metadata=core.MetadataDict({"hz": HZ, **metadata}),
        )
        rows = []
        for split in splits:
            shard_lengths, num_bytes = shards.of(split)
            template = core.ShardedFileTemplate(
                data_dir=folder, dataset_name=NAME, split=split, filetype_suffix="tfrecord"
            )
            rows.append(
                core.splits.SplitInfo(
                    name=split, shard_lengths=shard_lengths, num_bytes=num_bytes, filename_template=template
                )
            )
        info.set_splits(core.splits.SplitDict(rows))
        try:
            with os_errors():
                info.write_to_directory(str(folder))
        except BaseException:
            with contextlib.suppress(OSError):
                (folder / "features.json").unlink()  # by which readers know a data set
            raise
