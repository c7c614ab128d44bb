"""Measures how the cost of `nano` grows; writes docs/growth.json and docs/images/growth.png.

    python tools/growth.py SRC    (SRC: a tabletop data set of family easy)

Training step: against frames per clip, image side and clips per step. Reading and training: against episodes of the
data set. Evaluation: against trajectories. Takes about ten minutes on an idle machine.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from genie_datasets import ClipDataset, EpochSampler, open_source
from genie_datasets.sources.split import Split, frame_ids
from genie_eval.plotting import GRAY, PALETTE
from genie_robotics import Genie
from genie_robotics.benchmarks.measure import seconds
from genie_robotics.benchmarks.training import StepBench
from genie_robotics.estimate.flops import forward_flops
from genie_robotics.models.config import COMPONENTS, GenieConfig
from genie_robotics.models.presets import preset
from genie_robotics.training.config import LoopConfig, training_preset
from genie_robotics.training.distributed import set_up
from genie_robotics.training.trainer import Trainer

BATCH, REPEATS, STEPS = 2, 5, 24
AXES = {"frames": (4, 8, 16, 32), "side": (32, 64, 96, 128), "batch": (1, 2, 4, 8)}
EPISODES = (100, 1_000, 10_000, 100_000, 1_000_000)
TRAINED_ON = (100, 10_000, 1_000_000)
TRAJECTORIES = (25, 50, 100, 200)
DOCS = Path(__file__).parents[1] / "docs"


class ManyEpisodes(Split):
    """Any number of episodes of 40 frames that share 64 videos in memory: it measures finding clips, not a disk."""

    def __init__(self, num_episodes: int):
        self.name, self.fingerprint = "train", f"many-{num_episodes}"
        self.num_frames, self.hz = np.full(num_episodes, 40), np.full(num_episodes, 3.0)
        self.video = np.random.default_rng(0).integers(0, 256, (64, 40, 64, 64, 3), np.uint8)

    def frames(
        self, episode: int, ids: np.ndarray | None = None, size: tuple[int, int] | None = None, mode: str = "crop"
    ) -> np.ndarray:
        return self.video[episode % len(self.video)][frame_ids(ids, 40)]

    def instruction(self, episode: int) -> str:
        return ""

    def episode_name(self, episode: int) -> str:
        return str(episode)


def nano_with(axis: str, value: int) -> tuple[GenieConfig, int]:
    """`nano` and a batch size, with one of them changed."""
    config, batch = preset("nano"), BATCH
    if axis == "frames":
        config.clip_length = value
    elif axis == "side":
        config.image_size = (value, value)
    else:
        batch = value
    return config.resolved(), batch


def measure_steps() -> list[dict[str, Any]]:
    """Milliseconds and forward operations per clip of an optimizer step."""
    rows, setup = [], set_up()
    for axis, values in AXES.items():
        for value in values:
            config, batch = nano_with(axis, value)
            for stage in COMPONENTS:
                bench = StepBench(config, stage, batch, LoopConfig(), setup)
                took = seconds(bench.step, REPEATS, setup.device) / batch
                rows.append({
                    "axis": axis, "value": value, "stage": stage, "ms_a_clip": 1000 * took,
                    "gflop_a_clip": forward_flops(bench.genie, stage) / 1e9,
                })  # fmt: skip
                print(rows[-1], flush=True)
    return rows


def measure_reading() -> list[dict[str, Any]]:
    """Microseconds to choose the clips of a batch of 32 within an epoch, and to read them."""
    rows = []
    for number in EPISODES:
        began = time.perf_counter()
        clips = ClipDataset(ManyEpisodes(number), clip_length=16)
        sampler = EpochSampler.of(clips, 0)
        first = sampler.batch(0, 32)
        opened = time.perf_counter() - began
        step = len(clips) // 64
        began = time.perf_counter()
        for k in range(100):
            first = sampler.batch(step + k, 32)
        chosen = (time.perf_counter() - began) / 100
        began = time.perf_counter()
        for _ in range(100):
            clips.batch(first)
        read = (time.perf_counter() - began) / 100
        rows.append({
            "episodes": number, "clips": len(clips), "open_s": opened, "choose_us": 1e6 * chosen, "read_us": 1e6 * read,
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def measure_training() -> list[dict[str, Any]]:
    """Milliseconds per step of the whole trainer, for the latent action model of `nano`."""
    rows = []
    for number in TRAINED_ON:
        config = training_preset("nano").latent_action
        config.steps = STEPS
        with tempfile.TemporaryDirectory() as folder:
            clips = ClipDataset(ManyEpisodes(number), clip_length=16)
            loop = LoopConfig(log_every=4, health_every=0, quiet=True)
            trainer = Trainer(
                Genie(preset("nano")), "latent_action", clips, config, Path(folder), set_up(), loop, mode="frozen"
            )
            trainer.train()
            lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        speeds = [line["frames_per_s"] for line in lines if line.get("frames_per_s")][1:]
        rows.append({"episodes": number, "ms_a_step": 1000 * config.batch_size * 16 / float(np.median(speeds))})
        print(rows[-1], flush=True)
    return rows


def measure_evaluation(data: str) -> list[dict[str, Any]]:
    """Seconds of each part of the evaluation, with equally many clips and starts for every number of trajectories."""
    from genie_eval.evaluation import choose_splits, measure
    from genie_eval.results import EvaluationConfig

    genie, rows = Genie.from_pretrained("nano-tabletop"), []
    split, _ = choose_splits(open_source(data), None)
    for number in TRAJECTORIES:
        if number > split.num_episodes:
            continue
        config = EvaluationConfig(trajectories=number, clips=16, size="quick", progress=False)
        took = measure(genie, split, None, config).seconds
        rows.append({"trajectories": number, **took, "all": sum(took.values())})
        print(rows[-1], flush=True)
    return rows


def exponent(x: list[float], y: list[float]) -> float:
    """Exponent of a power law through the three largest x, where fixed costs matter least."""
    return float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0])


def rows_of(found: dict[str, Any], axis: str, stage: str) -> list[dict[str, Any]]:
    return [row for row in found["steps"] if (row["axis"], row["stage"]) == (axis, stage)]


def draw(found: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.4), layout="constrained")
    for axis, name in zip(axes[0], AXES, strict=True):
        draw_steps(axis, found, name)
    axes[0, 0].plot([], [], ":", color=GRAY, label="operations, to scale")
    axes[0, 0].legend(fontsize=7)
    reading, training, evaluation = axes[1]
    rows = found["reading"]
    for color, name, label in zip(PALETTE, ("choose_us", "read_us"), ("choose 32 clips", "read them"), strict=False):
        reading.plot([r["episodes"] for r in rows], [r[name] for r in rows], "o-", color=color, label=label)
    reading.set(xscale="log", yscale="log", xlabel="episodes", ylabel="microseconds per batch", ylim=(5, None))
    reading.legend(fontsize=7)
    rows = found["training"]
    training.plot([r["episodes"] for r in rows], [r["ms_a_step"] for r in rows], "o-", color=PALETTE[0])
    training.set(xscale="log", xlabel="episodes", ylabel="ms per step, latent action")
    training.set_ylim(0, 1.2 * max(r["ms_a_step"] for r in rows))
    rows = found["evaluation"]
    for color, name in zip(PALETTE, ("codes and motion", "statistics", "dreams", "commanded dreams"), strict=False):
        label = "dreams of 16 clips" if name == "dreams" else name
        evaluation.plot([r["trajectories"] for r in rows], [r[name] for r in rows], "o-", color=color, label=label)
    evaluation.set(xlabel="trajectories", ylabel="seconds of evaluation", ylim=(0, None))
    evaluation.legend(fontsize=7)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def draw_steps(axis: Any, found: dict[str, Any], name: str) -> None:
    """Milliseconds per clip of every stage, and its operations scaled to the second point."""
    for color, stage in zip(PALETTE, COMPONENTS, strict=False):
        rows = rows_of(found, name, stage)
        x = [row["value"] for row in rows]
        axis.plot(x, [row["ms_a_clip"] for row in rows], "o-", color=color, label=stage.replace("_", " "))
        scale = rows[1]["ms_a_clip"] / rows[1]["gflop_a_clip"]
        axis.plot(x, [scale * row["gflop_a_clip"] for row in rows], ":", color=color, lw=1)
    title = {"frames": "frames per clip", "side": "image side (pixels)", "batch": "clips per step"}[name]
    axis.set(xscale="log", yscale="log", xlabel=title, ylabel="ms per clip")
    axis.set_xticks(x, x)
    low, high = axis.get_ylim()
    ticks = [tick for tick in (10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000) if low <= tick <= high]
    axis.set_yticks(ticks, ticks)
    axis.minorticks_off()


def main(data: str) -> None:
    found: dict[str, Any] = {
        "steps": measure_steps(), "reading": measure_reading(), "training": measure_training(),
        "evaluation": measure_evaluation(data), "exponents": {},
    }  # fmt: skip
    for name in AXES:
        for stage in COMPONENTS:
            rows = rows_of(found, name, stage)
            found["exponents"][f"{name}, {stage}"] = {
                kind: exponent([r["value"] for r in rows], [r[f"{kind}_a_clip"] for r in rows])
                for kind in ("ms", "gflop")
            }
    (DOCS / "growth.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, DOCS / "images" / "growth.png")
    print(json.dumps(found["exponents"], indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
