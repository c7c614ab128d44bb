"""Writes report.json (checked against report_schema.json), figures/*.png and a report.html that needs nothing else."""

import base64
import datetime
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_eval.metric import plain
from genie_eval.report.answer import QUESTION, consistency_answer, first_line
from genie_eval.report.charts import code_usage, ladder_chart, motion_quiver
from genie_eval.report.pictures import dream_grid, filmstrip
from genie_eval.verdicts import FEW, MARKS
from genie_robotics.run_folder import write_atomically

if TYPE_CHECKING:
    from genie_datasets import Source, Split
    from genie_eval.evaluation import EvaluationConfig, Results

SCHEMA_VERSION = 1
HEADLINE = ("ctc", "grounding_r2", "action_attributable_fraction", "delta_psnr_t4")
ABOUT = {
    "ctc": "Of what a code reliably means inside a trajectory, the share it means in all",
    "grounding_r2": "How much of the true motion the code tells, in trajectories it was not fitted on",
    "action_attributable_fraction": "Share of the dream's avoidable error that knowing the code removes",
    "delta_psnr_t4": "dB that inferred codes gain over random ones, 4 frames into the dream",
    "codebook_perplexity": "How many codes are in use, in effect",
    "tokenizer_psnr": "Reconstruction of held-out clips, dB (null: the previous frame)",
    "dream_psnr": "Dream from one frame with inferred codes, dB (null: repeat the prompt)",
    "ctc_flow": "Consistency against optical flow instead of true motion",
    "grounding_flow_r2": "How much of the optical flow the code tells",
    "sequence_consistency": "Does the same sequence of codes give similar behaviour from different starts?",
    "command_bits": "Bits of a commanded code that a latent action model reads back from the dream",
    "command_bits_physical": "The same bits, read from the dream's motion",
    "counterfactual_id": "Is the dream nearest to the simulator's future of the same action?",
    "state_leak": "Do codes tell where the arm is, rather than where it goes?",
    "nuisance_flip_rate": "How often light, colour or a shifted camera change the code",
}
LIMITS = (
    "The arm's own motion is the truth here; what it does to objects is not judged separately.",
    "Codes are inferred with the context a clip gives them; at the start of a clip there is little.",
    "With 8 codes no model can tell all of a 3-D motion: read skill, which compares with the best 8 codes, not R2.",
    "dB depend on the tokenizer and on how much of the picture moves: compare them on the same data only.",
    "The dreams are not yet judged by their motion: no motion read-out is applied to them in this version.",
)


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


def draw(results: "Results", out: Path, config: "EvaluationConfig") -> list[dict[str, str]]:
    """Writes the figures; one object each: {"file" (relative to out), "title", "caption"}."""
    table, codes, cards = results.evidence.table, results.evidence.codes, results.codes
    suffix = judged_on(results.ladder)
    folder = out / "figures"
    found = []

    def add(name: str, title: str, caption: str) -> None:
        found.append({"file": f"figures/{name}.png", "title": title, "caption": caption})

    caption = dream_grid(folder / "same_action.png", results.grid_starts, results.grid, cards)
    add("same_action", "One latent action, many starts", caption)
    if table.why_unusable("base") is None or table.why_unusable("flow") is None:
        caption = motion_quiver(folder / "motion.png", table, codes, cards, config.draws)
        add("motion", "What each code moves", caption)
    if any(row.get(f"grounding{suffix}_skill") is not None for row in results.ladder):
        caption = ladder_chart(folder / "ladder.png", results.ladder, suffix)
        add("ladder", "The ladder", caption)
    add("usage", "How the codes are used", code_usage(folder / "usage.png", table, codes, cards))
    add("dreams", "Dreams beside the truth", filmstrip(folder / "dreams.png", results.dreams))
    return found


def judged_on(ladder: list[dict[str, Any]]) -> str:
    """What the names of the shown metrics end in: "" for true motion, "_flow" where a source has none."""
    return "" if any(row.get("grounding_skill") is not None for row in ladder) else "_flow"


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
    word, sentence = consistency_answer(results.metrics)
    model = genie.config
    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "package_version": package_version(),
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
                "exploratory": evidence.table.num_trajectories < FEW,
            },
            "metrics": {name: metric.as_json() for name, metric in results.metrics.items()},
            "ladder": results.ladder,
            "codes": results.codes,
            "figures": figures,
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
    ran = [name for name, metric in report["metrics"].items() if metric["verdict"] != "not run"]
    order = [name for name in ABOUT if name in report["metrics"]]
    return template.render(
        report=report, images=images, about=ABOUT, limits=report.get("limits", LIMITS), marks=MARKS,
        headline=HEADLINE, few=FEW,
        ran=[name for name in order if name in ran], not_run=[name for name in order if name not in ran],
        suffix=judged_on(report["ladder"]),
    )  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    """A dash for what is not known; no minus before a zero."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval_text(value: list[float] | None, digits: int = 2) -> str:
    return "" if value is None else f"[{number(value[0], digits)}, {number(value[1], digits)}]"


def package_version() -> str:
    try:
        return version("genie-robotics")
    except PackageNotFoundError:  # from a checkout that is not installed
        return "not installed"
