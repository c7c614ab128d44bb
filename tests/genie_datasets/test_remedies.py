"""Every remedy named in an error of the readers works."""

import gzip
import re
import shlex
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from genie_datasets.base.globs import exclude_option, keep_files
from tests.genie_datasets.conftest import IMAGE, RldsFolder, examples, leaf, png
from tests.genie_datasets.numbered import frame, numbers, write
from tests.genie_datasets.test_lerobot_frames import make

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


def excluded(message: str) -> dict[str, str]:
    """The value of --exclude in a message, as a shell reads it."""
    words = shlex.split(message[message.index("--exclude") :].split(" (--skip-damaged")[0])
    return {"exclude": words[1]}


@settings(max_examples=examples(300), suppress_health_check=list(HealthCheck))
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.integers(1, 5))
@example(["bad,one[2].mp4", "bad", "one[2].mp4", "bad,one2.mp4"], 1)
@example(["-dash.mp4", "--hz", "x'quote.mp4", 'a"b', "a  b", " a", "a\nb", "très café 猫.mp4", "*", "?", "[!a]"], 11)
def test_the_option_excludes_these_files_and_no_other(tmp_path_factory, names, number):
    root = tmp_path_factory.getbasetemp()
    message = str(UserError(f"x: leave it out with {exclude_option(names[:number])} or so"))
    words = shlex.split(message[message.index("--exclude") :])
    assert not words[1].startswith("-")
    files = [root / name for name in names]
    wanted = set(names[: min(number, 8)])
    left = [name for name in names if name not in wanted]
    # Characters that no terminal prints become `?`, which may match another name that differs in nothing else.
    hidden = re.compile(r"[^\S ]|[\x00-\x1f\x7f]")
    ambiguous = {len(name) for name in wanted if hidden.search(name)}
    left = [name for name in left if len(name) not in ambiguous]
    if not left:
        with pytest.raises(UserError, match="leaves none"):
            keep_files([root / name for name in wanted], root, None, words[1])
        return
    kept = {file.name for file in keep_files(files, root, None, words[1])}
    assert kept >= set(left)
    assert not kept & wanted


@pytest.mark.parametrize("name", ["bad,one[2].mp4", "x'quote.mp4", "-dash.mp4", "with  spaces (2).mp4", "très 猫.mp4"])
def test_a_video_is_left_out_by_the_command_line_as_it_is_printed(tmp_path, capsys, name):
    from genie_robotics.cli import main

    write(tmp_path / "good.mp4", 20)
    write(tmp_path / "one[2].mp4", 20, first=50)
    (tmp_path / name).write_bytes(b"nonsense")
    assert main(["data", "inspect", str(tmp_path), "--hz", "3"]) == 2
    message = capsys.readouterr().err
    assert name.split("'")[0].split("  ")[0] in message
    for option in (["--exclude", excluded(message)["exclude"]], ["--skip-damaged"]):
        assert main(["data", "inspect", str(tmp_path), "--hz", "3", *option]) == 0
        assert "2 episodes" in capsys.readouterr().out


def rlds(root) -> RldsFolder:
    made = RldsFolder(root)
    made.add("train", [made.episode(5, 0)], [made.episode(6, 1)])
    return made


def damage_gzip(folder):
    for shard in folder.glob("*.tfrecord-*"):
        shard.write_bytes(gzip.compress(shard.read_bytes()))


def test_a_compressed_shard_is_decompressed_as_the_error_says(tmp_path):
    folder = rlds(tmp_path / "with space").finish()
    damage_gzip(folder)
    for _ in range(2):  # one shard at a time
        with pytest.raises(UserError, match="is compressed with gzip") as caught:
            open_source(folder)
        assert "download" not in str(caught.value)
        command = str(caught.value).partition("decompress it with ")[2]
        subprocess.run(["bash", "-c", command], check=True)
    assert open_source(folder).split("train").num_frames.tolist() == [5, 6]
    damage_gzip(folder)
    with pytest.raises(UserError, match="that can be read: .*is compressed with gzip"):
        open_source(folder, skip_damaged=True)


FAULTS = {
    "cut off": lambda shard: shard.write_bytes(shard.read_bytes()[:-50]),
    "foreign": lambda shard: shard.write_bytes(b"nonsense" * 40),
    "a flipped bit": lambda shard: shard.write_bytes(
        shard.read_bytes()[:2000] + bytes([shard.read_bytes()[2000] ^ 1]) + shard.read_bytes()[2001:]
    ),
    "a number too large": lambda shard: shard.rename(shard.with_name(shard.name.replace("-00001-of", "-00007-of"))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_shard_is_left_out(tmp_path, fault):
    folder = rlds(tmp_path).finish()
    (shard,) = folder.glob("*-00001-of-*")
    FAULTS[fault](shard)

    def read(**more):
        split = open_source(folder, **more).split("train")
        return [len(split.frames(e)) for e in range(split.num_episodes)]

    with pytest.raises(UserError, match="--exclude") as caught:
        read()
    assert read(**excluded(str(caught.value))) == [5]
    if "--skip-damaged" in str(caught.value):
        assert read(skip_damaged=True) == [5]


def test_a_camera_is_chosen_with_image_key(tmp_path):
    made = RldsFolder(tmp_path)
    del made.leaves[IMAGE]
    keys = [f"steps/observation/cam_{n}" for n in range(2)]
    made.leaves |= {key: leaf("image", (64, 80, 3), "uint8") for key in keys}
    made.add("train", [{key: [png(frame(n))] * 3 for n, key in enumerate(keys)}])
    folder = made.finish()
    with pytest.raises(UserError, match="choose one with --image-key") as caught:
        open_source(folder, hz=3)
    for key in keys:
        assert key in str(caught.value)
        assert open_source(folder, hz=3, image_key=key).split("train").num_episodes == 1


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_bad_file_of_a_lerobot_set_is_left_out(tmp_path, version):
    pytest.importorskip("pyarrow")
    root = tmp_path / "set"
    make(root, [5, 6], version=version)
    video = sorted(root.rglob("*.mp4"))[0]
    video.write_bytes(video.read_bytes()[:900])
    with pytest.raises(UserError, match="--exclude") as caught:
        open_source(root)
    if version == "v2.1":
        assert open_source(root, **excluded(str(caught.value))).split("train").num_episodes == 1
        assert open_source(root, skip_damaged=True).split("train").num_episodes == 1
    else:
        with pytest.raises(UserError, match="leaves none of the 1 files"):
            open_source(root, **excluded(str(caught.value)))


def test_a_bad_array_is_left_out(tmp_path):
    np.save(tmp_path / "good.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "bad, [one].npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(UserError, match="--exclude") as caught:
        open_source(tmp_path, hz=3)
    assert open_source(tmp_path, hz=3, **excluded(str(caught.value))).split("train").num_episodes == 1


def test_one_of_several_data_sets_is_opened(tmp_path):
    for name in ("one", "two"):
        made = RldsFolder(tmp_path, name)
        made.add("train", [made.episode(5)])
        made.finish()
    with pytest.raises(UserError, match=r"several data sets \((.*)\): give one of these") as caught:
        open_source(tmp_path)
    for name in re.search(r"\((.*?)\)", str(caught.value))[1].split(", "):
        assert open_source(tmp_path / name, hz=3).split("train").num_episodes == 1


def test_a_video_without_time_stamps_is_read_with_hz_or_left_out(tmp_path, monkeypatch):
    from genie_datasets.sources.video import file as video_file

    write(tmp_path / "a.mp4", 12)
    monkeypatch.setattr(video_file, "_times", lambda stamps, unit: (None, 0.0))
    with pytest.raises(UserError, match=r"a\.mp4 has no usable time stamps, so it cannot be resampled") as caught:
        open_source(tmp_path, resample=3)
    split = open_source(tmp_path, hz=3).split("train")
    assert numbers(split.frames(0)) == list(range(12))
    write(tmp_path / "b.mp4", 12)
    with pytest.raises(UserError, match="has no usable time stamps"):
        open_source(tmp_path, resample=3)
    monkeypatch.undo()
    assert open_source(tmp_path, resample=3, **excluded(str(caught.value))).split("train").num_episodes == 1


def test_the_example_of_a_glob_matches(tmp_path):
    folder = rlds(tmp_path).finish()
    with pytest.raises(UserError, match="leaves none of the 2 files .* pass other globs, for files such as") as caught:
        open_source(folder, include="*.mp4")
    example = re.search(r"such as '(.*)'", str(caught.value))[1]
    assert open_source(folder, include=example).split("train").num_episodes == 1


def test_labels_of_another_split_are_drawn_again(tmp_path):
    from genie_datasets.clips.labels import Labels, check_places
    from genie_datasets.label_command import main

    made = RldsFolder(tmp_path)
    made.leaves["steps/action"] = leaf("tensor", (1,))
    for split in ("train", "test"):
        made.add(split, [{**made.episode(5), "steps/action": np.arange(1.0, 6.0)}])
    folder, out = made.finish(), tmp_path / "labels.npz"
    test = open_source(folder).split("test")
    main([str(folder), "--out", str(out)])
    with pytest.raises(UserError, match="labels split 'train', not 'test': draw labels with --split test"):
        check_places(Labels.load(out), test, "labels.npz")
    main([str(folder), "--out", str(out), "--split", "test"])
    check_places(Labels.load(out), test, "labels.npz")
