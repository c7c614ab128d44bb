"""The report's sections: one for each level of the specification, and fidelity.

Made of report.json alone, so that a report of latents without pixels, or one written by hand, has the same sections.
"""

from collections.abc import Callable

from genie_eval.report import levels_codes, levels_dreams
from genie_eval.report.section import Row, Section


def sections(report: Row) -> list[Section]:
    """Levels A to H, and fidelity; every promised metric stands in one of them."""
    levels: list[Callable[[Row, Row], Section]] = [
        levels_codes.codebook,
        levels_codes.grounding,
        levels_codes.consistency,
        levels_dreams.command,
        levels_dreams.sequences,
        levels_dreams.truth,
        levels_codes.leakage,
        levels_codes.nuisance,
        levels_dreams.fidelity,
    ]
    made = [level(report["metrics"], report.get("details") or {}) for level in levels]
    for section in made:
        section.metrics = [name for name in section.metrics if name in report["metrics"]]
    listed = {name for section in made for name in section.metrics}
    made[-1].metrics += [name for name in report["metrics"] if name not in listed]
    return made
