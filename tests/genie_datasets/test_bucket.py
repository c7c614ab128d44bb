"""gs:// addresses of a bucket that is a folder on this disk, because the tests have no network.

The file systems below TFDS (etils.epath, tf.io.gfile, TFRecordDataset) are replaced: each gets the address and reads
the file. Real buckets are not tested.
"""

import numpy as np
import pytest

from genie_datasets import build_frame_cache, open_source
from genie_datasets.base.errors import UserError
from genie_datasets.sources.opening import seconds_of_video

BUCKET = "gs://stand-in"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder with the files of the bucket; `bucket.asked` lists the requested addresses."""
    import tensorflow as tf
    from etils.epath import backend, gpath

    folder = tmp_path / "bucket"
    folder.mkdir()
    asked: list[str] = []

    def local(path) -> str:
        if not str(path).startswith(BUCKET):
            return path
        asked.append(str(path))
        return str(path).replace(BUCKET, str(folder), 1)

    class Local(backend._OsPathBackend):
        def __getattribute__(self, name):
            method = super().__getattribute__(name)
            return (lambda path, *args, **more: method(local(path), *args, **more)) if name[0] != "_" else method

    file, records = tf.io.gfile.GFile, tf.data.TFRecordDataset

    def opened(name, *args, **more):
        if isinstance(name, str):
            return records(local(name), *args, **more)
        return records(tf.strings.regex_replace(name, f"^{BUCKET}", str(folder)), *args, **more)

    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Local())
    monkeypatch.setattr(tf.io.gfile, "GFile", lambda path, *args, **more: file(local(path), *args, **more))
    stat = tf.io.gfile.stat
    monkeypatch.setattr(tf.io.gfile, "stat", lambda path: stat(local(path)))
    monkeypatch.setattr(tf.data, "TFRecordDataset", opened)
    folder_of = type("Bucket", (), {"folder": folder, "asked": asked})
    return folder_of


def test_a_data_set_in_a_bucket_is_read_and_cached(bucket, tmp_path, kit, monkeypatch):
    rlds = kit.RldsFolder(bucket.folder, "fractal20220817_data")
    rlds.add("train", [rlds.episode(5, 0), rlds.episode(9, 1)], [rlds.episode(7, 2)])
    here = open_source(rlds.finish()).split("train")
    address = f"{BUCKET}/fractal20220817_data/1.0.0"
    source = open_source(address)
    assert source.path == address
    assert seconds_of_video(source) == pytest.approx(21 / 3)
    assert any(path.startswith(BUCKET) and path.endswith("features.json") for path in bucket.asked)
    there = source.split("train")
    assert there.num_frames.tolist() == [5, 9, 7]
    for episode in (2, 0):
        np.testing.assert_array_equal(there.frames(episode), here.frames(episode))
        assert there.instruction(episode) == here.instruction(episode)
    begun = []
    original = type(there).encoded_episodes
    monkeypatch.setattr(type(there), "encoded_episodes", lambda self: begun.append(1) or original(self))
    cache = build_frame_cache(there, tmp_path / "cache", (16, 16), progress=False)
    for episode in range(3):
        np.testing.assert_array_equal(cache.frames(episode), here.frames(episode, None, (16, 16)))
    assert len(begun) <= 1, "in order: nothing is fetched twice"


def test_an_address_with_nothing_behind_it_is_named(bucket):
    with pytest.raises(UserError, match=f"TFDS cannot open {BUCKET}/nothing"):
        open_source(f"{BUCKET}/nothing/1.0.0")
