"""Reads what the levels found out of `metrics` and `details`, in the rows that figures and tables show.

Every part may be missing, or {"reason": why it was not run}.
"""

from typing import Any

from genie_eval.verdicts import DEAD_CODE, MIN_CODE_CTC

MIN_RECALL = 0.40  # of a commanded code by the model's own judge (specification, level D)
Row = dict[str, Any]


def at(node: Any, *path: str) -> Any:
    """The part of nested objects at this path, or None."""
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def inference(details: Row, part: str) -> Row:
    """nuisance, leakage, algebra or stability, wherever they stand."""
    return at(details, "inference", part) or at(details, part) or {}


def consistency_rows(details: Row, cards: list[Row]) -> tuple[list[Row], list[Row]]:
    """({"label", "value", "ci95"} by code, the same by scene)."""
    rows = [
        {"label": f"{card['code']}: {card['name']}", "value": card["ctc"], "ci95": card.get("ctc_ci95")}
        for card in cards
    ]
    scenes = at(details, "consistency", "by_scene", "scenes") or []
    return rows, [{"label": f"scene {row['scene']}", "value": row["ctc"], "ci95": row.get("ci95")} for row in scenes]


VARIANCES = {"code": "code", "scene": "code_scene", "trajectory": "code_trajectory", "residual": "residual"}


def variance_rows(details: Row) -> dict[str, dict[str, float | None]]:
    """label -> share of each part of the variance of motion; empty where it was not taken apart.

    An estimate below 0 is 0 here, so that the others add up to 1.
    """
    found = at(details, "consistency", "variance_components") or {}
    values = {part: at(found, name, "value") for part, name in VARIANCES.items()}
    if values["code"] is None or values["residual"] is None:
        return {}
    total = sum(max(value, 0.0) for value in values.values() if value is not None)
    return {"model": {part: None if v is None else max(v, 0.0) / total for part, v in values.items()}} if total else {}


def nuisance_rows(metrics: Row, details: Row) -> tuple[Row, Row, float | None]:
    """(by nuisance, on the later frame only, what unrelated codes read)."""
    metric = metrics.get("nuisance_flip_rate", {})
    found = inference(details, "nuisance")
    by_nuisance = dict(metric.get("by_nuisance") or found.get("by_nuisance") or {})
    rendered = found.get("rendered") or {}
    for name, row in (rendered.get("by_factor") or rendered).items():
        if isinstance(row, dict) and row.get("flip_rate") is not None:
            by_nuisance[f"{'nothing' if name == 'recorded' else name} (rendered again)"] = row
    second = metric.get("second_frame") or found.get("second_frame") or {}
    return by_nuisance, second, metric.get("null")


def failing_codes(metrics: Row, cards: list[Row]) -> list[Row]:
    """Codes that fail on their own, each with the reasons: {"code", "name", "reasons"}."""
    own = at(metrics, "command_bits", "judges", "own", "recall") or []
    num = len(cards)
    truth = at(metrics, "counterfactual_id", "by_code") or []
    found = []
    for card in cards:
        k, reasons = card["code"], []
        if card["share"] < DEAD_CODE:
            reasons.append(f"dead: {card['share']:.1%} of transitions")
        if card.get("ctc") is not None and card["ctc"] < MIN_CODE_CTC:
            reasons.append(f"means different things in different trajectories (CTC {card['ctc']:.2f})")
        if k < len(own) and own[k] is not None and own[k] < MIN_RECALL:
            reasons.append(f"when played, read back as itself in {own[k]:.0%} only")
        if k < len(truth) and truth[k] is not None and truth[k] <= 1 / num:
            reasons.append(f"its dreams are no nearer to the simulator's future than chance ({truth[k]:.0%})")
        if reasons:
            found.append({"code": k, "name": card["name"], "reasons": reasons})
    return found
