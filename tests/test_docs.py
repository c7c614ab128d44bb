"""Every command and every block of code in the README and the guides runs, in a folder where what it names exists.

Commands run in small: fewer steps, fewer trajectories (`SMALLER`). What takes long by nature and has a test of its own
is read by its own parser and no more (`ONLY_READ`), and what is not ours is known by name (`NOT_OURS`). A command that
is none of these fails.
"""

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from genie_robotics.cli import commands, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/**/*.md", "eval/*.md", "datasets/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
BATCHES = [f"--training.{stage}.batch-size" for stage in ("tokenizer", "latent-action", "dynamics", "joint")]
SMALLER = {
    "train": ["--steps", "1", "--health-every", "0", *(word for name in BATCHES for word in (name, "1"))],
    "playback": [
        "--num-labels", "60", "--horizon", "3", "--curve-draws", "2", "--curve-rollouts", "1", "--videos", "1",
    ],
    "doctor": ["--clips", "2"],
    "data tabletop": ["--episodes", "2", "--workers", "1", "--scenes", "2", "--size", "32x32"],
    "score": ["--draws", "100"],
}  # fmt: skip
SMALL_MODEL = ["--clip-length", "2", *(
    word for name in ("tokenizer.encoder-", "tokenizer.decoder-", "latent-action.encoder-", "latent-action.decoder-",
                      "dynamics.") for word in (f"--{name}num-blocks", "1")
), "--tokenizer.patch-size", "16", "--latent-action.patch-size", "16", *(
    word for name in ("tokenizer.encoder-", "tokenizer.decoder-", "latent-action.", "dynamics.")
    for word in (f"--{name}width", "32", f"--{name}num-heads", "2")
)]  # fmt: skip
ONLY_READ = {
    "demo": "tests/test_demo.py", "pretrain": "tests/genie_eval/test_pretrain.py",
    "ablate": "tests/genie_eval/test_ablation.py", "bench": "tests/genie_robotics/test_bench.py and others",
    "play": "tests/genie_robotics/player", "estimate": "tests/genie_robotics/test_estimate.py",
}  # fmt: skip
RESULTS = ("docs/ablations.md",)  # trained on video that is not here, and for hours: its commands are read
NOT_OURS = ("pip", "gsutil", "mkdir")


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def lines(block: str) -> list[str]:
    """Commands of a block: continued lines joined, comments gone."""
    joined = block.replace("\\\n", " ")
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines()) if line]


class Read(Exception):
    """A command's words made sense to its parser."""


@contextlib.contextmanager
def only_read():
    """Commands end where their options have been read; fails where they do not come so far."""
    import tyro

    known = tyro.cli

    def cli(*args, **kwargs):
        known(*args, **kwargs)
        raise Read

    tyro.cli = cli
    try:
        yield
        pytest.fail("a command that was to be read ended before")
    except (Read, SystemExit):  # SystemExit: --help
        pass
    finally:
        tyro.cli = known


def film(path: Path, seed: int, frames: int = 20) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=3)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        picture = np.random.default_rng(seed).integers(0, 200, (64, 64, 3)).astype(np.uint8)
        for t in range(frames):
            shown = np.roll(picture, 2 * t, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown)))
        container.mux(stream.encode())


def shards_of_many(rlds: Path, out: Path) -> None:
    """A data set as it lies there after only shards 0 and 90 of 1,024 were copied."""
    shutil.copytree(rlds, out)
    info = json.loads((out / "dataset_info.json").read_text())
    held = {split["name"]: split for split in info["splits"]}
    lengths = ["0"] * 1024
    for split, number in (("train", 0), ("test", 90)):
        (old,) = out.glob(f"*-{split}.tfrecord-*")
        old.rename(out / f"tabletop-train.tfrecord-{number:05d}-of-01024")
        lengths[number] = held[split]["shardLengths"][0]
    info["splits"] = [{**held["train"], "shardLengths": lengths}]
    (out / "dataset_info.json").write_text(json.dumps(info))


@pytest.fixture(scope="module")
def template(tabletop_rlds, tmp_path_factory) -> Path:
    """A folder with all that the guides' commands read: data, videos, a picture, a run and reports."""
    place = tmp_path_factory.mktemp("guides")
    for folder in ("runs/demo/data", "SRC", "data/tabletop"):
        shutil.copytree(tabletop_rlds.parents[1], place / folder)
    shards_of_many(tabletop_rlds, place / "data/fractal20220817_data/tabletop/1.0.0")
    fractal = place / "data/fractal20220817_data"
    assert main(["data", "cache", str(fractal), str(place / "data/rt1_96"), "--size", "96x160"]) == 0
    (place / "my_videos").mkdir()
    for number in range(4):
        film(place / "my_videos" / f"{'kitchen2' if number == 3 else 'hall'}_{number}.mp4", number)
    shutil.copy(ROOT / "docs/images/playback.png", place / "kitchen.jpg")
    for number, report in enumerate(("runs/demo/report", "DIR_A", "DIR_B", "eval/reference/nano-tabletop")):
        shutil.copytree(ROOT / "eval/reference/nano-tabletop", place / report, ignore=shutil.ignore_patterns("figures"))
        stored = json.loads((place / report / "report.json").read_text())
        stored["created"] = f"2026-01-0{number + 1}T00:00:00+00:00"
        (place / report / "report.json").write_text(json.dumps(stored))
    os.environ["GENIE_ROBOTICS_CACHE"] = str(tmp_path_factory.mktemp("cache_of_guides"))
    with contextlib.chdir(place):
        argv = ["train", "runs/demo/run", "--data", "runs/demo/data", "--preset", "nano"]
        assert main([*argv, *SMALLER["train"], *SMALL_MODEL]) == 0
    shutil.copytree(place / "runs/demo/run", place / "RUN")
    np.savez(place / "latents.npz", codes=np.arange(400) % 8, motion=np.eye(8)[np.arange(400) % 8][:, :3],
             trajectory=np.arange(400) // 20, step=np.arange(400) % 20)  # fmt: skip
    return place


@pytest.fixture
def place(template, tmp_path, monkeypatch) -> Path:
    """A copy of the template for one page, which may write into it."""
    monkeypatch.setenv("MUJOCO_GL", "disable")  # TensorFlow, in the same process, does not get along with Mesa's OpenGL
    here = tmp_path / "here"
    shutil.copytree(template, here)
    monkeypatch.chdir(here)
    return here


def run(words: list[str], read: bool = False) -> None:
    """One command of the guides; fails where it does. read: its options are read and no more."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, words
        return
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        options = get_args_parser().parse_args(words[1:])
        assert (options.training_script, options.module) == ("genie_robotics", True)
        words = ["genie-robotics", *options.training_script_args]
        divide(words[1:], int(options.nproc_per_node) * int(options.nnodes.partition(":")[0]))
        words = [word for word in words if word not in ("--sharding", "full")]  # here it is one process
    if words[0] in NOT_OURS:
        return
    assert words[0] == "genie-robotics", f"a command that this test does not know: {words}"
    assert words[1] in commands(), words
    name = " ".join(words[1:3]) if words[1] == "data" else words[1]
    if name == "ablate" and len(words) == 2:  # lists the studies
        assert main(words[1:]) == 0
        return
    if read or name in ONLY_READ:
        with only_read():
            main(words[1:])
        return
    parts = {word: number for word, number in itertools.pairwise(words) if word.endswith(".micro-batches")}
    words = [*words[1:], *SMALLER.get(name, [])]
    for word, number in parts.items():
        words += [word.replace("micro-batches", "batch-size"), number]
    if name == "train" and not {"--init", "--labels"} & set(words):
        words = words + SMALL_MODEL
    assert main(words) in ((0, 1) if name == "doctor" else (0,)), words


def divide(words: list[str], processes: int) -> None:
    """The batches that a `train` command means can be cut over so many processes."""
    from unittest.mock import patch

    from genie_robotics.training.config import check_batch
    from genie_robotics.training.run import stages_of

    with patch("genie_robotics.training.run.train_run") as asked:
        assert main(words) == 0
    training = asked.call_args.args[3].training
    for stage in stages_of(training.mode):
        check_batch(training.stage(stage), stage, processes)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")])
def test_the_commands_of(page, place, small_suite, no_figures):
    shutil.rmtree(place / "data/tabletop")  # which a command makes
    for block in blocks(page, "bash"):
        for line in lines(block):
            run([word for word in shlex.split(line) if word not in ("[--out", "DIR]")], read=page in RESULTS)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_code_of(page, place, small_suite, no_figures):
    names = {"frames": np.zeros((4, 64, 64, 3), np.uint8), "actions": np.zeros((4, 7), np.float32),
             "states": np.zeros((4, 3), np.float32)}  # fmt: skip
    if page == "eval/README.md":
        from genie_datasets import open_source
        from genie_robotics import Genie

        names |= {"genie": Genie.from_pretrained("RUN"), "source": open_source("SRC")}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)


def test_commands_in_running_text_are_read_by_their_parsers():
    """`genie-robotics ...` within lines, tables too: with every option spelt as it is."""
    found = set()
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
        found |= {match.replace("\\|", "|") for match in re.findall(r"`(genie-robotics [^`\n]+)`", text)}
    assert len(found) > 20
    for command in sorted(found):
        words = re.sub(r"\|[\w|]+", "", command).split()  # of alternatives the first
        words = [{"NAME": "nano", "N": "2"}.get(word, word) for word in words]
        if len(words) > 3 and "COMMAND" not in words and words[-1] != "...":
            run(words, read=True)


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text()):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_study_that_the_guide_shows_can_be_read(tmp_path):
    from genie_eval.ablation.study import read_study

    (text,) = blocks("docs/ablations.md", "json")
    (tmp_path / "mine.json").write_text(text)
    assert len(read_study(tmp_path / "mine.json").variants) == 3
