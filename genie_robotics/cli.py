"""`genie-robotics COMMAND ...`: finds the command among the entry points and loads only that one."""

import os
import sys
from importlib.metadata import EntryPoint, entry_points

from genie_datasets.base.errors import UserError

GROUP = "genie_robotics.commands"
HELP = {
    "demo": "the main job: make or read data, train the three components, evaluate, write the report",
    "data": "tabletop | inspect | cache: make, look at and prepare robot video",
    "train": "train tokenizer, latent action model and dynamics on action-free video",
    "doctor": "what is wrong with a run (collapsed codes, ignored actions, tokenizer, data), and the remedy",
    "estimate": "parameters, memory a GPU, operations and time, before anyone trains",
    "evaluate": "measure how consistent the latent actions of a run are",
    "score": "the same measure on anyone's latent actions: npz, parquet, LARYBench",
    "labels": "true actions of a few transitions, for train --labels",
    "ablate": "train variants with equal budget, measure them alike, write the table of what mattered",
    "pretrain": "make a world that comes with the package anew: data, training, judge, report, card",
    "play": "the world in a browser: keys are latent actions",
    "label": "the latent action of every transition of a data set: parquet, RLDS, LeRobotDataset",
    "playback": "decoded latent actions in MuJoCo beside the dream",
    "bench": "loader | tabletop | train | generate | play | label: speed as ratios in one run",
}


def commands() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def usage(found: dict[str, EntryPoint]) -> str:
    names = [n for n in HELP if n in found] + sorted(set(found) - set(HELP))
    rows = [f"  {name:<10}{HELP.get(name, '')}" for name in names]
    return "\n".join(["usage: genie-robotics COMMAND [options]      (COMMAND --help lists its options)", "", *rows])


def run(argv: list[str]) -> int:
    """Runs the command that `argv` names; returns its exit status."""
    found = commands()
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(found))
        return 0
    if argv[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"genie-robotics {version('genie-robotics')}")
        return 0
    if argv[0] not in found:
        print(f"error: no command '{argv[0]}'; there are: {', '.join(sorted(found))}", file=sys.stderr)
        return 2
    return found[argv[0]].load()(argv[1:]) or 0


def main(argv: list[str] | None = None) -> int:
    try:
        try:
            return run(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        finally:
            if sys.stdout is not None:  # None where the shell closed it
                sys.stdout.flush()  # a closed pipe shows here, and not when the interpreter ends
    except BrokenPipeError:  # the reader has seen enough (head, a pager)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's end flushes once more
        return 1
    except OSError as error:  # a folder that is a file, or cannot be written; a disk that is full
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; mend that and run the same command again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
