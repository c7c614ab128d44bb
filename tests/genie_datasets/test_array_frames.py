"""Frames of numpy files, in every form that numpy writes."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from tests.genie_datasets.conftest import examples
from tests.genie_datasets.numbered import HEIGHT, WIDTH, frame, numbers

TYPES = ("|u1", "<u2", ">u2", "<i4", ">i8", "|i1", "<f4", "|b1")


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 40), st.sampled_from(TYPES), st.sampled_from("CF"),
    st.sampled_from([".npy", ".npz", ".NPZ", ".Npy", "compressed"]), st.data(),
)  # fmt: skip
def test_frames_or_one_line(tmp_path_factory, length, kind, order, form, data):
    folder = tmp_path_factory.mktemp("arrays")
    frames = np.stack([frame(n) for n in range(length)])
    values = np.asarray(frames if kind != "|i1" else frames // 2, dtype=kind, order=order)
    suffix = form if form[0] == "." else ".npz"
    with (folder / f"a{suffix}").open("wb") as stream:
        if suffix.lower() == ".npy":
            np.save(stream, values)
        else:
            (np.savez_compressed if form == "compressed" else np.savez)(stream, frames=values, action=np.zeros(3))
    if values.dtype.kind not in "ui":
        with pytest.raises(UserError, match=rf"a{suffix} cannot be read as frames .*{values.dtype}"):
            open_source(folder, hz=3)
        return
    split = open_source(folder, hz=3).split("train")
    assert split.num_frames.tolist() == [length]
    whole = split.frames(0)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, frames if kind != "|i1" else frames // 2)
    ids = np.array(data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=8)))
    np.testing.assert_array_equal(split.frames(0, ids), whole[ids])
    np.testing.assert_array_equal(np.concatenate(list(split.frame_blocks(0))), whole)
    fitted = split.frames(0, None, (HEIGHT // 2, WIDTH // 2))
    np.testing.assert_array_equal(split.frames(0, ids, (HEIGHT // 2, WIDTH // 2)), fitted[ids])
    whole[:] = 0  # the caller owns the array
    np.testing.assert_array_equal(split.frames(0, ids, (HEIGHT // 2, WIDTH // 2)), fitted[ids])
    shutil.rmtree(folder)


def test_a_second_array_of_frames_is_noted(tmp_path, capsys):
    frames = np.stack([frame(n) for n in range(5)])
    np.savez(tmp_path / "a.npz", image=frames, wrist=frames[::-1])
    assert numbers(open_source(tmp_path, hz=3).split("train").frames(0)) == [0, 1, 2, 3, 4]
    assert "a.npz: reading 'image'; --image-key chooses another array (wrist)" in capsys.readouterr().err
    assert numbers(open_source(tmp_path, hz=3, image_key="wrist").split("train").frames(0)) == [4, 3, 2, 1, 0]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_in_an_npz_is_an_error(tmp_path, save):
    rng = np.random.default_rng(0)
    save(tmp_path / "a.npz", frames=np.stack([frame(n) for n in range(5)]))
    whole = (tmp_path / "a.npz").read_bytes()
    right = open_source(tmp_path, hz=3).split("train").frames(0)
    for _ in range(examples(20)):
        data = bytearray(whole)
        data[int(rng.integers(200, len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.npz").write_bytes(data)
        said = ""
        try:
            found = open_source(tmp_path, hz=3).split("train").frames(0)
        except UserError as error:
            said = str(error)
        if said:
            assert "a.npz" in said
        else:
            np.testing.assert_array_equal(found, right)


def test_an_array_that_changed_since_it_was_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 8, 8, 3), np.uint8))
    split = open_source(tmp_path, hz=3).split("train")
    np.save(tmp_path / "a.npy", np.zeros((6, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.npy has changed since it was opened"):
        split.frames(0)
