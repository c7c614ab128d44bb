"""Sections of the levels that real video answers: A, B, C (codes), G, H (what they hold that is no action)."""

from typing import Any

from genie_eval.report.cells import any_number, flat, interval_text, number, p_value, share, with_interval, words
from genie_eval.report.findings import at, inference
from genie_eval.report.section import Row, Section


def codebook(metrics: Row, details: Row) -> Section:
    section = Section("A", "Codebook health", "Are the codes in use?", ["codebook_perplexity"])
    metric = metrics.get("codebook_perplexity", {})
    rows = []
    if metric.get("max_share") is not None:
        dead = metric.get("dead_codes") or []
        rows = [
            ["codes", any_number(metric.get("num_codes"))],
            ["dead codes (under 1 % of transitions)", ", ".join(map(str, dead)) or "none"],
            ["largest share of one code", share(metric["max_share"])],
            ["perplexity inside one trajectory, mean", number(metric.get("trajectory_perplexity"), 1)],
        ]
    section.table("Use", ["", ""], rows)
    stable = inference(details, "stability")
    if section.unless("codes after a round trip of the picture", stable):
        rows = [
            [name, with_interval(row["value"], row.get("ci95")), number(row.get("mark"))]
            for name, row in stable.items()
            if isinstance(row, dict) and row.get("value") is not None
        ]
        section.table("Codes that stay the same after a round trip of the picture", ["through", "share", "asked"], rows)
    _habits(section, details)
    return section


def grounding(metrics: Row, details: Row) -> Section:
    section = Section(
        "B", "Grounding", "How much of the true motion does the code tell?", ["grounding_r2", "grounding_flow_r2"]
    )
    metric = metrics.get("grounding_r2", {})
    rows = []
    own = {
        "base frame (the headline)": {
            **metric,
            "ctc": at(metrics, "ctc", "value"),
            "ctc_ci95": at(metrics, "ctc", "ci95"),
        }
    }
    if metric.get("value") is not None:
        for name, row in {**own, **(metric.get("by_motion") or {})}.items():
            if row.get("value") is None:
                section.not_run.append((f"motion '{name}'", row.get("reason", "not known")))
                continue
            rows.append(
                [
                    {"image": "image plane"}.get(name, name),
                    with_interval(row["value"], row.get("ci95")),
                    number(row.get("null")),
                    number(row.get("oracle")),
                    number(row.get("skill")),
                    with_interval(row.get("ctc"), row.get("ctc_ci95")),
                ]
            )
    section.table(
        "By kind of motion",
        ["motion", "R2", "null", "oracle", "skill", "CTC"],
        rows,
        "A code that says more of the image plane than of the base frame is relative to the camera.",
    )
    rows = [
        [words(name), number(row["skill"]), with_interval(row["difference"], row.get("ci95")), p_value(row.get("p"))]
        for name, row in (metric.get("against") or {}).items()
    ]
    section.table("Against baselines that learn nothing", ["baseline", "its skill", "difference", "p"], rows)
    _dimensions(section, details)
    for name, what in (
        ("grounding", "by dimension, in bits, and against other codes"),
        ("probe", "probe of the embedding"),
    ):
        section.unless(what, details.get(name))
    for what, part in (details.get("grounding") or {}).items():
        if isinstance(part, dict) and part.get("reason"):
            section.unless(words(what), part)
    return section


def consistency(metrics: Row, details: Row) -> Section:
    section = Section(
        "C",
        "Cross-trajectory consistency",
        "Does the same code mean the same motion in every trajectory?",
        ["ctc", "ctc_flow"],
    )
    rows = []
    for name, label in (("ctc", "true motion"), ("ctc_flow", "optical flow")):
        metric = metrics.get(name, {})
        if metric.get("within") is not None:
            rows.append(
                [
                    label,
                    number(metric.get("across"), 3),
                    with_interval(metric["within"], metric.get("within_ci95"), 3),
                    any_number(metric.get("lag")),
                    with_interval(metric["value"], metric["ci95"]),
                ]
            )
    section.table(
        "What CTC is made of",
        ["judged on", "X: across trajectories", "W: inside one", "lag", "X / W"],
        rows,
        "Mean products of standardised motions of two transitions with the same code, less those of any two.",
    )
    found = details.get("consistency") or {}
    if section.unless("by scene, directions, variance components", found):
        _agreement(section, found)
    return section


def _habits(section: Section, details: Row) -> None:
    """Level A: how codes are used along and between trajectories."""
    found = details.get("codebook") or {}
    if not section.unless("use along and between trajectories", found):
        return
    rows = []
    for name, label in (
        ("divergence_bits", "how far trajectories differ in their use of codes, bits (Jensen-Shannon)"),
        ("next_code_information_bits", "what a code tells of the next one, bits"),
    ):
        part = found.get(name) or {}
        if part.get("value") is not None:
            rows.append(
                [label, f"{number(part['value'])} (codes of no owner and no order: {number(part.get('null'))})"]
            )
    dwell = at(found, "dwell", "mean")
    if dwell is not None:
        rows.append(["steps that a code is held, mean", number(dwell)])
    least = at(found, "coverage_by_scene", "least") or {}
    if least.get("share") is not None:
        rows.append(
            [
                f"least coverage: trajectories of scene {least['scene']} with code {least['code']} (asked: "
                f"{share(at(found, 'coverage_by_scene', 'asked'))})",
                share(least["share"]),
            ]
        )
    section.table("Habits", ["", ""], rows, "Much above its reference, a code belongs to a scene, a style or a camera.")
    section.rest = flat({name: part for name, part in found.items() if name not in TABLED})


TABLED = ("divergence_bits", "next_code_information_bits")
NAMES = {"base": "x (forward) y (left) z (up)", "image": "right down", "rotation": "roll pitch yaw"}


def _dimensions(section: Section, details: Row) -> None:
    """Level B: by dimension, and in bits."""
    found, rows = details.get("grounding") or {}, []
    for motion, part in (found.get("by_motion") or {}).items():
        told = part.get("dimensions") or {}
        labels = NAMES.get(motion, "").replace(" (", "\0(").split()
        for d, eta2 in enumerate(told.get("eta2") or []):
            label = labels[d].replace("\0", " ") if d < len(labels) else ("" if len(told["eta2"]) == 1 else str(d))
            omega2, r2 = (told[name][d] if told.get(name) else None for name in ("omega2", "r2"))
            rows.append([f"{motion} {label}".strip(), number(eta2), number(omega2), number(r2)])
    section.table(
        "By dimension",
        ["motion", "eta2", "omega2", "held-out R2"],
        rows,
        "eta2: share of the variance that lies between codes; omega2: without the bias of so many codes.",
    )
    rows = []
    for motion, part in (found.get("by_motion") or {}).items():
        bits = part.get("information_bits") or {}
        if bits.get("value") is not None:
            text = f"{number(bits['value'])} (swapped trajectories: {number(bits['null'])}; in the code: "
            rows.append([f"bits of {motion} motion", f"{text}{number(bits['code_entropy'])})"])
    for event, part in (found.get("gripper_auroc") or {}).items():
        if isinstance(part, dict) and part.get("auroc") is not None:
            rows.append([f"gripper {event}: AUROC ({part['events']} events; chance 0.50)", number(part["auroc"])])
    alike = found.get("oracle_ami") or {}
    if alike.get("value") is not None:
        rows.append(
            [
                f"AMI with k-means of the motion (two such k-means have {number(alike.get('ceiling'))})",
                number(alike["value"]),
            ]
        )
    probed = details.get("probe") or {}
    for name in ("ridge", "mlp"):
        part = probed.get(name) or {}
        if part.get("r2") is not None:
            text = f"{number(part['r2'])} (on swapped motion: {number(part.get('control'))})"
            rows.append([f"R2 of motion from the embedding before it is quantised, {name}", text])
    if probed.get("lost_by_quantisation") is not None:
        rows.append(["R2 that quantisation loses", number(probed["lost_by_quantisation"])])
    section.table("In other words", ["", ""], rows)


def _agreement(section: Section, found: Row) -> None:
    """Level C: directions of each code, variance components, scenes."""
    rows = [
        [
            str(row["code"]),
            any_number(row.get("n_trajectories")),
            number(row.get("cosine")),
            number(row.get("magnitude_cv")),
            share(row.get("same_side")),
            p_value(row.get("p_holm")),
        ]
        for row in found.get("codes") or []
    ]
    section.table(
        "Directions of each code, trajectory against trajectory",
        ["code", "trajectories", "cosine", "CV of length", "on the side of the others", "p (Holm)"],
        rows[:64],
        "Cosine: 1 is one direction in all trajectories, 0 is none. A still code has no direction.",
    )
    parts, rows = found.get("variance_components") or {}, []
    if section.unless("variance components", parts):
        for name, label in (
            ("code", "code"),
            ("code_scene", "code x scene"),
            ("code_trajectory", "code x trajectory"),
            ("residual", "not told by the code"),
        ):
            if at(parts, name, "value") is not None:
                whole = parts.get("total") or 0
                rows.append(
                    [
                        label,
                        with_interval(parts[name]["value"], parts[name].get("ci95"), 3),
                        share(parts[name]["value"] / whole, 1) if whole else "–",
                    ]
                )
        if at(parts, "coefficient", "value") is not None:
            one = parts["coefficient"]
            label = "code, of all that it means inside a trajectory"
            rows.append([label, with_interval(one["value"], one.get("ci95")), ""])
    section.table("Variance components", ["", "variance", "of all"], rows)
    scenes = found.get("by_scene") or {}
    if section.unless("by scene", scenes):
        rows = [
            [str(row["scene"]), any_number(row.get("n_trajectories")), with_interval(row["ctc"], row.get("ci95"))]
            for row in scenes.get("scenes") or []
        ]
        section.table("CTC inside each scene", ["scene", "trajectories", "CTC"], rows)
    cross, rows = found.get("cross_context") or {}, []
    if section.unless("from scene to scene", cross) and cross.get("recognised") is not None:
        rows = [
            ["R2 in one scene of code means from another (worst pair)", _pair(cross, "r2_mean", "r2_worst")],
            ["cosine of the same code in two scenes (other codes)", _pair(cross, "cosine_same", "cosine_other")],
            ["nearest of the other scene's codes is the same code", share(cross["recognised"])],
        ]
    for name, label in (
        ("permanova", "codes differ in their mean motion"),
        ("permdisp", "codes differ in their spread"),
    ):
        part = found.get(name) or {}
        if part.get("p") is not None:
            rows.append([f"{label}: pseudo-F", f"{number(part['pseudo_f'], 1)}, p {p_value(part['p'])}"])
    section.table("From context to context", ["", ""], rows)


def _pair(row: Row, first: str, second: str) -> str:
    return f"{number(row.get(first))} ({number(row.get(second))})"


def leakage(metrics: Row, details: Row) -> Section:
    section = Section(
        "G",
        "Leakage and shortcuts",
        "Do codes say what is no action: place, scene, the next frame itself?",
        ["state_leak"],
    )
    metric = metrics.get("state_leak", {})
    rows = [[words(name), share(value)] for name, value in (metric.get("explained") or {}).items()]
    section.table(
        "Share of what is to know of the code that is known from",
        ["", "share"],
        rows,
        "In trajectories that were not fitted on.",
    )
    found, rows = inference(details, "leakage"), []
    for name, label, fields in (
        ("causality", "codes that change when later frames are another trajectory's (asked: none)", ("changed",)),
        ("scene_cut", "a scene cut: error of the dream against the usual one (asked: at least 2)", ("ratio",)),
    ):
        part: Any = found.get(name)
        if section.unless(words(name), part) and part.get(fields[0]) is not None:
            rows.append([label, with_interval(part[fields[0]], part.get("ci95"), 3 if name == "causality" else 2)])
    algebra = inference(details, "algebra")
    if section.unless("reversal and additivity", algebra):
        back, both = algebra.get("reversal") or {}, at(algebra, "additivity", "equal_steps") or {}
        if back.get("accuracy") is not None:
            rows.append(
                [
                    "a step seen backwards has the code that a fixed map says (by chance "
                    f"{share(back.get('chance'))}, at best {share(back.get('oracle'))})",
                    with_interval(back["accuracy"], back.get("ci95")),
                ]
            )
        if back.get("motion_cosine") is not None:
            rows.append(["and that code's motion is the way back, cosine", number(back["motion_cosine"])])
        if both.get("accuracy") is not None:
            rows.append(
                [
                    f"two steps of one code, seen as one step, have that code (by chance {share(both.get('chance'))}, "
                    f"at best {share(both.get('oracle'))})",
                    with_interval(both["accuracy"], both.get("ci95")),
                ]
            )
    section.table("Shortcuts and algebra", ["", ""], rows)
    section.rest = flat(found.get("embeddings") or {}, "embedding")
    section.rest += flat(metric.get("conditional_mi") or {}, "I(code; state | motion)")
    return section


def nuisance(metrics: Row, details: Row) -> Section:
    section = Section(
        "H", "Nuisances", "Does the code stay when only light, colour or camera change?", ["nuisance_flip_rate"]
    )
    metric, found = metrics.get("nuisance_flip_rate", {}), inference(details, "nuisance")
    rows = []
    for name, row in (metric.get("by_nuisance") or {}).items():
        rows.append(
            [
                words(name),
                share(row["flip_rate"], 1),
                _shares(row.get("ci95")),
                number(row.get("ami")),
                number(row.get("ctc")),
                number(row.get("r2")),
            ]
        )
    if rows:
        usual = metric.get("reference") or {}
        rows.append(["unchanged", "0 %", "", "1.00", number(usual.get("ctc")), number(usual.get("r2"))])
    section.table(
        "The same in both frames", ["nuisance", "codes that change", "", "AMI", "CTC under it", "R2 under it"], rows
    )
    rows = [
        [
            words(name),
            share(row["flip_rate"], 1),
            _shares(row.get("ci95")),
            share(row.get("leaves_null"), 1),
            _shares(row.get("leaves_null_ci95")),
        ]
        for name, row in (metric.get("second_frame") or {}).items()
    ]
    section.table(
        "On the later frame only (asked: at most 20 %)",
        ["nuisance", "codes that change", "", "an action seen where nothing moves", ""],
        rows,
    )
    rendered: Any = found.get("rendered")
    if section.unless("rendered again by the simulator", rendered):
        rows = [
            [words(name), share(row["flip_rate"], 1), _shares(row.get("ci95"))]
            for name, row in rendered.items()
            if isinstance(row, dict) and row.get("flip_rate") is not None
        ]
        section.table(
            "The same moments in another scene, rendered again", ["what is different", "codes that change", ""], rows
        )
    held = found.get("identity") or {}
    if section.unless("identity: the same frame twice", held) and held.get("value") is not None:
        rows = [
            [
                f"the same frame twice has code {held.get('code')} (asked: {share(held.get('mark'))})",
                with_interval(held["value"], held.get("ci95")),
            ]
        ]
        section.table("Nothing happens", ["", ""], rows)
    return section


def _shares(ci95: Any) -> str:
    return "" if not ci95 or ci95[0] is None else interval_text([100 * ci95[0], 100 * ci95[1]], 1)
