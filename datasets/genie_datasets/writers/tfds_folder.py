"""Shared parts of the writers of TFDS data sets: records, the files that describe them, and TensorFlow's errors.

TensorFlow is imported only when something is written.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FRAMING = 16  # bytes per record that TFRecord adds


def tensorflow() -> Any:
    """TensorFlow, without its notes on standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    return tensorflow


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Turns TensorFlow's file errors into OSError; a full disk becomes ENOSPC."""
    tf = tensorflow()
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, error.message) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message) from error


class Records:
    """Encodes episodes as tf.train.Examples of `features`, a tfds FeaturesDict."""

    def __init__(self, features: Any):
        import tensorflow_datasets as tfds

        self._features = features
        self._serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())

    def encode(self, episode: dict[str, Any]) -> bytes:
        """The serialized tf.train.Example of an episode: the same bytes in every process.

        `features.serialize_example` is not used, because its order of keys changes from process to process.
        """
        example = self._serializer.get_tf_example(self._features.encode_example(episode))
        return example.SerializeToString(deterministic=True)


def describe(
    folder: Path,
    name: str,
    version: str,
    features: Any,
    splits: dict[str, tuple[list[int], int]],
    description: str,
    citation: str,
    metadata: dict[str, Any],
) -> None:
    """Writes dataset_info.json, features.json and metadata.json next to the finished shards. Raises OSError.

    splits: name -> (episodes per shard, bytes of all records without framing).
    """
    import tensorflow_datasets as tfds

    core = tfds.core
    identity = core.dataset_info.DatasetIdentity(name, core.Version(version), str(folder), module_name=__name__)
    info = core.DatasetInfo(
        builder=identity,
        features=features,
        description=description,
        citation=citation,
        metadata=core.MetadataDict(metadata),
    )
    rows = []
    for split, (lengths, num_bytes) in splits.items():
        template = core.ShardedFileTemplate(data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord")
        rows.append(core.splits.SplitInfo(split, lengths, num_bytes, template))
    info.set_splits(core.splits.SplitDict(rows))
    try:
        with os_errors():
            info.write_to_directory(str(folder))
    except BaseException:
        with contextlib.suppress(OSError):
            (folder / "features.json").unlink()  # by which readers recognize a data set
        raise
