"""Text of numbers and tables, as the page, the terminal and the guides show them."""

from collections.abc import Sequence
from typing import Any

MAX_LISTED = 16  # numbers of a list that are written out


def number(value: float | None, digits: int = 2) -> str:
    """A number with these decimals, without a minus before zero; a dash for None."""
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


def estimate(row: Any, digits: int = 2) -> str:
    """The value of an object with its interval, if it has one."""
    return with_interval(row["value"], row.get("ci95"), digits)


def any_number(value: Any) -> str:
    """A number of any size with about three digits; other values as words."""
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
    """(name, text) of every number of nested objects; long lists and matrices are mentioned only."""
    if isinstance(node, dict):
        if set(node) <= {"reason", "meaning"} and node.get("reason"):
            return [(prefix or "all", f"not run: {node['reason']}")]
        rows = []
        if isinstance(node.get("value"), int | float):
            rows.append((prefix or "value", estimate(node)))
        for key, item in node.items():
            if rows and key in ("value", "ci95"):
                continue
            rows += flat(item, f"{prefix} · {words(key)}" if prefix else words(key))
        return rows
    if isinstance(node, list | tuple):
        if any(isinstance(item, dict) for item in node):
            return [row for n, item in enumerate(node) for row in flat(item, f"{prefix} · {n}")]
        if any(isinstance(item, list) for item in node):
            return [(prefix, f"table of {len(node)} rows in report.json")]
        if len(node) > MAX_LISTED:
            return [(prefix, f"{len(node)} numbers in report.json")]
        return [(prefix, ", ".join(any_number(item) for item in node) or "none")]
    return [(prefix, any_number(node))]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"

    return [line(head), line(["---"] * len(head)), *(line(cells) for cells in rows)]
