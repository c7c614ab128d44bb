"""A whole playback: labels, map, execution, figures, videos and the files that hold them."""

import dataclasses
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError
from genie_datasets.clips.labels import read_actions
from genie_eval.playback.codes import check_gap, episode_codes, read_frames, to_numpy
from genie_eval.playback.config import PlaybackConfig
from genie_eval.playback.drift import CONTROLS, Drifts, measure
from genie_eval.playback.film import Film, write_strip, write_video
from genie_eval.playback.label_curve import add_drift, label_curve, translation_r2
from genie_eval.playback.labeled import Labelled, get_labels, infer
from genie_eval.playback.oracle import Oracle
from genie_eval.playback.rollout import Path as RobotPath
from genie_eval.playback.rollout import Stage, drift
from genie_eval.playback.starts import LEAST_HORIZON, Start, choose_starts, measured_split, named_start
from genie_eval.playback.summary import CURVE_INTERVAL, answer, measured_markdown, typed_markdown
from genie_robotics.labeling.action_map import MODES, ActionMap, check_codes
from genie_robotics.models.config import to_dict

if TYPE_CHECKING:
    from genie_datasets import Source, Split

SCHEMA_VERSION = 1


@dataclasses.dataclass
class _Prepared:
    """What both kinds of playback begin with."""

    split: "Split"
    starts: list[Start]
    labelled: Labelled
    used: Labelled
    action_map: ActionMap
    result: dict[str, Any]


def play_back(
    genie: Any, source: "Source", out: str | Path, config: PlaybackConfig | None = None, *, split: str | None = None,
    labels: str | Path | None = None, episode: int | None = None, start: int | None = None, run: str = "",
    progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Executes the codes of recorded episodes, decoded with labels, and measures where the robot goes.

    Args:
        genie: a `Genie`.
        source: a tabletop data set, whose records keep the simulator's states.
        out: folder for playback.json, playback.md, figures and videos; labels.npz too where `labels` is None.
        split: which split to measure; 'test' if there is one.
        labels: a labels file (`genie_datasets.clips.labels.Labels`); None: true actions of random transitions.
        episode, start: the one episode (and frame) to film; None: the first measured ones.
        run: name of the run for the report.

    Returns what playback.json holds.

    Raises UserError: no simulator state, labels that do not fit, no episode long enough, codes that are not one step.
    """
    config = config or PlaybackConfig()
    check_config(config)
    out = make_folder(out)
    _use_opengl()
    whole = source.split(measured_split(source, split))
    # where labels must come from the measured split too, half of its episodes are left for them
    most = max(1, whole.num_episodes // 2) if labels is None and len(source.splits) == 1 else None
    starts = choose_starts(whole, config.episodes, config.horizon, config.seed, most)
    films = starts[: config.videos]
    if episode is not None:
        films = [named_start(whole, episode, start, config.horizon)]
    ready = _prepare(genie, source, whole, starts, films, labels, config, out, run, progress)
    result, action_map = ready.result, ready.action_map

    every = [episode_codes(genie, whole, s.episode) for s in starts]
    codes = np.stack([c[s.span] for c, s in zip(every, starts, strict=True)])
    oracle = Oracle(ready.used.actions, genie.config.num_actions, config.seed)
    drifts = measure(whole, starts, codes, action_map, oracle, config.seed, progress)
    true = [_actions(whole, s.episode) for s in starts]
    curve = label_curve(
        ready.labelled, np.concatenate(every), np.concatenate(true), genie.config.num_actions, config.curve_draws,
        config.seed,
    )  # fmt: skip
    some = min(config.curve_episodes, len(starts))
    if curve and config.curve_rollouts > 0 and some > 0:
        add_drift(
            curve, ready.labelled, whole, starts[:some], codes[:some], genie.config.num_actions, config.mode,
            config.curve_rollouts, config.seed, progress,
        )  # fmt: skip
    result["settings"].update(asked_horizon=config.horizon, horizon=starts[0].horizon)
    result["data"].update(trajectories=len(starts), transitions=int(sum(len(c) for c in every)))
    result["starts"] = [dataclasses.asdict(s) for s in starts]
    result["controls"] = CONTROLS
    result["headline_horizon"] = drifts.headline
    result["drift"], result["differences"] = drifts.table(config.seed), drifts.differences(config.seed)
    result["interval"] = "95 % percentile bootstrap of the mean over trajectories, each horizon by itself"
    result["translation_r2"] = _headline_r2(action_map, oracle, every, true, config.seed)
    result["curve"], result["curve_interval"] = curve, CURVE_INTERVAL
    result["unlabelled_share"] = float(np.isin(np.concatenate(every), action_map.unlabelled).mean())
    result["answer"] = answer(result)
    _charts(out, drifts, curve, result, some, genie.config.num_actions, config)
    for s in films:
        inferred = episode_codes(genie, whole, s.episode)[s.span]
        rng = np.random.default_rng([config.seed, s.episode, 0])
        film, _ = _film(genie, whole, s, inferred, action_map.decode(inferred, rng), config.seed, recorded=True)
        _write_film(out, f"videos/episode_{s.episode:04d}_from_{s.step:03d}", film, result)
    return _write(out, result, measured_markdown)


def play_codes(
    genie: Any, source: "Source", out: str | Path, codes: Int[np.ndarray, " n"] | list[int],
    config: PlaybackConfig | None = None, *, split: str | None = None, labels: str | Path | None = None,
    episode: int | None = None, start: int | None = None, run: str = "", progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Executes and dreams a sequence of n codes from a recorded moment: frame `start` (0) of `episode` (0).

    Arguments, files and errors are those of `play_back`; nothing is measured against a recording.
    """
    codes = check_codes(codes, genie.config.num_actions)
    if len(codes) == 0:
        raise UserError(f"no codes to play: give some of 0 .. {genie.config.num_actions - 1}")
    config = config or PlaybackConfig()
    check_config(config)
    out = make_folder(out)
    _use_opengl()
    whole = source.split(measured_split(source, split))
    at = named_start(whole, episode or 0, start, None)
    ready = _prepare(genie, source, whole, [], [at], labels, config, out, run, progress)
    result = ready.result
    actions = ready.action_map.decode(codes, np.random.default_rng([config.seed, at.episode, 0]))
    film, path = _film(genie, whole, at, codes, actions, config.seed, recorded=False)
    result["codes"] = codes.tolist()
    result["data"].update(episode=at.episode, start=at.step)
    result["path"] = {"position_m": path.position.tolist(), "gripper": path.gripper.tolist()}
    result["actions"] = actions.tolist()
    result["moved_cm"] = float(100 * np.linalg.norm(path.position[-1] - path.position[0]))
    _write_film(out, "videos/typed", film, result)
    return _write(out, result, typed_markdown)


def make_folder(out: str | Path) -> Path:
    """Raises UserError where `out` is a file or cannot be made."""
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out} ({error.strerror}): give another with --out") from None
    return out


def _use_opengl() -> None:
    """So that the simulator's pictures come from the renderer that made the recorded ones, where it works here."""
    from genie_datasets.tabletop.render import use_opengl

    use_opengl()


def _prepare(
    genie: Any, source: "Source", split: "Split", starts: list[Start], films: list[Start], labels: str | Path | None,
    config: PlaybackConfig, out: Path, run: str, progress: bool,
) -> _Prepared:  # fmt: skip
    from genie_datasets.tabletop import read_recording

    check_gap(genie, split)
    read_recording(split, (starts + films)[0].episode)  # says early that there is none
    held_out = {s.episode for s in starts + films}
    file = None if labels is None else Path(labels)
    found, said = get_labels(source, split.name, held_out, file, config.num_labels, config.seed, out)
    if progress:
        print(said)
    labelled = infer(genie, source, found, config.seed, progress, None if starts else config.fit_labels)
    used = labelled.take(slice(config.fit_labels))
    action_map = ActionMap.fit(used.codes, used.actions, genie.config.num_actions, config.mode)
    first = (starts + films)[0].episode
    result = {
        "schema_version": SCHEMA_VERSION,
        "package_version": package_version(),
        "run": run,
        "data": {
            "source": source.path,
            "fingerprint": source.fingerprint,
            "split": split.name,
            "hz": float(split.hz[first]),
        },
        "settings": {
            **to_dict(config),
            "labels": len(found),
            "labels_from": said,
            "label_split": found.split,
            "fit_labels": len(used),
        },
        "map": action_map.rows(),
        "codes_without_label": action_map.unlabelled,
        "files": ["playback.json", "playback.md", *(["labels.npz"] if labels is None else [])],
    }
    return _Prepared(split, starts, labelled, used, action_map, result)


def check_config(config: PlaybackConfig) -> None:
    """Raises UserError for a number that cannot be."""
    if config.mode not in MODES:
        raise UserError(f"--mode {config.mode}: it is one of {', '.join(MODES)}")
    for name in ("num_labels", "fit_labels", "episodes", "horizon", "curve_draws"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(config, name)}")
    if config.horizon < LEAST_HORIZON:
        raise UserError(f"--horizon must be at least {LEAST_HORIZON}, not {config.horizon}")
    for name in ("curve_rollouts", "curve_episodes", "videos", "seed"):
        if getattr(config, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} must be at least 0, not {getattr(config, name)}")


def package_version() -> str:
    try:
        return version("genie-robotics")
    except PackageNotFoundError:
        return "not installed"


def _actions(split: "Split", episode: int) -> Float[np.ndarray, "L-1 7"]:
    known = read_actions(split, episode)
    assert known is not None, "an episode with simulator state has actions"
    return known[:-1]


def _headline_r2(
    action_map: ActionMap, oracle: Oracle, codes: list[np.ndarray], actions: list[np.ndarray], seed: int
) -> dict[str, Any]:
    """R2 of the map's translations over all transitions of the measured episodes, and the oracle's."""
    decoded = [action_map.decode(c, np.random.default_rng([seed, i])) for i, c in enumerate(codes)]
    count = len(codes)
    weights = np.random.default_rng([seed, 62]).multinomial(count, np.full(count, 1 / count), size=1000)
    # R2 from sums over trajectories, so that a draw is a matrix product
    true = [a[:, :3] for a in actions]
    n = np.array([len(a) for a in true], float)[:, None]
    sums = np.stack([a.sum(axis=0) for a in true])
    squares = np.stack([(a**2).sum(axis=0) for a in true])
    errors = np.stack([((a - d[:, :3]) ** 2).sum(axis=0) for a, d in zip(true, decoded, strict=True)])
    total = weights @ squares - (weights @ sums) ** 2 / (weights @ n)
    draws = (1 - (weights @ errors) / np.maximum(total, 1e-12)).mean(axis=1)
    together = np.concatenate(actions)
    return {
        "value": translation_r2(np.concatenate(decoded), together),
        "ci95": np.quantile(draws, [0.025, 0.975]).tolist(),
        "oracle": translation_r2(oracle.decode(together), together),
    }


def _film(
    genie: Any, split: "Split", start: Start, codes: Int[np.ndarray, " n"], actions: Float[np.ndarray, "n 7"],
    seed: int, recorded: bool,
) -> tuple[Film, RobotPath]:  # fmt: skip
    """The dream, the simulator and, where it is compared, the recording."""
    from genie_datasets import fit_frames

    first = np.array([start.step])
    size = split.frames(start.episode, first).shape[1:3]
    stage = Stage(split, start.episode, size)
    path = stage.execute(start.step, actions)
    truth = stage.recorded(start) if recorded else None
    stage.close()
    prompt = read_frames(genie, split, start.episode, first)
    dream = to_numpy(genie.generate(prompt[None], codes[None], seed=seed))[0]
    panels = {
        "dream": np.concatenate([prompt, dream]),
        "simulator": fit_frames(path.frames, tuple(genie.config.image_size), genie.config.fit),
    }
    if recorded:
        panels["recorded"] = read_frames(genie, split, start.episode, start.step + np.arange(len(codes) + 1))
    return Film(panels, codes, float(split.hz[start.episode]), None if truth is None else drift(path, truth)), path


def _write_film(out: Path, name: str, film: Film, result: dict[str, Any]) -> None:
    write_video(out / f"{name}.mp4", film)
    write_strip(out / f"{name}.png", film)
    result["files"] += [f"{name}.mp4", f"{name}.png"]


def _charts(
    out: Path, drifts: Drifts, curve: list[dict[str, Any]], result: dict[str, Any], some: int, num_codes: int,
    config: PlaybackConfig,
) -> None:  # fmt: skip
    from genie_eval.playback.charts import drift_chart, label_chart

    drift_chart(out / "figures/drift.png", drifts, num_codes, result["data"]["hz"], config.seed)
    result["files"].append("figures/drift.png")
    if curve:
        lines = {name: float(drifts.drift[name][:some, drifts.headline].mean()) for name in ("oracle", "zero") if some}
        oracle_r2 = result["translation_r2"]["oracle"]
        label_chart(out / "figures/labels.png", curve, oracle_r2, lines, result["settings"]["fit_labels"])
        result["files"].append("figures/labels.png")


def _write(out: Path, result: dict[str, Any], words: Any) -> dict[str, Any]:
    (out / "playback.json").write_text(json.dumps(result, indent=1))
    (out / "playback.md").write_text(words(result))
    return result
