"""Numbers as the page writes them, and objects of numbers as rows."""

from typing import Any

MOST_LISTED = 16  # numbers of a list that are written out


def number(value: float | None, digits: int = 2) -> str:
    """A dash for what is not known; no minus before a zero."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def share(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{number(100 * value, digits)} %"


def p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval_text(value: Any, digits: int = 2) -> str:
    return "" if value is None else f"[{number(value[0], digits)}, {number(value[1], digits)}]"


def with_interval(value: float | None, ci95: Any, digits: int = 2) -> str:
    """ "0.62 [0.55, 0.70]" """
    return f"{number(value, digits)} {interval_text(ci95, digits)}".strip()


def any_number(value: Any) -> str:
    """Three or so digits of a number of any size; words as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return number(value, 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 0.1 else 4)
    return str(value)


def words(name: str) -> str:
    return name.replace("_", " ")


def flat(node: Any, prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of every number of nested objects; long lists and matrices only say that they are there."""
    if isinstance(node, dict):
        if set(node) <= {"reason", "meaning"} and node.get("reason"):
            return [(prefix or "all", f"not run: {node['reason']}")]
        rows = []
        if isinstance(node.get("value"), int | float):
            rows.append((prefix or "value", with_interval(node["value"], node.get("ci95"), 2)))
        for key, item in node.items():
            if rows and key in ("value", "ci95"):
                continue
            rows += flat(item, f"{prefix} · {words(key)}" if prefix else words(key))
        return rows
    if isinstance(node, list | tuple):
        if any(isinstance(item, dict) for item in node):
            return [row for n, item in enumerate(node) for row in flat(item, f"{prefix} · {n}")]
        if any(isinstance(item, list) for item in node):
            return [(prefix, f"table of {len(node)} rows, in report.json")]
        if len(node) > MOST_LISTED:
            return [(prefix, f"{len(node)} numbers, in report.json")]
        return [(prefix, ", ".join(any_number(item) for item in node) or "none")]
    return [(prefix, any_number(node))]
