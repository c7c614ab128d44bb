"""What every writer of TFDS data sets needs: records of features, the files that describe them, one kind of error.

TensorFlow is imported where something is written, and only there.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FRAMING = 16  # bytes that TFRecord adds to each record


def tensorflow() -> Any:
    """TensorFlow, which takes seconds to import and is told to keep quiet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    return tensorflow


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Turns TensorFlow's file errors into OSError, so that callers know one kind; a full disk becomes ENOSPC."""
    tf = tensorflow()
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, error.message) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message) from error


class Records:
    """Episodes as serialized tf.train.Examples of `features` (a tfds FeaturesDict)."""

    def __init__(self, features: Any):
        import tensorflow_datasets as tfds

        self._features = features
        self._serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())

    def encode(self, episode: dict[str, Any]) -> bytes:
        """The same bytes in every process.

        Not `features.serialize_example`: it writes the keys in an order that changes from process to process.
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
    """Writes dataset_info.json, features.json and metadata.json beside the full shards. Raises OSError.

    splits: name -> (episodes of each shard, bytes of all its records without framing).
    """
    import tensorflow_datasets as tfds

    core = tfds.core
    identity = core.dataset_info.DatasetIdentity(
        name=name, version=core.Version(version), data_dir=str(folder), module_name=__name__
    )
    info = core.DatasetInfo(
        builder=identity,
        features=features,
        description=description,
        citation=citation,
        metadata=core.MetadataDict(metadata),
    )
    rows = []
    for split, (shard_lengths, num_bytes) in splits.items():
        template = core.ShardedFileTemplate(data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord")
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
