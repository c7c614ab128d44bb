"""Writes report.json (checked against report_schema.json), the figures and a report.html that needs no other file."""

import base64
import datetime
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_eval.metric import Metric, plain
from genie_eval.report.answer import (
    QUESTION,
    SEQUENCE_QUESTION,
    consistency_answer,
    first_line,
    sequence_answer,
)
from genie_eval.report.cells import interval_text, number, p_value
from genie_eval.report.figures import draw, judged_on
from genie_eval.report.findings import failing_codes
from genie_eval.report.provenance import commit
from genie_eval.report.sections import sections
from genie_eval.verdicts import FEW
from genie_robotics.run_folder import write_atomically

if TYPE_CHECKING:
    from genie_datasets import Source, Split
    from genie_eval.results import EvaluationConfig, Results

SCHEMA_VERSION = 1
PRIMARY = ("grounding_r2", "ctc", "command_bits", "action_attributable_fraction")  # named before any model was seen
GUARDS = (
    "codebook_perplexity", "sequence_consistency", "command_bits_physical", "counterfactual_id", "state_leak",
    "nuisance_flip_rate", "delta_psnr_t4", "tokenizer_psnr", "dream_psnr", "grounding_flow_r2", "ctc_flow",
    "sequence_consistency_flow",
)  # fmt: skip
ABOUT = {
    "grounding_r2": "How much of the true motion the code tells, in trajectories it was not fitted on",
    "ctc": "Of what a code reliably means inside a trajectory, the share it means in all",
    "command_bits": "Bits of a played code that a latent action model reads back from the dream",
    "action_attributable_fraction": "Share of the dream's avoidable error that knowing the code removes",
    "codebook_perplexity": "How many codes are in use, in effect",
    "sequence_consistency": "Of what a sequence of codes changes from one start, the share it changes from all",
    "command_bits_physical": "The same bits, read from the motion of the arm in the dream",
    "counterfactual_id": "Dreams that are nearest to the simulator's own future of their code",
    "state_leak": "Share of what explains the code that is place, not motion (less is better)",
    "nuisance_flip_rate": "Codes that change with light, colour or a shifted camera (less is better)",
    "delta_psnr_t4": "dB that inferred codes gain over random ones, 4 frames into the dream",
    "tokenizer_psnr": "Reconstruction of held-out clips, dB (null: the previous frame)",
    "dream_psnr": "Dream from one frame with inferred codes, dB (null: repeat the prompt)",
    "ctc_flow": "Consistency against optical flow instead of true motion",
    "grounding_flow_r2": "How much of the optical flow the code tells",
    "sequence_consistency_flow": "Sequence consistency of the dreams' optical flow instead of the arm's motion",
}


def limits(results: "Results", num_codes: int) -> list[str]:
    """What the reader must not conclude, said of this report."""
    said = [
        _camera(results.metrics["grounding_r2"]),
        f"{num_codes} codes cannot tell all of a 3-D motion: read skill, which compares with the best {num_codes} "
        "codes, not R2.",
        "The arm's own motion is the truth here; what it does to objects is not judged separately.",
        "Codes are inferred with the context a clip gives them; at the start of a clip there is little.",
        "dB depend on the tokenizer and on how much of the picture moves: compare them on the same data only.",
    ]
    control = getattr(results, "control", None)
    error = None if control is None else control.error
    if error is None:
        said.append("No motion read-out was applied to the dreams: what they move is judged by codes and pixels only.")
        return said
    sure = "enough for verdicts" if error.reliable else "too little: metrics that use it at most warn"
    said.append(
        f"What dreams move is read by a small net, right to {error.by_gap[error.gap]['rms_error_mm']:.0f} mm over "
        f"{error.gap} steps of real video; it explains {error.reliability:.0%} of displacement there, {sure}. On "
        "dreams its error is not known."
    )
    lost = results.metrics["sequence_consistency"].more.get("abstained")
    if lost is not None:
        said.append(
            f"It abstains where its nets disagree ({lost:.1%} of the commanded dreams): those do not count, for or "
            "against, and may be the strangest ones."
        )
    weak = [f"{name} (R2 {r2:.2f})" for name, r2 in _read_dimensions(error) if r2 < UNREADABLE]
    if weak:
        said.append(f"It hardly sees {', '.join(weak)}: what dreams do there is not judged.")
    return said


CAMERA = 0.1  # of skill; by so much more in the image plane, codes are called relative to the camera


def _camera(grounding: Metric) -> str:
    image, base = ((grounding.more.get("by_motion") or {}).get("image") or {}).get("skill"), grounding.skill
    if image is None or base is None:
        return (
            "Codes may be relative to the camera: they see the image plane only, and another camera would see other "
            "motion under the same code."
        )
    both = f"their skill is {image:.2f} in the image plane and {base:.2f} in the robot's base frame"
    if image - base > CAMERA:
        return f"These codes are relative to the camera: {both}. From another camera they would mean other motion."
    return f"Codes may be relative to the camera; here {both}."


UNREADABLE = 0.5  # R2 of the read-out over the judged steps


def _read_dimensions(error: Any) -> list[tuple[str, float]]:
    names = {"base": ("x", "y", "z"), "image": ("image x", "image y")}
    by_part = error.by_gap[error.gap]["r2"]
    found = []
    for part, values in by_part.items():
        listed = values if isinstance(values, list) else [values]
        labels = names.get(part, tuple(f"{part} {d}" if len(listed) > 1 else part for d in range(len(listed))))
        found += list(zip(labels, listed, strict=False))
    return found


def write_report(
    results: "Results",
    genie: Any,
    source: "Source",
    split: "Split",
    out: Path,
    run: str | Path | None,
    config: "EvaluationConfig",
) -> dict[str, Any]:
    """Returns the content of report.json. Raises UserError when `out` cannot be written."""
    figures = draw(results, out, config)
    report = build(results, genie, source, split, run, config, figures)
    validate(report)
    write_atomically(out / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    write_atomically(out / "report.html", render(report, out).encode())
    return report


def build(
    results: "Results",
    genie: Any,
    source: "Source",
    split: "Split",
    run: str | Path | None,
    config: "EvaluationConfig",
    figures: list[dict[str, str]],
) -> dict[str, Any]:
    """The content of report.json, in JSON types."""
    evidence = results.evidence
    details = plain(getattr(results, "details", {}))
    word, sentence = consistency_answer(results.metrics)
    second, why = sequence_answer(results.metrics)
    model = genie.config
    metrics = {name: metric.as_json() for name, metric in results.metrics.items()}
    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "package_version": package_version(),
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
                "first_line": first_line(results.metrics), "question": QUESTION, "answer": word, "because": sentence,
                "questions": [
                    {"question": QUESTION, "answer": word, "because": sentence},
                    {"question": SEQUENCE_QUESTION, "answer": second, "because": why},
                ],
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


def validate(report: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError when the report is not what report_schema.json promises."""
    import jsonschema

    jsonschema.validate(report, json.loads(files("genie_eval.report").joinpath("report_schema.json").read_text()))


def render(report: dict[str, Any], out: Path) -> str:
    """The HTML page, with the figures of the folder `out` inside it."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "interval": interval_text, "p_value": p_value}
    template = environment.from_string(files("genie_eval.report").joinpath("report.html").read_text())
    images = {f["file"]: base64.b64encode((out / f["file"]).read_bytes()).decode() for f in report["figures"]}
    metrics, summary = report["metrics"], report["summary"]
    asked = summary.get("questions") or [{name: summary[name] for name in ("question", "answer", "because")}]
    return template.render(
        report=report, images=images, about=ABOUT, few=FEW, questions=asked,
        colours=[_colour(metrics, name) for name in (f"ctc{judged_on(report['ladder'])}", "sequence_consistency")],
        primary=[name for name in PRIMARY if name in metrics],
        guards=[name for name in (*GUARDS, *sorted(set(metrics) - {*PRIMARY, *GUARDS})) if name in metrics],
        seeds=any((metric.get("n_seeds") or 1) > 1 for metric in metrics.values()),
        sections=sections(report), suffix=judged_on(report["ladder"]), limits=report.get("limits", []),
    )  # fmt: skip


def _colour(metrics: dict[str, Any], name: str) -> str:
    metric = metrics.get(name) or {}
    return "none" if metric.get("value") is None and metric.get("verdict") != "fail" else metric["verdict"]


def package_version() -> str:
    try:
        return version("genie-robotics")
    except PackageNotFoundError:  # from a checkout that is not installed
        return "not installed"
