"""The findings in plain words: the first line of the report, and the answers to its two questions."""

from math import log2
from typing import Any

from genie_eval.dreams.readout_error import RELIABLE
from genie_eval.dreams.sequences import NO_RESPONSE
from genie_eval.metrics import FEW, FEW_STARTS, P_GROUNDING, Metric
from genie_eval.report.cells import number, with_interval
from genie_eval.report.findings import mark_of

QUESTION = "Does the same latent action mean the same motion in every trajectory?"
SEQUENCE_QUESTION = "Does the same sequence of latent actions have the same effect from different starts?"
BASELINE_WORDS = {"pca_kmeans": "k-means of frame differences", "flow_kmeans": "k-means of optical flow"}


def first_line(metrics: dict[str, Metric]) -> str:
    """Comparison of the model with the learning-free baselines."""
    suffix = "" if metrics["grounding_r2"].value is not None else "_flow"
    grounding = metrics[f"grounding{suffix}_r2"]
    against = grounding.more.get("against") or {}
    if grounding.skill is None or not against:
        return f"The model could not be compared with learning-free baselines: {grounding.reason}."
    motion = "optical flow" if suffix else "motion"
    own = f"grounding skill {number(grounding.skill)}"
    behind = {name: row for name, row in against.items() if row["difference"] <= 0}
    unsure = {name: row for name, row in against.items() if row["difference"] > 0 and row["p"] > P_GROUNDING}
    if behind:
        return f"This model is WORSE than {_list(behind)}: its codes explain less of the {motion} ({own})."
    if unsure:
        return f"This model's codes ({own}) are not significantly better than {_list(unsure)}."
    return f"This model's codes explain more of the {motion} ({own}) than {_list(against)}."


def _list(rows: dict[str, Any]) -> str:
    """The baselines with their skill, and the p of the model being better."""
    words = [
        f"{BASELINE_WORDS.get(name, name)} (skill {number(row['skill'])}, {_p_text(row['p'])})"
        for name, row in rows.items()
    ]
    return " and ".join(words) + (", a learning-free baseline" if len(words) == 1 else ", learning-free baselines")


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def consistency_answer(metrics: dict[str, Metric]) -> tuple[str, str]:
    """(one or two words, the sentence that explains them) for QUESTION."""
    ctc, grounding = metrics["ctc"], metrics["grounding_r2"]
    if ctc.verdict == "not run" and ctc.value is None:
        flow = metrics.get("ctc_flow")
        if flow is None or flow.value is None:
            return "Not known", f"{_capital(ctc.reason)}."
        return (
            "Not known",
            f"{_capital(ctc.reason)}. On optical flow instead, {_ctc_share(flow)} of what a code means within one "
            "trajectory holds in every other: a hint, not an answer.",
        )
    few = "" if (ctc.n_trajectories or 0) >= FEW else f" This is exploratory: only {ctc.n_trajectories} trajectories."
    if ctc.value is None or ctc.ci95 is None:
        if grounding.p is not None and grounding.p <= P_GROUNDING and grounding.verdict != "not run":
            return (
                "Not known",
                "The codes are related to the motion, but those with a motion of their own are too rare within single "
                f"trajectories to ask whether they mean the same in others.{few}",
            )
        return "No", f"The codes are not reliably related to motion, not even within one trajectory.{few}"
    mark = mark_of("ctc")
    sentence = f"{_capital(_ctc_share(ctc))} of the mean motion of a code within one trajectory holds in every other"
    if grounding.skill is not None:
        many = metrics["codebook_perplexity"].more.get("num_codes", "as many")
        sentence += f". The codes explain {max(grounding.skill, 0):.0%} of the motion that {many} codes could explain"
    if ctc.value >= mark.good and ctc.ci95[0] >= (mark.low or 0):
        word = "Yes" if ctc.verdict == "pass" else "Probably"
        if grounding.skill is not None and grounding.skill < mark_of("grounding_r2").bad:
            word += ", but they mean little"
        if ctc.verdict != "pass":
            sentence += f". Why this is not a plain yes: {'; '.join(ctc.missing) or ctc.reason}"
    elif ctc.ci95[1] < mark.bad:
        word = "No"
    else:
        word = "In part"
    return word, f"{sentence}.{few}"


def sequence_answer(metrics: dict[str, Metric]) -> tuple[str, str]:
    """(one or two words, the sentences that explain them) for SEQUENCE_QUESTION.

    Without a motion read-out, `sequence_consistency_flow` gives a hint.
    """
    metric = metrics["sequence_consistency"]
    if metric.value is None:
        flow = metrics.get("sequence_consistency_flow")
        if flow is None or flow.value is None:
            return "Not known", f"{_capital(metric.reason)}."
        return (
            "Not known",
            f"{_capital(metric.reason)}. On the optical flow of the dreams instead, "
            f"{_share(flow.value, flow.ci95)} of the effect of a sequence is the same from every start: a hint, not an "
            "answer.",
        )
    more, mark = metric.more, mark_of("sequence_consistency")
    low, high = (metric.value, metric.value) if metric.ci95 is None else metric.ci95
    if more.get("response") is not None and more["response"] <= NO_RESPONSE:
        return "No", f"The dreams move the same whatever sequence is played.{_few_starts(metric)}"
    reliability = more.get("reliability")
    unreliable = reliability is not None and reliability < RELIABLE
    if metric.value >= mark.good and low >= mark.bad:
        word = "Probably" if unreliable else "Yes"
        if metric.verdict != "pass" and not unreliable:
            word = "Mostly"
        if any(metrics[name].verdict == "fail" for name in ("command_bits_physical", "counterfactual_id")):
            word += ", but not always the motion that the codes mean"
    elif high < mark.bad:
        word = "No"
    else:
        word = "In part"
    share = _capital(_share(metric.value, metric.ci95))
    parts = [f"{share} of the effect of a sequence in the dream is the same from every start", *_dreams_tell(metrics)]
    note = ""
    if unreliable:
        note = (
            f" The motion read-out explains only {reliability:.0%} of the true displacement, which limits this answer."
        )
    return word, f"{'; '.join(parts)}.{note}{_few_starts(metric)}"


def _dreams_tell(metrics: dict[str, Metric]) -> list[str]:
    """Clauses on the commands in the dream's motion: can they be read, and are they what would really happen?"""
    parts = []
    bits, truth = metrics["command_bits_physical"], metrics["counterfactual_id"]
    if bits.value is not None:
        codes = metrics["codebook_perplexity"].more.get("num_codes") if "codebook_perplexity" in metrics else None
        most = f" of {log2(codes):.1f}" if codes else ""
        parts.append(f"the dream's motion tells {bits.value:.1f}{most} bits of the commanded code")
    if truth.value is not None:
        chance = "" if truth.null is None else f" (by chance {truth.null:.0%})"
        parts.append(f"{truth.value:.0%} of dreams are nearest to the simulator's own future of their code{chance}")
    return parts


def _few_starts(metric: Metric) -> str:
    starts = metric.n_trajectories or 0
    return "" if starts >= FEW_STARTS else f" This is exploratory: only {starts} starts."


def _share(value: float, ci95: Any, name: str = "") -> str:
    """ "62% (0.62 [0.55, 0.70])"; a ratio of two estimates may exceed 1."""
    much = "all" if value >= 0.995 else "nothing" if value < 0.005 else f"{value:.0%}"
    return f"{much} ({name}{with_interval(value, (value, value) if ci95 is None else ci95)})"


def _ctc_share(metric: Metric) -> str:
    assert metric.value is not None
    return _share(metric.value, metric.ci95, "CTC ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
