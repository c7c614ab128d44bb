"""`genie-robotics COMMAND ...`: finds the command among the entry points and loads only that one."""

import os
import sys
from importlib.metadata import EntryPoint, entry_points

from genie_datasets.base.errors import UserError

GROUP = "genie_robotics.commands"
HELP = {
    "demo": "everything at once: data, training of the three components, evaluation, report",
    "data": "tabletop | inspect | cache: simulate, inspect and prepare robot video",
    "train": "train tokenizer, latent action model and dynamics on action-free video",
    "doctor": "check a run for collapsed codes, ignored actions and poor data; name the remedies",
    "estimate": "parameters, memory per GPU, operations and time of a training, without running it",
    "evaluate": "measure how consistent the latent actions of a run are, and write the report",
    "score": "the same measures for latent actions of other models: npz, parquet, LARYBench",
    "labels": "sample the true actions of a few transitions, for train --labels",
    "ablate": "train variants of a model with equal budgets and compare them in one table",
    "pretrain": "make a world of the package: data, training, judge, report, model card",
    "play": "play a world in the browser; keys are latent actions",
    "label": "write the latent action of every transition of a data set: parquet, RLDS, LeRobotDataset",
    "playback": "decode latent actions into motions of the MuJoCo arm and compare it with the dream",
    "bench": "loader | tabletop | train | generate | play | label: measure speed",
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
        print(f"error: unknown command '{argv[0]}'; expected one of {', '.join(sorted(found))}", file=sys.stderr)
        return 2
    return found[argv[0]].load()(argv[1:]) or 0


def main(argv: list[str] | None = None) -> int:
    """Runs a command; errors become one line on stderr and exit status 2."""
    try:
        try:
            return run(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        finally:
            if sys.stdout is not None:  # None if the shell closed it
                sys.stdout.flush()  # raises here for a closed pipe, and not when the interpreter ends
    except BrokenPipeError:  # the reader of the pipe has ended (head, a pager)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 1
    except OSError as error:  # a folder that is a file, or cannot be written; a full disk
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; fix this and rerun the command", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; finished work is kept: rerun the command to continue", file=sys.stderr)
        return 130
