"""Measures any start alone, without the rest of `evaluate`: `python -m tools.any_start RUN SRC [STARTS] [--quick]`.

Prints the metrics of the start set and of simulated tables from the test split of SRC; STARTS is a folder of further
pictures. About 7 minutes for the shipped world on two cores, and 4 more with STARTS; with --quick 2 minutes.
"""

import sys
from pathlib import Path

from genie_datasets import open_source
from genie_eval.collect import collect
from genie_eval.commands import metric_lines
from genie_eval.dreams.any_start import measure_any_start
from genie_eval.evaluation import choose_splits, untrained_like
from genie_eval.results import SIZES
from genie_eval.start_pictures.folder import read_folder
from genie_robotics import Genie
from genie_robotics.models.threads import threads_for
from genie_robotics.pretrained import judge_of

TRAJECTORIES = 200


def main(run: str, data: str, starts: str | None, quick: bool) -> None:
    genie, judge_run = Genie.from_pretrained(run), judge_of(run)
    judge = None if judge_run is None else Genie.from_pretrained(judge_run)
    own = None if starts is None else read_folder(Path(starts))
    split, _ = choose_splits(open_source(data), None)
    with threads_for(genie):
        evidence = collect(genie, split, genie.config.gap, TRAJECTORIES, 0, untrained_like(genie, 0), progress=True)
        config = SIZES["quick" if quick else "default"][-1]
        found = measure_any_start(genie, judge, config, split=split, evidence=evidence, own=own)
    shown = {name: metric.as_json() for name, metric in found.metrics.items()}
    print(*metric_lines(shown), sep="\n")
    for name, metric in shown.items():
        for step, row in metric.get("by_step", {}).items():
            print(f"{name} after {step} steps: {row}")
    if own:
        print("your own pictures:", *metric_lines(found.details["own"]["metrics"]), sep="\n")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    main(words[0], words[1], words[2] if len(words) > 2 else None, "--quick" in sys.argv)
