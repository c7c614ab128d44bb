"""Sections of the levels that are measured on real video: A to C (codes), G and H (what they encode beside motion)."""

from typing import Any

from genie_eval.inference.flips import SECOND_FRAME_MARK
from genie_eval.metrics import DEAD_CODE
from genie_eval.report.cells import (
    any_number,
    estimate,
    flat,
    interval_text,
    number,
    p_value,
    share,
    with_interval,
    words,
)
from genie_eval.report.findings import DIMENSION_NAMES, at, inference
from genie_eval.report.section import Row, Section


def codebook(section: Section, metrics: Row, details: Row) -> None:
    metric = metrics.get("codebook_perplexity", {})
    if metric.get("max_share") is not None:
        dead = ", ".join(map(str, metric.get("dead_codes") or [])) or "none"
        facts = (
            ("codes", metric.get("num_codes"), any_number),
            (f"dead codes (under {DEAD_CODE:.0%} of transitions)", dead, str),
            ("largest share of one code", metric["max_share"], share),
            ("mean perplexity within one trajectory", metric.get("trajectory_perplexity"), lambda p: number(p, 1)),
        )
        section.facts("Use", facts)
    stable = inference(details, "stability")
    if section.has("codes after a round trip of the picture", stable):
        rows = [
            [name, estimate(row), number(row.get("mark"))]
            for name, row in stable.items()
            if at(row, "value") is not None
        ]
        section.table("Codes that stay the same after a round trip of the picture", ["through", "share", "mark"], rows)
    _usage(section, details)


def _usage(section: Section, details: Row) -> None:
    found = details.get("codebook") or {}
    if not section.has("use along and between trajectories", found):
        return
    bits = {
        "divergence_bits": "divergence of the trajectories in their use of codes, bits (Jensen-Shannon)",
        "next_code_information_bits": "information of a code on the next one, bits",
    }
    facts: list[tuple[str, Any, Any]] = [
        (label, found.get(name), lambda part: f"{number(part['value'])} (null: {number(part.get('null'))})")
        for name, label in bits.items()
        if at(found, name, "value") is not None
    ]
    facts.append(("mean number of steps that a code is held", at(found, "dwell", "mean"), number))
    least, wanted = at(found, "coverage_by_scene", "least") or {}, share(at(found, "coverage_by_scene", "asked"))
    where = f"scene {least.get('scene')} with code {least.get('code')} (mark: {wanted})"
    facts.append((f"least coverage: trajectories of {where}", least.get("share"), share))
    note = "A divergence far above its null: a code belongs to a scene, a style or a camera."
    section.facts("Use along and between trajectories", facts, note)
    section.rest = flat({name: part for name, part in found.items() if name not in bits})


def grounding(section: Section, metrics: Row, details: Row) -> None:
    metric = metrics.get("grounding_r2", {})
    ctc = metrics.get("ctc", {})
    rows = []
    own = {"base frame (the headline)": {**metric, "ctc": ctc.get("value"), "ctc_ci95": ctc.get("ci95")}}
    if metric.get("value") is not None:
        for name, row in {**own, **(metric.get("by_motion") or {})}.items():
            if row.get("value") is None:
                section.not_run.append((f"motion '{name}'", row.get("reason", "not known")))
                continue
            readings = (number(row.get(part)) for part in ("null", "oracle", "skill"))
            ctc_text = with_interval(row.get("ctc"), row.get("ctc_ci95"))
            rows.append([{"image": "image plane"}.get(name, name), estimate(row), *readings, ctc_text])
    section.table(
        "By kind of motion",
        ["motion", "R2", "null", "oracle", "skill", "CTC"],
        rows,
        "Higher is better. A code that explains more of the image plane than of the base frame is relative to the "
        "camera.",
    )
    rows = [
        [words(name), number(row["skill"]), with_interval(row["difference"], row.get("ci95")), p_value(row.get("p"))]
        for name, row in (metric.get("against") or {}).items()
    ]
    section.table(
        "Comparison with learning-free baselines", ["baseline", "its skill", "model minus baseline", "p"], rows
    )
    _dimensions(section, details)
    section.has("by dimension, in bits, and against other codes", details.get("grounding"))
    section.has("probe of the embedding", details.get("probe"))
    for what, part in (details.get("grounding") or {}).items():
        if isinstance(part, dict) and part.get("reason"):
            section.has(words(what), part)


def _dimensions(section: Section, details: Row) -> None:
    """Explained variance by dimension, bits, and probes."""
    found, rows = details.get("grounding") or {}, []
    for motion, part in (found.get("by_motion") or {}).items():
        explained = part.get("dimensions") or {}
        labels = DIMENSION_NAMES.get(motion, ())
        for d, eta2 in enumerate(explained.get("eta2") or []):
            label = "" if len(explained["eta2"]) == 1 else labels[d] if d < len(labels) else str(d)
            omega2, r2 = (explained[name][d] if explained.get(name) else None for name in ("omega2", "r2"))
            rows.append([f"{motion} {label}".strip(), number(eta2), number(omega2), number(r2)])
    section.table(
        "Explained variance by dimension",
        ["motion", "eta2", "omega2", "held-out R2"],
        rows,
        "Higher is better. eta2: share of the variance between codes; omega2: eta2 without the bias of many codes.",
    )
    rows = []
    for motion, part in (found.get("by_motion") or {}).items():
        bits = part.get("information_bits") or {}
        if bits.get("value") is not None:
            text = f"{number(bits['value'])} (swapped trajectories: {number(bits['null'])}; entropy of the code: "
            rows.append([f"information on {motion} motion, bits", f"{text}{number(bits['code_entropy'])})"])
    for event, part in (found.get("gripper_auroc") or {}).items():
        if at(part, "auroc") is not None:
            rows.append([f"gripper {event}: AUROC ({part['events']} events; chance 0.50)", number(part["auroc"])])
    ami = found.get("oracle_ami") or {}
    if ami.get("value") is not None:
        label = f"AMI with k-means of the motion (between two such k-means: {number(ami.get('ceiling'))})"
        rows.append([label, number(ami["value"])])
    probed = details.get("probe") or {}
    for name in ("ridge", "mlp"):
        part = probed.get(name) or {}
        if part.get("r2") is not None:
            text = f"{number(part['r2'])} (on swapped motion: {number(part.get('control'))})"
            rows.append([f"R2 of motion from the embedding before quantization, {name}", text])
    if probed.get("lost_by_quantisation") is not None:
        rows.append(["R2 lost by quantization", number(probed["lost_by_quantisation"])])
    section.table("Other measures of the same", ["", ""], rows)


def consistency(section: Section, metrics: Row, details: Row) -> None:
    rows = []
    for name, label in (("ctc", "true motion"), ("ctc_flow", "optical flow")):
        metric = metrics.get(name, {})
        if metric.get("within") is not None:
            within = with_interval(metric["within"], metric.get("within_ci95"), 3)
            rows.append(
                [label, number(metric.get("across"), 3), within, any_number(metric.get("lag")), estimate(metric)]
            )
    section.table(
        "Parts of CTC",
        ["measured on", "X: across trajectories", "W: within one", "lag", "CTC = X / W"],
        rows,
        "X, W: mean products of standardized motions of two transitions with the same code, minus those of any two.",
    )
    found = details.get("consistency") or {}
    if section.has("by scene, directions, variance components", found):
        _agreement(section, found)


def _agreement(section: Section, found: Row) -> None:
    """Directions of each code, variance components, scenes."""
    rows = [
        [
            *(any_number(row.get(part)) for part in ("code", "n_trajectories")),
            *(number(row.get(part)) for part in ("cosine", "magnitude_cv")),
            *(share(row.get("same_side")), p_value(row.get("p_holm"))),
        ]
        for row in found.get("codes") or []
    ]
    section.table(
        "Directions of each code in the trajectories",
        ["code", "trajectories", "cosine", "CV of length", "on the side of the others", "p (Holm)"],
        rows[:64],
        "Cosine of two trajectories: 1 is the same direction in all, 0 none in common. A still code has no direction.",
    )
    _variance_components(section, found.get("variance_components") or {})
    scenes = found.get("by_scene") or {}
    if section.has("by scene", scenes):
        rows = [
            [str(row["scene"]), any_number(row.get("n_trajectories")), with_interval(row["ctc"], row.get("ci95"))]
            for row in scenes.get("scenes") or []
        ]
        section.table("CTC within each scene", ["scene", "trajectories", "CTC"], rows)
    cross, rows = found.get("cross_context") or {}, []
    if section.has("from scene to scene", cross) and cross.get("recognised") is not None:
        r2, worst, same, other = (number(cross.get(n)) for n in ("r2_mean", "r2_worst", "cosine_same", "cosine_other"))
        rows = [
            ["R2 in one scene of the code means of another (worst pair)", f"{r2} ({worst})"],
            ["cosine of the same code in two scenes (of other codes)", f"{same} ({other})"],
            ["the nearest code of the other scene is the same code", share(cross["recognised"])],
        ]
    tests = {"permanova": "codes differ in their mean motion", "permdisp": "codes differ in their spread"}
    for name, label in tests.items():
        part = found.get(name) or {}
        if part.get("p") is not None:
            rows.append([f"{label}: pseudo-F", f"{number(part['pseudo_f'], 1)}, p {p_value(part['p'])}"])
    section.table("From scene to scene", ["", ""], rows)


def _variance_components(section: Section, parts: Row) -> None:
    if not section.has("variance components", parts):
        return
    rows, whole = [], parts.get("total") or 0
    for name in ("code", "code_scene", "code_trajectory", "residual"):
        if at(parts, name, "value") is not None:
            part = parts[name]
            label = "not explained by the code" if name == "residual" else name.replace("_", " x ")
            rows.append([label, estimate(part, 3), share(part["value"] / whole, 1) if whole else "–"])
    if at(parts, "coefficient", "value") is not None:
        rows.append(["generalizability coefficient of the code", estimate(parts["coefficient"]), ""])
    section.table("Variance components", ["", "variance", "share"], rows)


def leakage(section: Section, metrics: Row, details: Row) -> None:
    metric = metrics.get("state_leak", {})
    rows = [[words(name), share(value)] for name, value in (metric.get("explained") or {}).items()]
    section.table(
        "Share of the code's entropy that is explained by", ["", "share"], rows, "In trajectories that were held out."
    )
    found, rows = inference(details, "leakage"), []
    for name, label, field, digits in (
        ("causality", "share of codes that change with later frames (expected: none)", "changed", 3),
        ("scene_cut", "scene cut: error of the dream relative to the usual one (expected: at least 2)", "ratio", 2),
    ):
        part: Any = found.get(name)
        if section.has(words(name), part) and part.get(field) is not None:
            rows.append([label, with_interval(part[field], part.get("ci95"), digits)])
    algebra = inference(details, "algebra")
    if section.has("reversal and additivity", algebra):
        rows += _algebra_rows(algebra.get("reversal") or {}, at(algebra, "additivity", "equal_steps") or {})
    section.table("Shortcuts and algebra", ["", ""], rows)
    section.rest = flat(found.get("embeddings") or {}, "embedding")
    section.rest += flat(metric.get("conditional_mi") or {}, "I(code; state | motion)")


def _algebra_rows(back: Row, both: Row) -> list[list[str]]:
    rows = []
    for part, label in (
        (back, "a step seen backwards has the code that a fixed map predicts"),
        (both, "two steps of one code, seen as one step, have that code"),
    ):
        if part.get("accuracy") is not None:
            chance, best = share(part.get("chance")), share(part.get("oracle"))
            value = with_interval(part["accuracy"], part.get("ci95"))
            rows.append([f"{label} (chance {chance}, oracle {best})", value])
        if part is back and back.get("motion_cosine") is not None:
            rows.append(["cosine of that code's motion with the way back", number(back["motion_cosine"])])
    return rows


def nuisance(section: Section, metrics: Row, details: Row) -> None:
    metric, found = metrics.get("nuisance_flip_rate", {}), inference(details, "nuisance")
    rows = [
        [*_flips(name, row), *(number(row.get(part)) for part in ("ami", "ctc", "r2"))]
        for name, row in (metric.get("by_nuisance") or {}).items()
    ]
    if rows:
        usual = metric.get("reference") or {}
        rows.append(["unchanged", "0 %", "", "1.00", number(usual.get("ctc")), number(usual.get("r2"))])
    section.table(
        "The same change in all frames",
        ["nuisance", "codes that change", "95 % interval", "AMI", "CTC", "R2"],
        rows,
        "AMI: adjusted mutual information with the unchanged codes; CTC, R2: of the changed codes.",
    )
    rows = [
        [*_flips(name, row), share(row.get("leaves_null"), 1), _shares(row.get("leaves_null_ci95"))]
        for name, row in (metric.get("second_frame") or {}).items()
    ]
    section.table(
        f"A change of the later frame only (mark: at most {SECOND_FRAME_MARK:.0%})",
        ["nuisance", "codes that change", "95 % interval", "an action seen where nothing moves", "95 % interval"],
        rows,
    )
    rendered: Any = found.get("rendered")
    if section.has("rendered again by the simulator", rendered):
        rows = [_flips(name, row) for name, row in rendered.items() if at(row, "flip_rate") is not None]
        section.table(
            "The same states rendered in another scene", ["difference", "codes that change", "95 % interval"], rows
        )
    held = found.get("identity") or {}
    if section.has("identity: the same frame twice", held) and held.get("value") is not None:
        label = f"the same frame twice has code {held.get('code')} (mark: {share(held.get('mark'))})"
        section.facts("No motion", [(label, held, estimate)])


def _flips(name: str, row: Row) -> list[str]:
    return [words(name), share(row["flip_rate"], 1), _shares(row.get("ci95"))]


def _shares(ci95: Any) -> str:
    return "" if not ci95 or ci95[0] is None else interval_text([100 * ci95[0], 100 * ci95[1]], 1)
