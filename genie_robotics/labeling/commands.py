"""`genie-robotics label`: writes the latent action of every transition of a data set, as a table and as a data set.

The result serves pretraining of vision-language-action models on unlabeled video: codes with their confidence, next to
frames and instructions.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions

if TYPE_CHECKING:
    from genie_datasets.sources.split import Source, Split
    from genie_robotics.genie import Genie
    from genie_robotics.labeling.code_meanings import Meaning
    from genie_robotics.models.config import GenieConfig

WRITERS = ("rlds", "lerobot")
NO_CODE = -1  # stored at frames that no transition starts from


@dataclass
class LabelOptions(SourceOptions):
    """Write the latent action of every transition of a data set, with its confidence."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """Run folder, or name of a shipped world (nano-tabletop)."""
    data: Annotated[str, Option("SRC")] = tyro.MISSING
    """Data to label: RLDS/TFDS folder, LeRobotDataset, folder of videos, or a mix."""
    out: Annotated[Path, Option("DIR")] = tyro.MISSING
    """Output folder for latent_actions.parquet and the data sets."""
    split: Annotated[str | None, Option("NAME")] = None
    """Split to label (default: all)."""
    write: Annotated[tuple[str, ...], Option("FORMAT ...")] = ()
    """Also write the frames with a field latent_action: rlds, lerobot, or both."""
    report: Path | None = None
    """report.json that names the codes (default: the one next to the run)."""
    device: Annotated[str, Option("{auto,cpu,cuda}")] = "auto"
    """Device to compute on."""


@dataclass(frozen=True)
class EpisodeCodes:
    """Codes of an episode of L frames; entry t belongs to the transition that starts at frame t."""

    codes: Int[np.ndarray, " L"]
    confidence: Float[np.ndarray, " L"]
    step: int
    """Frames from the start of a transition to its end."""


def label(argv: list[str]) -> int:
    """Entry point of `genie-robotics label`."""
    options = parse(
        LabelOptions,
        argv,
        prog="genie-robotics label",
        example="label nano-tabletop --data SRC --out codes --write rlds",
    )
    import torch

    from genie_robotics.genie import Genie
    from genie_robotics.labeling.code_meanings import code_meanings
    from genie_robotics.pretrained import locate

    if unknown := sorted({*options.write} - {*WRITERS}):
        raise UserError(f"unknown format --write {unknown[0]}; expected one of {', '.join(WRITERS)}")
    if options.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown --device {options.device}; expected auto, cpu or cuda")
    run = locate(options.run)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    genie = Genie.from_pretrained(run, device)
    meanings = code_meanings(run, genie.config.num_actions, options.report)
    source = options.open(options.data)
    names = [options.split] if options.split else list(source.splits)
    splits = [source.split(name) for name in names]
    start = time.monotonic()
    num = label_splits(genie, source, splits, options.out, options.write, meanings)
    seconds = time.monotonic() - start
    print(f"{options.out / 'latent_actions.parquet'}: {num:,} transitions, {num / seconds:,.0f} per second")
    return 0


def label_splits(
    genie: "Genie",
    source: "Source",
    splits: "list[Split]",
    out: Path,
    write: tuple[str, ...],
    meanings: "list[Meaning]",
) -> int:
    """Writes the table and the data sets into `out`; returns the number of transitions.

    Raises:
        UserError: pyarrow is not installed, or `out` cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise UserError("the table needs pyarrow; run: pip install 'genie_robotics[parquet]'") from None
    from genie_datasets.base.files import atomic_file

    out.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        [("split", pa.string()), ("episode", pa.int64()), ("episode_name", pa.string()), ("instruction", pa.string()),
         ("frame", pa.int64()), ("next_frame", pa.int64()), ("code", pa.int16()), ("confidence", pa.float32()),
         ("name", pa.string())]
    )  # fmt: skip
    writers = [open_writer(kind, out, source) for kind in write]
    num = 0
    try:
        with atomic_file(out / "latent_actions.parquet") as stream, parquet.ParquetWriter(stream, schema) as table:
            for split in splits:
                episodes = range(split.num_episodes)
                # Such a split would start again from its beginning to write an episode that it has passed.
                alone = split.sequential and bool(writers)
                groups = [[episode] for episode in episodes] if alone else [episodes]
                found = chain.from_iterable(label_episodes(genie, split, group) for group in groups)
                progress = tqdm(episodes, f"label {split.name}", unit="episode", leave=False)
                for episode, labels in zip(progress, found, strict=True):
                    columns = table_columns(split, episode, labels, meanings)
                    table.write_table(pa.table(columns, schema=schema))
                    num += len(columns["code"])
                    for writer in writers:
                        write_episode(writer, split, episode, labels)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; fix this and rerun the command") from None
    for writer in writers:
        writer.finish()
        print(f"{writer.folder}: the same frames with the field latent_action")
    return num


def label_episodes(genie: "Genie", split: "Split", episodes: Sequence[int]) -> Iterator[EpisodeCodes]:
    """Codes of all transitions of each episode, including those that start between the frames of a model with a gap.

    Confidence is 1 - d1 / d2 for the distances to the nearest two codes: 0 halfway between them, 1 at the code, NaN for
    codes on a fixed grid.
    """
    from genie_datasets import frame_step
    from genie_robotics.models.threads import threads_for
    from genie_robotics.models.windows import read_transitions

    quantizer = genie.latent_action.quantizer
    steps = [frame_step(genie.config.gap, float(split.hz[episode])) for episode in episodes]

    def videos() -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
        for frames, step in zip(read_episodes(split, episodes, genie.config), steps, strict=True):
            yield from (frames[ids] for ids in interleaved(len(frames), step))

    def read(clips: UInt8[np.ndarray, "B T H W 3"]) -> tuple[np.ndarray, np.ndarray]:
        latents = genie.embed_actions(clips)
        with threads_for(genie):
            codes, confidence = quantizer.nearest(latents), quantizer.margin(latents).float()
        return codes.cpu().numpy(), confidence.cpu().numpy()

    found = read_transitions(genie.config, videos(), read)
    for episode, step in zip(episodes, steps, strict=True):
        num = int(split.num_frames[episode])
        labels = EpisodeCodes(np.full(num, NO_CODE), np.full(num, np.nan, np.float32), step)
        for ids in interleaved(num, step):
            labels.codes[ids[:-1]], labels.confidence[ids[:-1]] = next(found)
        yield labels


def read_episodes(
    split: "Split", episodes: Sequence[int], config: "GenieConfig"
) -> Iterator[UInt8[np.ndarray, "L H W 3"]]:
    """Frames of each episode in order. Threads decode the next ones meanwhile, which a GPU would wait for.

    They hold no more frames than a batch, so long episodes are read one at a time.
    """
    from genie_datasets.base.cores import num_cores
    from genie_datasets.base.ordered_map import map_ahead
    from genie_robotics.models.windows import frames_at_once

    longest = int(split.num_frames.max())
    ahead = 0 if split.sequential else min(num_cores(), frames_at_once(config.image_size) // longest)
    with ThreadPoolExecutor(max(1, ahead)) as pool:
        yield from map_ahead(
            pool, lambda episode: split.frames(episode, None, config.image_size, config.fit), episodes, 1 + ahead
        )


def interleaved(num_frames: int, step: int) -> list[Int[np.ndarray, " n"]]:
    """Frames that are `step` apart, from every first frame that has a next one; together all transitions."""
    return [np.arange(first, num_frames, step) for first in range(min(step, num_frames - step))]


def table_columns(split: "Split", episode: int, labels: EpisodeCodes, meanings: "list[Meaning]") -> dict[str, Any]:
    """The rows of one episode in latent_actions.parquet, by column."""
    frames = np.flatnonzero(labels.codes != NO_CODE)
    codes = labels.codes[frames]
    return {
        "split": [split.name] * len(frames),
        "episode": np.full(len(frames), episode),
        "episode_name": [split.episode_name(episode)] * len(frames),
        "instruction": [split.instruction(episode)] * len(frames),
        "frame": frames,
        "next_frame": frames + labels.step,
        "code": codes.astype(np.int16),
        "confidence": labels.confidence[frames],
        "name": [meanings[code].name for code in codes],
    }


def open_writer(kind: str, out: Path, source: "Source") -> Any:
    """The writer of a data set in out/rlds or out/lerobot.

    Raises:
        UserError: the folder is not empty.
    """
    hz = float(np.median(next(iter(source.splits.values())).hz))
    if kind == "lerobot":
        from genie_datasets.writers.lerobot import LeRobotWriter

        return LeRobotWriter(out / "lerobot", hz)
    from genie_datasets.writers.rlds import RldsWriter

    name = "".join(c if c.isalnum() else "_" for c in source.name.lower()).strip("_")
    return RldsWriter(out / "rlds", f"{name if name[:1].isalpha() else 'video'}_latent_actions", hz)


def write_episode(writer: Any, split: "Split", episode: int, labels: EpisodeCodes) -> None:
    """Adds an episode as it is stored, with its codes; NO_CODE where no transition starts at a frame."""
    from genie_datasets.writers.rlds import RldsWriter

    fields = {"latent_action": labels.codes, "latent_action_confidence": np.nan_to_num(labels.confidence)}
    frames, instruction = split.frame_blocks(episode), split.instruction(episode)
    if isinstance(writer, RldsWriter):
        writer.add(frames, instruction, fields, split.name, {"source": split.episode_name(episode)})
    else:
        writer.add(frames, instruction, fields, split.name, len(labels.codes))
