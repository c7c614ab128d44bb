"""The table of all metrics, and the form of one result with its verdict.

METRICS has one entry for each metric: name, what it measures, section of the report, unit, direction, marks, null and
oracle. Verdicts, the page, the schema of report.json, comparisons, the columns of ablations and the tables in the
guides are made from it (`python -m genie_eval.metrics` prints those tables). A new metric takes a function that returns
a `Metric`, and an entry here.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genie_eval.report.cells import markdown_table

NOT_RUN = "not run"
FEW = 200  # trajectories; with fewer a result is called exploratory
FEW_STARTS = 64  # starts of commanded dreams, each from a trajectory of its own

# Further conditions of single metrics, beside their marks
DEAD_CODE = 0.01  # share of the transitions below which one of 8 codes is dead
MAX_SHARE = 0.40  # largest share of the transitions that one of 8 codes may take
MIN_CODE_CTC = 0.60  # CTC that every single code must reach
P_GROUNDING = 0.01  # largest p of grounding and consistency
MIN_RECALL = 0.40  # share of the steps in which every single command must be read back
MIN_KAPPA_SHARE = 0.70  # share of the oracle's kappa that a judge of commands must reach
MIN_COSINE = 0.80  # of the directions of one command from different starts, and of those of dream and simulator
MIN_IDENTIFIED = 0.70  # share of dreams that must be told from those of other codes
MIN_BOTH_RIGHT = 0.80  # share of pairs of opposite codes of which both must go the right way
MIN_START_BITS = 0.5  # bits of commands below which pictures that are kept do not count
FEW_PICTURES = 16  # start pictures, or simulated tables
MAGNITUDE_RATIO = (0.7, 1.4)  # displacement of dreams relative to the simulator's


@dataclass(frozen=True)
class Mark:
    """Marks of a metric, set before any trained model was measured (those of level I: before a world with a reference).

    good: a metric passes from here. bad: it fails beyond this; between the two it warns. low: for a pass, the worse end
    of the 95 % interval must reach this too. few: number of `units` below which a result is exploratory.
    interval_checked_from: number of trajectories below which the coverage of the interval was not checked, so that the
    metric does not pass.
    """

    good: float
    bad: float
    low: float | None = None
    few: int = FEW
    units: str = "trajectories"
    interval_checked_from: int = 0


@dataclass(frozen=True)
class Definition:
    """One metric: what the report, the schema and the guides say of it."""

    name: str
    level: str
    """Section of the report: a key of LEVELS."""
    sentence: str
    """One plain sentence that says what is measured."""
    null: str
    """Value of codes without meaning."""
    oracle: str
    """The best that this number of codes, the tokenizer or the simulator allows."""
    mark: Mark | None = None
    mark_on: Literal["value", "skill"] = "value"
    passes: str = ""
    """Further conditions for a pass."""
    fails: str = ""
    """Further conditions for a failure."""
    unit: str = ""
    lower_is_better: bool = False
    primary: bool = False
    """Chosen as a primary metric before any model was measured."""
    short: str = ""
    """Title of a narrow column."""
    digits: int = 2
    always: bool = True
    """Every report holds it, if only as "not run"."""
    needs: Literal["codes", "frames", "dreams"] = "codes"
    """codes: codes and motion are enough. frames: the model infers again. dreams: the model generates."""

    @property
    def about(self) -> str:
        """The sentence with the unit and, where lower values are better, the direction."""
        notes = [self.unit] if self.unit and self.unit not in self.sentence.lower() else []
        notes += ["lower is better"] if self.lower_is_better else []
        return self.sentence + (f" ({', '.join(notes)})" if notes else "")

    def pass_text(self) -> str:
        if self.mark is None:
            return self.passes
        interval = "" if self.mark.low is None else f", interval from {self.mark.low:.2f}"
        bound = self._bound("<=" if self.lower_is_better else ">=", self.mark.good)
        return bound + interval + (f"; {self.passes}" if self.passes else "")

    def fail_text(self) -> str:
        if self.mark is None:
            return self.fails
        bound = self._bound(">" if self.lower_is_better else "<", self.mark.bad)
        return bound + (f"; {self.fails}" if self.fails else "")

    def _bound(self, sign: str, value: float) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return ("skill " if self.mark_on == "skill" else "") + f"{sign} {value:.2f}{unit}"


LEVELS = {
    "A": ("Codebook", "Are the codes in use?"),
    "B": ("Grounding", "How much of the true motion do the codes explain?"),
    "C": ("Consistency across trajectories", "Does the same code mean the same motion in every trajectory?"),
    "D": ("Commands", "Can a commanded code be read back from the dream, and by whom?"),
    "E": ("Sequences", "Does the same sequence of codes have the same effect from every start?"),
    "F": ("Truth and use", "Is the dream what would really have happened, and does the model use its codes?"),
    "G": ("Leakage and shortcuts", "Do the codes encode anything but motion: position, scene, the next frame itself?"),
    "H": ("Nuisances", "Does the code stay the same when only light, color or camera change?"),
    "I": ("Any start", "Does the world keep the picture it is given, and obey in it, for a minute and longer?"),
    "fidelity": ("Fidelity", "How good are the pictures?"),
}  # fmt: skip
"""Sections of the report: key -> (title, question)."""

_GROUNDING = Mark(good=0.60, bad=0.30, low=0.50, interval_checked_from=40)
_CTC = Mark(good=0.80, bad=0.40, low=0.70, interval_checked_from=40)
_SEQUENCES = Mark(good=0.70, bad=0.35, few=FEW_STARTS, units="starts")
_RENAMED = "commands renamed at random at every start"
_SWAPPED = "mean over swaps of the codes between whole trajectories"

_TABLE = (
    Definition(
        "grounding_r2", "B", "Share of the variance of the true motion that the code explains, in other trajectories",
        null=_SWAPPED, oracle="k-means of the true motion", mark=_GROUNDING, mark_on="skill", primary=True,
        passes=f"p <= {P_GROUNDING}; above both learning-free baselines with p <= {P_GROUNDING}",
    ),
    Definition(
        "ctc", "C", "Agreement of a code's mean motion across trajectories (0 = none, 1 = perfect)",
        null="the same codes, renamed at random in every trajectory", oracle="k-means of the true motion", mark=_CTC,
        passes=f"every code >= {MIN_CODE_CTC:.2f}; p <= {P_GROUNDING}; at most half of the transitions have a code "
        "without a motion to judge",
        fails="undefined", primary=True, short="ctc",
    ),
    Definition(
        "command_bits", "D", "Bits of a commanded code that the model's own latent action model reads back from the "
        "dream",
        unit="bits", null=_RENAMED, oracle="the same judge on reconstructed real video",
        mark=Mark(good=1.4, bad=0.7, few=FEW_STARTS, units="starts"), primary=True, short="bits", needs="dreams",
        passes=f"every command read back in >= {MIN_RECALL:.0%} of the steps; kappa >= {MIN_KAPPA_SHARE:.2f} of the "
        "oracle's; the independent judge reads at least half as many bits",
    ),
    Definition(
        "action_attributable_fraction", "F", "Share of the dream's avoidable error that the right codes remove",
        null="0", oracle="1", mark=Mark(good=0.40, bad=0.20), primary=True, short="AAF", needs="dreams",
    ),
    Definition(
        "codebook_perplexity", "A", "Effective number of codes in use: exp of the entropy of their shares",
        null="1", oracle="perplexity of the oracle's codes (K without true motion)",
        mark=Mark(good=5.0, bad=3.0), short="perplexity",
        passes=f"counted as of 8 codes; no code under {DEAD_CODE:.0%}, none above {MAX_SHARE:.0%}",
    ),
    Definition(
        "sequence_consistency", "E", "Share of a sequence's effect in the dream that is the same from every start",
        null="sequences renamed at random at every start",
        oracle="the simulator's own futures through the same read-out (1 without a simulator)", mark=_SEQUENCES,
        passes=f"cosine >= {MIN_COSINE:.2f}; {MIN_IDENTIFIED:.0%} of the dreams identify their code; opposite codes "
        f"both right in {MIN_BOTH_RIGHT:.0%}",
        needs="dreams",
    ),
    Definition(
        "command_bits_physical", "D", "Bits of a commanded code that the arm's motion in the dream tells", unit="bits",
        null=_RENAMED, oracle="the simulator's own futures", needs="dreams",
        mark=Mark(good=1.0, bad=0.5, few=FEW_STARTS, units="starts"),
    ),
    Definition(
        "counterfactual_id", "F", "Share of dreams that are nearest to the simulator's own future of their code",
        null="1 / K", oracle="futures of actions drawn from the code", needs="dreams",
        mark=Mark(good=0.60, bad=0.30, low=0.50, few=FEW_STARTS, units="starts"),
        passes=f"cosine >= {MIN_COSINE:.2f}; {MAGNITUDE_RATIO[0]} to {MAGNITUDE_RATIO[1]} times as far as simulated",
    ),
    Definition(
        "state_leak", "G", "Share of what explains the code that is the arm's state, not its motion",
        lower_is_better=True, null="states swapped between trajectories", oracle="the oracle's codes",
        mark=Mark(good=0.15, bad=0.30), short="leak",
    ),
    Definition(
        "nuisance_flip_rate", "H", "Share of codes that change under nine harmless changes to the whole clip",
        lower_is_better=True, null="1 - sum of squared shares", oracle="0", mark=Mark(good=0.10, bad=0.20, few=60),
        short="flips", needs="frames",
    ),
    Definition(
        "delta_psnr_t4", "F", "Gain of inferred codes over random ones in the 4th frame of a dream", unit="dB",
        null="0", oracle="a dream as good as the tokenizer's reconstruction", mark=Mark(good=1.0, bad=0.5),
        short="delta-PSNR dB", needs="dreams",
    ),
    Definition(
        "tokenizer_psnr", "fidelity", "PSNR of reconstructed held-out clips", unit="dB", digits=1,
        null="the previous frame instead", oracle="-", short="tokenizer dB", needs="dreams",
        passes="significantly above null", fails="not above null, on moving pixels neither",
    ),
    Definition(
        "dream_psnr", "fidelity", "PSNR of dreams from one frame with inferred codes, mean over t = 1..8", unit="dB",
        digits=1, null="the prompt repeated", oracle="the tokenizer's reconstruction", short="dream dB", needs="dreams",
        passes="significantly above null", fails="not above null, on moving pixels neither",
    ),
    Definition(
        "grounding_flow_r2", "B", "grounding_r2 on the mean optical flow of moving pixels instead of true motion",
        null=_SWAPPED, oracle="k-means of that flow", mark=_GROUNDING, mark_on="skill", always=False,
    ),
    Definition(
        "ctc_flow", "C", "ctc on the mean optical flow of moving pixels instead of true motion",
        null="the same codes, renamed at random in every trajectory", oracle="k-means of that flow", mark=_CTC,
        fails="undefined", always=False,
    ),
    Definition(
        "sequence_consistency_flow", "E", "sequence_consistency on the dreams' optical flow instead of the arm's "
        "motion",
        null="sequences renamed at random at every start", oracle="1", mark=_SEQUENCES, always=False, needs="dreams",
    ),
    Definition(
        "start_psnr", "I", "PSNR of step 0 against the start picture, drawings and other kinds of pictures", unit="dB",
        digits=1, null="a flat picture of its mean color", oracle="equal pictures",
        mark=Mark(good=40, bad=25, few=FEW_PICTURES, units="pictures"), short="start dB", always=False, needs="dreams",
    ),
    Definition(
        "scene_retention", "I", "PSNR of the pixels that the arm cannot reach, 64 steps into a dream", unit="dB",
        digits=1, null="a flat picture of the start's mean color", oracle="the start repeated",
        mark=Mark(good=30, bad=20, few=FEW_PICTURES, units="pictures"), short="kept dB", always=False, needs="dreams",
        fails=f"start_command_bits below {MIN_START_BITS} in the same dreams",
    ),
    Definition(
        "start_command_bits", "I", "Bits of a command that an independent judge (without one: optical flow) reads in "
        "the dreams of scene_retention",
        unit="bits", null=_RENAMED, oracle="the simulator under such codes, by the same judge",
        mark=Mark(good=1.0, bad=MIN_START_BITS, few=FEW_PICTURES, units="pictures"), short="start bits", always=False,
        fails="scene_retention below its mark in the same dreams", needs="dreams",
    ),
    Definition(
        "object_permanence", "I", "Share of the objects out of the arm's way that have their color 180 steps into a "
        "dream",
        null="objects that have vanished: the color around them", oracle="the simulator under the same codes",
        mark=Mark(good=0.95, bad=0.50, few=FEW_PICTURES, units="tables"), short="objects", always=False,
        needs="dreams",
    ),
    Definition(
        "long_command_bits", "I", "Bits of a command that an independent judge (without one: optical flow) reads 180 "
        "steps into a dream of a simulated table",
        unit="bits", null=_RENAMED, oracle="the simulator under the same codes, by the same judge",
        mark=Mark(good=2.2, bad=1.1, few=FEW_PICTURES, units="tables"), short="long bits", always=False,
        needs="dreams",
    ),
    Definition(
        "trust_auroc", "I", "Probability that the world trusts a right frame of a dream more than a wrong one, which "
        "is further from the simulator's than the start is",
        null="0.5: trust of random frames", oracle="1",
        mark=Mark(good=0.80, bad=0.60, few=FEW_PICTURES, units="tables"), short="trust", always=False, needs="dreams",
    ),
)  # fmt: skip
METRICS = {definition.name: definition for definition in _TABLE}
"""All metrics by name, in the order of the page: the primary ones first."""


def in_order(names: Collection[str]) -> list[str]:
    """Names of metrics in the order of METRICS; names that it does not hold come last, sorted."""
    return [name for name in METRICS if name in names] + sorted(set(names) - set(METRICS))


def about(name: str) -> str:
    """The sentence of a metric; empty for a name that is not in METRICS."""
    return METRICS[name].about if name in METRICS else ""


def digits(name: str) -> int:
    """Decimals with which a metric is shown."""
    return METRICS[name].digits if name in METRICS else 2


# -------------------------------------------------------------------------------------------------------------- results
@dataclass
class Metric:
    """One result: the value with its null (meaningless codes) and its oracle (the best that is possible).

    verdict is one of "pass", "warn", "fail", "not run"; `reason` says why. missing: conditions for a pass that are not
    met (not in report.json). more: fields that only this metric has in report.json.
    """

    value: float | None = None
    null: float | None = None
    oracle: float | None = None
    ci95: Sequence[float] | np.ndarray | None = None
    p: float | None = None
    n_trajectories: int | None = None
    n_seeds: int | None = 1
    verdict: str = NOT_RUN
    reason: str = ""
    lower_is_better: bool = False
    missing: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def skill(self) -> float | None:
        return skill(self.value, self.null, self.oracle, self.lower_is_better)

    def as_json(self) -> dict[str, Any]:
        return plain(
            {
                "value": self.value, "null": self.null, "oracle": self.oracle, "skill": self.skill,
                "ci95": self.ci95, "p": self.p, "n_trajectories": self.n_trajectories,
                "n_seeds": None if self.verdict == NOT_RUN else self.n_seeds,
                "verdict": self.verdict, "reason": self.reason, **self.more,
            }
        )  # fmt: skip


def not_run(reason: str) -> Metric:
    return Metric(reason=reason)


def skill(value: float | None, null: float | None, oracle: float | None, lower_is_better: bool = False) -> float | None:
    """(value - null) / (oracle - null); None where one of them is missing or the oracle is no better than the null.

    lower_is_better: the oracle lies below the null.
    """
    if value is None or null is None or oracle is None:
        return None
    if not (null - oracle if lower_is_better else oracle - null) > 1e-9:
        return None
    return (value - null) / (oracle - null)


def judge(
    name: str,
    metric: Metric,
    score: float | None = None,
    score_ci: Sequence[float] | np.ndarray | None = None,
    what: str = "",
    missing: Sequence[str] = (),
) -> Metric:
    """Sets verdict, reason and direction of `metric` by the marks of METRICS[name], and returns it.

    score, score_ci: number compared with the marks (default: the value) and its 95 % interval. what: names the score
    where it is not the value. missing: unmet further conditions for a pass; any of them turns a pass into a warning.
    """
    definition = METRICS[name]
    mark, lower = definition.mark, definition.lower_is_better
    assert mark is not None
    if score is None:
        score, score_ci = float(metric.value or 0.0), metric.ci95
    metric.lower_is_better = lower
    unit = f" {definition.unit}" if definition.unit else ""
    count, sign, missing = metric.n_trajectories or 0, -1 if lower else 1, list(missing)
    few, good = count < mark.few, sign * score >= sign * mark.good
    verdict = "pass" if good else "fail" if sign * score < sign * mark.bad else "warn"
    reached = ("is within" if good else "is above") if lower else ("reaches" if good else "is below")
    reasons = [f"exploratory: {metric.n_trajectories} {mark.units}, fewer than {mark.few}"] if few else []
    reasons.append(f"{what}{score:.2f}{unit} {reached} the mark of {mark.good:.2f}{unit}")
    if verdict == "pass":
        low = mark.good if few and mark.low is None else mark.low
        worse = None if score_ci is None else score_ci[1 if lower else 0]
        if worse is not None and low is not None and sign * worse < sign * low:
            ends, beyond = ("ends", "above") if lower else ("begins", "below")
            missing.append(f"its interval {ends} at {worse:.2f}{unit}, {beyond} {low:.2f}{unit}")
        if count < mark.interval_checked_from:
            missing.append(f"at most a warning with fewer than {mark.interval_checked_from} trajectories")
        verdict = "warn" if missing else "pass"
    metric.verdict, metric.reason, metric.missing = verdict, "; ".join(reasons + missing), missing
    return metric


def of_eight_codes(num_codes: int) -> str:
    """How the reason names a score that was rescaled to the marks, which are those of 8 codes."""
    return "" if num_codes == 8 else f"(rescaled from {num_codes} to 8 codes) "


def plain(value: Any) -> Any:
    """Converts numpy values, paths and dataclasses to JSON types; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


# ------------------------------------------------------------------------------------------------- tables of the guides
def guide_tables() -> dict[str, list[str]]:
    """Lines of the tables in the guides: name in the guide's `<!-- table: NAME -->` -> lines."""
    levels = [
        [key if len(key) == 1 else "", title, question, ", ".join(f"`{m.name}`" for m in _TABLE if m.level == key)]
        for key, (title, question) in LEVELS.items()
    ]
    metrics = [
        [f"`{m.name}`{' *' * m.primary}", m.about, m.null, m.oracle, m.pass_text(), m.fail_text()] for m in _TABLE
    ]
    of_codes = [[f"`{m.name}`", m.about, m.pass_text()] for m in _TABLE if m.needs == "codes" and m.always]
    return {
        "levels": markdown_table(["level", "section", "question", "metrics"], levels),
        "metrics": markdown_table(["metric", "what it measures", "null", "oracle", "passes", "fails"], metrics),
        "code metrics": markdown_table(["metric", "what it measures", "passes"], of_codes),
    }


if __name__ == "__main__":
    for table_name, table_lines in guide_tables().items():
        print(f"<!-- table: {table_name} -->", *table_lines, "", sep="\n")
