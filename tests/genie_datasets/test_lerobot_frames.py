"""Frame i of a LeRobot episode is the one at start + i / fps, for any rate, order and start of the videos."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_datasets import open_source
from genie_datasets.base.errors import UserError
from tests.genie_datasets.conftest import examples
from tests.genie_datasets.numbered import numbers, write

parquet = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

KEY = "observation.images.top"
V2 = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
V3 = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}


def make(
    root: Path,
    lengths: list[int],
    fps: float = 10,
    version: str = "v2.1",
    per: int = 1,
    starts: list[float] | None = None,
    gap: int = 0,
    tasks=lambda e: [f"task {e}"],
    options: dict[str, str] | None = None,
    timescale: int | None = None,
    more: dict | None = None,
    shuffle: bool = False,
) -> list[list[int]]:
    """Writes a set; returns the numbers of each episode's frames.

    per: frames of video per row of the table. gap: frames between the episodes of a v3 file. starts: what a v3 set says
    of where episodes begin, where it is not the truth.
    """
    root.mkdir(parents=True)
    rate = Fraction(fps * per).limit_denominator(1001)
    pick = {"options": options, "container_options": {"video_track_timescale": str(timescale)} if timescale else {}}
    rows, expected, begin, index = [], [], 0, 0
    for episode, length in enumerate(lengths):
        stored = (length - 1) * per + 1
        first = begin if version[1] == "3" else 0
        expected.append([first + per * i for i in range(length)])
        rows.append({"episode": episode, "length": length, "start": first / (fps * per), "index": index})
        if version[1] == "2":
            write(root / f"videos/chunk-000/{KEY}/episode_{episode:06d}.mp4", stored, rate, **pick)
        begin += stored + gap + (per - 1 if version[1] == "3" else 0)
        index += length
    if version[1] == "3":
        write(root / f"videos/{KEY}/chunk-000/file-000.mp4", begin, rate, **pick)
    tables = {}
    for row in rows:
        order = (
            np.random.default_rng(row["episode"]).permutation(row["length"]) if shuffle else np.arange(row["length"])
        )
        columns = {
            "episode_index": np.full(len(order), row["episode"]), "frame_index": order,
            "timestamp": (order / fps).astype(np.float32),
            "observation.state": [[float(row["index"] + i), 0.0, 0.0] for i in order],
        }  # fmt: skip
        name = "chunk-000/file-000" if version[1] == "3" else f"chunk-000/episode_{row['episode']:06d}"
        tables.setdefault(name, []).append(pa.table(columns))
    for name, some in tables.items():
        path = root / f"data/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.concat_tables(some), path)
    (root / "meta").mkdir()
    if version[1] == "2":
        lines = [{"episode_index": e, "tasks": tasks(e), "length": n} for e, n in enumerate(lengths)]
        (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        starts = [row["start"] for row in rows] if starts is None else starts
        write_episodes(root, lengths, starts, tasks)
    camera = {"dtype": "video", "shape": [64, 80, 3], "names": ["height", "width", "channels"]}
    state = {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    info = {
        "codebase_version": version, "fps": fps, "chunks_size": 1000, "total_episodes": len(lengths),
        "total_frames": sum(lengths), "splits": {"train": f"0:{len(lengths)}"},
        **(V3 if version[1] == "3" else V2), "features": {KEY: camera, "observation.state": state}, **(more or {}),
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    return expected


def write_episodes(root: Path, lengths, starts, tasks=lambda e: [f"task {e}"]) -> None:
    zeros = [0] * len(lengths)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "episode_index": list(range(len(lengths))), "length": list(lengths),
        "tasks": [tasks(e) for e in range(len(lengths))], "data/chunk_index": zeros, "data/file_index": zeros,
        f"videos/{KEY}/chunk_index": zeros, f"videos/{KEY}/file_index": zeros,
        f"videos/{KEY}/from_timestamp": [float(s) for s in starts],
    }  # fmt: skip
    parquet.write_table(pa.table(columns), path)


def check(root: Path, expected: list[list[int]]) -> None:
    split = open_source(root).split("train")
    assert split.num_frames.tolist() == [len(some) for some in expected]
    for episode, some in enumerate(expected):
        frames = split.frames(episode)
        assert numbers(frames) == some
        ids = np.arange(len(some))[::-2]
        np.testing.assert_array_equal(split.frames(episode, ids), frames[ids])
        np.testing.assert_array_equal(np.concatenate(list(split.frame_blocks(episode))), frames)
        position = split.truth(episode).position[:, 0]
        np.testing.assert_array_equal(np.diff(position), np.ones(len(some) - 1))


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
@given(
    LENGTHS,
    st.sampled_from(["v2.0", "v2.1", "v3.0"]),
    st.sampled_from([1, 1, 2, 3, 6]),
    st.sampled_from([3, 5, 10, 30]),
    st.integers(0, 3),
    st.sampled_from([{"bf": "0", "g": "2"}, {"bf": "3", "g": "60"}]),
    st.booleans(),
)
def test_frames_are_taken_by_their_time(tmp_path_factory, lengths, version, per, fps, gap, options, shuffle):
    root = tmp_path_factory.mktemp("lerobot") / "set"
    check(root, make(root, lengths, fps, version, per, gap=gap, options=options, shuffle=shuffle))
    shutil.rmtree(root)


@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(2, 20), min_size=2, max_size=3), st.data())
def test_starts_off_the_grid_are_refused_and_never_a_neighbor_s_frame(tmp_path_factory, lengths, data):
    fps = 10
    truth = (np.cumsum([0, *lengths[:-1]]) / fps).tolist()
    moved = data.draw(st.integers(0, len(lengths) - 1))
    off = data.draw(st.floats(-1.5, 1.5).map(lambda x: round(x, 3)))
    starts = [start + (off / fps if e == moved else 0) for e, start in enumerate(truth)]
    root = tmp_path_factory.mktemp("starts") / "set"
    expected = make(root, lengths, fps, "v3.0", starts=starts)
    if starts[moved] < 0:
        with pytest.raises(UserError, match="begins at"):
            open_source(root)
    elif abs(off) / fps <= 1e-4:
        check(root, expected)
    else:
        with pytest.raises(UserError) as caught:
            open_source(root)
        message = str(caught.value)
        assert "file-000.mp4" in message
        if abs(abs(off) - 1) > 0.001:  # a whole frame: on the grid, and then two episodes share a frame or one is late
            assert "has no frame at" in message
            assert f"of episode {moved} (the nearest is" in message
    shutil.rmtree(root)


def test_episodes_never_share_a_frame(tmp_path):
    make(tmp_path / "set", [10, 10, 10], version="v3.0", starts=[0, 0.9, 2.0])
    with pytest.raises(UserError, match=r"file-000\.mp4: episodes 0 and 1 share frames .*0\.0000 s and 0\.9000 s"):
        open_source(tmp_path / "set")


def test_another_rate_is_noted_once(tmp_path, capsys):
    make(tmp_path / "set", [10, 12], per=3)
    split = open_source(tmp_path / "set").split("train")
    said = capsys.readouterr().err
    assert said.count("runs at 30 frames/s, the table at 10 Hz: frames are chosen by their times") == 1
    assert split.hz.tolist() == [10, 10]
    assert open_source(tmp_path / "set", hz=5).split("train").hz.tolist() == [5, 5], "--hz declares"
    assert numbers(open_source(tmp_path / "set", hz=5).split("train").frames(0))[:3] == [0, 3, 6]


def test_frames_that_belong_to_no_episode_are_noted(tmp_path, capsys):
    make(tmp_path / "set", [10, 12], version="v3.0", gap=4)
    check(tmp_path / "set", [list(range(10)), list(range(14, 26))])
    assert "has 8 frames that belong to no episode" in capsys.readouterr().err
    make(tmp_path / "tight", [10, 12], version="v3.0")
    open_source(tmp_path / "tight")
    assert capsys.readouterr().err == ""


def edit_table(root: Path, change) -> Path:
    (path, *_) = sorted((root / "data").rglob("*.parquet"))
    parquet.write_table(change(parquet.read_table(path)), path)
    return path


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(0, len(t) - 2), "rows, expected the"),
        (lambda t: t.set_column(1, "frame_index", [[0] * len(t)]), "frame_index must hold each number from 0 to"),
        (
            lambda t: t.set_column(2, "timestamp", [(t["timestamp"].to_numpy() * 2).tolist()]),
            r"frame 1 has the time 0\.2000 s, expected 0\.1000 s at 10 Hz",
        ),
    ],
)
def test_a_table_that_contradicts_the_metadata(tmp_path, version, change, message):
    make(tmp_path / "set", [10, 12], version=version)
    path = edit_table(tmp_path / "set", change)
    with pytest.raises(UserError, match=message) as caught:
        open_source(tmp_path / "set")
    assert path.name in str(caught.value)
    path.unlink()
    assert open_source(tmp_path / "set").split("train").num_episodes == 2, "video alone can be read"


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize(
    ("tasks", "words", "note"),
    [
        (lambda e: "pick can 0", "pick can 0", ""),
        (lambda e: ["pick", "place"], "pick", "2 episodes have several tasks"),
        (lambda e: ["pick", "pick"], "pick", ""),
        (lambda e: [], "", ""),
        (lambda e: None, "", ""),
    ],
)
def test_instructions_of_any_kind(tmp_path, capsys, version, tasks, words, note):
    if version == "v3.0" and tasks(0) in ([], None):
        pytest.skip("a parquet column of no type")
    make(tmp_path / "set", [5, 6], version=version, tasks=tasks)
    split = open_source(tmp_path / "set").split("train")
    assert [split.instruction(e) for e in range(2)] == [words, words]
    said = capsys.readouterr().err
    assert note in said if note else not said


def test_instructions_by_number(tmp_path):
    make(tmp_path / "set", [5, 6], tasks=lambda e: [1 - e])
    (tmp_path / "set/meta/tasks.jsonl").write_text(
        '{"task_index": 0, "task": "pick"}\n{"task_index": 1, "task": "put"}\n'
    )
    split = open_source(tmp_path / "set").split("train")
    assert [split.instruction(e) for e in range(2)] == ["put", "pick"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"total_episodes": 5}, "states total_episodes 5, but the episodes listed in meta/ have 2"),
        ({"total_frames": 99}, "states total_frames 99, but the episodes listed in meta/ have 11"),
        ({"splits": {"train": "0:1"}}, "1 episodes are in none of its splits: left out"),
        ({"splits": {"train": "0:2", "test": "1:2"}}, "1 episodes are in several of its splits"),
        ({"splits": {"train": "80%"}}, "the split 'train' is '80%', which is not a range"),
        ({"splits": {"train": "7:9"}}, "no episode is in any of its splits: all are read as 'train'"),
    ],
)
def test_oddities_of_the_metadata_are_noted(tmp_path, capsys, more, message):
    make(tmp_path / "set", [5, 6], more=more)
    open_source(tmp_path / "set")
    assert message in capsys.readouterr().err


def test_an_episode_listed_twice(tmp_path):
    make(tmp_path / "set", [5, 6])
    path = tmp_path / "set/meta/episodes.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0])
    with pytest.raises(UserError, match="lists episode 0 twice"):
        open_source(tmp_path / "set")


def test_another_camera_is_noted(tmp_path, capsys):
    make(tmp_path / "set", [5, 6])
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    info["features"]["observation.images.wrist"] = info["features"][KEY]
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    open_source(tmp_path / "set")
    said = capsys.readouterr().err
    assert f"reading the camera '{KEY}'; --image-key chooses another (observation.images.wrist)" in said
    open_source(tmp_path / "set", image_key=KEY)
    assert capsys.readouterr().err == ""


def test_lists_of_one_number_and_rows_of_other_types(tmp_path):
    make(tmp_path / "set", [5, 6])
    for path in sorted((tmp_path / "set/data").rglob("*.parquet")):
        table = parquet.read_table(path)
        for place, name in enumerate(table.column_names[:3]):
            table = table.set_column(place, name, pa.array([[value] for value in table.column(name).to_pylist()]))
        parquet.write_table(table, path)
    assert open_source(tmp_path / "set").split("train").num_frames.tolist() == [5, 6]


@pytest.mark.parametrize("words", ["a\u2028b", "a\x85b", "pick"])
def test_lines_and_marks_of_unicode(tmp_path, words):
    make(tmp_path / "set", [5, 6], tasks=lambda e: [words])
    path = tmp_path / "set/meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("\ufeff" + lines, newline="\r\n")
    info = tmp_path / "set/meta/info.json"
    info.write_text("\ufeff" + info.read_text())
    assert open_source(tmp_path / "set").split("train").instruction(1) == words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 8.7}, "is not an episode"),
        ({"tasks": {"a": 1}}, "is not an episode"),
        ({"tasks": 1.5}, "is not an episode"),
        ({"length": 10**12}, "has 5 frames, expected the 1000000000000 of episode 0"),
    ],
)
def test_impossible_rows(tmp_path, change, message):
    make(tmp_path / "set", [5])
    shutil.rmtree(tmp_path / "set/data")
    path = tmp_path / "set/meta/episodes.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "set")


def test_metadata_that_changes_while_videos_are_probed(tmp_path, monkeypatch):
    """A frame cache made then is not reused with the new metadata."""
    from genie_datasets import build_frame_cache
    from genie_datasets.sources.lerobot import source as lerobot_source

    root = tmp_path / "set"
    make(root, [20, 20], version="v3.0", gap=20)
    original = lerobot_source.probe_all

    def slow(*args):
        found = original(*args)
        write_episodes(root, [20, 20], [2.0, 6.0], lambda e: [f"corrected {e}"])
        return found

    monkeypatch.setattr(lerobot_source, "probe_all", slow)
    split = open_source(root).split("train")
    assert split.instruction(0) == "task 0"
    with pytest.raises(UserError, match="changed while it was read"):
        build_frame_cache(split, tmp_path / "out", (16, 16), progress=False)
    monkeypatch.undo()
    cache = build_frame_cache(open_source(root).split("train"), tmp_path / "out", (16, 16), progress=False)
    assert cache.instruction(0) == "corrected 0"


def test_copies_of_videos_are_noted(tmp_path, capsys):
    make(tmp_path / "set", [6, 6])
    videos = sorted((tmp_path / "set").rglob("*.mp4"))
    shutil.copy(videos[0], videos[1])
    open_source(tmp_path / "set")
    assert "seem to be the same file" in capsys.readouterr().err
