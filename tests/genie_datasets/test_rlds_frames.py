"""Frames of RLDS folders are right, or end in one line, even if the folder describes its images wrongly."""

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_datasets import build_frame_cache, open_source
from genie_datasets.base.errors import UserError
from genie_datasets.sources.rlds.tfrecord import frame_record
from tests.genie_datasets.conftest import (
    FEATURES,
    IMAGE,
    INSTRUCTION,
    RldsFolder,
    encode_example,
    examples,
    jpeg,
    leaf,
    png,
)
from tests.genie_datasets.numbered import HEIGHT, WIDTH, frame, numbers

KEY = "steps/observation/{}"


def gray(image):
    return cv2.imencode(".png", image[..., 0])[1].tobytes()


def rgba(image):
    rows = np.concatenate([image[..., ::-1], np.full((*image.shape[:2], 1), 99, np.uint8)], -1)
    return cv2.imencode(".png", rows)[1].tobytes()


def palette(image):
    """A PNG with a palette."""
    colors, at = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)
    rows = at.reshape(image.shape[:2]).astype(np.uint8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 3, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = chunk(b"IHDR", head), chunk(b"PLTE", colors.tobytes()), chunk(b"IDAT", body), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep(image):
    return cv2.imencode(".png", image[..., 0].astype(np.uint16) * 257)[1].tobytes()


ENCODERS = {"jpeg": jpeg, "png": png, "rgba": rgba, "palette": palette}


def folder_of(root: Path, episodes: list[dict], leaves: dict, shards: int = 1, name: str = "mine") -> RldsFolder:
    rlds = RldsFolder(root, name)
    rlds.leaves |= leaves
    rlds.add("train", *(episodes[n::shards] for n in range(shards)))
    return rlds


def steps(length: int, first: int, encode, key: str = IMAGE, **more) -> dict:
    return {key: [encode(frame(first + n)) for n in range(length)], **more}


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.sampled_from(sorted(ENCODERS)),
    st.integers(1, 3),
    st.sampled_from(["uint8", "uint16", "float32", "int32"]),
    st.sampled_from([1, 2, 3, 4]),
    st.booleans(),
    st.sampled_from([0, -1, 1]),
)
def test_frames_or_a_line(tmp_path_factory, lengths, encoding, shards, dtype, channels, beside_depth, extra):
    """extra: number of images without a step in the last episode."""
    root = tmp_path_factory.mktemp("rlds")
    shards = min(shards, len(lengths))
    first, episodes = 0, []
    for number, length in enumerate(lengths):
        images = length + (extra if number == len(lengths) - 1 else 0)
        flags = np.eye(1, length, dtype=int)[0]
        episode = steps(max(0, images), first, ENCODERS[encoding], **{"steps/is_first": flags})
        if beside_depth:
            episode[KEY.format("depth")] = [deep(frame(0))] * length
        episodes.append(episode)
        first += length + 1
    leaves = {IMAGE: leaf("image", (HEIGHT, WIDTH, channels), dtype), "steps/is_first": leaf("tensor", (), "bool")}
    if beside_depth:
        leaves[KEY.format("depth")] = leaf("image", (HEIGHT, WIDTH, 1), "uint16")
    folder = folder_of(root, episodes, leaves, shards).finish()
    is_image = dtype == "uint8" and channels != 2
    if not is_image:
        with pytest.raises(UserError, match=f"{IMAGE} is {dtype}, {channels} channels"):
            open_source(folder, hz=3)
        return
    if extra:
        with pytest.raises(UserError, match=rf"an episode of {lengths[-1]} steps with {lengths[-1] + extra} images"):
            open_source(folder, hz=3)
        return
    split = open_source(folder, hz=3).split("train")
    found = sorted(numbers(split.frames(e)) for e in range(split.num_episodes))
    starts = np.cumsum([0, *(length + 1 for length in lengths[:-1])])
    assert found == [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)]
    for episode in range(split.num_episodes):
        np.testing.assert_array_equal(np.concatenate(list(split.frame_blocks(episode))), split.frames(episode))


def test_gray_images_give_gray_frames(tmp_path):
    folder = folder_of(tmp_path, [steps(3, 5, gray)], {IMAGE: leaf("image", (HEIGHT, WIDTH, 1), "uint8")}).finish()
    frames = open_source(folder, hz=3).split("train").frames(0)
    np.testing.assert_array_equal(frames[0], np.repeat(frame(5)[..., :1], 3, -1))


def test_images_of_16_bits_are_never_read_as_color(tmp_path):
    folder = folder_of(tmp_path, [steps(3, 5, deep)], {}).finish()
    with pytest.raises(UserError, match="step 0: a PNG with 16 bits per channel, expected 8"):
        open_source(folder, hz=3).split("train").frames(0)


@pytest.mark.parametrize("names", [("rgb", "depth"), ("front_rgb", "front_depth"), ("image", "depth_image")])
def test_color_and_depth_open_without_a_question(tmp_path, capsys, names):
    color, depth = (KEY.format(name) for name in names)
    episode = steps(4, 0, png, color) | {depth: [deep(frame(0))] * 4}
    rlds = folder_of(tmp_path, [episode], {})
    del rlds.leaves[IMAGE]
    rlds.leaves |= {
        color: leaf("image", (HEIGHT, WIDTH, 3), "uint8"),
        depth: leaf("image", (HEIGHT, WIDTH, 1), "uint16"),
    }
    folder = rlds.finish()
    assert numbers(open_source(folder, hz=3).split("train").frames(0)) == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=rf"'{depth}' cannot be read as frames \(uint16, 1 channels\)"):
        open_source(folder, hz=3, image_key=names[1])


def test_another_camera_is_noted(tmp_path, capsys):
    wrist = KEY.format("wrist_image")
    episode = steps(4, 0, png) | {wrist: [png(frame(0))] * 4}
    folder = folder_of(tmp_path, [episode], {wrist: leaf("image", (HEIGHT, WIDTH, 3), "uint8")}).finish()
    open_source(folder, hz=3)
    assert f"reading '{IMAGE}'; --image-key chooses another camera ({wrist})" in capsys.readouterr().err


def test_several_images_per_step_are_refused(tmp_path):
    rlds = folder_of(tmp_path, [steps(8, 0, png)], {})
    folder = rlds.finish()
    tree = json.loads((folder / "features.json").read_text())
    features = tree["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    images = features["observation"]["featuresDict"]["features"]
    images["image"] = {
        "pythonClassName": f"{FEATURES}.sequence_feature.Sequence",
        "sequence": {"feature": images["image"], "length": "2"},
    }
    (folder / "features.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"observation/image is several per step, uint8, 3 channels"):
        open_source(folder, hz=3)


def test_sizes_that_change_within_an_episode(tmp_path, capsys):
    images = [png(frame(n, HEIGHT + 8 * (n % 2))) for n in range(6)]
    folder = folder_of(
        tmp_path, [{IMAGE: images, INSTRUCTION: [b"go"] * 6}], {IMAGE: leaf("image", (-1, -1, 3), "uint8")}
    ).finish()
    for reader in ("index", "rlds"):
        split = open_source(folder, hz=3, reader=reader).split("train")
        with pytest.raises(UserError, match="frame 1 has 72x80 pixels, others 64x80; expected one size"):
            split.frames(0)
        capsys.readouterr()
        for _ in range(2):
            assert numbers(split.frames(0, None, (HEIGHT, WIDTH))) == list(range(6))
        assert capsys.readouterr().err.count("each frame is fitted to 64x80") == 1


def test_inspect_prints_several_sizes(tmp_path, capsys):
    from genie_datasets.commands import main

    episodes = [{IMAGE: [png(frame(n, HEIGHT + 8 * e)) for n in range(6)]} for e in range(2)]
    folder = folder_of(tmp_path, episodes, {}).finish()
    assert main(["inspect", str(folder), "--hz", "3"]) == 0
    assert "of 64x80, 72x80 at 3 Hz" in capsys.readouterr().out


def test_a_flipped_bit_is_an_error_when_the_whole_episode_is_read(tmp_path):
    """JPEG decodes to other pixels after a flip: none of 200 flips in images may give other frames without an error."""
    folder = folder_of(tmp_path, [steps(6, 0, jpeg), steps(5, 50, jpeg)], {}).finish()
    (shard,) = folder.glob("*.tfrecord-*")
    whole = shard.read_bytes()
    right = [open_source(folder, hz=3).split("train").frames(e) for e in range(2)]
    rng, silent = np.random.default_rng(0), 0
    for _ in range(examples(40)):
        data = bytearray(whole)
        data[int(rng.integers(12, len(data) - 4))] ^= 1 << int(rng.integers(8))
        shard.write_bytes(data)
        try:
            split = open_source(folder, hz=3).split("train")
            found = [split.frames(e) for e in range(split.num_episodes)]
        except UserError:
            continue
        silent += not (len(found) == 2 and all(np.array_equal(a, b) for a, b in zip(found, right, strict=True)))
    assert silent == 0
    shard.write_bytes(whole)
    assert len(open_source(folder, hz=3).split("train").frames(0)) == 6


def test_a_cache_of_a_damaged_shard_is_not_made(tmp_path):
    folder = folder_of(tmp_path, [steps(6, 0, jpeg)], {}).finish()
    (shard,) = folder.glob("*.tfrecord-*")
    data = bytearray(shard.read_bytes())
    at = data.index(b"\xff\xd9")  # the end of the first image
    data[at - 40] ^= 4
    shard.write_bytes(data)
    split = open_source(folder, hz=3).split("train")
    with pytest.raises(UserError, match="episode 0.* of shard .*"):
        build_frame_cache(split, tmp_path / "cache", (16, 16), progress=False)
    assert not (tmp_path / "cache").exists()


def test_shards_of_two_data_sets_are_not_mixed(tmp_path):
    rlds = folder_of(tmp_path, [steps(3, 0, png), steps(3, 10, png)], {}, shards=2)
    folder = rlds.finish()
    (folder / "mine-train.tfrecord-00000-of-00001").write_bytes(
        frame_record(encode_example(steps(3, 0, png))) + frame_record(encode_example(steps(3, 10, png)))
    )
    with pytest.raises(UserError, match="several writings of split 'train'") as caught:
        open_source(folder, hz=3)
    asked = str(caught.value).rpartition("--exclude '")[2].rstrip("'")
    assert open_source(folder, hz=3, exclude=asked).split("train").num_episodes == 2
    (folder / "mine-train.tfrecord-00000-of-00001").rename(folder / "other-train.tfrecord-00000-of-00002")
    with pytest.raises(UserError, match="shards of several data sets"):
        open_source(folder, hz=3)


def test_shards_come_in_the_order_of_their_numbers(tmp_path):
    rlds = folder_of(tmp_path, [steps(2, 10 * n, png) for n in range(3)], {}, shards=3)
    folder = rlds.finish()
    for path in folder.glob("*.tfrecord-*"):
        number = int(path.name.split("-")[2])
        path.rename(folder / f"mine-train.tfrecord-{(2, 10, 100)[number]}-of-101")
    split = open_source(folder, hz=3).split("train")
    assert [numbers(split.frames(e))[0] for e in range(3)] == [0, 10, 20]


def test_is_first_in_the_middle_is_noted(tmp_path, capsys):
    episodes = [steps(4, 0, png, **{"steps/is_first": np.array([1, 0, flag, 0])}) for flag in (0, 1)]
    folder = folder_of(tmp_path, episodes, {"steps/is_first": leaf("tensor", (), "bool")}).finish()
    for _ in range(2):  # the second time from the index in the cache
        open_source(folder, hz=3)
        assert "1 episodes have is_first set at a later step" in capsys.readouterr().err


@pytest.mark.parametrize("stated", [True, float("inf"), "3", -1, 0])
def test_an_impossible_rate_is_noted(tmp_path, capsys, stated):
    folder = folder_of(tmp_path, [steps(4, 0, png)], {}).finish()
    (folder / "metadata.json").write_text(json.dumps({"hz": stated}))
    assert open_source(folder).split("train").hz.tolist() == [3]
    said = capsys.readouterr().err
    assert "which is not positive frames per second: ignored" in said
    assert "pass --hz" in said


def test_an_instruction_of_codes_is_one_row(tmp_path):
    row = np.array([*b"push it", *[0] * 57])
    episode = steps(4, 0, png) | {INSTRUCTION: np.tile(row, 4)}
    folder = folder_of(tmp_path, [episode], {INSTRUCTION: leaf("tensor", (64,), "int32")}).finish()
    for reader in ("index", "rlds"):
        assert open_source(folder, hz=3, reader=reader).split("train").instruction(0) == "push it"


def test_changing_instructions_and_episodes_without_frames_are_noted(tmp_path, capsys):
    told = [[b"a"] * 4, [b"a", b"a", b"bb", b"a"], [b"same"] * 4]
    episodes = [steps(4, 10 * n, png) | {INSTRUCTION: words} for n, words in enumerate(told)]
    episodes.append({IMAGE: [], INSTRUCTION: []})
    folder = folder_of(tmp_path, episodes, {}).finish()
    assert open_source(folder, hz=3).split("train").num_episodes == 3
    said = capsys.readouterr().err
    assert "1 episodes change their instruction: the first is read" in said
    assert "1 episodes have no frames: left out" in said


def test_numbers_are_not_an_instruction(tmp_path):
    episode = steps(4, 0, png) | {INSTRUCTION: np.zeros(4 * 8, np.float32)}
    folder = folder_of(tmp_path, [episode], {INSTRUCTION: leaf("tensor", (8,), "float32")}).finish()
    assert open_source(folder, hz=3).split("train").instruction(0) == ""


def test_damaged_metadata_is_noted_and_a_byte_order_mark_is_skipped(tmp_path, capsys):
    folder = folder_of(tmp_path, [steps(4, 0, png)], {}, name="bridge_dataset").finish()
    (folder / "metadata.json").write_text("\ufeff" + json.dumps({"hz": 10}))
    assert open_source(folder).split("train").hz.tolist() == [10]
    assert capsys.readouterr().err == ""
    (folder / "metadata.json").write_text('{"hz": 1')
    assert open_source(folder).split("train").hz.tolist() == [5]
    assert "metadata.json cannot be read" in capsys.readouterr().err


def test_episodes_that_the_catalog_leaves_out_are_noted(tmp_path, capsys):
    episodes = [steps(4, 10 * n, png, success=np.array([n])) for n in range(2)]
    folder = folder_of(tmp_path, episodes, {"success": leaf("tensor", (), "bool")}, name="kuka").finish()
    assert open_source(folder).split("train").num_episodes == 1
    assert "1 episodes have no success set: left out, as is usual for kuka; --unfiltered reads all" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_turn_in_exif_is_ignored_as_tensorflow_ignores_it(tmp_path, kind):
    """Data sets are written from arrays, so an EXIF entry of a camera does not turn them."""
    image_module = pytest.importorskip("PIL.Image")
    import io

    def turned(image):
        exif = image_module.Exif()
        exif[0x0112] = 6
        stream = io.BytesIO()
        image_module.fromarray(image).save(stream, kind, exif=exif)
        return stream.getvalue()

    folder = folder_of(tmp_path, [steps(4, 0, turned)], {IMAGE: leaf("image", (HEIGHT, WIDTH, 3), "uint8")}).finish()
    split = open_source(folder, hz=3).split("train")
    assert numbers(split.frames(0)) == [0, 1, 2, 3]
    assert split.image_size == (HEIGHT, WIDTH)


def test_a_shard_that_is_a_copy_is_noted(tmp_path, capsys):
    folder = folder_of(tmp_path, [steps(4, 0, png)] * 2, {}, shards=2).finish()
    assert open_source(folder, hz=3).split("train").num_episodes == 2
    assert "seem to be the same file" in capsys.readouterr().err
