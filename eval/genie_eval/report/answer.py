"""The report's findings in plain words: the first line, and the answers to the two questions of the suite."""

from math import log2
from typing import Any

from genie_eval.dreams.sequences import NO_RESPONSE
from genie_eval.metric import Metric
from genie_eval.verdicts import FEW, FEW_STARTS, MARKS, P_GROUNDING

QUESTION = "Does the same latent action mean the same motion in every trajectory?"
SEQUENCE_QUESTION = "Does the same sequence of latent actions give similar behaviour from different starts?"
BASELINE_WORDS = {
    "pca_kmeans": "k-means of frame differences",
    "flow_kmeans": "k-means of optical flow",
}


def first_line(metrics: dict[str, Metric]) -> str:
    """How the model stands against baselines that learn nothing."""
    suffix = "" if metrics["grounding_r2"].value is not None else "_flow"
    grounding = metrics[f"grounding{suffix}_r2"]
    against = grounding.more.get("against") or {}
    if grounding.skill is None or not against:
        return f"The model could not be held against baselines that learn nothing: {grounding.reason}."
    motion = "optical flow" if suffix else "motion"
    own = f"grounding skill {grounding.skill:.2f}"
    behind = {name: row for name, row in against.items() if row["difference"] <= 0}
    unsure = {name: row for name, row in against.items() if row["difference"] > 0 and row["p"] > P_GROUNDING}
    if behind:
        return f"This model LOSES to {_list(behind)}: its codes tell less of the {motion} ({own})."
    if unsure:
        return f"This model's codes ({own}) are not surely better than {_list(unsure)}."
    return f"This model's codes tell more of the {motion} ({own}) than {_list(against)}."


def _list(rows: dict[str, Any]) -> str:
    """The baselines with their skill, and the p of being above them."""
    words = [
        f"{BASELINE_WORDS.get(name, name)} (skill {row['skill']:.2f}, {p_text(row['p'])})" for name, row in rows.items()
    ]
    return " and ".join(words) + (", which learns nothing" if len(words) == 1 else ", which learn nothing")


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def consistency_answer(metrics: dict[str, Metric]) -> tuple[str, str]:
    """(one word or two, the sentence that explains them) for QUESTION."""
    ctc, grounding = metrics["ctc"], metrics["grounding_r2"]
    if ctc.verdict == "not run" and ctc.value is None:
        flow = metrics.get("ctc_flow")
        if flow is None or flow.value is None:
            return "Not known", f"{_capital(ctc.reason)}."
        return (
            "Not known",
            f"{_capital(ctc.reason)}. Judged on optical flow instead, of what codes mean inside one trajectory they "
            f"mean {_share(flow)} in every other: a hint, not an answer.",
        )
    few = "" if (ctc.n_trajectories or 0) >= FEW else f" This is exploratory: only {ctc.n_trajectories} trajectories."
    if ctc.value is None or ctc.ci95 is None:
        if grounding.p is not None and grounding.p <= P_GROUNDING and grounding.verdict != "not run":
            return (
                "Not known",
                "The codes tell something of the motion, but those with a motion of their own are too rare inside "
                f"single trajectories to ask whether they mean the same in others.{few}",
            )
        return "No", f"The codes have no reliable relation to motion, not even inside one trajectory.{few}"
    mark = MARKS["ctc"]
    kept = f"Of the motion that a code reliably means inside one trajectory, it means {_share(ctc)} in every other"
    told = ""
    if grounding.skill is not None:
        told = f". Its codes tell {max(grounding.skill, 0):.0%} of what {_many(metrics)} could tell of the motion"
    weak = grounding.skill is not None and grounding.skill < MARKS["grounding_r2"].bad
    if ctc.value >= mark.good and ctc.ci95[0] >= (mark.low or 0):
        word = "Yes" if ctc.verdict == "pass" else "Probably"
        if weak:
            word += ", but they mean little"
        if ctc.verdict != "pass":
            told += f". What keeps this from a plain yes: {ctc.reason.partition('; ')[2] or ctc.reason}"
    elif ctc.ci95[1] < mark.bad:
        word = "No"
    else:
        word = "In part"
    return word, f"{kept}{told}.{few}"


def sequence_answer(metrics: dict[str, Metric]) -> tuple[str, str]:
    """(one word or two, the sentences that explain them) for SEQUENCE_QUESTION.

    Where no read-out sees the motion, `sequence_consistency_flow` gives a hint.
    """
    metric = metrics["sequence_consistency"]
    if metric.value is None:
        flow = metrics.get("sequence_consistency_flow")
        if flow is None or flow.value is None:
            return "Not known", f"{_capital(metric.reason)}."
        return (
            "Not known",
            f"{_capital(metric.reason)}. Judged on the optical flow of the dreams instead, of what a sequence changes "
            f"from one start it changes {_share_of(flow.value, flow.ci95)} from every other: a hint, not an "
            "answer.",
        )
    more, mark = metric.more, MARKS["sequence_consistency"]
    low, high = (metric.value, metric.value) if metric.ci95 is None else metric.ci95
    if more.get("response") is not None and more["response"] <= NO_RESPONSE:
        return "No", f"The dreams move the same whatever sequence is played.{_few_starts(metric)}"
    unreliable = more.get("reliability") is not None and "read-out explains" in metric.reason
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
    parts = [
        "Of what a sequence changes in the dream from one start, it changes "
        f"{_share_of(metric.value, metric.ci95)} from every other",
        *_told_by_dreams(metrics),
    ]
    sure = ""
    if unreliable:
        sure = (
            f" The read-out of motion explains only {more['reliability']:.0%} of true displacement: the answer is no "
            "surer than that."
        )
    return word, f"{'; '.join(parts)}.{sure}{_few_starts(metric)}"


def _told_by_dreams(metrics: dict[str, Metric]) -> list[str]:
    """What the commanded codes do beside being alike: do they arrive, and is it what would really happen?"""
    parts = []
    bits, truth = metrics["command_bits_physical"], metrics["counterfactual_id"]
    if bits.value is not None:
        most = _most_bits(metrics)
        parts.append(f"the dream's motion tells {bits.value:.1f}{most} bits of which code was played")
    if truth.value is not None:
        chance = "" if truth.null is None else f" (by chance {truth.null:.0%})"
        parts.append(f"{truth.value:.0%} of dreams are nearest to the simulator's own future of their code{chance}")
    return parts


def _most_bits(metrics: dict[str, Metric]) -> str:
    codes = metrics["codebook_perplexity"].more.get("num_codes") if "codebook_perplexity" in metrics else None
    return f" of {log2(codes):.1f}" if codes else ""


def _few_starts(metric: Metric) -> str:
    number = metric.n_trajectories or 0
    return "" if number >= FEW_STARTS else f" This is exploratory: only {number} starts."


def _share_of(value: float, ci95: Any) -> str:
    """ "62 % (0.62 [0.55, 0.70])" """
    low, high = (value, value) if ci95 is None else ci95
    much = "all" if value >= 0.995 else "nothing" if value < 0.005 else f"{value:.0%}"
    return f"{much} ({value:.2f} [{low:.2f}, {high:.2f}])"


def _many(metrics: dict[str, Metric]) -> str:
    return f"{metrics['codebook_perplexity'].more.get('num_codes', 'as many')} codes"


def _share(metric: Metric) -> str:
    """CTC in words: "62 % (CTC 0.62 [0.55, 0.70])"; a ratio of two estimates may exceed 1."""
    assert metric.value is not None
    return _share_of(metric.value, metric.ci95).replace("(", "(CTC ", 1)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
