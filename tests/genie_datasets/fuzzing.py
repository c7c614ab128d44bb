"""`python fuzzing.py KIND CASES SEED FOLDER` reads mutated files and prints the number of cases with each outcome.

A case passes if it ends, within seconds and bounded memory, in frames or in a one-line error that names the file. It
runs in a separate process, because a decoder may crash.
"""

import json
import random
import resource
import shutil
import signal
import struct
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np

from genie_datasets import UserError, open_source
from genie_datasets.sources.frame_cache import FrameCache
from genie_datasets.sources.rlds.tfrecord import frame_record, record_spans

SECONDS = 120  # limit per case; a case takes milliseconds, but the first one imports, and the machine may be busy
MEMORY = 3 << 30  # bytes of address space on top of those at the start
HOSTILE = (0, 1, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)


class Hang(BaseException):
    """A BaseException, so that nothing catches it."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out)) if out else 0
        # Half of all mutations are near the beginning or the end, because short headers decide most.
        if out and rng.random() < 0.5:
            at = (
                min(len(out) - 1, rng.randrange(200))
                if rng.random() < 0.5
                else max(0, len(out) - 1 - rng.randrange(200))
            )
        length = rng.choice((1, 2, 4, 8, 16, 100))
        match rng.randrange(9):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del out[at:]
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = rng.randbytes(length)
            case 4:
                out[at : at + length] = b"\xff" * length
            case 5:
                out[at : at + length] = bytes(length)
            case 6:
                out[at : at + 8] = struct.pack(rng.choice("<>") + "Q", rng.choice(HOSTILE))
            case 7:
                out[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(HOSTILE) & 0xFFFFFFFF)
            case 8:
                source = rng.randrange(len(out)) if out else 0
                out[at : at + length] = out[source : source + length]
    return bytes(out)


def reframed(data: bytes, rng: random.Random) -> bytes:
    """A shard with mutated records and valid checksums, so that the records are parsed."""
    return b"".join(frame_record(mutated(data[start:end], rng)) for start, end in record_spans(data))


def mutate_file(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    framed = ".tfrecord" in path.name and rng.random() < 0.8
    path.write_bytes(reframed(data, rng) if framed else mutated(data, rng))


def read_source(folder: Path, rng: random.Random) -> None:
    skip = rng.random() < 0.3
    with mock.patch("genie_datasets.base.notes.warn"), mock.patch("warnings.warn"):
        source = open_source(folder, hz=3, skip_damaged=skip)
    for split in source.splits.values():
        for episode in range(min(3, split.num_episodes)):
            length = int(split.num_frames[episode])
            split.instruction(episode), split.episode_name(episode)
            split.truth(episode)
            split.frames(episode, np.array([0, length - 1]), (16, 16))


def read_cache(folder: Path, rng: random.Random) -> None:
    cache = FrameCache.open(folder)
    for episode in range(min(3, cache.num_episodes)):
        cache.frames(episode), cache.instruction(episode), cache.episode_name(episode)
    assert len(cache.group) == cache.num_episodes
    assert len(cache.hz) == cache.num_episodes


def case(kind: str, good: Path, work: Path, rng: random.Random) -> str:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(good, work)
    files = sorted(path for path in work.rglob("*") if path.is_file())
    data = [path for path in files if path.suffix not in (".json", ".jsonl")]
    target = rng.choice(data if rng.random() < 0.8 else files)
    mutate_file(target, rng)
    read = read_cache if kind == "cache" else read_source
    try:
        read(work, rng)
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 2000, message
        assert work.name in message or any(path.name in message for path in files), f"names no file: {message}"
        return "error"
    return "frames"


def on_alarm(*_: object) -> None:
    raise Hang


def main(kind: str, cases: str, seed: str, folder: str) -> None:
    signal.signal(signal.SIGALRM, on_alarm)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    tally: Counter[str] = Counter()
    failed = Path(folder) / "failed"
    for number in range(int(cases)):
        rng = random.Random(f"{kind}-{seed}-{number}")
        signal.alarm(SECONDS)
        try:
            tally[case(kind, Path(folder) / kind, Path(folder) / "work", rng)] += 1
        except BaseException as error:
            signal.alarm(0)
            shutil.copytree(Path(folder) / "work", failed / str(number), dirs_exist_ok=True)
            print(f"case {number} of {kind} (seed {seed}): {type(error).__name__}: {error}", file=sys.stderr)
            raise
    signal.alarm(0)
    print(json.dumps(tally))


if __name__ == "__main__":
    main(*sys.argv[1:])
