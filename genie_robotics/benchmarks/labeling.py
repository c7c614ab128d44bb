"""`bench label`: reading, decoding and inferring codes of a data set, compared with one call per transition."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

EPISODES = 24
ROUNDS = 3  # the two methods alternate, so that other load on the machine affects both


def bench_label(run: str, data: str | None = None) -> dict[str, float]:
    """Labels the same episodes frame by frame and as `genie-robotics label` does.

    Returns:
        naive: 1, the baseline: frames are decoded one by one, and the model sees one pair at a time;
        label: how many times faster `genie-robotics label` is;
        transitions_per_s: of `label` without writing;
        table_per_s, table_and_rlds_per_s: transitions per second when it writes the table, and RLDS too.

    Raises:
        UserError: `run` or `data` cannot be opened.
    """
    import torch

    from genie_datasets import open_source
    from genie_datasets.base.fit import fit_frames
    from genie_datasets.tabletop.generate import generate
    from genie_robotics.genie import Genie
    from genie_robotics.labeling.code_meanings import code_meanings
    from genie_robotics.labeling.commands import label_episodes, label_splits
    from genie_robotics.pretrained import locate

    genie = Genie.from_pretrained(locate(run))
    meanings = code_meanings(locate(run), genie.config.num_actions)

    def naive(split, episode: int) -> int:
        frames = (fit_frames(frame[None], genie.config.image_size, genie.config.fit) for frame in split.frames(episode))
        previous = next(frames)
        num = 0
        for frame in frames:
            genie.infer_actions(torch.from_numpy(np.stack([previous, frame], 1)))
            previous, num = frame, num + 1
        return num

    def frame_by_frame(split, episodes: range) -> int:
        return sum(naive(split, episode) for episode in episodes)

    def label(split, episodes: range) -> int:
        return sum(int((labels.codes >= 0).sum()) for labels in label_episodes(genie, split, episodes))

    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            data = str(Path(folder) / "data")
            generate(Path(data), episodes=EPISODES, seed=0, splits={"train": 1.0})
        source = open_source(data)
        split = source.split(next(iter(source.splits)))
        episodes = range(min(EPISODES, split.num_episodes))
        rates: dict[str, list[float]] = {"naive": [], "label": []}
        for _ in range(ROUNDS):
            for name, method in (("naive", frame_by_frame), ("label", label)):
                began = time.perf_counter()
                num = method(split, episodes)
                rates[name].append(num / (time.perf_counter() - began))
        result = {
            "naive": 1.0,
            "label": statistics.median(rates["label"]) / statistics.median(rates["naive"]),
            "transitions_per_s": statistics.median(rates["label"]),
        }
        for name, writers in (("table", ()), ("table_and_rlds", ("rlds",))):
            began = time.perf_counter()
            num = label_splits(genie, source, [split], Path(folder) / name, writers, meanings)
            result[f"{name}_per_s"] = num / (time.perf_counter() - began)
    return result
