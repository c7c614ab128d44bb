"""results.json and table.md of a study, from its measured trials."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import atomic_file
from genie_eval.ablation.columns import COLUMNS, LEGEND, Column, signed
from genie_eval.ablation.compare import MIN_SEEDS, Difference, adjusted, difference, verdict
from genie_eval.ablation.figures import draw
from genie_eval.ablation.held_out import BASELINES, HeldOut
from genie_eval.ablation.measure import grounding_readings
from genie_eval.ablation.reading import MISSING, TrialResult, read_trials
from genie_eval.ablation.study import Study
from genie_eval.ablation.trend import trend_table, trends
from genie_eval.metrics import plain
from genie_eval.report.cells import markdown_table, number, with_interval

BySeed = Mapping[int, TrialResult]


def results(study: Study, trials: list[TrialResult]) -> dict[str, Any]:
    """The content of results.json about the variants: in each metric the values, mean and SD over seeds, the difference
    to the reference with interval, p and p after Holm's correction over the variants, and the verdict."""
    columns = columns_of(study)
    by_variant = {v.name: {t.seed: t for t in trials if t.variant == v.name} for v in study.variants}
    lower_is_better = {column.name for column in columns if column.lower_is_better}
    metrics: dict[str, dict[str, Any]] = {variant: {} for variant in by_variant}
    for name in sorted({name for trial in trials for name in trial.readings}):
        gaps = {
            variant: None if variant == study.reference else _gap(name, own, by_variant[study.reference])
            for variant, own in by_variant.items()
        }
        p_holm = adjusted(gaps)
        for variant, gap in gaps.items():
            entry = _over_seeds(name, by_variant[variant])
            if gap is not None:
                p = p_holm.get(variant)
                entry["difference"] = asdict(gap) | {"p_holm": p, "verdict": verdict(gap, p, name in lower_is_better)}
            metrics[variant][name] = entry
    found: dict[str, Any] = {
        "study": study.name,
        "question": study.question,
        "reference": study.reference,
        "variants": [
            asdict(variant)
            | {
                "seeds": sorted(by_variant[variant.name]),
                "metrics": metrics[variant.name],
                "cost": _cost(list(by_variant[variant.name].values())),
            }
            for variant in study.variants
        ],
    }
    if study.axes:
        found["trends"] = trends(study, by_variant, columns)
    return plain(found)


def columns_of(study: Study) -> list[Column]:
    return [column for group in study.measure for column in COLUMNS[group]]


def _gap(name: str, own: BySeed, reference: BySeed) -> Difference | None:
    """Difference in one metric over the seeds that both variants have."""
    seeds = sorted(set(own) & set(reference))
    return difference(
        [own[s].readings.get(name, MISSING) for s in seeds], [reference[s].readings.get(name, MISSING) for s in seeds]
    )


def _over_seeds(name: str, own: BySeed) -> dict[str, Any]:
    """One metric of a variant over its seeds, without its difference to the reference."""
    readings = {s: trial.readings[name] for s, trial in sorted(own.items()) if name in trial.readings}
    known = [r.value for r in readings.values() if r.value is not None]
    return {
        "values": {str(s): r.value for s, r in readings.items()},
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "ci95": next(iter(readings.values())).ci95 if len(readings) == 1 else None,
        "reasons": sorted({r.reason for r in readings.values() if r.value is None and r.reason}),
        "difference": None,
    }


def _cost(trials: list[TrialResult]) -> dict[str, Any]:
    """{stage: cost}: the first trial's entries, and the median of the step times."""
    costs: dict[str, Any] = {}
    for stage in trials[0].content["cost"] if trials else {}:
        entries = [trial.content["cost"][stage] for trial in trials if stage in trial.content["cost"]]
        times = [entry["ms_a_step"] for entry in entries if entry["ms_a_step"] is not None]
        costs[stage] = {**entries[0], "ms_a_step": float(np.median(times)) if times else None}
    return costs


def baselines(sample: HeldOut, num_codes: int) -> dict[str, dict[str, float | None]]:
    """Skill and CTC of codes that need no training, on the same trajectories."""
    found = {}
    for name in BASELINES:
        codes = sample.baseline_codes(name, num_codes)
        readings = grounding_readings(sample, codes, num_codes)
        found[name] = {
            "grounding_skill": readings["grounding_skill"].value, "grounding_r2": readings["grounding_r2"].value,
            "ctc": sample.statistics(num_codes).ctc_value(codes),
        }  # fmt: skip
    return found


# ------------------------------------------------------------------------------------------------------------ markdown
def write_table(study: Study, out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Writes results.json, table.md and figures; returns the content of results.json.

    about: how the study was run; stored in results.json and told in table.md.

    Raises:
        UserError: no trial has been measured yet.
    """
    trials = read_trials(study, out)
    if not trials:
        raise UserError(f"{out} holds no measured trial of study {study.name}; run the command without --only-table")
    found = results(study, trials) | plain({"about": about | _made_with(trials)})
    found["figures"] = draw(study, found, [c for c in columns_of(study) if c.claimed], out)
    files = {"results.json": json.dumps(found, indent=1, allow_nan=False), "table.md": study_table(study, found)}
    for name, text in files.items():
        with atomic_file(out / name) as stream:  # safe if several processes write the table at the same time
            stream.write(text.encode())
    return found


def _made_with(trials: list[TrialResult]) -> dict[str, Any]:
    """The code, measurement and machine that made the trials."""
    commits = [trial.content.get("git") or {} for trial in trials]
    return {
        "commits": sorted({commit.get("commit", "unknown") for commit in commits}),
        "changed": any(commit.get("changed") for commit in commits),
        "measured": trials[0].content["measured"],
        "machine": f"{platform.machine()} {platform.system()}",
    }


def study_table(study: Study, found: dict[str, Any]) -> str:
    """Markdown: values, differences to the reference, claims, trends, figures, and how they were made."""
    columns = [c for c in columns_of(study) if any(_has(row, c.name) for row in found["variants"])]
    rows = [row for row in found["variants"] if row["seeds"]]
    about = found["about"]
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    lines = [f"### {study.name}: {study.question}".rstrip(": "), ""]
    lines += [f"`{about['command']} --seeds {','.join(map(str, seeds))}`", ""]
    lines += [_setting(study, found, rows), ""]
    lines += _value_table(study, rows, columns, about.get("baselines") or {})
    lines += _difference_table(study, found, rows, [c for c in columns if c.claimed])
    lines += trend_table(found, columns)
    for name in found["figures"]:
        lines += ["", f"![{name.partition('.')[0]} of {study.name}]({name})"]
    legend = [f"{c.title}: {LEGEND[c.title]}" for c in columns if c.title in LEGEND]
    lines += ["", "; ".join(legend) + ".", ""]
    commits = ", ".join(commit[:10] for commit in about["commits"])
    changes = " with uncommitted changes" if about["changed"] else ""
    lines += [
        f"Made at {commits}{changes}; at most {about['measured']['trajectories']} held-out trajectories, "
        f"{about['measured']['draws']} bootstrap draws."
    ]
    return "\n".join(lines) + "\n"


def _setting(study: Study, found: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Preset, budget and data in words."""
    about = found["about"]
    budgets: dict[str, list[str]] = {}
    for row in rows:
        stages = [f"{s} {c['steps']} steps of {c['batch_size']} clips" for s, c in row["cost"].items()]
        budgets.setdefault(", ".join(stages), []).append(row["name"])
    if len(budgets) == 1:
        text = f"Preset {study.preset}; equal budget: {next(iter(budgets))}"
    else:
        texts = [f"{', '.join(names)}: {budget}" for budget, names in budgets.items()]
        text = f"Preset {study.preset}; budgets: {'; '.join(texts)}"
    text += f"; trained on {about['data']}, measured on {about['held_out']}."
    if about.get("motion") == "flow":
        text += " The data has no true motion: codes are measured against OPTICAL FLOW, which is only a proxy."
    return text + (" MEASURED ON THE TRAINING VIDEO: the source has one split." if about.get("fitted_on_it") else "")


def _value_table(
    study: Study, rows: list[dict[str, Any]], columns: list[Column], baselines: dict[str, dict[str, Any]]
) -> list[str]:
    stages = list(dict.fromkeys(stage for row in rows for stage in row["cost"]))
    cost_titles = [
        f"{stage.replace('latent_action', 'LAM')} {what}" for stage in stages for what in ("ms per step", "MB per clip")
    ]
    body = [
        [
            _variant_text(row, study), str(len(row["seeds"])),
            *(_value_text(row["metrics"].get(c.name), c) for c in columns), *_cost_texts(row, stages),
        ]
        for row in rows
    ]  # fmt: skip
    for name, values in baselines.items():
        texts = [number(values[c.name], c.digits) if c.name in values else "" for c in columns]
        body.append([f"*{name}*", "", *texts, "", *("" for _ in cost_titles)])
    head = ["variant", "seeds", *(c.title for c in columns), "parameters", *cost_titles]
    note = "Mean over seeds ± SD between seeds; with one seed, value and 95 % interval over trajectories."
    return [*markdown_table(head, body), "", note]


def _difference_table(
    study: Study, found: dict[str, Any], rows: list[dict[str, Any]], columns: list[Column]
) -> list[str]:
    """The table of differences to the reference and the claims; nothing if there is no other variant."""
    others = [row for row in rows if row["name"] != study.reference]
    if not others:
        return []
    body = [[row["name"], *(_difference_text(row["metrics"].get(c.name), c) for c in columns)] for row in others]
    caption = f"Difference to **{study.reference}**, 95 % interval (p; p after Holm's correction over the variants):"
    table = markdown_table(["variant", *(c.title for c in columns)], body)
    return ["", caption, "", *table, "", *claims(study, found, columns)]


def claims(study: Study, found: dict[str, Any], columns: list[Column]) -> list[str]:
    """One line per variant: the metrics in which it is better, worse, or not shown to differ."""
    lines = []
    for row in found["variants"]:
        if row["name"] == study.reference or not row["seeds"]:
            continue
        by_verdict: dict[str, list[str]] = {}
        for column in columns:
            gap = (row["metrics"].get(column.name) or {}).get("difference")
            if gap is None:
                continue
            by = f" by {number(abs(gap['value']), column.digits)}" if gap["verdict"] in ("better", "worse") else ""
            by_verdict.setdefault(gap["verdict"], []).append(f"{column.title}{by}")
        words = "; ".join(f"{judged}: {', '.join(titles)}" for judged, titles in sorted(by_verdict.items()))
        lines.append(f"- **{row['name']}** against {study.reference}: {words or 'nothing to compare yet'}")
    return lines


def _has(row: dict[str, Any], name: str) -> bool:
    return bool(row["metrics"].get(name)) and bool(row["metrics"][name]["values"])


def _variant_text(row: dict[str, Any], study: Study) -> str:
    name = f"**{row['name']}**" if row["name"] == study.reference else row["name"]
    return f"{name}: {row['what']}" if row["what"] else name


def _value_text(entry: dict[str, Any] | None, column: Column) -> str:
    if entry is None or entry["mean"] is None:
        return "–"
    if entry["sd"] is not None:
        return f"{number(entry['mean'], column.digits)} ± {number(entry['sd'], column.digits)}"
    ends = entry["ci95"]
    return with_interval(entry["mean"], None if ends is None or None in ends else ends, column.digits)


def _difference_text(entry: dict[str, Any] | None, column: Column) -> str:
    gap = (entry or {}).get("difference")
    if gap is None:
        return "–"
    text = signed(gap["value"], column.digits)
    if gap["ci95"] is not None:
        text += f" [{signed(gap['ci95'][0], column.digits)}, {signed(gap['ci95'][1], column.digits)}]"
    p = [f"{value:.2g}" for value in (gap["p"], gap["p_holm"]) if value is not None]
    text += f" ({'; '.join(p)})" if p else ""
    return text if gap["seeds"] >= MIN_SEEDS else f"{text}, {gap['seeds']} seed{'s' if gap['seeds'] > 1 else ''}"


def _cost_texts(row: dict[str, Any], stages: list[str]) -> list[str]:
    """Parameters of all stages, then time and memory of each."""
    texts = [f"{sum(cost['parameters'] for cost in row['cost'].values()) / 1e6:.2f}M"]
    for stage in stages:
        cost = row["cost"].get(stage) or {}
        texts += [number(cost.get("ms_a_step"), 0), number(cost.get("saved_mb_a_clip"), 0)]
    return texts
