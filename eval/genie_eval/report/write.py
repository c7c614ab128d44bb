"""Writes report.json (checked against its schema), the figures, and a report.html that needs no other file."""

import base64
import datetime
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_datasets.base.files import write_atomically
from genie_eval.metrics import FEW, LEVELS, METRICS, Metric, about, digits, in_order, plain
from genie_eval.report import levels_codes, levels_dreams
from genie_eval.report.answer import QUESTION, SEQUENCE_QUESTION, consistency_answer, first_line, sequence_answer
from genie_eval.report.cells import interval_text, number, p_value
from genie_eval.report.figures import draw, measured_on
from genie_eval.report.findings import failing_codes
from genie_eval.report.provenance import commit
from genie_eval.report.section import Row, Section
from genie_robotics.run_folder import package_version

if TYPE_CHECKING:
    from genie_datasets import Source, Split
    from genie_eval.interfaces import WorldModel
    from genie_eval.results import EvaluationConfig, Results

SCHEMA_VERSION = 1
CAMERA = 0.1  # excess of skill in the image plane from which codes are called relative to the camera
UNREADABLE = 0.5  # R2 of the read-out over the judged steps
LEVEL_TABLES: dict[str, Callable[[Section, Row, Row], None]] = {
    "A": levels_codes.codebook,
    "B": levels_codes.grounding,
    "C": levels_codes.consistency,
    "D": levels_dreams.command,
    "E": levels_dreams.sequences,
    "F": levels_dreams.truth,
    "G": levels_codes.leakage,
    "H": levels_codes.nuisance,
    "I": levels_dreams.any_start,
    "fidelity": levels_dreams.fidelity,
}
"""Fills the section of a level with its tables, from `metrics` and `details` of report.json."""


def sections(report: Row) -> list[Section]:
    """One section per level of which the report says something.

    They are made of report.json alone, so that a report of latents without pixels has the same.
    """
    made = []
    for level in LEVELS:
        section = Section(level)
        LEVEL_TABLES[level](section, report["metrics"], report.get("details") or {})
        section.metrics = [name for name in section.metrics if name in report["metrics"]]
        if section.metrics or section.tables or section.not_run:
            made.append(section)
    listed = {name for section in made for name in section.metrics}
    made[-1].metrics += [name for name in report["metrics"] if name not in listed]
    return made


def limits(results: "Results", num_codes: int) -> list[str]:
    """Sentences on what must not be concluded from this report."""
    said = [
        _camera(results.metrics["grounding_r2"]),
        f"{num_codes} codes cannot explain all of a 3-D motion: read the skill, which compares with the best "
        f"{num_codes} codes, not R2.",
        "The truth here is the arm's own motion; what it does to objects is not judged separately.",
        "Codes are inferred with the context that a clip gives them; at the start of a clip there is little.",
        "PSNR depends on the tokenizer and on how much of the picture moves: compare it on the same data only.",
    ]
    control = getattr(results, "control", None)
    error = None if control is None else control.error
    if error is None:
        said.append("No motion read-out was applied to the dreams: they are judged by codes and pixels only.")
        return said
    sure = "enough for verdicts" if error.reliable else "too little: metrics that use it at most warn"
    said.append(
        f"The motion of dreams is read by a small network, with an error of "
        f"{error.by_gap[error.gap]['rms_error_mm']:.0f} mm over {error.gap} steps of real video. It explains "
        f"{error.reliability:.0%} of the displacement there, {sure}. Its error on dreams is not known."
    )
    lost = results.metrics["sequence_consistency"].more.get("abstained")
    if lost is not None:
        said.append(
            f"The read-out abstains where its networks disagree ({lost:.1%} of the commanded dreams): those dreams do "
            "not count, and may be the strangest ones."
        )
    weak = [f"{name} (R2 {r2:.2f})" for name, r2 in _read_dimensions(error) if r2 < UNREADABLE]
    if weak:
        said.append(f"The read-out hardly sees {', '.join(weak)}: dreams are not judged on it.")
    return said


def _camera(grounding: Metric) -> str:
    image, base = ((grounding.more.get("by_motion") or {}).get("image") or {}).get("skill"), grounding.skill
    if image is None or base is None:
        return (
            "Codes may be relative to the camera: they are inferred from the image plane, and another camera would see "
            "other motion under the same code."
        )
    both = f"their skill is {image:.2f} in the image plane and {base:.2f} in the robot's base frame"
    if image - base > CAMERA:
        return f"These codes are relative to the camera: {both}. From another camera they would mean other motion."
    return f"Codes may be relative to the camera; here {both}."


def _read_dimensions(error: Any) -> list[tuple[str, float]]:
    names = {"base": ("x", "y", "z"), "image": ("image x", "image y")}
    found = []
    for part, values in error.by_gap[error.gap]["r2"].items():
        listed = values if isinstance(values, list) else [values]
        labels = names.get(part, tuple(f"{part} {d}" if len(listed) > 1 else part for d in range(len(listed))))
        found += list(zip(labels, listed, strict=False))
    return found


def write_report(
    results: "Results",
    genie: "WorldModel",
    source: "Source",
    split: "Split",
    out: Path,
    run: str | Path | None,
    config: "EvaluationConfig",
) -> dict[str, Any]:
    """Returns the content of report.json.

    Raises:
        UserError: `out` cannot be written.
    """
    figures = draw(results, out, config)
    return write_files(build(results, genie, source, split, run, config, figures), out)


def write_files(report: dict[str, Any], out: Path) -> dict[str, Any]:
    """Checks the report against its schema, writes report.json and report.html, and returns the report."""
    validate(report)
    write_atomically(out / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    write_atomically(out / "report.html", render(report, out).encode())
    return report


def report_head() -> dict[str, Any]:
    """The first entries of every report."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "package_version": package_version(),
    }


def build(
    results: "Results",
    genie: "WorldModel",
    source: "Source",
    split: "Split",
    run: str | Path | None,
    config: "EvaluationConfig",
    figures: list[dict[str, str]],
) -> dict[str, Any]:
    """The content of report.json, in JSON types."""
    evidence = results.evidence
    details = plain(getattr(results, "details", {}))
    answers = []
    for question, answer in ((QUESTION, consistency_answer), (SEQUENCE_QUESTION, sequence_answer)):
        word, sentence = answer(results.metrics)
        answers.append({"question": question, "answer": word, "because": sentence})
    model = genie.config
    metrics = {name: metric.as_json() for name, metric in results.metrics.items()}
    return plain(
        {
            **report_head(),
            "git": commit(),
            "run": {
                "path": None if run is None else str(run), "preset": getattr(model, "preset", None),
                "image_size": list(model.image_size), "clip_length": model.clip_length, "gap": model.gap,
                "num_actions": model.num_actions,
            },
            "data": {
                "source": source.name, "path": str(source.path), "fingerprint": source.fingerprint,
                "n_trajectories": evidence.table.num_trajectories,
                "n_frames": sum(len(t.ids) for t in evidence.trajectories),
                "n_transitions": len(evidence.codes), "n_skipped": evidence.skipped, "split": split.name,
                "true_motion": sorted(name for name in evidence.table.motions if name != "flow"),
            },
            "settings": {k: v for k, v in vars(config).items() if k != "progress"},
            "summary": {
                "first_line": first_line(results.metrics), **answers[0], "questions": answers,
                "failing_codes": failing_codes(metrics, results.codes),
                "exploratory": evidence.table.num_trajectories < FEW,
            },
            "metrics": metrics,
            "ladder": results.ladder,
            "codes": results.codes,
            "figures": figures,
            "details": details,
            "limits": limits(results, model.num_actions),
            "seconds": {name: round(value, 1) for name, value in results.seconds.items()},
        }
    )  # fmt: skip


def schema() -> dict[str, Any]:
    """report_schema.json with the metrics that every report holds."""
    content = json.loads(files("genie_eval.report").joinpath("report_schema.json").read_text())
    content["properties"]["metrics"]["required"] = [m.name for m in METRICS.values() if m.always]
    return content


def validate(report: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError when the report does not match its schema."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(report))
    if error is not None:
        raise error


@cache
def _validator() -> Any:
    """Validator of reports. The schema itself is checked by a test, which takes longer than to check a report."""
    from jsonschema.validators import validator_for

    content = schema()
    return validator_for(content)(content)


def page_environment() -> Any:
    """The jinja2 environment of the HTML pages."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "interval": interval_text, "p_value": p_value}
    environment.globals |= {"about": about, "digits": digits}
    return environment


@cache
def _page() -> Any:
    """The compiled template of report.html."""
    return page_environment().from_string(files("genie_eval.report").joinpath("report.html").read_text())


def render(report: dict[str, Any], out: Path) -> str:
    """The HTML page, with the figures of the folder `out` inside it."""
    images = {f["file"]: base64.b64encode((out / f["file"]).read_bytes()).decode() for f in report["figures"]}
    metrics, summary, suffix = report["metrics"], report["summary"], measured_on(report["ladder"])
    names = in_order(metrics)
    primary = [name for name in names if name in METRICS and METRICS[name].primary]
    return _page().render(
        report=report, images=images, few=FEW,
        questions=summary.get("questions") or [{name: summary[name] for name in ("question", "answer", "because")}],
        colors=[_color(metrics, name) for name in (f"ctc{suffix}", "sequence_consistency")],
        primary=primary, others=[name for name in names if name not in primary],
        seeds=any((metric.get("n_seeds") or 1) > 1 for metric in metrics.values()),
        sections=sections(report), suffix=suffix, limits=report.get("limits", []),
    )  # fmt: skip


def _color(metrics: dict[str, Any], name: str) -> str:
    metric = metrics.get(name) or {}
    return "none" if metric.get("value") is None and metric.get("verdict") != "fail" else metric["verdict"]
