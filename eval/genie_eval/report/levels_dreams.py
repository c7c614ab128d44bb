"""Sections of the levels that are measured on dreams.

D (commands), E (sequences), F (truth and use), I (any start), and fidelity.
"""

from typing import Any

from genie_eval.metrics import MAGNITUDE_RATIO, MIN_COSINE
from genie_eval.report.cells import any_number, estimate, flat, number, p_value, share, with_interval, words
from genie_eval.report.findings import at
from genie_eval.report.horizon_charts import LAW_WORDS
from genie_eval.report.section import Row, Section


def command(section: Section, metrics: Row, details: Row) -> None:
    judges = dict(at(metrics, "command_bits", "judges") or {})
    physical = metrics.get("command_bits_physical", {})
    if physical.get("confusion"):
        judges["physical"] = physical
    rows = []
    for name, row in judges.items():
        if row.get("bits") is None:
            section.not_run.append((f"{name} judge", row.get("reason", "not known")))
            continue
        recall = [r for r in row.get("recall") or [] if r is not None]
        ceiling, kappa, best = (number(row.get(part)) for part in ("ceiling_bits", "kappa", "kappa_ceiling"))
        bits, actions = with_interval(row["bits"], row.get("ci95")), number(row.get("effective_actions"), 1)
        rows.append([name, bits, ceiling, actions, kappa, best, share(min(recall)) if recall else "–"])
    section.table(
        "Judges",
        ["judge", "bits", "ceiling", "effective actions", "kappa", "ceiling", "recall of the worst code"],
        rows,
        "Higher is better. Ceiling: the same judge on the tokenizer's reconstruction of real video (for the read-out: "
        "on the simulator's futures). Bits far above those of the physical judge: the code is hidden where only the "
        "model reads it.",
    )
    altered = {key[11:]: v for key, v in (judges.get("own") or {}).items() if key.startswith("bits_after_")}
    rows = [[words(name), number(bits)] for name, bits in altered.items()]
    section.table(
        "The own judge on altered dreams", ["alteration", "bits"], rows, "An invisible mark would be washed out."
    )
    rows = [[str(k), share(r)] for k, r in enumerate(physical.get("abstained") or []) if r]
    section.table("Dreams from which the read-out abstains", ["code", "share"], rows[:32])


def sequences(section: Section, metrics: Row, details: Row) -> None:
    metric, found = metrics.get("sequence_consistency", {}), details.get("sequences") or {}
    rows, starts = [], any_number(metric.get("n_starts"))
    if metric.get("value") is not None:
        label = f"one code, {metric.get('steps', '–')} times"
        rows.append([label, starts, estimate(metric), share(metric.get("identified")), share(metric.get("chance"))])
    for name, row in found.items():
        if at(row, "value") is not None:
            chance = share(row.get("chance"), 1)
            rows.append([f"{name} ({row['n']})", starts, estimate(row), share(row.get("identified")), chance])
    flow = metrics.get("sequence_consistency_flow") or {}
    if flow.get("value") is not None:
        rows.append(["one code, optical flow", any_number(flow.get("n_trajectories")), estimate(flow), "–", "–"])
    section.table(
        "Kinds of sequence",
        ["sequence", "starts", "consistency", "identified", "chance"],
        rows,
        "Higher is better. Identified: dreams whose sequence is recognized by the displacements from the other starts.",
    )
    algebra, null = at(found, "pairs", "algebra") or {}, found.get("null_motion") or {}

    def still(_: Any) -> str:
        return f"{number(null['per_step_mm'], 1)} mm (usual step: {number(null['usual_step_mm'], 1)} mm)"

    facts: tuple[tuple[str, Any, Any], ...] = (
        ("mean cosine of the directions of the same code", metric.get("cosine"), number),
        ("opposite codes both go the right way", at(metric, "opposites", "credit"), share),
        ("consistency without the noise of the read-out (never judged)", metric.get("corrected"), number),
        ("dreams from which the read-out abstains", metric.get("abstained"), lambda value: share(value, 1)),
        ("additivity: error of D(ab) against D(a) + D(b) (0: they add up)", algebra.get("additivity_error"), number),
        ("order: difference of D(ab) and D(ba) (0: it does not matter)", algebra.get("commutator"), number),
        (f"motion of the arm in one step of the stillest code ({null.get('code')})", null.get("ratio"), still),
    )
    section.facts("Further measures", facts)
    _readout(section, metrics, details)


def _readout(section: Section, metrics: Row, details: Row) -> None:
    readout = details.get("readout") or {}
    metric = metrics.get("sequence_consistency") or {}
    why = metric.get("reason") if metric.get("verdict") == "not run" else None
    if not section.has("motion read-out", readout, why or "not part of this run"):
        return
    rows = []
    for gap, row in (readout.get("by_gap") or {}).items():
        by_axis = ", ".join(number(v) for v in at(row, "r2", "base") or [])
        lengths = (
            number(row.get(part), d) for part, d in (("rms_error_mm", 1), ("rms_motion_mm", 1), ("rms_error_px", 2))
        )
        rows.append([gap, number(row.get("r2_base")), by_axis, *lengths, share(row.get("sign_accuracy"), 1)])
    section.table(
        "The motion read-out on the tokenizer's reconstruction of held-out video",
        ["steps", "R2", "x, y, z", "error, mm", "motion, mm", "error, px", "right sign"],
        rows,
        f"Metrics that use the read-out at most warn below R2 {number(readout.get('reliable_from'))} over "
        f"{readout.get('judged_at_steps')} steps; here it is {number(readout.get('reliability'))}.",
    )


def truth(section: Section, metrics: Row, details: Row) -> None:
    motion, (low, high) = at(metrics, "counterfactual_id", "motion") or {}, MAGNITUDE_RATIO
    rows = []
    if motion and section.has("dream motion against the simulator", motion):
        cosine, ratio = (with_interval(motion[m], motion.get(f"{m}_ci95")) for m in ("cosine", "magnitude_ratio"))
        error, true = (number(motion[length], 1) for length in ("endpoint_error_mm", "true_displacement_mm"))
        rows = [
            [f"cosine of the directions (mark: {MIN_COSINE:.2f})", cosine],
            [f"displacement relative to the simulator's (mark: {low} to {high})", ratio],
            ["error of the end point", f"{error} mm of {true} mm"],
            ["own future nearest by the read-out", share(motion.get("id_by_readout"))],
        ]
    section.table("Dreams against the simulator's futures of the same codes", ["", ""], rows)
    _laws(section, details.get("horizon") or {})
    shown = at(details, "dream_motion", "r2_by_t") or {}
    if shown.get("dream"):
        steps = range(1, len(shown["dream"]) + 1)
        rows = [
            [words(name), *(number(values[t - 1]) if t <= len(values) else "–" for t in steps)]
            for name, values in shown.items()
        ]
        section.table(
            "Do dreams move as the robot did? R2 of the displacement since the prompt",
            ["shown", *(f"t = {t}" for t in steps)],
            rows,
        )


def _laws(section: Section, horizon: Row) -> None:
    """delta-PSNR and AAF by law of random codes."""
    if not section.has("frame by frame, by law of random codes", horizon):
        return
    t, rows = horizon.get("t") or [], []
    for law, row in (horizon.get("laws") or {}).items():
        if row.get("delta_psnr") is None:
            section.not_run.append((f"random codes: {words(law)}", row.get("reason", "not known")))
            continue
        for when in sorted({min(4, len(t)), len(t)} - {0}):
            readings = (row["delta_psnr"], row.get("aaf"), row.get("delta_psnr_moving"), row.get("aaf_moving"))
            rows.append([LAW_WORDS.get(law, words(law)), str(when), *(_at_t(reading, when) for reading in readings)])
    section.table(
        "Effect of the codes, by law of random codes",
        ["random codes", "t", "delta-PSNR, dB", "AAF", "delta-PSNR on moving pixels, dB", "AAF on moving pixels"],
        rows,
        f"Higher is better. {horizon.get('n_clips')} clips of {horizon.get('n_trajectories')} trajectories; all t are "
        "in report.json.",
    )


def _at_t(reading: Row | None, t: int) -> str:
    if not reading:
        return "–"
    ci = (reading.get("ci95") or [None] * t)[t - 1]
    return with_interval(reading["value"][t - 1], ci if ci and ci[0] is not None else None)


def any_start(section: Section, metrics: Row, details: Row) -> None:
    found = details.get("any_start")
    if found is None:  # a report of latents
        return
    for part, title in (("pictures", "Start pictures"), ("own", "Your own pictures")):
        if part in found:
            _pictures(section, title, found[part])
    own = at(found, "own", "metrics") or {}
    rows = [[f"`{name}`", estimate(row), row["reason"]] for name, row in own.items()]
    section.table("Your own pictures: metrics", ["metric", "value", "reason"], rows)
    tables = found.get("tables") or {}
    if section.has("simulated tables", tables, "not part of this run"):
        bits, objects = (at(metrics, name, "by_step") or {} for name in ("long_command_bits", "object_permanence"))
        rows = []
        for step in map(str, tables["steps"]):
            reader = "independent" if at(bits, step, "independent") else "flow"
            shown = [at(bits, step, reader), at(bits, step, "flow"), at(bits, step, "simulator", reader)]
            kept = objects.get(step) or {}
            share_kept = with_interval(kept.get("value"), kept.get("ci95")) if kept.get("n_objects") else "–"
            rows.append([step, *(estimate(row) if row else "–" for row in shown), share_kept,
                         number(kept.get("oracle")), str(kept.get("n_objects", "–"))])  # fmt: skip
        section.table(
            "Long dreams of simulated tables",
            ["steps", "bits", "bits, optical flow", "bits, simulator", "objects kept", "objects, simulator", "objects"],
            rows,
            f"Higher is better. {tables['n_tables']} tables; bits are read in the steps before, objects at that step.",
        )
    trust = metrics.get("trust_auroc") or {}
    if trust.get("bins"):
        rows = [[f"{row['from']:.2f} to {row['to']:.2f}", str(row["frames"]), number(row["right"])]
                for row in trust["bins"]]  # fmt: skip
        section.table(
            "Trust of dreamed frames",
            ["trust", "frames", "share that is right"],
            rows,
            f"Each share should lie within its row's trust. Of {trust['n_trajectories']} dreams of {trust['steps']} "
            f"steps, {trust['wrong_share']:.0%} of the frames are wrong. AUROC of the number of steps alone: "
            f"{trust['steps_alone']:.2f}. Drawings have no true future, so that trust is not measured on them.",
        )


def _pictures(section: Section, title: str, found: Row) -> None:
    """One row per kind of picture."""
    steps, rows = found["steps"], []
    for kind in found["kinds"]:
        bits = kind["bits"].get("independent") or kind["bits"].get("flow") or [None] * len(steps)
        both = (kind["retention"], bits)
        cells = [number(values[n], d) for n in range(len(steps)) for values, d in zip(both, (1, 2), strict=True)]
        rows.append([words(kind["kind"]), str(kind["n"]), number(kind["start_psnr"], 1), *cells])
    section.table(
        f"{title}, by kind",
        [
            "kind",
            "pictures",
            "step 0, dB",
            *(name for s in steps for name in (f"kept, {s} steps, dB", f"bits, {s} steps")),
        ],
        rows,
        f"Higher is better. PSNR of equal pictures: {number(found['cap_db'], 1)} dB. Bits of a few pictures are rough. "
        f"Pictures {found['fingerprint']} at {'x'.join(map(str, found['size']))}.",
    )


def fidelity(section: Section, metrics: Row, details: Row) -> None:
    rows = []
    for name in ("tokenizer_psnr", "dream_psnr"):
        moving = at(metrics, name, "moving_pixels") or {}
        if moving.get("value") is not None:
            rows.append(
                [words(name), share(moving["share"], 1), number(moving["value"], 1), number(moving.get("null"), 1)]
            )
    section.table("On moving pixels", ["metric", "share of pixels", "dB", "null, dB"], rows)
    horizon, rows = details.get("horizon") or {}, []
    t = horizon.get("t") or []
    picked = sorted({1, min(4, len(t)), min(8, len(t)), len(t)}) if t else []
    for name in ("psnr", "psnr_moving", "ssim", "lpips"):
        reading: Any = horizon.get(name)
        if not horizon or not section.has(words(name), reading):
            continue
        for which in ("dream", "tokenizer", "copy_last"):
            if reading.get(which):
                rows.append([words(name), words(which), *(_at_t(reading[which], when) for when in picked)])
    resolution = "x".join(map(str, horizon.get("resolution") or []))
    section.table(
        "By frame of the dream",
        ["", "shown", *(f"t = {when}" for when in picked)],
        rows,
        f"{horizon.get('n_clips')} clips at {resolution}; LPIPS backbone: {at(horizon, 'lpips', 'backbone') or '-'}. "
        "Higher is better, except for LPIPS.",
    )
    distance = details.get("distribution") or {}
    if section.has("distance of the distributions", distance):
        rows = [
            [words(name), with_interval(row.get("value"), row.get("ci95"), 4), p_value(row.get("p"))]
            for name, row in (distance.get("values") or {}).items()
            if isinstance(row, dict)
        ]
        size = "x".join(map(str, distance.get("resolution") or []))
        section.table(
            f"{distance.get('name', 'distance')}: distance of the dreams from real clips as a set (0: equal)",
            ["shown", "value", "p"],
            rows,
            f"Lower is better. Backbone {distance.get('backbone')}; {distance.get('n_clips')} clips of "
            f"{distance.get('frames')} frames at {size}. It is not FVD and cannot be compared with FVD.",
        )
    fvd = details.get("fvd")
    if section.has("FVD", fvd, "needs I3D weights, which are not part of the package"):
        section.rest += flat(fvd, "FVD")
