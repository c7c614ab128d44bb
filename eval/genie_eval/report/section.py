"""One section of the report: a level of the specification, with its metrics, tables and what was not run."""

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Table:
    """head and rows of text; the first column is left-aligned."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass
class Section:
    """letter: of the level. metrics: names, as they stand in the report. rest: (name, text) of all other numbers."""

    letter: str
    title: str
    question: str
    metrics: list[str]
    tables: list[Table] = field(default_factory=list)
    not_run: list[tuple[str, str]] = field(default_factory=list)
    rest: list[tuple[str, str]] = field(default_factory=list)

    def table(self, title: str, head: list[str], rows: list[list[str]], note: str = "") -> None:
        if rows:
            self.tables.append(Table(title, head, rows, note))

    def unless(self, what: str, part: Any, otherwise: str = "not part of this run") -> bool:
        """Whether a part was run; if not, its reason is kept."""
        if not part:
            self.not_run.append((what, otherwise))
            return False
        if isinstance(part, dict) and part.get("reason") and set(part) <= {"reason", "meaning", "about", "name"}:
            self.not_run.append((what, part["reason"]))
            return False
        return True
