"""A playback's result in words and tables: playback.md, and the output in the terminal."""

from typing import Any

from genie_eval.report.cells import interval_text, markdown_table

SHOWN = (1, 2, 4, 8, 15)  # horizons of the drift table
MIN_TRAJECTORIES = 10  # for an answer
ENOUGH = 0.8  # share of the distance from standing still to the oracle from which the answer is yes
BROKEN_CM = 0.01  # drift of the recorded actions above which nothing else is valid
CONTROL_COLUMNS = {
    "true": "recorded actions", "oracle": "oracle", "decoded": "decoded", "zero": "no action",
    "shuffled": "another's codes",
}  # fmt: skip
NO_GRIPPER = (
    "No code moves the gripper: opening or closing is not the most frequent command of any code, so it stays as it was."
)
CURVE_INTERVAL = (
    "Brackets: 2.5 and 97.5 percentiles over those sets, drawn with replacement: the effect of other labels. They do "
    "not contain the effect of other measured episodes."
)


def row_at(rows: list[dict[str, Any]], horizon: int, **match: Any) -> dict[str, Any]:
    """The row of a horizon."""
    return next(r for r in rows if r["horizon"] == horizon and all(r[k] == v for k, v in match.items()))


def answer(result: dict[str, Any]) -> str:
    """One or two sentences: do decoded latent actions move the robot to where it is in the video?"""
    h, differences, num_codes = result["headline_horizon"], result["differences"], len(result["map"])
    drift = {name: row_at(result["drift"], h, control=name) for name in CONTROL_COLUMNS}
    cm = {name: row["drift_cm"] for name, row in drift.items()}
    if cm["true"] > BROKEN_CM:
        return (
            f"The chain is broken: the recorded actions themselves drift by {cm['true']:.2f} cm after {h} steps, so "
            "none of the numbers below is valid."
        )
    figures = (
        f"After {h} steps ({h / result['data']['hz']:.1f} s) the end effector is {cm['decoded']:.1f} cm "
        f"{interval_text(drift['decoded']['ci95'], 1)} from its position in the video; with another episode's codes "
        f"{cm['shuffled']:.1f} cm, standing still {cm['zero']:.1f} cm, with the best {num_codes} codes "
        f"{cm['oracle']:.1f} cm."
    )
    trajectories = result["data"]["trajectories"]
    if trajectories < MIN_TRAJECTORIES:
        alone = " With a single episode, the other episode's codes are its own." if trajectories == 1 else ""
        return f"Too few episodes for an answer ({trajectories}; {MIN_TRAJECTORIES} are needed).{alone} {figures}"
    beats = {other: row_at(differences, h, minus=other)["ci95"][1] < 0 for other in ("shuffled", "zero")}
    if all(beats.values()):
        removed = (cm["zero"] - cm["decoded"]) / (cm["zero"] - cm["oracle"])
        share = f"decoded latent actions remove {removed:.0%} of the drift that the best {num_codes} codes remove"
        return f"{'Yes' if removed >= ENOUGH else 'In part'}: {share}. {figures}"
    if beats["shuffled"]:
        verdict = "In part: the codes are better than another episode's, but not better than standing still."
    elif beats["zero"]:
        verdict = "No: decoded codes are better than standing still, but not better than another episode's codes."
    else:
        verdict = "No: decoded codes are no better than standing still or than another episode's codes."
    return f"{verdict} {figures}"


def drift_rows(result: dict[str, Any]) -> list[list[str]]:
    """Head and body of the drift table: one row per horizon, one column per control."""
    rows = [["steps", *CONTROL_COLUMNS.values(), "decoded - another's", "decoded - no action"]]
    last = result["settings"]["horizon"]
    for h in sorted({h for h in SHOWN if h <= last} | {last}):
        cells = [str(h)]
        for name in CONTROL_COLUMNS:
            row = row_at(result["drift"], h, control=name)
            interval = interval_text(row["ci95"], 1)
            cells.append(f"{row['drift_cm']:.3f}" if name == "true" else f"{row['drift_cm']:.1f} {interval}")
        for other in ("shuffled", "zero"):
            row = row_at(result["differences"], h, minus=other)
            cells.append(f"{row['difference_cm']:+.1f} {interval_text(row['ci95'], 1)}")
        rows.append(cells)
    return rows


def map_rows(result: dict[str, Any]) -> list[list[str]]:
    """Head and body of the table of the action map: one row per code."""
    rows = [["code", "labels", "x cm", "y cm", "z cm", "turn x, y, z deg", "gripper"]]
    for entry in result["map"]:
        x, y, z, *turn = entry["mean_action"][:6]
        if entry["labels"] == 0:
            rows.append([str(entry["code"]), "0", "-", "-", "-", "-", "no label: does nothing"])
            continue
        translation = [f"{100 * v:+.2f}" for v in (x, y, z)]
        degrees = ", ".join(f"{57.29578 * angle:+.1f}" for angle in turn)
        rows.append([str(entry["code"]), str(entry["labels"]), *translation, degrees, entry["gripper"]])
    return rows


def curve_rows(result: dict[str, Any]) -> list[list[str]]:
    """Head and body of the label table: one row per number of labels."""
    rows = [["labels", "R2, mean of labels", "R2, one label at random", "codes without a label", "drift cm"]]
    for row in result["curve"]:
        r2 = [f"{row['r2'][m]:.2f} {interval_text(row['interval95'][m], 2)}" for m in ("mean", "sample")]
        drifts = ", ".join(f"{d:.1f}" for d in row.get("drift_cm", [])) or "-"
        rows.append([str(row["labels"]), *r2, f"{row['codes_without_label']:.1f}", drifts])
    return rows


def path_rows(result: dict[str, Any]) -> list[list[str]]:
    """Head and body of the path of a typed sequence: one row per step."""
    rows = [["step", "code", "x cm", "y cm", "z cm", "gripper"]]
    for t, (position, gripper) in enumerate(zip(result["path"]["position_m"], result["path"]["gripper"], strict=True)):
        code = str(result["codes"][t - 1]) if t else "start"
        rows.append([str(t), code, *(f"{100 * v:+.1f}" for v in position), f"{gripper:.2f}"])
    return rows


def _table(rows: list[list[str]]) -> str:
    return "\n".join(markdown_table(rows[0], rows[1:]))


def text_table(rows: list[list[str]]) -> str:
    """Columns of equal width, for the terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)


def measured_markdown(result: dict[str, Any]) -> str:
    """playback.md of a measured playback."""
    data, settings, r2 = result["data"], result["settings"], result["translation_r2"]
    shortened = "" if settings["horizon"] == settings["asked_horizon"] else " (the episodes are no longer)"
    origin = settings["labels_from"]
    h = result["headline_horizon"]
    gripper = ", ".join(
        f"{CONTROL_COLUMNS[name]} {row_at(result['drift'], h, control=name)['gripper_error']:.2f}"
        for name in ("decoded", "zero", "oracle")
    )
    parts = [
        "# Decoded latent actions in MuJoCo",
        result["answer"],
        f"Run {result['run']}, data {data['source']}, split '{data['split']}': {data['trajectories']} episodes, one "
        f"random start each, {settings['horizon']} steps{shortened}. {origin[:1].upper()}{origin[1:]}.",
        "## Drift",
        "Distance of the measured end effector to the recorded one, in cm; lower is better. One row per number of "
        "steps, one column per control. Brackets: 95 % intervals of the mean (bootstrap over trajectories, for each "
        "horizon separately). Differences are paired by trajectory; below 0, decoded is closer.",
        _table(drift_rows(result)),
        f"Gripper (0 open, 1 closed) after {h} steps, mean absolute error: {gripper}.",
        "- recorded actions: checks the whole chain; must be 0.\n"
        "- oracle: each true action replaced by the mean of its cluster (k-means of the labels' translations, one "
        "cluster per code).\n"
        "- decoded: codes inferred from the recorded video, decoded with the map below.\n"
        "- no action: how far the recorded robot moved.\n"
        "- another's codes: the codes of another episode, decoded with the same map. Over all episodes these are the "
        "same codes, equally often.",
        "![drift](figures/drift.png)",
        *_map_section(result),
        f"On the {data['transitions']} transitions of the measured episodes its translations have R2 {r2['value']:.2f} "
        f"{interval_text(r2['ci95'], 2)} (bootstrap over trajectories); the oracle {r2['oracle']:.2f}.",
        "## Number of labels",
    ]
    if result["curve"]:
        first = result["curve"][0]
        parts += [
            f"R2 over {settings['curve_draws']} random sets of that many labels; higher is better. {CURVE_INTERVAL} "
            f"Drift after {first.get('drift_horizon', '-')} steps, one number per set, mean over "
            f"{first.get('drift_trajectories', '-')} trajectories.",
            _table(curve_rows(result)),
            "![labels](figures/labels.png)",
        ]
    else:
        parts.append("Fewer than 10 labels: no curve.")
    return "\n\n".join([*parts, *_film_section(result)]) + "\n"


def typed_markdown(result: dict[str, Any]) -> str:
    """playback.md of a typed sequence."""
    data = result["data"]
    parts = [
        "# A typed sequence of latent actions in MuJoCo",
        f"{len(result['codes'])} codes, executed from frame {data['start']} of episode {data['episode']} of split "
        f"'{data['split']}', moved the end effector by {result['moved_cm']:.1f} cm. The dream got the same codes.",
        f"Run {result['run']}, data {data['source']}.",
        "## Path of the end effector",
        "Measured position in the robot's base frame (x forward, y left, z up); gripper 0 open, 1 closed.",
        _table(path_rows(result)),
        *_map_section(result),
        *_film_section(result),
    ]
    return "\n\n".join(parts) + "\n"


def _map_section(result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    how = "to one of its labels at random (table: their mean), the gripper to that of the same label"
    if settings["mode"] == "mean":
        how = "to the mean of its labels, the gripper to the most frequent command"
    return [
        "## The map",
        f"Fitted on {settings['fit_labels']} of {settings['labels']} labeled transitions of split "
        f"'{settings['label_split']}'. Each code decodes {how}.",
        _table(map_rows(result)),
        *([] if any(row["gripper"] != "keeps" for row in result["map"]) else [NO_GRIPPER]),
    ]


def _film_section(result: dict[str, Any]) -> list[str]:
    names = [n.removesuffix(".png") for n in result["files"] if n.startswith("videos/") and n.endswith(".png")]
    parts = [f"[{name}.mp4]({name}.mp4)\n\n![film strip]({name}.png)" for name in names]
    return ["## Side by side", *parts] if parts else []
