"""Rows for figures and tables, read from `metrics` and `details` of report.json.

Every part may be missing, or be {"reason": why it was not run}.
"""

from typing import Any

from genie_eval.metrics import DEAD_CODE, METRICS, MIN_CODE_CTC, MIN_RECALL, Mark

Row = dict[str, Any]
DIMENSION_NAMES = {
    "base": ("x (forward)", "y (left)", "z (up)"),
    "image": ("right", "down"),
    "rotation": ("roll", "pitch", "yaw"),
    "gripper": ("gripper",),
}


def mark_of(name: str) -> Mark:
    """The mark of a metric that has one."""
    mark = METRICS[name].mark
    assert mark is not None
    return mark


def at(node: Any, *path: str) -> Any:
    """The part of nested objects at this path, or None."""
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def inference(details: Row, part: str) -> Row:
    """A part of `details.inference`: nuisance, leakage, algebra or stability."""
    return at(details, "inference", part) or {}


def consistency_rows(details: Row, cards: list[Row]) -> tuple[list[Row], list[Row]]:
    """CTC as {"label", "value", "ci95"}: (by code, by scene)."""
    rows = [
        {"label": f"{card['code']}: {card['name']}", "value": card["ctc"], "ci95": card.get("ctc_ci95")}
        for card in cards
    ]
    scenes = at(details, "consistency", "by_scene", "scenes") or []
    return rows, [{"label": f"scene {row['scene']}", "value": row["ctc"], "ci95": row.get("ci95")} for row in scenes]


VARIANCES = {"code": "code", "scene": "code_scene", "trajectory": "code_trajectory", "residual": "residual"}


def variance_shares(details: Row) -> dict[str, float | None]:
    """Share of each part of the variance of motion; empty where it was not decomposed.

    Estimates below 0 count as 0, so that the shares add up to 1.
    """
    found = at(details, "consistency", "variance_components") or {}
    values = {part: at(found, name, "value") for part, name in VARIANCES.items()}
    if values["code"] is None or values["residual"] is None:
        return {}
    total = sum(max(value, 0.0) for value in values.values() if value is not None)
    return {part: None if v is None else max(v, 0.0) / total for part, v in values.items()} if total else {}


def nuisance_rows(metrics: Row, details: Row) -> tuple[Row, Row, float | None]:
    """(rows by nuisance, rows of nuisances on the later frame only, value of unrelated codes)."""
    metric = metrics.get("nuisance_flip_rate", {})
    by_nuisance = dict(metric.get("by_nuisance") or {})
    for name, row in (inference(details, "nuisance").get("rendered") or {}).items():
        if isinstance(row, dict) and row.get("flip_rate") is not None:
            by_nuisance[f"{'nothing' if name == 'recorded' else name} (rendered again)"] = row
    return by_nuisance, metric.get("second_frame") or {}, metric.get("null")


def failing_codes(metrics: Row, cards: list[Row]) -> list[Row]:
    """Codes that fail on their own, each with the reasons: {"code", "name", "reasons"}."""
    own = at(metrics, "command_bits", "judges", "own", "recall") or []
    truth = at(metrics, "counterfactual_id", "by_code") or []
    found = []
    for card in cards:
        k, reasons = card["code"], []
        if card["share"] < DEAD_CODE:
            reasons.append(f"dead: {card['share']:.1%} of the transitions")
        if card.get("ctc") is not None and card["ctc"] < MIN_CODE_CTC:
            reasons.append(f"means different motions in different trajectories (CTC {card['ctc']:.2f})")
        if k < len(own) and own[k] is not None and own[k] < MIN_RECALL:
            reasons.append(f"commanded, it is read back as itself in only {own[k]:.0%} of the steps")
        if k < len(truth) and truth[k] is not None and truth[k] <= 1 / len(cards):
            reasons.append(f"its dreams are no nearer to the simulator's future than chance ({truth[k]:.0%})")
        if reasons:
            found.append({"code": k, "name": card["name"], "reasons": reasons})
    return found
