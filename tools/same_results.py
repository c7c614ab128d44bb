"""Digests of what the library computes, to compare two checkouts before and after a redesign.

    python tools/same_results.py OUT.json            # measure this checkout
    python tools/same_results.py OUT.json BASE.json  # and list what differs from BASE.json

Covers the shipped world's tokens, codes, latents and dreams; 40 training steps of each component and shorter runs of
the other modes; frames of every kind of source; and the evaluation's report on one data set. Uses only the public
interface, so that it runs on checkouts with other names inside.

Run both with OMP_NUM_THREADS=1: the number of threads decides the last bits of a training.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

VOLATILE = {"created", "package_version", "run", "source", "elapsed", "seconds", "clips_per_second", "steps_per_second"}
"""Entries of reports that two equal runs need not share."""


def digest(array) -> str:
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def command(*argv: object) -> None:
    from genie_robotics.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main([str(word) for word in argv])
    if status:
        raise SystemExit(f"genie-robotics {' '.join(map(str, argv))} ended with {status}\n{said.getvalue()}")


def frames_of_sources(folder: Path, table: Path) -> dict[str, str]:
    from genie_datasets import open_source

    real = Path(__file__).resolve().parents[1].parent / "shared" / "realdata"
    sources = {"tabletop": table, "cache": folder / "cache", "mix": f"{table}:0.7,{table}:0.3"}
    for name in ("octo_bridge_rlds", "moto_oxe", "rt1_page", "internvla_lerobot", "ivideogpt"):
        sources[name] = Path(os.environ.get("REALDATA", real)) / name
    command("data", "cache", table, folder / "cache", "--size", "64x64")
    found = {}
    for name, place in sources.items():
        try:
            source = open_source(place)
            for split, frames in source.splits.items():
                total = hashlib.sha256()
                for i in range(min(frames.num_episodes, 6)):
                    pixels = np.asarray(frames.frames(i, np.arange(min(int(frames.num_frames[i]), 12))))
                    total.update(digest(pixels).encode())
                found[f"{name}/{split}"] = total.hexdigest()[:16]
        except Exception as error:  # a folder of several data sets: the error's text is compared
            found[name] = type(error).__name__
    return found


def shipped_world(table: Path) -> dict[str, str]:

    from genie_datasets import ClipDataset, open_source
    from genie_robotics import Genie

    genie = Genie.from_pretrained("nano-tabletop")
    clips = ClipDataset(open_source(table).split("train"), clip_length=16)
    frames = clips.batch(range(0, len(clips), len(clips) // 4))[:4]
    found = {"frames": digest(frames)}
    tokens, codes = genie.tokenize(frames), genie.infer_actions(frames)
    found |= {
        "tokens": digest(tokens),
        "codes": digest(codes),
        "latents": digest(genie.embed_actions(frames)),
        "decoded": digest(genie.detokenize(tokens, frames[:, 0])),
    }
    found["dream"] = digest(genie.generate(frames[:, :2], codes, seed=3))
    found["dream_uncached"] = digest(genie.generate(frames[:2, :1], codes[:2, :3], seed=3, use_cache=False))
    found["dream_sampled"] = digest(
        genie.generate(frames[:, :1], codes[:, :6], seed=2**70, temperature=1.0, maskgit_steps=8)
    )
    world = genie.start(frames[0, 0].numpy())
    long = [np.asarray(world.step(int(k) % 8)) for k in np.random.default_rng(0).integers(8, size=24)]
    found["world_24_steps"] = digest(np.stack(long))
    return found


def run_digests(run: Path) -> dict[str, object]:
    from safetensors.numpy import load_file

    found: dict[str, object] = {}
    for path in sorted(run.glob("*/model.safetensors")):
        found[path.parent.name] = sorted(f"{v.shape} {digest(v)}" for v in load_file(path).values())
    losses = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        losses.append(
            {k: v for k, v in entry.items() if k in ("stage", "step", "loss", "psnr", "error_share", "accuracy")}
        )
    found["losses"] = losses
    return found


def trainings(folder: Path, table: Path) -> dict[str, object]:
    common = ("--data", table, "--preset", "nano", "--log-every", 1, "--seed", 1)
    found = {}
    command("train", folder / "frozen", *common, "--steps", 40)
    found["frozen_40"] = run_digests(folder / "frozen")
    command("labels", table, "--out", folder / "labels.npz", "--count", 60, "--split", "train")
    for name, options in {
        "cotrain": ("--mode", "cotrain"),
        "end_to_end": ("--mode", "end_to_end"),
        "warmup": ("--mode", "warmup"),
        "labels": ("--labels", folder / "labels.npz"),
        "micro_batches": (
            "--training.tokenizer.micro-batches",
            2,
            "--training.latent-action.micro-batches",
            2,
            "--training.dynamics.micro-batches",
            2,
        ),
        "tokens": (
            "--latent-action.frame-space",
            "tokens",
            "--latent-action.patch-size",
            4,
            "--latent-action.motion-weight",
            0,
        ),
        "fsq": ("--tokenizer.quantizer.kind", "fsq"),
        "paper_loss": ("--latent-action.action-input", "prepend", "--tokenizer.motion-weight", 0),
    }.items():
        try:
            command("train", folder / name, *common, *options, "--steps", 10)
            found[name] = run_digests(folder / name)
        except SystemExit as error:
            found[name] = str(error)[-300:]
    return found


def stripped(value):
    if isinstance(value, dict):
        return {k: stripped(v) for k, v in value.items() if k not in VOLATILE}
    return [stripped(v) for v in value] if isinstance(value, list) else value


def report(folder: Path, table: Path) -> object:
    command("evaluate", "nano-tabletop", "--data", table, "--out", folder / "report", "--quick", "--split", "test")
    return stripped(json.loads((folder / "report" / "report.json").read_text()))


def flat(value, name="") -> dict[str, object]:
    if isinstance(value, dict):
        return {k: v for key, entry in value.items() for k, v in flat(entry, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, entry in enumerate(value) for k, v in flat(entry, f"{name}/{i}").items()}
    return {name: value}


def main() -> None:
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.environ["XDG_CACHE_HOME"] = str(folder / "caches")
        table = folder / "table"
        command("data", "tabletop", table, "--episodes", 40, "--seed", 5, "--size", "64x64")
        found: dict[str, object] = {}
        for name, measure in {
            "sources": lambda: frames_of_sources(folder, table),
            "world": lambda: shipped_world(table),
            "trainings": lambda: trainings(folder, table),
            "report": lambda: report(folder, table),
        }.items():
            found[name] = measure()
            print(f"{name}: done", flush=True)
            out.write_text(json.dumps(found, indent=1, default=str))
    if len(sys.argv) > 2:
        base = flat(json.loads(Path(sys.argv[2]).read_text()))
        now = flat(json.loads(out.read_text()))
        differing = [k for k in {**base, **now} if base.get(k, "-") != now.get(k, "-")]
        for name in differing[:200]:
            print(f"{name}: {base.get(name, '-')} -> {now.get(name, '-')}")
        print(f"{len(differing)} of {len({**base, **now})} entries differ")


if __name__ == "__main__":
    main()
