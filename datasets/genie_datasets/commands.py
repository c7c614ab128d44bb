"""`genie-robotics data ...`: inspect, cache, tabletop."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions

USAGE = """usage: genie-robotics data COMMAND      (COMMAND --help lists its options)

  tabletop OUT   write a simulated RT-1-style data set as RLDS
  inspect SRC    episodes, frames, rate, image size, static share, a contact sheet
  cache SRC OUT  decode every frame once, to train from"""


@dataclass
class InspectConfig(SourceOptions):
    """What a source holds."""

    src: tyro.conf.Positional[str] = tyro.MISSING
    """RLDS folder, folder of videos, frame cache, or A:0.7,B:0.3."""
    json: bool = False
    """Print {SPLIT: {"episodes", "frames", "hz", "height", "width"}} and nothing else."""
    motion: bool = False
    """With --json: also the shares of static transitions and clips, of cuts, and of visible motion by gap."""
    out: Path | None = None
    """Write contact_sheet_SPLIT.png and gap_SPLIT.png here."""
    clip_length: int = 16
    """Episodes shorter than this count as short."""
    gap: float | None = None
    """Seconds between the frames of a clip; none: consecutive frames."""


@dataclass
class CacheConfig(SourceOptions):
    """Decode every split of a source into OUT/SPLIT, which every command takes as a source."""

    src: tyro.conf.Positional[str] = tyro.MISSING
    out: tyro.conf.Positional[Path] = tyro.MISSING
    size: str = "64x64"
    """HEIGHTxWIDTH."""
    fit: str = "crop"
    """crop: cut the centre to the aspect; letterbox: keep all, with black bars."""


Vary = Literal["vary", "fixed"]


@dataclass
class TabletopConfig:
    """Simulate episodes on a table in RT-1's view and write them as an RLDS data set. The same command resumes.

    What differs between scenes has a switch each; those not given are the family's own, and every episode records them.
    """

    out: tyro.conf.Positional[Path]
    episodes: int
    """In all splits together."""
    seed: int = 0
    size: str = "64x64"
    """HEIGHTxWIDTH."""
    split: str = "train=.8,test=.2"
    """Shares of the scenes."""
    family: str = "easy"
    """easy: fixed camera and light, play at clear speeds; rt1: everything varies, all skills."""
    workers: int | None = None
    """Processes; every core without it."""
    scenes: int | None = None
    """How many scenes in all; one a split is the fewest."""
    behaviour: Literal["play", "expert", "mixed"] | None = None
    """play: moves along single axes; expert: one skill after another; mixed: a skill, then play."""
    layout: Vary | None = None
    """Kinds of furniture: desk with drawers, table, counter; fixed: the family's own."""
    textures: Vary | None = None
    colours: Vary | None = None
    """Of furniture, arm and objects."""
    lighting: Vary | None = None
    camera: Vary | None = None
    """Its pose and field of view."""
    clutter: Vary | None = None
    """What lies about in the background and at the far edge."""
    distractor: Vary | None = None
    """vary: somebody walks behind the table in half of the scenes; fixed: nobody."""


def main(argv: list[str]) -> int:
    """Entry point of `genie-robotics data`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    commands: dict[str, tuple[Callable, type]] = {
        "inspect": (inspect, InspectConfig),
        "cache": (cache, CacheConfig),
        "tabletop": (tabletop, TabletopConfig),
    }
    if argv[0] not in commands:
        raise UserError(f"'data {argv[0]}' is no command: there are {', '.join(commands)}")
    run, config = commands[argv[0]]
    return run(parse(config, argv[1:], prog=f"genie-robotics data {argv[0]}"))


def inspect(config: InspectConfig) -> int:
    from genie_datasets.inspect.overview import summary, write_contact_sheet
    from genie_datasets.inspect.pace import pace, plot_pace

    if config.clip_length < 2:
        raise UserError(f"--clip-length {config.clip_length}: a clip needs at least 2 frames")
    source = config.open(config.src)
    found = summary(source)
    paces = {}
    if config.motion or config.out or not config.json:
        paces = {name: pace(split, config.clip_length, config.gap) for name, split in source.splits.items()}
    pictures = []
    if config.out:
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
            f"of clips, --drop-static .5 {p.mostly_static_clips:.1%}, --drop-cuts {p.cut_clips:.1%}; suggested --gap "
            f"{p.suggested_gap:.2g} (s)"
        )
    print("  pictures: " + (", ".join(map(str, pictures)) if pictures else "say --out DIR"))
    return 0


def cache(config: CacheConfig) -> int:
    from genie_datasets.base.fit import check_mode, parse_size
    from genie_datasets.sources.frame_cache import find_caches
    from genie_datasets.writers.frame_cache import build_frame_cache

    size = parse_size(config.size)
    check_mode(config.fit)
    source = config.open(config.src)
    for folder in find_caches(config.out):
        if folder.name not in source.splits:
            raise UserError(
                f"{folder} is a frame cache of another source, with a split that {config.src} does not have: give "
                "another folder for OUT, or remove it"
            )
    for name, split in source.splits.items():
        built = build_frame_cache(split, config.out / name, size, config.fit)
        print(f"{built.folder}: {built.num_episodes} episodes, {built.packed.nbytes / 1e6:.1f} MB")
    return 0


def tabletop(config: TabletopConfig) -> int:
    from genie_datasets.base.fit import parse_size

    size, splits = parse_size(config.size), parse_splits(config.split)
    if config.episodes < 1:
        raise UserError(f"--episodes {config.episodes}: ask for at least 1")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"--workers {config.workers}: ask for at least 1")
    from genie_datasets.tabletop.factors import FAMILY_FACTORS, SWITCHES
    from genie_datasets.tabletop.generate import generate

    if config.family not in FAMILY_FACTORS:
        raise UserError(f"--family {config.family}: choose one of {', '.join(FAMILY_FACTORS)}")
    if config.family == "easy" and config.layout == "vary":
        raise UserError("--layout vary goes with --family rt1: the arm of easy reaches one table")
    asked = {name: value == "vary" for name in SWITCHES if (value := getattr(config, name)) is not None}
    if config.behaviour:
        asked["behaviour"] = config.behaviour
    folder = generate(
        config.out,
        episodes=config.episodes,
        seed=config.seed,
        size=size,
        splits=splits,
        family=config.family,
        workers=config.workers,
        factors=replace(FAMILY_FACTORS[config.family], **asked),
        scenes=config.scenes,
    )
    print(folder)
    return 0


def parse_splits(text: str) -> dict[str, float]:
    """'train=.8,test=.2' -> {"train": 0.8, "test": 0.2}; raises UserError."""
    splits: dict[str, float] = {}
    try:
        for part in text.split(","):
            name, share = part.split("=")
            splits[name.strip()] = float(share)
    except ValueError:
        raise UserError(f"--split '{text}' is not NAME=SHARE,...: write for instance train=.8,test=.2") from None
    if not all(name.isidentifier() and share > 0 for name, share in splits.items()):
        raise UserError(f"--split '{text}' needs names and shares above 0, such as train=.8,test=.2")
    if len(splits) != text.count(",") + 1 or abs(sum(splits.values()) - 1) > 1e-6:
        raise UserError(f"--split '{text}' must name each split once, with shares that sum to 1")
    return splits
