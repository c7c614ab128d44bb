"""Levels D, E and F: what happens when latent actions are commanded. One set of dreams, three questions.

D  does the command arrive, and who can read it?          command_bits, command_bits_physical
E  does the same sequence do the same from any start?     sequence_consistency
F  is it what would really have happened?                 counterfactual_id
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from genie_eval.codes.code_sums import code_sums
from genie_eval.collect import Evidence, to_numpy
from genie_eval.dreams import command, counterfactual, sequences
from genie_eval.dreams.channel import confusion, matched
from genie_eval.dreams.displacements import Moves, flow_moves, read_moves
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.play import Plays, both_orders, constants, from_data, play
from genie_eval.dreams.readout import Readout, ReadoutConfig
from genie_eval.dreams.readout_error import RELIABLE, ReadoutError, clip_truth, dream_motion, readout_error
from genie_eval.dreams.simulated import Simulated
from genie_eval.dreams.starts import Starts
from genie_eval.metrics import Metric, not_run, plain
from genie_eval.metrics import judge as give_verdict
from genie_eval.resampling import bootstrap_weights, interval, permutation_p

if TYPE_CHECKING:
    from genie_datasets import Split

PERMUTATIONS = 199
MOST_UNSURE = 0.25  # share of dreams the read-out may abstain from; what is left may be the better ones
COSINE, IDENTIFIED, BOTH_RIGHT = 0.80, 0.70, 0.80  # asked beside the share


@dataclass(frozen=True)
class ControlConfig:
    starts: int = 64
    """Start frames, each of another trajectory."""
    steps: int = 5
    """How often a constant code is repeated (Genie's figure: 5)."""
    pairs: int = 32
    """Sequences of two codes; each pair in both orders."""
    triples: int = 32
    """Sequences of three codes, from the data."""
    longer: int = 0
    """Sequences of five codes, from the data."""
    sampled_starts: int = 16
    """Starts from which futures of sampled actions are simulated too: the ceiling of counterfactual_id."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)


@dataclass
class Control:
    """Metrics, details for report.json, and what the figures are drawn from."""

    starts: Starts
    constant: Plays
    metrics: dict[str, Metric] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    error: ReadoutError | None = None
    moves: Moves | None = None
    simulated: Simulated | None = None
    simulated_moves: Moves | None = None
    readings: dict[str, command.Reading] = field(default_factory=dict)


@dataclass(frozen=True)
class Played:
    """The dreams of one run: constants, pairs, triples, longer ones (as far as asked for)."""

    starts: Starts
    constant: Plays
    others: dict[str, Plays]


def play_all(
    genie: Any, starts: Starts, evidence: Evidence, config: ControlConfig, batch: int, seed: int, progress: bool
) -> Played:
    """Dreams every asked sequence from every start."""
    codes, trajectory, num = evidence.codes, evidence.table.trajectory, genie.config.num_actions
    wanted = {
        "constant": constants(num, config.steps),
        "pairs": both_orders(num, config.pairs, seed) if config.pairs and num > 1 else np.zeros((0, 2), np.int64),
        "triples": from_data(codes, trajectory, 3, config.triples, seed),
        "longer": from_data(codes, trajectory, 5, config.longer, seed),
    }
    plays = {
        name: play(genie, starts, chosen, batch, seed + 1000 * n, f"dreams: {name}", progress)
        for n, (name, chosen) in enumerate(wanted.items())
        if len(chosen)
    }
    return Played(starts, plays.pop("constant"), plays)


def measure_control(
    genie: Any,
    judge_model: Any,
    evaluated: "Split",
    evidence: Evidence,
    dreams: DreamSet,
    played: Played,
    readout: Readout | str,
    simulated: Simulated | str,
    draws: int,
    seed: int,
) -> Control:
    """readout, simulated: or why there is none. judge_model: an independent model, or None."""
    starts, constant = played.starts, played.constant
    control = Control(starts, constant)
    weights = bootstrap_weights(len(starts), draws, seed)
    _command_by_codes(genie, judge_model, evidence, dreams, control, weights, seed)
    control.metrics["sequence_consistency_flow"] = _flow_sequences(flow_moves(starts, constant), weights, seed)
    if isinstance(readout, str):
        why = f"no motion read-out: {readout}"
        control.metrics |= {name: not_run(why) for name in ("sequence_consistency", "command_bits_physical")}
    else:
        _with_readout(evaluated, evidence, dreams, played, readout, control, weights, seed)
    if isinstance(simulated, str):
        control.metrics["counterfactual_id"] = not_run(simulated)
    else:
        _with_simulator(genie, evidence, played, readout, simulated, control, weights, seed)
    return control


def _command_by_codes(
    genie: Any, judge_model: Any, evidence: Evidence, dreams: DreamSet, control: Control, weights: np.ndarray, seed: int
) -> None:
    """Level D, judges that are latent action models."""
    num = genie.config.num_actions
    starts, constant = control.starts, control.constant
    own = command.reread(genie, None, starts, constant, num)
    own.ceiling = _ceiling(genie, None, dreams, num)
    own.about = "this model's own latent action model"
    control.readings["own"] = own
    rows: dict[str, Any] = {"own": own.as_json(weights)}
    for name, spoil in command.spoilers().items():
        reading = command.reread(genie, None, starts, constant, num, spoil=spoil)
        rows["own"][f"bits_after_{name}"] = reading.bits
    if judge_model is None:
        rows["independent"] = {"reason": "give another run (other seed, other data) with --judge"}
    else:
        real = dreams.truth
        theirs = to_numpy(judge_model.infer_actions(real)).ravel()
        label = matched(dreams.codes.ravel(), theirs, num, judge_model.config.num_actions)
        other = command.reread(judge_model, label, starts, constant, num)
        other.ceiling = _ceiling(judge_model, label, dreams, num)
        other.about = "an independent latent action model (--judge), its codes matched on real video"
        control.readings["independent"] = other
        rows["independent"] = other.as_json(weights)
    null, p = command.chance(own, seed)
    metric = Metric(
        value=own.bits, null=null, oracle=own.ceiling_bits, ci95=interval(own.bits_drawn(weights)), p=p,
        n_trajectories=len(starts), more={"judges": rows},
    )  # fmt: skip
    also = command.own_verdict_extras(own)
    if "independent" in control.readings:
        independent = control.readings["independent"].bits
        if independent < 0.5 * own.bits:
            also.append(f"an independent judge reads {independent:.2f} bits only")
    scale = 3 / np.log2(num)
    low, high = (scale * np.asarray(metric.ci95)).tolist()
    control.metrics["command_bits"] = give_verdict(
        "command_bits", metric, scale * own.bits, (low, high), _of_eight(num), also
    )


def _of_eight(num_codes: int) -> str:
    return "" if num_codes == 8 else f"(of {num_codes} codes, counted as of 8) "


def _ceiling(judge_model: Any, label: np.ndarray | None, dreams: DreamSet, num: int) -> np.ndarray:
    """The same judge on real transitions as the tokenizer shows them; sent: the model's code on the true frames."""
    read = to_numpy(judge_model.infer_actions(dreams.rebuilt)).ravel()
    read = read if label is None else label[read]
    sent = dreams.codes.ravel()
    return confusion(sent, read, np.zeros_like(sent), num).sum(axis=0)


def _flow_sequences(flow: Moves, weights: np.ndarray, seed: int) -> Metric:
    """Sequence consistency of optical flow, for video without truth. Flow also sees what is not the arm."""
    moved = flow.sure("flow") / _spread(flow.sure("flow"))
    share = sequences.sequence_share(moved, weights)
    if not np.isfinite(share.value):
        return not_run(f"{len(moved)} start: what a sequence does is compared between two or more")
    null = sequences.permuted_share(moved, PERMUTATIONS, seed)
    metric = Metric(
        value=share.value, null=float(null.mean()), oracle=1.0, ci95=interval(share.drawn),
        p=permutation_p(share.value, null), n_trajectories=len(moved),
        more={"by_code": share.by_sequence, "motion": "summed mean optical flow of moving pixels; not true motion"},
    )  # fmt: skip
    low, high = np.asarray(metric.ci95).tolist()
    return give_verdict("sequence_consistency_flow", metric, share.value, (low, high), what="(optical flow) ")


def _spread(moved: Float[np.ndarray, "S Q D"]) -> Float[np.ndarray, " D"]:
    spread = np.nanstd(moved.reshape(-1, moved.shape[-1]), axis=0)
    return np.where(spread > 1e-12, spread, 1.0)


def _step_spread(evidence: Evidence) -> Float[np.ndarray, " 3"]:
    """SD of true motion over one step: what makes directions comparable. One that never moves counts for nothing."""
    spread = evidence.table.motions["base"].std(axis=0)
    return np.where(spread > 1e-9, spread, np.inf)


def code_meaning(evidence: Evidence, num_codes: int) -> Float[np.ndarray, "K 3"]:
    """Mean true motion of each code in real video, one step; NaN for a code that does not occur."""
    sums = code_sums(evidence.codes, evidence.table.motions["base"], evidence.table.trajectory, num_codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums.total.sum(axis=0) / sums.count.sum(axis=0)[:, None]


def _with_readout(
    evaluated: "Split", evidence: Evidence, dreams: DreamSet, played: Played, readout: Readout, control: Control,
    weights: np.ndarray, seed: int,
) -> None:  # fmt: skip
    """Level E, and the physical judge of level D."""
    truth = clip_truth(evaluated, evidence.trajectories, dreams, readout.columns)
    error = control.error = readout_error(readout, dreams, truth)
    control.details["readout"] = error.as_json()
    control.details["dream_motion"] = dream_motion(readout, dreams, truth)
    step_spread = _step_spread(evidence)
    moves = control.moves = read_moves(readout, played.starts, played.constant)
    moved = moves.sure("base")
    share = sequences.sequence_share(moved / step_spread, weights)
    null = sequences.permuted_share(moved / step_spread, PERMUTATIONS, seed)
    alike = sequences.agreement(moved, error.by_gap[error.gap]["rms_error_mm"] / 1000)
    identified, by_start = sequences.identify(moved / step_spread)
    meaning = code_meaning(evidence, moved.shape[1])
    opposite = sequences.opposite_pairs(meaning, moved)
    noise = float((error.noise[error.gap] / step_spread**2).sum())
    more: dict[str, Any] = {
        "by_code": share.by_sequence, "response": share.response, "reliability": error.reliability,
        "corrected": _corrected(share, noise), "n_starts": len(moved), "steps": played.constant.steps,
        "cosine": alike["cosine"], "identified": identified,
        "identified_ci95": interval(weights @ np.nan_to_num(by_start) / len(by_start)),
        "chance": 1 / moved.shape[1], "opposites": opposite, "abstained": float(np.isnan(moved[..., 0]).mean()),
        "dissolved": None if moves.dissolved is None else float(moves.dissolved[:, :, -1].mean()),
    }  # fmt: skip
    control.details["sequences"] = {
        "constants": alike,
        **{name: _kind(readout, played, plays, moves, step_spread, weights) for name, plays in played.others.items()},
        "null_motion": _null_motion(evidence, moved, played.constant.steps),
    }
    more["by_kind"] = {
        name: {"value": row["value"], "ci95": row["ci95"], "steps": row["steps"]}
        for name, row in control.details["sequences"].items()
        if "value" in row
    }
    metric = Metric(
        value=share.value, null=float(null.mean()), oracle=1.0, ci95=interval(share.drawn),
        p=permutation_p(share.value, null), n_trajectories=len(moved), more=plain(more),
    )  # fmt: skip
    also = []
    if more["abstained"] > MOST_UNSURE:
        also.append(f"the read-out abstains from {more['abstained']:.0%} of the dreams")
    if not share.responds:
        also.append(f"dreams of different codes end within {share.response:.2f} SD of a usual step: no response")
    if alike["cosine"] is not None and alike["cosine"] < COSINE:
        also.append(f"directions agree by a cosine of {alike['cosine']:.2f}, below {COSINE:g}")
    if identified < IDENTIFIED:
        also.append(f"{identified:.0%} of dreams tell their code, below {IDENTIFIED:.0%}")
    if opposite["credit"] is not None and opposite["credit"] < BOTH_RIGHT:
        also.append(f"opposite codes both go the right way in {opposite['credit']:.0%}, below {BOTH_RIGHT:.0%}")
    low, high = np.asarray(metric.ci95).tolist()
    give_verdict("sequence_consistency", metric, share.value, (low, high), missing=also)
    control.metrics["sequence_consistency"] = _only_as_sure_as(metric, error)
    _physical(evidence, moves, error, control, meaning, step_spread, weights, seed)


def _corrected(share: sequences.Share, noise: float) -> float | None:
    """The share without the read-out's own noise in its denominator; secondary, never judged."""
    square = share.response**2
    return share.value * square / (square - noise) if square > 2 * noise else None


def _only_as_sure_as(metric: Metric, error: ReadoutError) -> Metric:
    """Below the asked reliability a metric that uses the read-out at most warns."""
    if not error.reliable:
        metric.reason += (
            f"; the read-out explains {error.reliability:.2f} of true displacement over {error.gap} steps, "
            f"below {RELIABLE:.2f}: at most a warning"
        )
        metric.verdict = "warn" if metric.verdict == "pass" else metric.verdict
    return metric


def _kind(
    readout: Readout, played: Played, plays: Plays, one_step: Moves, spread: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    """Sequences of different codes: the same share, and for pairs the algebra of displacements."""
    moves = read_moves(readout, played.starts, plays)
    moved = moves.sure("base")
    share = sequences.sequence_share(moved / spread, weights)
    identified, _ = sequences.identify(moved / spread)
    row: dict[str, Any] = {
        "value": share.value, "ci95": interval(share.drawn).tolist(), "steps": plays.steps, "n": len(plays.sequences),
        "identified": identified, "chance": 1 / len(plays.sequences), "sequences": plays.sequences.tolist(),
        "by_sequence": share.by_sequence,
    }  # fmt: skip
    if plays.steps == 2:
        row["algebra"] = sequences.algebra(plays.sequences, moved, one_step.sure("base", 0))
    return row


def _null_motion(evidence: Evidence, moved: Float[np.ndarray, "S K 3"], steps: int) -> dict[str, Any]:
    """The stillest code: how far its dreams drift in one step, beside the usual real motion of one step."""
    known = np.isfinite(moved).all(axis=-1)
    count = known.sum(axis=0)
    square = np.where(known, (np.where(known[..., None], moved, 0) ** 2).sum(axis=-1), 0).sum(axis=0)
    length = np.where(count > 0, np.sqrt(square / np.maximum(count, 1)), np.inf) / steps
    usual = float(np.sqrt((evidence.table.motions["base"] ** 2).sum(axis=1).mean()))
    code = int(length.argmin())
    return {"code": code, "per_step_mm": float(1000 * length[code]), "usual_step_mm": 1000 * usual,
            "ratio": float(length[code] / max(usual, 1e-12))}  # fmt: skip


def _physical(
    evidence: Evidence, moves: Moves, error: ReadoutError, control: Control, meaning: np.ndarray, spread: np.ndarray,
    weights: np.ndarray, seed: int,
) -> None:  # fmt: skip
    reading = command.physical(moves.sure("base"), meaning, spread)
    reading.about = "the read-out: which code's real motion is nearest to what the dream moved"
    control.readings["physical"] = reading
    null, p = command.chance(reading, seed)
    metric = Metric(
        value=reading.bits, null=null, oracle=None, ci95=interval(reading.bits_drawn(weights)), p=p,
        n_trajectories=len(control.starts), more={**reading.as_json(weights), "reliability": error.reliability},
    )  # fmt: skip
    num = moves.moved.shape[1]
    scale = 3 / np.log2(num)
    low, high = (scale * np.asarray(metric.ci95)).tolist()
    unsure = float(np.mean(reading.more["abstained"]))
    also = [f"the read-out abstains from {unsure:.0%} of the dreams"] if unsure > MOST_UNSURE else []
    give_verdict("command_bits_physical", metric, scale * reading.bits, (low, high), _of_eight(num), also)
    control.metrics["command_bits_physical"] = _only_as_sure_as(metric, error)


def _with_simulator(
    genie: Any, evidence: Evidence, played: Played, readout: Readout | str, simulated: Simulated, control: Control,
    weights: np.ndarray, seed: int,
) -> None:  # fmt: skip
    """Level F; and with a read-out, what the simulator itself reads at levels D and E: their ceilings."""
    starts, constant = played.starts, played.constant
    num = constant.dreams.shape[1]
    rebuilt = counterfactual.through_tokenizer(genie, starts, simulated.frames)
    picked = counterfactual.picked(counterfactual.nearest_future(constant.dreams, rebuilt))
    chosen = np.diagonal(picked, axis1=1, axis2=2)
    sampled = counterfactual.through_tokenizer(genie, starts, simulated.sampled_frames)
    best = np.diagonal(
        counterfactual.picked(counterfactual.nearest_future(sampled, rebuilt[: len(sampled)])), axis1=1, axis2=2
    )
    by_start = chosen.mean(axis=1)
    ci = interval(weights @ by_start / len(by_start))
    metric = Metric(
        value=float(by_start.mean()), null=1 / num, oracle=float(best.mean()) if best.size else 1.0, ci95=ci,
        p=counterfactual.renamed_p(picked, seed), n_trajectories=len(starts),
        more={
            "by_code": chosen.mean(axis=0).tolist(), "confusion": picked.sum(axis=0).tolist(),
            "n_futures": int(chosen.size), "steps": constant.steps,
            "oracle_is": "futures of sampled actions of the code, through the same tokenizer",
        },
    )  # fmt: skip
    also: list[str] = []
    if not isinstance(readout, str) and control.moves is not None and control.error is not None:
        true = control.simulated_moves = read_moves(readout, starts, Plays(constant.sequences, rebuilt))
        gap_error = control.error.by_gap[control.error.gap]["rms_error_mm"] / 1000
        motion = counterfactual.motion_against_truth(control.moves, true, simulated, gap_error, weights)
        metric.more["motion"] = motion
        also = counterfactual.what_is_missing(motion)
        _ceilings(evidence, true, control, weights)
    control.simulated = simulated
    low, score, high = (1 / 8 + (np.array([ci[0], by_start.mean(), ci[1]]) - 1 / num) / (1 - 1 / num) * 7 / 8).tolist()
    control.metrics["counterfactual_id"] = give_verdict(
        "counterfactual_id", metric, score, (low, high), what=_of_eight(num), missing=also
    )


def _ceilings(evidence: Evidence, true: Moves, control: Control, weights: np.ndarray) -> None:
    """What the simulator's own futures read where dreams are judged: the oracle of those metrics."""
    spread = _step_spread(evidence)
    moved = true.sure("base")
    share = sequences.sequence_share(moved / spread, weights)
    reading = command.physical(moved, code_meaning(evidence, moved.shape[1]), spread)
    control.readings["physical"].ceiling = reading.counts.sum(axis=0)
    for name, best in (("sequence_consistency", share.value), ("command_bits_physical", reading.bits)):
        if control.metrics[name].value is not None:
            control.metrics[name].oracle = best
    control.metrics["command_bits_physical"].more |= {"ceiling_bits": reading.bits}
