"""The result in words and tables: playback.md, and what the terminal shows."""

from typing import Any

SHOWN = (1, 2, 4, 8, 15)
FEW = 10  # trajectories below which no answer is given
ENOUGH = 0.8  # of the way from standing still to the oracle: then the answer is yes
BROKEN_CM = 0.01  # drift of the recorded actions above which nothing else means anything


def at(rows: list[dict[str, Any]], horizon: int, **match: Any) -> dict[str, Any]:
    """The row of a horizon."""
    return next(r for r in rows if r["horizon"] == horizon and all(r[k] == v for k, v in match.items()))


def answer(result: dict[str, Any]) -> str:
    """One sentence or two: do decoded latent actions drive the robot where the video says?"""
    h, table, differences = result["headline_horizon"], result["drift"], result["differences"]
    drift = {name: at(table, h, control=name) for name in ("true", "oracle", "decoded", "zero", "shuffled")}
    if drift["true"]["drift_cm"] > BROKEN_CM:
        return (
            f"The chain is broken: the recorded actions themselves drift by {drift['true']['drift_cm']:.2f} cm after "
            f"{h} steps, so that nothing below means anything."
        )
    cm = {name: row["drift_cm"] for name, row in drift.items()}
    low, high = drift["decoded"]["ci95"]
    figures = (
        f"After {h} steps ({h / result['data']['hz']:.1f} s) the end effector is {cm['decoded']:.1f} cm "
        f"[{low:.1f}, {high:.1f}] from where the video's robot is; with another episode's codes {cm['shuffled']:.1f} "
        f"cm, standing still {cm['zero']:.1f} cm, with the best {len(result['map'])} codes {cm['oracle']:.1f} cm."
    )
    if result["data"]["trajectories"] < FEW:
        alone = " With one episode, another's codes are its own." if result["data"]["trajectories"] == 1 else ""
        return f"Too few episodes to tell ({result['data']['trajectories']}; {FEW} are needed).{alone} {figures}"
    beats = {other: at(differences, h, minus=other)["ci95"][1] < 0 for other in ("shuffled", "zero")}
    if all(beats.values()):
        way = (cm["zero"] - cm["decoded"]) / (cm["zero"] - cm["oracle"])
        share = f"decoded latent actions remove {way:.0%} of the drift that the best {len(result['map'])} codes remove"
        return f"{'Yes' if way >= ENOUGH else 'In part'}: {share}. {figures}"
    if beats["shuffled"]:
        return (
            f"In part: the codes beat another episode's, but the robot gets no closer than by standing still. {figures}"
        )
    if beats["zero"]:
        return f"No: it is closer than standing still, but another episode's codes do no worse. {figures}"
    return f"No: decoded codes are no better than standing still or than another episode's codes. {figures}"


def span(interval: list[float], digits: int) -> str:
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def drift_rows(result: dict[str, Any]) -> list[list[str]]:
    """Head and body of the drift table: a row a horizon, a column a control."""
    rows = [["steps", "recorded actions", "oracle", "decoded", "no action", "another's codes", "decoded - another's",
             "decoded - no action"]]  # fmt: skip
    last = result["settings"]["horizon"]
    for h in sorted({h for h in SHOWN if h <= last} | {last}):
        cells = [str(h)]
        for name in ("true", "oracle", "decoded", "zero", "shuffled"):
            row = at(result["drift"], h, control=name)
            cells.append(
                f"{row['drift_cm']:.3f}" if name == "true" else f"{row['drift_cm']:.1f} {span(row['ci95'], 1)}"
            )
        for other in ("shuffled", "zero"):
            row = at(result["differences"], h, minus=other)
            cells.append(f"{row['difference_cm']:+.1f} {span(row['ci95'], 1)}")
        rows.append(cells)
    return rows


def map_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = [["code", "labels", "x cm", "y cm", "z cm", "turn x, y, z deg", "gripper"]]
    for entry in result["map"]:
        x, y, z, *turn = entry["mean_action"][:6]
        if entry["labels"] == 0:
            rows.append([str(entry["code"]), "0", "-", "-", "-", "-", "no label: does nothing"])
            continue
        degrees = ", ".join(f"{57.29578 * angle:+.1f}" for angle in turn)
        rows.append(
            [
                str(entry["code"]),
                str(entry["labels"]),
                *(f"{100 * v:+.2f}" for v in (x, y, z)),
                degrees,
                entry["gripper"],
            ]
        )
    return rows


def curve_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = [["labels", "R2, mean of labels", "R2, one label at random", "codes without a label", "drift cm"]]
    for row in result["curve"]:
        rows.append(
            [
                str(row["labels"]),
                *(f"{row['r2'][m]:.2f} {span(row['interval95'][m], 2)}" for m in ("mean", "sample")),
                f"{row['codes_without_label']:.1f}",
                ", ".join(f"{d:.1f}" for d in row.get("drift_cm", [])) or "-",
            ]
        )
    return rows


def markdown_table(rows: list[list[str]]) -> str:
    lines = [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join(["---"] * len(rows[0])), *lines[1:]])


def text_table(rows: list[list[str]]) -> str:
    """Columns of equal width, for the terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)


def map_section(result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    gripper = "the most frequent command" if settings["mode"] == "mean" else "that of the same label"
    how = (
        "to the mean of its labels"
        if settings["mode"] == "mean"
        else "to one of its labels at random (table: their mean)"
    )
    return [
        "## The map",
        f"Fitted on {settings['fit_labels']} of {settings['labels']} labelled transitions of split "
        f"'{settings['label_split']}'; each code decodes {how}, the gripper to {gripper}.",
        markdown_table(map_rows(result)),
        *([] if any(row["gripper"] != "keeps" for row in result["map"]) else [NO_GRIPPER]),
    ]


def measured_markdown(result: dict[str, Any]) -> str:
    """playback.md of a measured playback."""
    data, settings, r2 = result["data"], result["settings"], result["translation_r2"]
    shorter = "" if settings["horizon"] == settings["asked_horizon"] else " (the episodes have no more)"
    parts = [
        "# Decoded latent actions in MuJoCo",
        result["answer"],
        f"Run {result['run']}, data {data['source']}, split '{data['split']}': {data['trajectories']} episodes, one "
        f"random start each, {settings['horizon']} steps{shorter}. A{settings['labels_from'][1:]}.",
        "## Drift",
        "Distance of the measured end effector to the recorded one, cm. Brackets: 95 % intervals of the mean "
        "(bootstrap over trajectories, each horizon by itself); differences are paired by trajectory, and below 0 "
        "where decoded is closer.",
        markdown_table(drift_rows(result)),
        f"Gripper (0 open, 1 closed) after {result['headline_horizon']} steps, mean absolute error: "
        + ", ".join(
            f"{word} {at(result['drift'], result['headline_horizon'], control=name)['gripper_error']:.2f}"
            for name, word in (("decoded", "decoded"), ("zero", "no action"), ("oracle", "oracle"))
        )
        + ".",
        "- recorded actions: the check of the whole chain; must be 0.\n"
        "- oracle: each true action replaced by the mean of its cluster (k-means of the labels' translations, as many "
        "clusters as codes).\n"
        "- decoded: codes inferred from the recorded video alone, decoded with the map below.\n"
        "- no action: how far the recorded robot went.\n"
        "- another's codes: decoded with the same map; over all episodes the same codes, equally often.",
        "![drift](figures/drift.png)",
        *map_section(result),
        f"On the {data['transitions']} transitions of the measured episodes its translations have R2 {r2['value']:.2f} "
        f"{span(r2['ci95'], 2)} (bootstrap over trajectories); the oracle {r2['oracle']:.2f}.",
        "## What labels buy",
    ]
    if result["curve"]:
        parts += [
            f"R2 over {settings['curve_draws']} random sets of that many labels. {CURVE_INTERVAL} Drift after "
            f"{result['curve'][0].get('drift_horizon', '-')} steps, one figure a set, mean of "
            f"{result['curve'][0].get('drift_trajectories', '-')} trajectories.",
            markdown_table(curve_rows(result)),
            "![labels](figures/labels.png)",
        ]
    else:
        parts.append("Fewer than 10 labels: no curve.")
    parts += film_section(result)
    return "\n\n".join(parts) + "\n"


NO_GRIPPER = "No code moves the gripper: for none of them is that the most frequent command, so it stays as it was."
CURVE_INTERVAL = (
    "Brackets: 2.5 and 97.5 percentiles over those sets, drawn with replacement: what other labels would change. They "
    "do not hold what other measured episodes would change."
)


def film_section(result: dict[str, Any]) -> list[str]:
    parts = []
    for name in result["files"]:
        if name.startswith("videos/") and name.endswith(".png"):
            parts.append(f"[{name.removesuffix('.png')}.mp4]({name.removesuffix('.png')}.mp4)\n\n![film strip]({name})")
    return ["## Side by side", *parts] if parts else []


def path_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = [["step", "code", "x cm", "y cm", "z cm", "gripper"]]
    for t, (position, gripper) in enumerate(zip(result["path"]["position_m"], result["path"]["gripper"], strict=True)):
        code = str(result["codes"][t - 1]) if t else "start"
        rows.append([str(t), code, *(f"{100 * v:+.1f}" for v in position), f"{gripper:.2f}"])
    return rows


def typed_markdown(result: dict[str, Any]) -> str:
    """playback.md of a typed sequence."""
    data = result["data"]
    return (
        "\n\n".join(
            [
                "# A typed sequence of latent actions in MuJoCo",
                f"{len(result['codes'])} codes, executed from frame {data['start']} of episode {data['episode']} of "
                f"split '{data['split']}', moved the end effector by {result['moved_cm']:.1f} cm. The dream got the "
                "same codes.",
                f"Run {result['run']}, data {data['source']}.",
                "## Path of the end effector",
                "Measured position in the robot's base frame (x forward, y left, z up); gripper 0 open, 1 closed.",
                markdown_table(path_rows(result)),
                *map_section(result),
                *film_section(result),
            ]
        )
        + "\n"
    )
