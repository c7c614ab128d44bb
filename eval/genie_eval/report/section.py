"""One section of the report: a level with its metrics, tables, other numbers, and what was not run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from genie_eval.metrics import LEVELS, METRICS

Row = dict[str, Any]


@dataclass
class Table:
    """Header and rows of text; the first column is left-aligned."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass
class Section:
    """A level of LEVELS. rest: (name, text) of numbers that have no table. not_run: (what, reason)."""

    level: str
    metrics: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    not_run: list[tuple[str, str]] = field(default_factory=list)
    rest: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.title, self.question = LEVELS[self.level]
        self.letter = self.level if len(self.level) == 1 else ""
        self.metrics = [name for name, definition in METRICS.items() if definition.level == self.level]

    def table(self, title: str, head: list[str], rows: list[list[str]], note: str = "") -> None:
        """Adds a table, unless it has no rows."""
        if rows:
            self.tables.append(Table(title, head, rows, note))

    def facts(self, title: str, facts: Iterable[tuple[str, Any, Callable[[Any], str]]], note: str = "") -> None:
        """Adds a table of two columns; facts: (label, value, function that gives its text), left out if None."""
        self.table(title, ["", ""], [[label, text(value)] for label, value, text in facts if value is not None], note)

    def has(self, what: str, part: Any, otherwise: str = "not part of this run") -> bool:
        """True if a part was run; otherwise keeps its reason."""
        if not part:
            self.not_run.append((what, otherwise))
            return False
        if isinstance(part, dict) and part.get("reason") and set(part) <= {"reason", "meaning", "about", "name"}:
            self.not_run.append((what, part["reason"]))
            return False
        return True
