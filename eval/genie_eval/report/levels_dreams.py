"""Sections of the levels that dreams answer: D (command), E (sequences), F (truth and use), and fidelity."""

from typing import Any

from genie_eval.report.cells import any_number, flat, number, p_value, share, with_interval, words
from genie_eval.report.findings import at
from genie_eval.report.horizon_charts import LAW_WORDS
from genie_eval.report.section import Row, Section


def command(metrics: Row, details: Row) -> Section:
    section = Section(
        "D",
        "Command",
        "When a code is played, does it arrive in the dream, and who can read it there?",
        ["command_bits", "command_bits_physical"],
    )
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
        rows.append(
            [
                name,
                with_interval(row["bits"], row.get("ci95")),
                number(row.get("ceiling_bits")),
                number(row.get("effective_actions"), 1),
                number(row.get("kappa")),
                number(row.get("kappa_ceiling")),
                share(min(recall)) if recall else "–",
            ]
        )
    section.table(
        "Judges",
        ["judge", "bits", "its ceiling", "effective actions", "kappa", "its ceiling", "worst code"],
        rows,
        "Ceiling: the same judge on real video as the tokenizer shows it (for the read-out: on the simulator's "
        "futures). Bits far above the physical judge's say that the code is written where only the model reads it.",
    )
    spoiled = {key[11:]: v for key, v in (judges.get("own") or {}).items() if key.startswith("bits_after_")}
    rows = [[words(name), number(bits)] for name, bits in spoiled.items()]
    section.table(
        "The own judge, after the dream was spoiled", ["by", "bits"], rows, "An invisible mark would be washed out."
    )
    rows = [[str(k), share(r)] for k, r in enumerate(physical.get("abstained") or []) if r]
    section.table("Dreams that the read-out is unsure of", ["code", "share"], rows[:32])
    return section


def sequences(metrics: Row, details: Row) -> Section:
    section = Section(
        "E",
        "Sequences",
        "Does the same sequence do the same from every start?",
        ["sequence_consistency", "sequence_consistency_flow"],
    )
    metric, found = metrics.get("sequence_consistency", {}), details.get("sequences") or {}
    rows = []
    if metric.get("value") is not None:
        rows.append(
            [
                f"one code, {metric.get('steps', '–')} times",
                any_number(metric.get("n_starts")),
                with_interval(metric["value"], metric["ci95"]),
                share(metric.get("identified")),
                share(metric.get("chance")),
            ]
        )
    for name, row in found.items():
        if isinstance(row, dict) and row.get("value") is not None:
            rows.append(
                [
                    f"{name} ({row['n']})",
                    any_number(metric.get("n_starts")),
                    with_interval(row["value"], row["ci95"]),
                    share(row.get("identified")),
                    share(row.get("chance"), 1),
                ]
            )
    flow = metrics.get("sequence_consistency_flow") or {}
    if flow.get("value") is not None:
        starts, value = any_number(flow.get("n_trajectories")), with_interval(flow["value"], flow.get("ci95"))
        rows.append(["one code, optical flow", starts, value, "–", "–"])
    section.table(
        "Kinds of sequence",
        ["sequence", "starts", "consistency", "told apart", "chance"],
        rows,
        "Told apart: dreams whose sequence is recognised by the displacements of the other starts.",
    )
    rows = []
    if metric.get("cosine") is not None:
        rows.append(["directions of the same code agree, mean cosine", number(metric["cosine"])])
    credit = at(metric, "opposites", "credit")
    if credit is not None:
        rows.append(["opposite codes both go the right way", share(credit)])
    if metric.get("corrected") is not None:
        rows.append(
            ["consistency without the read-out's own noise (secondary, never judged)", number(metric["corrected"])]
        )
    if metric.get("abstained") is not None:
        rows.append(["dreams that the read-out is unsure of", share(metric["abstained"], 1)])
    algebra = at(found, "pairs", "algebra") or {}
    if algebra.get("additivity_error") is not None:
        rows.append(
            ["two codes add up: error of D(ab) against D(a) + D(b), 0 is perfect", number(algebra["additivity_error"])]
        )
        rows.append(["the order matters: D(ab) against D(ba), 0 is not at all", number(algebra.get("commutator"))])
    null = found.get("null_motion") or {}
    if null.get("ratio") is not None:
        rows.append(
            [
                f"the stillest code ({null['code']}) moves the arm by, in one step",
                f"{number(null['per_step_mm'], 1)} mm ({number(null['usual_step_mm'], 1)} mm is usual)",
            ]
        )
    section.table("Beside it", ["", ""], rows)
    _readout(section, metrics, details)
    return section


def _readout(section: Section, metrics: Row, details: Row) -> None:
    readout = details.get("readout") or {}
    asked = metrics.get("sequence_consistency") or {}
    why = asked.get("reason") if asked.get("verdict") == "not run" else None
    if not section.unless("motion read-out", readout, why or "not part of this run"):
        return
    rows = []
    for gap, row in (readout.get("by_gap") or {}).items():
        rows.append(
            [
                gap,
                number(row.get("r2_base")),
                ", ".join(number(v) for v in at(row, "r2", "base") or []),
                number(row.get("rms_error_mm"), 1),
                number(row.get("rms_motion_mm"), 1),
                number(row.get("rms_error_px"), 2),
                share(row.get("sign_accuracy"), 1),
            ]
        )
    section.table(
        "The motion read-out, on the tokenizer's reconstructions of held-out video",
        ["steps", "R2", "x, y, z", "error, mm", "motion, mm", "error, px", "right sign"],
        rows,
        f"Below R2 {number(readout.get('reliable_from'))} over {readout.get('judged_at_steps')} steps, metrics that "
        "use "
        f"it at most warn; here it is {number(readout.get('reliability'))}.",
    )


def truth(metrics: Row, details: Row) -> Section:
    section = Section(
        "F",
        "Truth and use",
        "Is the dream what would really have happened, and does the model use its codes?",
        ["counterfactual_id", "action_attributable_fraction", "delta_psnr_t4"],
    )
    motion = at(metrics, "counterfactual_id", "motion") or {}
    rows = []
    if motion and section.unless("dream motion against the simulator", motion):
        rows = [
            ["direction, cosine (asked: 0.80)", with_interval(motion["cosine"], motion.get("cosine_ci95"))],
            [
                "how far, times the truth (asked: 0.7 to 1.4)",
                with_interval(motion["magnitude_ratio"], motion.get("magnitude_ratio_ci95")),
            ],
            [
                "end of the dream is off by",
                f"{number(motion['endpoint_error_mm'], 1)} mm of {number(motion['true_displacement_mm'], 1)} mm",
            ],
            ["own future nearest by the read-out", share(motion.get("id_by_readout"))],
        ]
    section.table("Dreams against the simulator's futures of the same codes", ["", ""], rows)
    horizon = details.get("horizon") or {}
    if section.unless("frame by frame, four laws of random codes", horizon):
        t, rows = horizon.get("t") or [], []
        for law, row in (horizon.get("laws") or {}).items():
            if row.get("delta_psnr") is None:
                section.not_run.append((f"random codes: {words(law)}", row.get("reason", "not known")))
                continue
            for when in sorted({min(4, len(t)), len(t)} - {0}):
                rows.append(
                    [
                        LAW_WORDS.get(law, words(law)),
                        str(when),
                        _at_t(row["delta_psnr"], when),
                        _at_t(row.get("aaf"), when),
                        _at_t(row.get("delta_psnr_moving"), when),
                        _at_t(row.get("aaf_moving"), when),
                    ]
                )
        section.table(
            "Random codes by four laws",
            ["random codes", "t", "delta PSNR, dB", "AAF", "on moving pixels, dB", "AAF"],
            rows,
            f"{horizon.get('n_clips')} clips of {horizon.get('n_trajectories')} trajectories; all t: report.json.",
        )
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
    return section


def _at_t(reading: Row | None, t: int) -> str:
    if not reading:
        return "–"
    ci = (reading.get("ci95") or [None] * t)[t - 1]
    return with_interval(reading["value"][t - 1], ci if ci and ci[0] is not None else None)


def fidelity(metrics: Row, details: Row) -> Section:
    section = Section("", "Fidelity", "How good are the pictures?", ["tokenizer_psnr", "dream_psnr"])
    rows = []
    for name in ("tokenizer_psnr", "dream_psnr"):
        moving = at(metrics, name, "moving_pixels") or {}
        if moving.get("value") is not None:
            rows.append(
                [words(name), share(moving["share"], 1), number(moving["value"], 1), number(moving.get("null"), 1)]
            )
    section.table("On pixels that move", ["metric", "share of pixels", "dB", "null, dB"], rows)
    horizon, rows = details.get("horizon") or {}, []
    t = horizon.get("t") or []
    for name in ("psnr", "psnr_moving", "ssim", "lpips"):
        reading: Any = horizon.get(name)
        if not horizon or not section.unless(words(name), reading):
            continue
        for which in ("dream", "tokenizer", "copy_last"):
            if reading.get(which):
                picked = sorted({1, min(4, len(t)), min(8, len(t)), len(t)})
                rows.append([words(name), words(which), *(_at_t(reading[which], when) for when in picked)])
    picked = sorted({1, min(4, len(t)), min(8, len(t)), len(t)}) if t else []
    resolution = "x".join(map(str, horizon.get("resolution") or []))
    section.table(
        "By horizon",
        ["", "shown", *(f"t = {when}" for when in picked)],
        rows,
        f"{horizon.get('n_clips')} clips at {resolution}; LPIPS backbone: {at(horizon, 'lpips', 'backbone') or '-'}.",
    )
    distance = details.get("distribution") or {}
    if section.unless("distance of the distributions", distance):
        rows = [
            [words(name), with_interval(row.get("value"), row.get("ci95"), 4), p_value(row.get("p"))]
            for name, row in (distance.get("values") or {}).items()
            if isinstance(row, dict)
        ]
        section.table(
            f"{distance.get('name', 'distance')}: how far the dreams are from real clips as a set (0: alike)",
            ["shown", "value", "p"],
            rows,
            f"Backbone {distance.get('backbone')}; {distance.get('n_clips')} clips of {distance.get('frames')} frames "
            "at "
            f"{'x'.join(map(str, distance.get('resolution') or []))}. It is not FVD and does not compare with FVD.",
        )
    fvd = details.get("fvd")
    if section.unless("FVD", fvd, "needs I3D weights, which are not part of the package"):
        section.rest += flat(fvd, "FVD")
    return section
