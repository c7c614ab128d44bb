"""A whole playback: labels, map, execution, figures, videos and the files that hold them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from genie_datasets.base.errors import UserError
from genie_datasets.base.files import make_folder
from genie_datasets.clips.labels import read_actions
from genie_eval.collect import read_frames, to_numpy
from genie_eval.interfaces import WorldModel
from genie_eval.playback.codes import check_gap, episode_codes
from genie_eval.playback.config import PlaybackConfig
from genie_eval.playback.drift import CONTROLS, Drifts, Oracle, measure
from genie_eval.playback.film import Film, write_strip, write_video
from genie_eval.playback.label_curve import add_drift, label_curve, translation_r2
from genie_eval.playback.labeled import LabeledTransitions, get_labels, with_codes
from genie_eval.playback.rollout import RecordedEpisode, Rollout, drift
from genie_eval.playback.starts import MIN_HORIZON, Start, choose_starts, measured_split, named_start
from genie_eval.playback.summary import CURVE_INTERVAL, answer, measured_markdown, typed_markdown
from genie_eval.resampling import bootstrap_weights
from genie_eval.simulation import open_recording
from genie_robotics.labeling.action_map import MODES, ActionMap, check_codes
from genie_robotics.models.config import to_dict
from genie_robotics.run_folder import package_version

if TYPE_CHECKING:
    from genie_datasets import Source, Split

SCHEMA_VERSION = 1


@dataclasses.dataclass
class _Prepared:
    """The common part of both kinds of playback."""

    labeled: LabeledTransitions
    used: LabeledTransitions  # those that the map is fitted on
    action_map: ActionMap
    result: dict[str, Any]


def play_back(
    world: WorldModel, source: "Source", out: str | Path, config: PlaybackConfig | None = None, *,
    split: str | None = None, labels: str | Path | None = None, episode: int | None = None, start: int | None = None,
    run: str = "", progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Executes the codes of recorded episodes, decoded with labels, and measures where the robot goes.

    Args:
        world: the model, for example a `genie_robotics.Genie`.
        source: a data set whose records keep the simulator's states (`data tabletop`).
        out: folder for playback.json, playback.md, figures and videos, and labels.npz if `labels` is None.
        config: amounts and settings.
        split: the split to measure; None: 'test' if there is one.
        labels: a labels file (`genie_datasets.clips.labels.Labels`); None: true actions of random transitions.
        episode, start: the one episode (and frame) to film; None: the first measured ones.
        run: name of the run for the report.
        progress: show progress bars.

    Returns the content of playback.json.

    Raises:
        UserError: no simulator state, labels that do not fit, no episode long enough, or codes that span several steps.
    """
    config = config or PlaybackConfig()
    check_config(config)
    out = Path(out)
    make_folder(out)
    measured, num_codes, seed = source.split(measured_split(source, split)), world.config.num_actions, config.seed
    # where the labels have to come from the measured split, half of its episodes are left for them
    limit = max(1, measured.num_episodes // 2) if labels is None and len(source.splits) == 1 else None
    starts = choose_starts(measured, config.episodes, config.horizon, seed, limit)
    filmed = starts[: config.videos]
    if episode is not None:
        filmed = [named_start(measured, episode, start, config.horizon)]
    ready = _prepare(world, source, measured, starts, filmed, labels, config, out, run, progress)
    result, action_map = ready.result, ready.action_map

    episodes = [episode_codes(world, measured, s.episode) for s in starts]
    codes = np.stack([c[s.span] for c, s in zip(episodes, starts, strict=True)])
    oracle = Oracle(ready.used.actions, num_codes, seed)
    drifts = measure(measured, starts, codes, action_map, oracle, seed, progress)
    true = [_actions(measured, s.episode) for s in starts]
    curve = label_curve(
        ready.labeled, np.concatenate(episodes), np.concatenate(true), num_codes, config.curve_draws, seed
    )
    curve_episodes = min(config.curve_episodes, len(starts))
    if curve and config.curve_rollouts > 0 and curve_episodes > 0:
        add_drift(
            curve, ready.labeled, measured, starts[:curve_episodes], codes[:curve_episodes], num_codes, config.mode,
            config.curve_rollouts, seed, progress,
        )  # fmt: skip
    result["settings"].update(asked_horizon=config.horizon, horizon=starts[0].horizon)
    result["data"].update(trajectories=len(starts), transitions=int(sum(len(c) for c in episodes)))
    result["starts"] = [dataclasses.asdict(s) for s in starts]
    result["controls"] = CONTROLS
    result["headline_horizon"] = drifts.headline
    result["drift"], result["differences"] = drifts.table(seed), drifts.differences(seed)
    result["interval"] = "95 % percentile bootstrap of the mean over trajectories, for each horizon separately"
    result["translation_r2"] = _headline_r2(action_map, oracle, episodes, true, seed)
    result["curve"], result["curve_interval"] = curve, CURVE_INTERVAL
    result["unlabelled_share"] = float(np.isin(np.concatenate(episodes), action_map.unlabeled).mean())
    result["answer"] = answer(result)
    _charts(out, drifts, curve, result, curve_episodes, num_codes, config)
    for s in filmed:
        inferred = episode_codes(world, measured, s.episode)[s.span]
        actions = action_map.decode(inferred, np.random.default_rng([seed, s.episode, 0]))
        film, _ = _film(world, measured, s, inferred, actions, seed, recorded=True)
        _write_film(out, f"videos/episode_{s.episode:04d}_from_{s.step:03d}", film, result)
    return _write(out, result, measured_markdown)


def play_codes(
    world: WorldModel, source: "Source", out: str | Path, codes: Int[np.ndarray, " n"] | list[int],
    config: PlaybackConfig | None = None, *, split: str | None = None, labels: str | Path | None = None,
    episode: int | None = None, start: int | None = None, run: str = "", progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Executes and dreams a sequence of n codes from frame `start` (default 0) of `episode` (default 0).

    Arguments, files and errors are those of `play_back`. Nothing is compared with a recording.
    """
    num_codes = world.config.num_actions
    codes = check_codes(codes, num_codes)
    if len(codes) == 0:
        raise UserError(f"there are no codes to play; pass some of 0 to {num_codes - 1}")
    config = config or PlaybackConfig()
    check_config(config)
    out = Path(out)
    make_folder(out)
    measured = source.split(measured_split(source, split))
    begin = named_start(measured, episode or 0, start, None)
    ready = _prepare(world, source, measured, [], [begin], labels, config, out, run, progress)
    result = ready.result
    actions = ready.action_map.decode(codes, np.random.default_rng([config.seed, begin.episode, 0]))
    film, rollout = _film(world, measured, begin, codes, actions, config.seed, recorded=False)
    result["codes"] = codes.tolist()
    result["data"].update(episode=begin.episode, start=begin.step)
    result["path"] = {"position_m": rollout.position.tolist(), "gripper": rollout.gripper.tolist()}
    result["actions"] = actions.tolist()
    result["moved_cm"] = float(100 * np.linalg.norm(rollout.position[-1] - rollout.position[0]))
    _write_film(out, "videos/typed", film, result)
    return _write(out, result, typed_markdown)


def _prepare(
    world: WorldModel, source: "Source", split: "Split", starts: list[Start], filmed: list[Start],
    labels: str | Path | None, config: PlaybackConfig, out: Path, run: str, progress: bool,
) -> _Prepared:  # fmt: skip
    check_gap(world, split)
    first = (starts + filmed)[0].episode
    open_recording(split, first)  # fails before time is spent
    held_out = {s.episode for s in starts + filmed}
    file = None if labels is None else Path(labels)
    found, origin = get_labels(source, split.name, held_out, file, config.num_labels, config.seed, out)
    if progress:
        print(origin)
    labeled = with_codes(world, source, found, config.seed, progress, None if starts else config.fit_labels)
    used = labeled.take(slice(config.fit_labels))
    action_map = ActionMap.fit(used.codes, used.actions, world.config.num_actions, config.mode)
    data = {"source": source.path, "fingerprint": source.fingerprint, "split": split.name, "hz": float(split.hz[first])}
    settings = {"labels": len(found), "labels_from": origin, "label_split": found.split, "fit_labels": len(used)}
    result = {
        "schema_version": SCHEMA_VERSION,
        "package_version": package_version(),
        "run": run,
        "data": data,
        "settings": to_dict(config) | settings,
        "map": action_map.rows(),
        "codes_without_label": action_map.unlabeled,
        "files": ["playback.json", "playback.md", *(["labels.npz"] if labels is None else [])],
    }
    return _Prepared(labeled, used, action_map, result)


def check_config(config: PlaybackConfig) -> None:
    """Raises UserError for a value out of range."""
    if config.mode not in MODES:
        raise UserError(f"unknown --mode {config.mode}; expected one of {', '.join(MODES)}")
    smallest = dict.fromkeys(("num_labels", "fit_labels", "episodes", "curve_draws"), 1)
    smallest |= {"horizon": MIN_HORIZON}
    smallest |= dict.fromkeys(("curve_rollouts", "curve_episodes", "videos", "seed"), 0)
    for name, least in smallest.items():
        value = getattr(config, name)
        if value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


def _actions(split: "Split", episode: int) -> Float[np.ndarray, "L-1 7"]:
    actions = read_actions(split, episode)
    assert actions is not None, "an episode with simulator state has actions"
    return actions[:-1]


def _headline_r2(
    action_map: ActionMap, oracle: Oracle, codes: list[np.ndarray], actions: list[np.ndarray], seed: int
) -> dict[str, Any]:
    """R2 of the decoded translations over all transitions of the measured episodes, and the oracle's R2."""
    decoded = [action_map.decode(c, np.random.default_rng([seed, i])) for i, c in enumerate(codes)]
    weights = bootstrap_weights(len(codes), 1000, [seed, 62])
    # R2 from sums per trajectory, so that a bootstrap draw is a matrix product
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
    world: WorldModel, split: "Split", start: Start, codes: Int[np.ndarray, " n"], actions: Float[np.ndarray, "n 7"],
    seed: int, recorded: bool,
) -> tuple[Film, Rollout]:  # fmt: skip
    """The film of dream, simulator and (if `recorded`) recording, and the simulator's rollout."""
    from genie_datasets import fit_frames

    first = np.array([start.step])
    episode = RecordedEpisode(split, start.episode, split.frames(start.episode, first).shape[1:3])
    rollout = episode.execute(start.step, actions)
    truth = episode.recorded(start) if recorded else None
    episode.close()
    prompt = read_frames(world, split, start.episode, first)
    dream = to_numpy(world.generate(prompt[None], codes[None], seed=seed))[0]
    panels = {
        "dream": np.concatenate([prompt, dream]),
        "simulator": fit_frames(rollout.frames, tuple(world.config.image_size), world.config.fit),
    }
    if recorded:
        panels["recorded"] = read_frames(world, split, start.episode, start.step + np.arange(len(codes) + 1))
    distance = None if truth is None else drift(rollout, truth)
    return Film(panels, codes, float(split.hz[start.episode]), distance), rollout


def _write_film(out: Path, name: str, film: Film, result: dict[str, Any]) -> None:
    write_video(out / f"{name}.mp4", film)
    write_strip(out / f"{name}.png", film)
    result["files"] += [f"{name}.mp4", f"{name}.png"]


def _charts(
    out: Path, drifts: Drifts, curve: list[dict[str, Any]], result: dict[str, Any], curve_episodes: int,
    num_codes: int, config: PlaybackConfig,
) -> None:  # fmt: skip
    from genie_eval.playback.charts import drift_chart, label_chart

    drift_chart(out / "figures/drift.png", drifts, num_codes, result["data"]["hz"], config.seed)
    result["files"].append("figures/drift.png")
    if curve:
        shown = ("oracle", "zero") if curve_episodes else ()
        lines = {name: float(drifts.drift[name][:curve_episodes, drifts.headline].mean()) for name in shown}
        oracle_r2 = result["translation_r2"]["oracle"]
        label_chart(out / "figures/labels.png", curve, oracle_r2, lines, result["settings"]["fit_labels"])
        result["files"].append("figures/labels.png")


def _write(out: Path, result: dict[str, Any], markdown: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    (out / "playback.json").write_text(json.dumps(result, indent=1))
    (out / "playback.md").write_text(markdown(result))
    return result
