"""`genie-robotics playback`: decoded latent actions in MuJoCo next to the dream."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder
from genie_datasets.sources.options import SourceOptions
from genie_eval.playback.config import PlaybackConfig


@dataclass
class PlaybackOptions(SourceOptions):
    """Decode latent actions with a few labels, execute them in MuJoCo, and film them next to the dream."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """Run folder, or name of a shipped world (nano-tabletop)."""
    data: Annotated[str, Option("SRC")] = tyro.MISSING
    """Data set made with `data tabletop`, whose records keep the simulator's states."""
    out: Annotated[Path, Option("DIR")] = tyro.MISSING
    """Output folder for playback.json, playback.md, figures and videos."""
    labels: Annotated[Path | None, Option("FILE.npz")] = None
    """Labeled transitions (default: true actions of random ones, written to OUT)."""
    codes: str | None = None
    """Codes to execute and dream, such as 3,3,5 (default: those of recorded episodes)."""
    split: Annotated[str | None, Option("NAME")] = None
    """Split to measure (default: test)."""
    episode: int | None = None
    """Episode to film, or to start --codes from."""
    start: int | None = None
    """Frame of that episode to start from."""
    config: Annotated[PlaybackConfig, tyro.conf.arg(name="")] = field(default_factory=PlaybackConfig)


def playback(argv: list[str]) -> int:
    """Entry point of `genie-robotics playback`."""
    options = parse(
        PlaybackOptions,
        argv,
        prog="genie-robotics playback",
        example="playback nano-tabletop --data SRC --out look",
    )
    typed = None if options.codes is None else parse_codes(options.codes)
    if options.start is not None and options.episode is None:
        raise UserError("--start is a frame of an episode; pass --episode as well")
    if options.out.exists():
        make_folder(options.out)

    from genie_eval.playback.run import play_back, play_codes
    from genie_eval.playback.summary import drift_rows, path_rows, text_table
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
        print(f"codes without a label, which do nothing: {missing}")
    print(f"playback: {(options.out / 'playback.md').resolve()}")
    return 0


def parse_codes(text: str) -> list[int]:
    """'3,3,5' -> [3, 3, 5].

    Raises:
        UserError: not integers separated by commas.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--codes '{text}' must be integers from 0 separated by commas; write for example 3,3,5")
    return [int(word) for word in words]
