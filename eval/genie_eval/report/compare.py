"""`genie-robotics evaluate --compare A B ...`: finished reports side by side, and whether they can be compared.

Reads report.json files only; nothing is measured again. Intervals are those of each report alone, so that a difference
is unpaired: intervals that do not overlap are a significant difference; intervals that overlap prove nothing.
"""

import base64
import json
import math
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder, write_atomically
from genie_eval.metrics import METRICS, about, digits, in_order, plain
from genie_eval.plotting import GOOD, GRAY, PALETTE, RULE, whisker
from genie_eval.report.cells import interval_text, number
from genie_eval.report.charts import panel_grid
from genie_eval.report.findings import at
from genie_eval.report.write import SCHEMA_VERSION, page_environment, validate

MUST = (  # path in report.json and words, of what must be equal for numbers to be comparable
    (("data", "fingerprint"), "data fingerprints"),
    (("data", "split"), "splits"),
    (("data", "n_trajectories"), "numbers of trajectories"),
    (("settings", "seed"), "seeds of the evaluation (and so trajectories and clips)"),
    (("run", "num_actions"), "numbers of latent actions K"),
)
SHOULD = (  # of what should be equal
    (("package_version",), "package versions"),
    (("git", "commit"), "commits of the code"),
    (("run", "image_size"), "image sizes"),
    (("run", "gap"), "gaps between frames"),
    (("run", "clip_length"), "clip lengths"),
    (("settings", "size"), "sizes of the evaluation"),
    (("settings", "clips"), "numbers of clips"),
    (("settings", "draws"), "numbers of bootstrap draws"),
)
SEED_OF = re.compile(r"[-_.]?(?:seed|s)[-_]?\d+$")  # end of the name of a run that is one seed of several


@dataclass(frozen=True)
class Entry:
    """One report and its label."""

    label: str
    path: Path
    report: dict[str, Any]


def run_compare(paths: list[Path], out: Path | None) -> int:
    """The command: prints the table and, with `out`, writes compare.html and compare.json there."""
    found = compare(paths, out)
    print(as_text(found))
    if out is not None:
        print(f"comparison: {(out / 'compare.html').resolve()}")
    return 0


def compare(paths: list[Path], out: Path | None = None) -> dict[str, Any]:
    """Compares reports (folders with a report.json, or such files); returns the content of compare.json.

    Raises:
        UserError: there are fewer than two reports, one is given twice, or a file is not a report of this version.
    """
    if out is not None:
        make_folder(out)
    if len(paths) < 2:
        raise UserError(f"--compare needs at least two reports, got {len(paths)}; pass folders with a report.json")
    places = [_file(Path(path)).resolve() for path in paths]
    for n, place in enumerate(places):
        if place in places[:n]:
            raise UserError(f"--compare got the report {paths[n]} twice; pass different reports")
    entries = _named([(Path(path), read_report(Path(path))) for path in paths])
    found = plain(
        {
            "schema_version": SCHEMA_VERSION,
            "runs": [_header(entry) for entry in entries],
            "not_comparable": _differences(entries, MUST),
            "careful": _differences(entries, SHOULD) + _exploratory(entries),
            "metrics": _rows(entries),
            "groups": _groups(entries),
        }
    )
    if out is not None:
        write_atomically(out / "compare.json", json.dumps(found, indent=1, allow_nan=False).encode())
        write_atomically(out / "compare.html", as_page(found, out).encode())
    return found


def _file(path: Path) -> Path:
    return path / "report.json" if path.is_dir() else path


def _finite(text: str) -> float:
    """Parses a number of JSON; Python's parser would accept NaN and Infinity too."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a number of JSON")
    return value


def _whole(text: str) -> int:
    return int(text) if len(text) < 20 else int(_finite(text))


def read_report(path: Path) -> dict[str, Any]:
    """The content of a report.json.

    Raises:
        UserError: it is missing, not JSON, of another schema version, or not a report.
    """
    file = _file(path)
    if not file.is_file():
        where = f"{path} holds no report.json" if path.is_dir() else f"{path} does not exist"
        raise UserError(f"{where}; pass a folder that `genie-robotics evaluate --out` wrote")
    try:
        text = file.read_text(encoding="utf-8")
        report = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); rerun `genie-robotics evaluate` for it") from None
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        has = "no schema_version" if version is None else f"schema version {version}"
        raise UserError(f"{file} has {has}, expected {SCHEMA_VERSION}; rerun `genie-robotics evaluate` for it")
    from jsonschema import ValidationError

    try:
        validate(report)
    except ValidationError as error:
        where = "/".join(map(str, error.absolute_path)) or "the whole"
        raise UserError(f"{file} is not a valid report, at {where}: {error.message.splitlines()[0][:160]}") from None
    return report


def _named(found: list[tuple[Path, dict[str, Any]]]) -> list[Entry]:
    """Short labels: the run's folder or the given path, with a number where these are not unique."""
    names = [_short(path, report) for path, report in found]
    if len(set(names)) < len(names):
        names = [str(path) for path, _ in found]
    if len(set(names)) < len(names):
        names = [f"{n + 1}: {name}" for n, name in enumerate(names)]
    return [Entry(name, path, report) for name, (path, report) in zip(names, found, strict=True)]


def _short(path: Path, report: dict[str, Any]) -> str:
    run = at(report, "run", "path")
    if run:
        return Path(run).name
    return path.resolve().name if path.is_dir() else path.resolve().parent.name


def _header(entry: Entry) -> dict[str, Any]:
    report = entry.report
    seeds = max((metric.get("n_seeds") or 1 for metric in report["metrics"].values()), default=1)
    questions = report["summary"].get("questions") or [report["summary"]] if "summary" in report else []
    return {
        "label": entry.label, "path": str(entry.path), "preset": at(report, "run", "preset"),
        "source": report["data"]["source"], "fingerprint": report["data"]["fingerprint"],
        "split": report["data"]["split"], "n_trajectories": report["data"]["n_trajectories"],
        "num_codes": at(report, "run", "num_actions"), "n_seeds": seeds, "created": report["created"],
        "package_version": report["package_version"], "commit": at(report, "git", "commit"),
        "first_line": at(report, "summary", "first_line"),
        "questions": [{name: asked[name] for name in ("question", "answer", "because")} for asked in questions],
    }  # fmt: skip


def _differences(entries: list[Entry], asked: tuple[tuple[tuple[str, ...], str], ...]) -> list[str]:
    """One sentence for each entry that is not equal in all reports."""
    said = []
    for path, words in asked:
        values = [at(entry.report, *path) for entry in entries]
        if any(value != values[0] for value in values[1:]):
            each = "; ".join(f"{entry.label}: {_word(value)}" for entry, value in zip(entries, values, strict=True))
            said.append(f"{words} differ ({each})")
    return said


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "not known" if value is None else str(value)[:16]


def _exploratory(entries: list[Entry]) -> list[str]:
    few = [entry.label for entry in entries if at(entry.report, "summary", "exploratory")]
    return [f"exploratory, too few trajectories: {', '.join(few)}"] if few else []


def _rows(entries: list[Entry]) -> list[dict[str, Any]]:
    rows = []
    for name in in_order({name for entry in entries for name in entry.report["metrics"]}):
        cells = [_cell(entry.report["metrics"].get(name)) for entry in entries]
        rows.append(
            {
                "name": name,
                "about": about(name),
                "primary": name in METRICS and METRICS[name].primary,
                "less_is_better": _lower_is_better(name),
                "runs": cells,
                "difference": _difference(name, entries, cells) if len(cells) == 2 else None,
            }
        )
    return rows


def _lower_is_better(name: str) -> bool:
    return name in METRICS and METRICS[name].lower_is_better


def _cell(metric: dict[str, Any] | None) -> dict[str, Any]:
    if metric is None:
        return {"value": None, "ci95": None, "skill": None, "verdict": "not run", "reason": "not in this report"}
    cell = {name: metric[name] for name in ("value", "ci95", "skill", "verdict", "reason", "n_trajectories", "n_seeds")}
    return cell | {"seeds": metric.get("seeds")}


def _difference(name: str, entries: list[Entry], cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Second minus first; significant only where both intervals are known and do not overlap.

    No run is called better than one that it cannot be compared with.
    """
    first, second = cells
    if first["value"] is None or second["value"] is None:
        return None
    value = second["value"] - first["value"]
    one, two = first["ci95"], second["ci95"]
    known = all(ci is not None and None not in ci for ci in (one, two))
    apart = bool(known and (two[0] > one[1] or one[0] > two[1]))
    better = None
    if apart and not _differences(entries, MUST):
        up = value > 0
        better = entries[int(up != _lower_is_better(name))].label
    words = "intervals apart" if apart else "intervals overlap: no significant difference" if known else "no intervals"
    return {"value": value, "apart": apart, "better": better, "words": words}


def _groups(entries: list[Entry]) -> list[dict[str, Any]]:
    """Runs of one recipe and one data set whose names differ in the seed only: mean and SD."""
    by_recipe: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        name = Path(str(at(entry.report, "run", "path") or entry.path)).name
        if SEED_OF.search(name) and SEED_OF.sub("", name):
            alike = [at(entry.report, *path) for path, _ in MUST] + [at(entry.report, "run", "preset")]
            by_recipe.setdefault((SEED_OF.sub("", name), json.dumps(alike)), []).append(entry)
    groups = []
    for (name, _), members in by_recipe.items():
        if len(members) < 2:
            continue
        spread = {}
        for metric in members[0].report["metrics"]:
            values = [at(member.report, "metrics", metric, "value") for member in members]
            known = [value for value in values if value is not None]
            if len(known) > 1:
                spread[metric] = {"mean": np.mean(known), "sd": np.std(known, ddof=1), "n": len(known)}
        groups.append({"name": name, "runs": [member.label for member in members], "metrics": spread})
    return groups


def as_text(found: dict[str, Any]) -> str:
    """The table for the terminal."""
    runs, lines = found["runs"], []
    lines += [f"NOT COMPARABLE: {words}" for words in found["not_comparable"]]
    lines += [f"careful: {words}" for words in found["careful"]]
    for run in runs:
        lines.append(
            f"{run['label']}: preset {run['preset'] or '-'}, data {run['source']} {run['fingerprint'][:12]} "
            f"{run['split']}, {run['n_trajectories']} trajectories, K = {run['num_codes']}, {run['n_seeds']} seed(s), "
            f"genie-robotics {run['package_version']}"
        )
    head = ["", *(run["label"] for run in runs)] + (["difference"] if len(runs) == 2 else [])
    table = [head]
    for row in found["metrics"]:
        cells = [row["name"]]
        for cell in row["runs"]:
            value = f"{number(cell['value'], digits(row['name']))} {interval_text(cell['ci95'], digits(row['name']))}"
            cells.append(f"{value.strip()} {cell['verdict']}".strip())
        if len(runs) == 2:
            cells.append(_difference_text(row))
        table.append(cells)
    widths = [max(len(line[c]) for line in table) for c in range(len(head))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    for group in found["groups"]:
        lines.append(f"{group['name']}, {len(group['runs'])} seeds ({', '.join(group['runs'])}), mean and SD:")
        for name, spread in group["metrics"].items():
            d = digits(name)
            lines.append(f"  {name}: {number(spread['mean'], d)} ± {number(spread['sd'], d)}")
    return "\n".join(lines)


def _difference_text(row: dict[str, Any]) -> str:
    found = row["difference"]
    if found is None:
        return ""
    better = f", {found['better']} better" if found["better"] else ""
    size = number(found["value"], digits(row["name"]))
    sign = "" if size.startswith("-") or float(size) == 0 else "+"
    return f"{sign}{size} ({found['words']}{better})"


def as_page(found: dict[str, Any], out: Path) -> str:
    """One HTML page with everything in it."""
    environment = page_environment()
    environment.globals["difference_text"] = _difference_text
    template = environment.from_string(files("genie_eval.report").joinpath("compare.html").read_text())
    picture = out / "compare.png"
    _picture(picture, found)
    image = base64.b64encode(picture.read_bytes()).decode()
    return template.render(found=found, image=image)


def _picture(path: Path, found: dict[str, Any]) -> None:
    """One panel per metric, one row per run: the primary metrics and the two by which dreams are judged."""
    primary = [name for name, definition in METRICS.items() if definition.primary]
    wanted = (*primary, "sequence_consistency", "counterfactual_id")
    shown = [
        row for row in found["metrics"] if row["name"] in wanted and any(c["value"] is not None for c in row["runs"])
    ]
    shown = shown or [row for row in found["metrics"] if any(c["value"] is not None for c in row["runs"])][:3]
    labels = [run["label"] for run in found["runs"]]
    size = (3.0, 0.34 * len(labels) + 0.75)
    with panel_grid(path, len(shown), 3, size, (1.2, 0), sharey=True) as (_, axes):
        for axis, row in zip(axes, shown, strict=True):
            axis.axvline(0, color=RULE, lw=1)
            definition = METRICS.get(row["name"])
            if definition and definition.mark and definition.mark_on == "value":
                axis.axvline(definition.mark.good, color=GOOD, lw=0.9, ls=":")
            for place, cell in enumerate(row["runs"]):
                if cell["value"] is None:
                    axis.text(0.02, place, cell["verdict"], fontsize=7.5, color=GRAY, va="center", style="italic")
                else:
                    whisker(axis, place, cell["value"], cell["ci95"], PALETTE[place % len(PALETTE)])
            axis.set_yticks(range(len(labels)), labels)
            axis.set_ylim(len(labels) - 0.4, -0.6)
            axis.set_title(row["name"])
