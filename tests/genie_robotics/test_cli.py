"""The command line: a user's mistake is one line and exit status 2, never a traceback."""

import json
import os
import re
import subprocess
import sys

import pytest

from genie_robotics.cli import commands, main
from tests.genie_robotics.conftest import tiny_options


def one_line(capsys) -> str:
    out = capsys.readouterr()
    lines = [line for line in out.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, out.err
    assert "Traceback" not in out.err
    return lines[0]


def test_every_command_is_listed_and_loads(capsys):
    assert main([]) == 0
    usage = capsys.readouterr().out
    found = commands()
    assert {"demo", "data", "train", "evaluate", "bench"} <= set(found)
    for name, entry in found.items():
        assert re.search(rf"^  {name} +\S.{{20,}}", usage, re.MULTILINE), f"{name} has no line of help"
        assert callable(entry.load())


def test_an_unknown_command(capsys):
    assert main(["dream"]) == 2
    assert "unknown command 'dream'; expected one of ablate, bench, data" in one_line(capsys)


def test_the_command_line_starts_without_torch():
    code = (
        "import sys; from genie_robotics.cli import main; main([]); "
        "print([m for m in ('torch', 'cv2', 'tyro') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"


def into_closed_pipe(code: str, *argv: str, unbuffered: str = "") -> subprocess.CompletedProcess:
    """Runs Python with a closed pipe as stdout."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300, env=environment)
    os.close(writer)
    return done


ESTIMATE = (
    "estimate --tokenizer.encoder-num-blocks 1 --tokenizer.decoder-num-blocks 1 --latent-action.encoder-num-blocks 1 "
    "--latent-action.decoder-num-blocks 1 --dynamics.num-blocks 1"
)


@pytest.mark.parametrize(
    ("argv", "unbuffered"),
    [("--help", ""), ("--help", "1"), ("--version", ""), ("data inspect --help", ""), ("bench --help", "1"),
     (ESTIMATE, "")],
)  # fmt: skip
def test_a_closed_pipe_is_quiet(argv, unbuffered):
    """Nothing on stderr, not even when the interpreter ends, as with `genie-robotics --help | head -0`."""
    code = "import sys; from genie_robotics.cli import main; sys.exit(main())"
    done = into_closed_pipe(code, *argv.split(), unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_pipe_does_not_hide_the_error():
    code = (
        "import sys; from genie_robotics.cli import main; print('begun'); sys.exit(main(['data', 'inspect', 'none']))"
    )
    done = into_closed_pipe(code)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


WITH_MODEL_FIELDS = ("train", "estimate")


def test_help_starts_without_slow_imports():
    """torch takes seconds to import, so only help that shows a model's fields imports it."""
    code = """
import contextlib, io, json, sys
from genie_robotics.cli import commands, main
loaded = {}
for name in sorted(commands(), key=lambda name: name in sys.argv[1:]):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([name, "--help"])
    loaded[name] = [m for m in ("torch", "matplotlib", "sklearn") if m in sys.modules]
    assert "-h, --help" in said.getvalue() or "usage" in said.getvalue(), name
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code, *WITH_MODEL_FIELDS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name, modules in json.loads(done.stdout).items():
        assert set(modules) <= ({"torch"} if name in WITH_MODEL_FIELDS else set()), name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "{tmp}/run", "--data", "{tmp}/nothing"], "nothing"),
        (["train", "{tmp}/run", "--data", "{tmp}", "--preset", "mini"], "unknown preset 'mini'"),
        (["train", "{tmp}/run", "--data", "{tmp}"], "{tmp}"),
        (["evaluate", "{tmp}/run", "--data", "{tmp}", "--out", "{tmp}/out"], "no run folder"),
        (["demo", "--data", "{tmp}/nothing", "--out", "{tmp}/out"], "nothing"),
        (["demo", "--minutes", "0"], "--minutes must be above 0"),
        (["data", "paint"], "data paint"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path, capsys, argv, message):
    assert main([word.format(tmp=tmp_path) for word in argv]) == 2
    assert message.format(tmp=tmp_path) in one_line(capsys)


def test_train_then_train_again_then_another_preset(tmp_path, tabletop_rlds, capsys):
    """The commands of a user, on a tiny model, make a run folder that loads."""
    from genie_robotics import Genie

    run = tmp_path / "run"
    command = ["train", str(run), "--data", str(tabletop_rlds), "--steps", "4", "--device", "cpu", *tiny_options()]
    assert main(command) == 0
    assert "dynamics" in capsys.readouterr().out
    genie = Genie.from_pretrained(run)
    assert genie.config.clip_length == 6
    assert genie.latent_action.quantizer.started
    stored = json.loads((run / "config.json").read_text())
    assert stored["data"]["split"] == "train"
    assert stored["packages"]["torch"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"tokenizer", "latent_action", "dynamics"}

    assert main(command) == 0
    assert capsys.readouterr().out.count("already trained") == 3
    assert main([*command, "--dynamics.width=64"]) == 2
    assert "another configuration (dynamics.width: 16 / 64)" in one_line(capsys)
    assert main([*command[:4], "--clip-length=60", "--steps=1"]) == 2


def test_no_episode_as_long_as_a_clip(tmp_path, tabletop_rlds, capsys):
    assert main(["train", str(tmp_path / "run"), "--data", str(tabletop_rlds), "--clip-length", "64"]) == 2
    assert "--clip-length" in one_line(capsys)
    assert not (tmp_path / "run").exists(), "nothing is left that would stop the next try"


def test_a_frame_cache_of_that_size_is_read_in_place(tmp_path, tabletop_rlds):
    from genie_datasets import build_frame_cache, open_source
    from genie_datasets.base.cache_dir import cache_dir
    from genie_robotics.models.presets import preset
    from genie_robotics.training.run import open_clips

    config = preset("nano")
    split = open_source(str(tabletop_rlds)).split("train")
    decoded = open_clips(open_source(str(tabletop_rlds)), "train", config)
    for size, made in ((64, 1), (80, 2)):  # another size is fitted again, into its own cache
        build_frame_cache(split, tmp_path / str(size), (size, size), config.fit, progress=False)
        clips = open_clips(open_source(str(tmp_path / str(size))), "train", config)
        assert len(list((cache_dir() / "frames").iterdir())) == made
        assert len(clips) == len(decoded)
        assert clips[0].shape == decoded[0].shape
        assert (size == 64) == bool((clips[0] == decoded[0]).all())


def test_actions_cannot_reach_training(tabletop_rlds):
    """The clips of training have pixels only: no accessor for actions or truth."""
    import torch

    from genie_datasets import open_source
    from genie_robotics.models.presets import preset
    from genie_robotics.training.run import open_clips

    clips = open_clips(open_source(str(tabletop_rlds)), "train", preset("nano"))
    assert isinstance(clips[0], torch.Tensor)
    assert clips[0].dtype == torch.uint8
    public = [name for name in dir(clips) if not name.startswith("_")]
    assert not [name for name in public if "action" in name or "truth" in name or "motion" in name]
