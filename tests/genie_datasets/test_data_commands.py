"""`genie-robotics data inspect` and `data cache` on good input."""

import json

import cv2
import numpy as np
import pytest

from genie_datasets.commands import parse_splits
from genie_datasets.inspect.overview import spaced
from genie_datasets.sources.frame_cache import FrameCache
from genie_datasets.sources.opening import open_source
from genie_robotics.cli import main


def test_inspect_json_is_only_the_figures(rlds_dir, capsys):
    assert main(["data", "inspect", str(rlds_dir), "--json", "--hz", "4"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "train": {"episodes": 4, "frames": 49, "hz": 4.0, "height": 32, "width": 40},
        "test": {"episodes": 1, "frames": 17, "hz": 4.0, "height": 32, "width": 40},
    }


def test_inspect_prints_figures_and_draws(video_dir, tmp_path, capsys):
    assert main(["data", "inspect", str(video_dir), "--hz", "3", "--out", str(tmp_path / "look")]) == 0
    printed = capsys.readouterr().out
    for word in ("3 episodes", "48 frames", "12 to 20 each", "32x48", "3 Hz", "1 shorter than a clip of 16", "static"):
        assert word in printed
    sheet = cv2.imread(str(tmp_path / "look" / "contact_sheet_train.png"))
    assert sheet.shape[0] > 3 * 96
    squares = (sheet > 215).all(-1) & (sheet < 250).all(-1)  # the bright square is in the picture
    assert squares.sum() > 500


def test_inspect_prints_the_pace(tmp_path, kit, capsys):
    frames = kit.moving_square(40)
    frames[20:] = frames[19]
    kit.write_video(tmp_path / "video" / "half.mp4", frames)
    look, command = tmp_path / "look", ["data", "inspect", str(tmp_path / "video"), "--hz", "3"]
    assert main([*command, "--out", str(look), "--clip-length", "8"]) == 0
    printed = capsys.readouterr().out
    assert "51% of transitions static; --drop-static 1 drops 42" in printed  # 14 of 33 windows
    assert "suggested --gap" in printed
    plot = cv2.imread(str(look / "gap_train.png"))
    assert (plot < 128).any()
    assert main([*command, "--json", "--motion"]) == 0
    figures = json.loads(capsys.readouterr().out)["train"]
    assert figures["static_transitions"] == pytest.approx(20 / 39)
    assert figures["cut_clips"] == 0
    assert figures["gaps"][0] == pytest.approx(1 / 3)
    assert figures["frames"] == 40


def test_spaced_takes_both_ends():
    assert spaced(3, 8) == [0, 1, 2]
    assert spaced(100, 4) == [0, 33, 66, 99]


def test_cache_writes_every_split_and_the_result_is_a_source(rlds_dir, tmp_path, capsys):
    out = tmp_path / "cache"
    assert main(["data", "cache", str(rlds_dir), str(out), "--size", "16x20"]) == 0
    split = open_source(rlds_dir).split("test")
    np.testing.assert_array_equal(FrameCache.open(out / "test").frames(0), split.frames(0, size=(16, 20)))
    capsys.readouterr()
    assert main(["data", "inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"] == {
        **{"episodes": 4, "frames": 49, "hz": 3.0, "height": 16, "width": 20}
    }


def test_splits_are_parsed():
    assert parse_splits("train=0.8,test=0.2") == {"train": 0.8, "test": 0.2}
    assert parse_splits("train=1") == {"train": 1.0}


def test_help_is_printed(capsys):
    assert main(["data"]) == 0
    assert "inspect SRC" in capsys.readouterr().out
