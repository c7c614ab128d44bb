"""results.json and table.md of a study, from the cells that are there."""

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file
from genie_eval.ablation.columns import COLUMNS, LEGEND, Column, markdown_table, signed
from genie_eval.ablation.compare import LEAST_SEEDS, Difference, adjusted, difference, verdict
from genie_eval.ablation.figures import draw
from genie_eval.ablation.held_out import BASELINES, HeldOut
from genie_eval.ablation.measure import grounding_readings
from genie_eval.ablation.reading import Reading
from genie_eval.ablation.results_file import Cell, read_cells
from genie_eval.ablation.study import Study
from genie_eval.ablation.trend_table import trend_table, trends
from genie_eval.metric import plain
from genie_eval.report.cells import number


def results(study: Study, cells: list[Cell]) -> dict[str, Any]:
    """What results.json holds of the variants: mean, SD and values over seeds, the difference to the reference, its
    interval and p, Holm's p over the variants, and the verdict."""
    columns = [column for group in study.measure for column in COLUMNS[group]]
    by_variant = {v.name: {c.seed: c for c in cells if c.variant == v.name} for v in study.variants}
    reference = by_variant[study.reference]
    names = sorted({name for cell in cells for name in cell.readings})
    found: dict[str, dict[str, Difference | None]] = {}
    for label, own in by_variant.items():
        seeds = sorted(set(own) & set(reference)) if label != study.reference else []
        missing = Reading(None)
        found[label] = {
            name: difference(
                [own[s].readings.get(name, missing) for s in seeds],
                [reference[s].readings.get(name, missing) for s in seeds],
            )
            for name in names
        }
    corrected = {name: adjusted({v: found[v][name] for v in found}) for name in names}
    lower = {column.name for column in columns if column.less_is_better}
    rows = []
    for variant in study.variants:
        own = by_variant[variant.name]
        row: dict[str, Any] = {
            **asdict(variant),
            "seeds": sorted(own),
            "metrics": {},
            "cost": _cost(list(own.values())),
        }
        for name in names:
            read = {s: c.readings[name] for s, c in sorted(own.items()) if name in c.readings}
            known = [r.value for r in read.values() if r.value is not None]
            gap = found[variant.name][name]
            entry: dict[str, Any] = {
                "values": {str(s): r.value for s, r in read.items()},
                "mean": float(np.mean(known)) if known else None,
                "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
                "ci95": next(iter(read.values())).ci95 if len(read) == 1 else None,
                "reasons": sorted({r.reason for r in read.values() if r.value is None and r.reason}),
                "difference": None,
            }
            if gap is not None:
                p = corrected[name].get(variant.name)
                entry["difference"] = {**asdict(gap), "p_holm": p, "verdict": verdict(gap, p, name in lower)}
            row["metrics"][name] = entry
        rows.append(row)
    named: dict[str, Any] = {
        "study": study.name,
        "question": study.question,
        "reference": study.reference,
        "variants": rows,
    }
    if study.axes:
        named["trends"] = trends(study, by_variant, columns)
    return plain(named)


def _cost(cells: list[Cell]) -> dict[str, Any]:
    """By stage: what is the same for all seeds, and the median of the times."""
    costs: dict[str, Any] = {}
    for stage in cells[0].content["cost"] if cells else {}:
        each = [cell.content["cost"][stage] for cell in cells if stage in cell.content["cost"]]
        times = [c["ms_a_step"] for c in each if c["ms_a_step"] is not None]
        costs[stage] = {**each[0], "ms_a_step": float(np.median(times)) if times else None}
    return costs


def baselines(sample: HeldOut, num_codes: int) -> dict[str, dict[str, float | None]]:
    """Skill of codes that need no learning, on the same trajectories."""
    found = {}
    for name in BASELINES:
        codes = sample.codes_of(name, num_codes)
        read = grounding_readings(sample, codes, num_codes)
        found[name] = {
            "grounding_skill": read["grounding_skill"].value, "grounding_r2": read["grounding_r2"].value,
            "ctc": sample.assay(num_codes).ctc_value(codes),
        }  # fmt: skip
    return found


# ------------------------------------------------------------------------------------------------------------ markdown
def write_table(study: Study, out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Writes results.json and table.md, and returns what results.json holds; `about`: how it was made.

    Raises:
        UserError: no cell has been measured yet.
    """
    cells = read_cells(study, out)
    if not cells:
        raise UserError(f"{out} holds no measured cell of study {study.name} yet: run it without --only-table")
    found = results(study, cells) | plain({"about": about | _made_of(cells)})
    claimed = [c for group in study.measure for c in COLUMNS[group] if c.claimed]
    found["figures"] = draw(study, found, claimed, out)
    for name, text in (
        ("results.json", json.dumps(found, indent=1, allow_nan=False)), ("table.md", asmarkdown_table(study, found)),
    ):  # fmt: skip
        with atomic_file(out / name) as stream:  # whose name for what is not whole yet no other process has
            stream.write(text.encode())
    return found


def _made_of(cells: list[Cell]) -> dict[str, Any]:
    commits = sorted({(c.content.get("git") or {}).get("commit", "unknown") for c in cells})
    changed = any((c.content.get("git") or {}).get("changed") for c in cells)
    return {
        "commits": commits, "changed": changed, "measured": cells[0].content["measured"],
        "machine": f"{platform.machine()} {platform.system()}",
    }  # fmt: skip


def asmarkdown_table(study: Study, found: dict[str, Any]) -> str:
    """Two tables (values; differences to the reference), the claims, and how they were made."""
    columns = [c for group in study.measure for c in COLUMNS[group]]
    columns = [c for c in columns if any(_has(row, c.name) for row in found["variants"])]
    rows = [row for row in found["variants"] if row["seeds"]]
    about, measured = found["about"], found["about"]["measured"]
    lines = [f"### {study.name}: {study.question}".rstrip(": "), ""]
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    lines += [f"`{about['command']} --seeds {','.join(map(str, seeds))}`", ""]
    lines += [_setting(study, found, rows), ""]
    stages = list(dict.fromkeys(stage for row in rows for stage in row["cost"]))
    head = ["variant", "seeds", *(c.title for c in columns), "parameters", *(_titles(stages))]
    body = [
        [
            _name(row, study), str(len(row["seeds"])), *(_value(row["metrics"].get(c.name), c) for c in columns),
            _parameters(row), *_times(row, stages),
        ]
        for row in rows
    ]  # fmt: skip
    for name, reading in (about.get("baselines") or {}).items():
        cells = [number(reading[c.name], c.digits) if c.name in reading else "" for c in columns]
        body.append([f"*{name}*", "", *cells, "", *("" for _ in _titles(stages))])
    lines += markdown_table(head, body)
    lines += ["", "Mean over seeds ± SD between seeds; one seed: value and its interval over trajectories."]
    claimed = [c for c in columns if c.claimed]
    others = [row for row in rows if row["name"] != study.reference]
    if others:
        lines += ["", f"Difference to **{study.reference}**, 95 % interval (p; after Holm over the variants):", ""]
        lines += markdown_table(
            ["variant", *(c.title for c in claimed)],
            [[row["name"], *(_difference(row["metrics"].get(c.name), c) for c in claimed)] for row in others],
        )
        lines += ["", *claims(study, found, claimed)]
    lines += trend_table(found, columns)
    for name in found["figures"]:
        lines += ["", f"![{name.partition('.')[0]} of {study.name}]({name})"]
    legend = [f"{title}: {LEGEND[title]}" for title in (c.title for c in columns) if title in LEGEND]
    lines += ["", "; ".join(legend) + ".", ""]
    changed = " with changes" if about["changed"] else ""
    commits = ", ".join(commit[:10] for commit in about["commits"])
    lines += [
        f"Made at {commits}{changed}, {measured['trajectories']} held-out trajectories at most, "
        f"{measured['draws']} bootstrap draws."
    ]
    return "\n".join(lines) + "\n"


def _setting(study: Study, found: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    about = found["about"]
    budgets: dict[str, list[str]] = {}
    for row in rows:
        each = [f"{s} {c['steps']} steps of {c['batch_size']} clips" for s, c in row["cost"].items()]
        budgets.setdefault(", ".join(each), []).append(row["name"])
    if len(budgets) == 1:
        text = f"Preset {study.preset}; equal budget: {next(iter(budgets))}"
    else:
        each = [f"{', '.join(names)}: {budget}" for budget, names in budgets.items()]
        text = f"Preset {study.preset}; budgets: {'; '.join(each)}"
    text += f"; trained on {about['data']}, measured on {about['held_out']}."
    if about.get("motion") == "flow":
        text += " It has no true motion: codes are judged on OPTICAL FLOW, a hint and not an answer."
    return text + (" MEASURED ON THE TRAINING VIDEO: the source has one split." if about.get("fitted_on_it") else "")


def claims(study: Study, found: dict[str, Any], columns: list[Column]) -> list[str]:
    """One line a variant: what it is better and worse in. Nothing is claimed from fewer than three seeds."""
    lines = []
    for row in found["variants"]:
        if row["name"] == study.reference or not row["seeds"]:
            continue
        said: dict[str, list[str]] = {}
        for column in columns:
            gap = (row["metrics"].get(column.name) or {}).get("difference")
            if gap is None:
                continue
            by = f" by {number(abs(gap['value']), column.digits)}" if gap["verdict"] in ("better", "worse") else ""
            said.setdefault(gap["verdict"], []).append(f"{column.title}{by}")
        words = "; ".join(f"{how}: {', '.join(what)}" for how, what in sorted(said.items()))
        lines.append(f"- **{row['name']}** against {study.reference}: {words or 'nothing to compare yet'}")
    return lines


def _has(row: dict[str, Any], name: str) -> bool:
    return bool(row["metrics"].get(name)) and bool(row["metrics"][name]["values"])


def _name(row: dict[str, Any], study: Study) -> str:
    name = f"**{row['name']}**" if row["name"] == study.reference else row["name"]
    return f"{name}: {row['what']}" if row["what"] else name


def _value(entry: dict[str, Any] | None, column: Column) -> str:
    if entry is None or entry["mean"] is None:
        return "–"
    text = number(entry["mean"], column.digits)
    if entry["sd"] is not None:
        return f"{text} ± {number(entry['sd'], column.digits)}"
    low_high = entry["ci95"]
    if low_high is None or None in low_high:
        return text
    return f"{text} [{number(low_high[0], column.digits)}, {number(low_high[1], column.digits)}]"


def _difference(entry: dict[str, Any] | None, column: Column) -> str:
    gap = (entry or {}).get("difference")
    if gap is None:
        return "–"
    text = signed(gap["value"], column.digits)
    if gap["ci95"] is not None:
        text += f" [{signed(gap['ci95'][0], column.digits)}, {signed(gap['ci95'][1], column.digits)}]"
    p = [f"{value:.2g}" for value in (gap["p"], gap["p_holm"]) if value is not None]
    text += f" ({'; '.join(p)})" if p else ""
    return text if gap["seeds"] >= LEAST_SEEDS else f"{text}, {gap['seeds']} seed{'s' if gap['seeds'] > 1 else ''}"


def _parameters(row: dict[str, Any]) -> str:
    return f"{sum(cost['parameters'] for cost in row['cost'].values()) / 1e6:.2f}M"


def _titles(stages: list[str]) -> list[str]:
    short = [stage.replace("latent_action", "LAM") for stage in stages]
    return [title for stage in short for title in (f"{stage} ms a step", f"{stage} MB a clip")]


def _times(row: dict[str, Any], stages: list[str]) -> list[str]:
    cells = []
    for stage in stages:
        cost = row["cost"].get(stage) or {}
        cells += [number(cost.get("ms_a_step"), 0), number(cost.get("saved_mb_a_clip"), 0)]
    return cells
