"""`genie-robotics label`: the latent action of every transition of a data set, as a table and as a data set.

What VLA pretraining on unlabelled video needs: codes with how sure they are, beside their frames and words.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from jaxtyping import Float, Int
from tqdm import tqdm

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions

if TYPE_CHECKING:
    from genie_datasets.sources.split import Source, Split
    from genie_robotics.genie import Genie
    from genie_robotics.labeling.code_meanings import Meaning

WRITERS = ("rlds", "lerobot")
NONE = -1  # the code of frames that no transition leaves


@dataclass
class LabelOptions(SourceOptions):
    """Write the latent action of every transition of a data set, with how sure it is."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """A run folder, or the name of a world that comes with the package."""
    data: str = tyro.MISSING
    """RLDS/TFDS directory, LeRobotDataset, folder of videos, or a mix."""
    out: Path = tyro.MISSING
    """Folder for latent_actions.parquet, and for the data sets."""
    split: str | None = None
    """One split only; all without it."""
    write: tuple[str, ...] = ()
    """Also as a data set with the field latent_action: rlds, lerobot, or both. Frames, words and codes: no action."""
    report: Path | None = None
    """report.json that names the codes; found by itself beside a run that was evaluated."""
    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True)
class Labels:
    """Of one episode of L frames: entry t is of the transition that leaves frame t."""

    codes: Int[np.ndarray, " L"]
    confidence: Float[np.ndarray, " L"]
    step: int
    """Frames from one end of a transition to the other."""


def label(argv: list[str]) -> int:
    """Entry point of `genie-robotics label`."""
    options = parse(LabelOptions, argv, prog="genie-robotics label")
    import torch

    from genie_robotics.genie import Genie
    from genie_robotics.labeling.code_meanings import code_meanings
    from genie_robotics.pretrained import locate

    if unknown := sorted({*options.write} - {*WRITERS}):
        raise UserError(f"--write {unknown[0]}: one of {', '.join(WRITERS)}")
    if options.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {options.device}: auto, cpu or cuda")
    run = locate(options.run)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    genie = Genie.from_pretrained(run, device)
    meanings = code_meanings(run, genie.config.num_actions, options.report)
    source = options.open(options.data)
    names = [options.split] if options.split else list(source.splits)
    splits = [source.split(name) for name in names]
    began = time.monotonic()
    num = label_splits(genie, source, splits, options.out, options.write, meanings)
    seconds = time.monotonic() - began
    print(f"{options.out / 'latent_actions.parquet'}: {num:,} transitions, {num / seconds:,.0f} a second")
    return 0


def label_splits(
    genie: "Genie",
    source: "Source",
    splits: "list[Split]",
    out: Path,
    write: tuple[str, ...],
    meanings: "list[Meaning]",
) -> int:
    """Writes the table and the data sets into `out`; returns the number of transitions. Raises UserError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise UserError("the table needs pyarrow: pip install 'genie_robotics[parquet]'") from None
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
                for episode, labels in labelled(genie, split):
                    rows = columns(split, episode, labels, meanings)
                    table.write_table(pa.table(rows, schema=schema))
                    num += len(rows["code"])
                    for writer in writers:
                        add(writer, split, episode, labels)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror or error}): free some space, then anew") from None
    for writer in writers:
        writer.finish()
        print(f"{writer.folder}: the same video with the field latent_action")
    return num


def labelled(genie: "Genie", split: "Split") -> Iterator[tuple[int, Labels]]:
    """Every episode of a split with its labels."""
    for episode in tqdm(range(split.num_episodes), f"label {split.name}", unit="episode", leave=False):
        yield episode, label_episode(genie, split, episode)


def label_episode(genie: "Genie", split: "Split", episode: int) -> Labels:
    """Codes of all transitions of an episode, also of those that lie between the frames of a model with a gap.

    Confidence is 1 - d1 / d2 of the distances to the nearest two codes: 0 on the border between them, 1 on the code;
    nan where codes are a fixed grid.
    """
    import torch

    from genie_datasets import frame_step
    from genie_robotics.models.threads import threads_for

    step = frame_step(genie.config.gap, float(split.hz[episode]))
    frames = split.frames(episode, None, genie.config.image_size, genie.config.fit)
    codes, confidence = np.full(len(frames), NONE), np.full(len(frames), np.nan, np.float32)
    for first in range(min(step, max(0, len(frames) - step))):
        ids = np.arange(first, len(frames), step)
        if len(ids) < 2:
            continue
        with threads_for(genie):
            latents = genie.embed_actions(torch.from_numpy(frames[ids])[None])
            codes[ids[:-1]] = genie.latent_action.codebook.nearest(latents)[0].cpu().numpy()
            confidence[ids[:-1]] = genie.latent_action.codebook.margin(latents)[0].float().cpu().numpy()
    return Labels(codes, confidence, step)


def columns(split: "Split", episode: int, labels: Labels, meanings: "list[Meaning]") -> dict[str, Any]:
    frames = np.flatnonzero(labels.codes != NONE)
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
    """Raises UserError where the folder holds something."""
    hz = float(np.median(next(iter(source.splits.values())).hz))
    if kind == "lerobot":
        from genie_datasets.writers.lerobot import LeRobotWriter

        return LeRobotWriter(out / "lerobot", hz)
    from genie_datasets.writers.rlds import RldsWriter

    name = "".join(c if c.isalnum() else "_" for c in source.name.lower()).strip("_")
    return RldsWriter(out / "rlds", f"{name if name[:1].isalpha() else 'video'}_latent_actions", hz)


def add(writer: Any, split: "Split", episode: int, labels: Labels) -> None:
    """The episode as it is stored, with its codes; -1 where no transition leaves a frame."""
    from genie_datasets.writers.rlds import RldsWriter

    fields = {"latent_action": labels.codes, "latent_action_confidence": np.nan_to_num(labels.confidence)}
    frames, instruction = split.frame_blocks(episode), split.instruction(episode)
    if isinstance(writer, RldsWriter):
        writer.add(frames, instruction, fields, split.name, {"source": split.episode_name(episode)})
    else:
        writer.add(frames, instruction, fields, split.name, len(labels.codes))
