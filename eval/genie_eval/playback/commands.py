"""`genie-robotics playback`: decoded latent actions in MuJoCo beside the dream."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions
from genie_eval.playback.config import PlaybackConfig


@dataclass
class PlaybackOptions(SourceOptions):
    """Decode latent actions with a few labels, execute them in MuJoCo, and film them beside the dream."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """Run folder, or the name of a world that comes with the package (nano-tabletop)."""
    data: str = tyro.MISSING
    """Data set made with `data tabletop`: its records keep the simulator's states."""
    out: Path = tyro.MISSING
    """Folder for playback.json, playback.md, figures and videos."""
    labels: Path | None = None
    """Labelled transitions (.npz); without it true actions of random transitions are taken, and written to OUT."""
    codes: str | None = None
    """A sequence to execute and dream, such as 3,3,5; without it the codes of recorded episodes."""
    split: str | None = None
    """Which split to measure; test if there is one."""
    episode: int | None = None
    """Which episode to film, or to start --codes from."""
    start: int | None = None
    """From which of its frames (with --episode)."""
    config: Annotated[PlaybackConfig, tyro.conf.arg(name="")] = field(default_factory=PlaybackConfig)


def playback(argv: list[str]) -> int:
    options = parse(PlaybackOptions, argv, prog="genie-robotics playback")
    typed = None if options.codes is None else parse_codes(options.codes)
    if options.start is not None and options.episode is None:
        raise UserError("--start is a frame of an episode: name that too, with --episode")

    from genie_eval.playback.run import make_folder, play_back, play_codes
    from genie_eval.playback.summary import drift_rows, path_rows, text_table

    if options.out.exists():
        make_folder(options.out)

    from genie_robotics.genie import Genie

    genie = Genie.from_pretrained(options.run)
    source = options.open(options.data)
    which: dict[str, Any] = {name: getattr(options, name) for name in ("split", "labels", "episode", "start")}
    if typed is not None:
        result = play_codes(genie, source, options.out, typed, options.config, run=options.run, **which)
        print(text_table(path_rows(result)))
    else:
        result = play_back(genie, source, options.out, options.config, run=options.run, **which)
        print(result["answer"])
        print("drift of the end effector, cm [95 % interval]")
        print(text_table(drift_rows(result)))
    if result["codes_without_label"]:
        missing = ", ".join(str(code) for code in result["codes_without_label"])
        print(f"without a label, so they do nothing: codes {missing}")
    print(f"playback: {(options.out / 'playback.md').resolve()}")
    return 0


def parse_codes(text: str) -> list[int]:
    """'3,3,5' -> [3, 3, 5]; raises UserError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--codes '{text}': write whole numbers from 0 up with commas between them, such as 3,3,5")
    return [int(word) for word in words]
