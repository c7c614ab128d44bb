"""`genie-robotics data ...`: the commands tabletop, inspect and cache."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder
from genie_datasets.sources.options import SourceOptions

USAGE = """usage: genie-robotics data COMMAND [options]      (COMMAND --help lists its options)

  tabletop OUT   simulate robot episodes on a table and write them as RLDS
  inspect SRC    print episodes, frames, rate, image size and static share; draw a contact sheet
  cache SRC OUT  decode every frame once, to train from"""


@dataclass
class InspectConfig(SourceOptions):
    """Print what a source holds, and how much of it is static."""

    src: tyro.conf.Positional[str] = tyro.MISSING
    """Folder of RLDS, LeRobot, videos or numpy files, a frame cache, or a mixture A:0.7,B:0.3."""
    out: Annotated[Path | None, Option("DIR")] = None
    """Folder for the pictures contact_sheet_SPLIT.png and gap_SPLIT.png."""
    json: bool = False
    """Print only {SPLIT: {"episodes", "frames", "hz", "height", "width"}}."""
    motion: bool = False
    """With --json: add the static share, the cuts, and the visible motion by gap."""
    clip_length: int = 16
    """Frames of a clip; shorter episodes are counted."""
    gap: Annotated[float | None, Option("SECONDS")] = None
    """Seconds between the frames of a clip. Without it: consecutive frames."""


@dataclass
class CacheConfig(SourceOptions):
    """Decode every frame of a source once. Every command reads the cache as a source. Rerun the command to resume."""

    src: tyro.conf.Positional[str] = tyro.MISSING
    """Folder of RLDS, LeRobot, videos or numpy files, or a mixture A:0.7,B:0.3."""
    out: tyro.conf.Positional[Path] = tyro.MISSING
    """Folder of the cache; each split is written to OUT/SPLIT."""
    size: tuple[int, int] = (64, 64)
    """Size of the frames, height first."""
    fit: Literal["crop", "letterbox"] = "crop"
    """crop: cut the center to the aspect of the size; letterbox: keep everything, with black bars."""


Vary = Literal["vary", "fixed"]
VARIES = "what varies between scenes (default: set by --family)"


@dataclass
class TabletopConfig:
    """Simulate robot episodes on a table and write them as an RLDS data set. Rerun the command to resume."""

    out: tyro.conf.Positional[Path]
    """Folder of the data set."""
    episodes: int
    """Episodes in all splits together."""
    seed: int = 0
    """Random seed of scenes and episodes."""
    size: tuple[int, int] = (64, 64)
    """Size of the frames, height first."""
    split: Annotated[str, Option("NAME=SHARE,...")] = "train=0.8,test=0.2"
    """Splits and their shares of the episodes; splits have no scene in common."""
    family: Literal["easy", "rt1", "wild"] = "easy"
    """easy: fixed camera and light, clear motion; rt1: all skills, varied as in RT-1; wild: any look, from any side."""
    workers: int | None = None
    """Number of processes. Without it: one per core."""
    scenes: int | None = None
    """Number of scenes in all splits together, at least one per split."""
    behaviour: Annotated[Literal["play", "expert", "mixed"] | None, Option(group=VARIES)] = None
    """play: motion along single axes; expert: one skill after another; mixed: a skill, then play."""
    layout: Annotated[Vary | None, Option(group=VARIES)] = None
    """Kind of furniture: desk with drawers, table, or counter."""
    textures: Annotated[Vary | None, Option(group=VARIES)] = None
    """Textures of table and floor."""
    colours: Annotated[Vary | None, Option(group=VARIES)] = None
    """Colors of furniture, arm and objects."""
    lighting: Annotated[Vary | None, Option(group=VARIES)] = None
    """Position, color and brightness of the two lights."""
    camera: Annotated[Vary | None, Option(group=VARIES)] = None
    """Pose and field of view of the camera."""
    clutter: Annotated[Vary | None, Option(group=VARIES)] = None
    """Objects in the background and at the far edge of the table."""
    distractor: Annotated[Vary | None, Option(group=VARIES)] = None
    """vary: somebody walks behind the table in half of the scenes; fixed: nobody."""
    style: Annotated[Vary | None, Option(group=VARIES)] = None
    """How frames are drawn: as rendered, flat, outlined, crayon, noisy, gray and others."""


def main(argv: list[str]) -> int:
    """Entry point of `genie-robotics data`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    commands: dict[str, tuple[Callable, type, str]] = {
        "inspect": (inspect, InspectConfig, "data inspect data/tabletop --out look"),
        "cache": (cache, CacheConfig, "data cache videos cache --hz 3 --size 64x80"),
        "tabletop": (tabletop, TabletopConfig, "data tabletop data/tabletop --episodes 200"),
    }
    if argv[0] not in commands:
        raise UserError(f"unknown command 'data {argv[0]}'; expected one of {', '.join(commands)}")
    run, config, example = commands[argv[0]]
    return run(parse(config, argv[1:], prog=f"genie-robotics data {argv[0]}", example=example))


def inspect(config: InspectConfig) -> int:
    """`data inspect`."""
    from genie_datasets.inspect.overview import summary, write_contact_sheet
    from genie_datasets.inspect.pace import pace, plot_pace

    if config.clip_length < 2:
        raise UserError(f"--clip-length must be at least 2 frames, got {config.clip_length}")
    source = config.open(config.src)
    found = summary(source)
    paces = {}
    if config.motion or config.out or not config.json:
        paces = {name: pace(split, config.clip_length, config.gap) for name, split in source.splits.items()}
    pictures = []
    if config.out:
        make_folder(config.out)
        for name, split in source.splits.items():
            pictures += [config.out / f"contact_sheet_{name}.png", config.out / f"gap_{name}.png"]
            write_contact_sheet(split, pictures[-2], f"{source.name} / {name}")
            plot_pace(paces[name], pictures[-1], f"{source.name} / {name}")
    if config.json:
        more = {name: paces[name].figures() for name in found} if config.motion else {}
        print(json.dumps({name: row | more.get(name, {}) for name, row in found.items()}))
        return 0
    print(f"{source.name} ({source.kind})  {source.path}")
    for name, row in found.items():
        split = source.splits[name]
        short = int((split.num_frames < config.clip_length).sum())
        print(
            f"  {name}: {row['episodes']} episodes, {row['frames']} frames ({split.num_frames.min()} to "
            f"{split.num_frames.max()} each) of {row['height']}x{row['width']}"
            + "".join(f", {h}x{w}" for h, w in row.get("other_sizes", [])[:3])
            + f" at {row['hz']:g} Hz; "
            f"{short} shorter than a clip of {config.clip_length}"
            + (f"; {split.num_filtered} episodes left out (--unfiltered)" if split.num_filtered else "")
            + (f"; {len(split.damage)} damaged, skipped" if split.damage else "")
        )
        p = paces[name]
        print(
            f"    motion: {p.static_transitions:.0%} of transitions static; --drop-static 1 drops {p.static_clips:.1%} "
            f"of clips, --drop-static 0.5 {p.mostly_static_clips:.1%}, --drop-cuts {p.cut_clips:.1%}; suggested --gap "
            f"{p.suggested_gap:.2g} (s)"
        )
    print("  pictures: " + (", ".join(map(str, pictures)) if pictures else "pass --out DIR"))
    return 0


def cache(config: CacheConfig) -> int:
    """`data cache`."""
    from genie_datasets.sources.frame_cache import find_caches
    from genie_datasets.writers.frame_cache import build_frame_cache

    source = config.open(config.src)
    for folder in find_caches(config.out):
        if folder.name not in source.splits:
            raise UserError(
                f"{folder} is a frame cache of another source, with a split that {config.src} does not have: choose "
                "another folder for OUT, or remove this one"
            )
    for name, split in source.splits.items():
        built = build_frame_cache(split, config.out / name, config.size, config.fit)
        print(f"{built.folder}: {built.num_episodes} episodes, {built.packed.nbytes / 1e6:.1f} MB")
    return 0


def tabletop(config: TabletopConfig) -> int:
    """`data tabletop`."""
    splits = parse_splits(config.split)
    if config.episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {config.episodes}")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"--workers must be at least 1, got {config.workers}")
    from genie_datasets.tabletop.factors import FAMILY_FACTORS, SWITCHES
    from genie_datasets.tabletop.generate import generate

    if config.family == "easy" and config.layout == "vary":
        raise UserError("--layout vary needs --family rt1 or wild, because the arm of easy reaches only its own table")
    switches = {name: value == "vary" for name in SWITCHES if (value := getattr(config, name)) is not None}
    if config.behaviour:
        switches["behaviour"] = config.behaviour
    folder = generate(
        config.out,
        episodes=config.episodes,
        seed=config.seed,
        size=config.size,
        splits=splits,
        family=config.family,
        workers=config.workers,
        factors=replace(FAMILY_FACTORS[config.family], **switches),
        scenes=config.scenes,
    )
    print(folder)
    return 0


def parse_splits(text: str) -> dict[str, float]:
    """'train=0.8,test=0.2' -> {"train": 0.8, "test": 0.2}, which `generate` checks. Raises UserError."""
    splits: dict[str, float] = {}
    try:
        for part in text.split(","):
            name, share = part.split("=")
            splits[name.strip()] = float(share)
    except ValueError:
        raise UserError(f"--split must be NAME=SHARE,..., such as train=0.8,test=0.2, got '{text}'") from None
    if len(splits) != text.count(",") + 1:
        raise UserError(f"--split must name each split once, got '{text}'")
    return splits
