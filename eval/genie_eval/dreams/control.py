"""Commanded dreams: one set of dreams in which chosen codes are played, and three questions about it.

Does the command arrive, and who can read it?          command_bits, command_bits_physical (`command`)
Does the same sequence do the same from any start?     sequence_consistency (`sequences`)
Is it what would really have happened?                 counterfactual_id (`counterfactual`)
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_eval.collect import Evidence
from genie_eval.dreams.command import command_bits, command_bits_physical
from genie_eval.dreams.context import ControlContext, MeasuredMotion
from genie_eval.dreams.counterfactual import counterfactual_id
from genie_eval.dreams.displacements import Displacements, read_displacements
from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.play import (
    CommandedDreams,
    SequenceDreams,
    constant_sequences,
    dream_sequences,
    pairs_in_both_orders,
    sequences_from_data,
)
from genie_eval.dreams.readout import Readout, ReadoutConfig
from genie_eval.dreams.readout_error import ReadoutError, calibrate, clip_truth, dream_motion
from genie_eval.dreams.sequences import sequence_consistency, sequence_consistency_flow
from genie_eval.dreams.simulated import SimulatedFutures
from genie_eval.dreams.starts import Starts
from genie_eval.interfaces import Judge, WorldModel
from genie_eval.metrics import Metric
from genie_eval.resampling import bootstrap_weights

if TYPE_CHECKING:
    from genie_datasets import Split


@dataclass(frozen=True)
class ControlConfig:
    """Number of commanded dreams."""

    starts: int = 64
    """Start frames, each of another trajectory."""
    steps: int = 5
    """Repetitions of a constant code (5 in Genie's figure 12)."""
    pairs: int = 32
    """Sequences of two codes; each pair in both orders."""
    triples: int = 32
    """Sequences of three codes that occur in the data."""
    longer: int = 0
    """Sequences of five codes that occur in the data."""
    sampled_starts: int = 16
    """Starts with futures of sampled actions, the oracle of counterfactual_id."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)


@dataclass
class Control:
    """Metrics, details for report.json, and the arrays from which the figures are drawn."""

    starts: Starts
    constant: SequenceDreams
    metrics: dict[str, Metric] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    error: ReadoutError | None = None  # these three: None without a read-out
    displacements: Displacements | None = None
    simulated_displacements: Displacements | None = None


def dream_commands(
    world: WorldModel, starts: Starts, evidence: Evidence, config: ControlConfig, batch: int, seed: int, progress: bool
) -> CommandedDreams:
    """Generates every chosen sequence from every start."""
    codes, trajectory, num_codes = evidence.codes, evidence.table.trajectory, world.config.num_actions
    pairs = np.zeros((0, 2), np.int64)
    if config.pairs and num_codes > 1:
        pairs = pairs_in_both_orders(num_codes, config.pairs, seed)
    wanted = {
        "constant": constant_sequences(num_codes, config.steps),
        "pairs": pairs,
        "triples": sequences_from_data(codes, trajectory, 3, config.triples, seed),
        "longer": sequences_from_data(codes, trajectory, 5, config.longer, seed),
    }
    played = {
        name: dream_sequences(world, starts, sequences, batch, seed + 1000 * n, f"dreams: {name}", progress)
        for n, (name, sequences) in enumerate(wanted.items())
        if len(sequences)
    }
    return CommandedDreams(starts, played.pop("constant"), played)


def measure_control(
    world: WorldModel,
    judge: Judge | None,
    evaluated: "Split",
    evidence: Evidence,
    dreams: DreamSet,
    commanded: CommandedDreams,
    readout: Readout | str,
    futures: SimulatedFutures | str,
    draws: int,
    seed: int,
) -> Control:
    """Measures all metrics of commanded dreams.

    judge: an independent latent action model. readout, futures: a string is the reason why there is none.
    """
    control = Control(commanded.starts, commanded.constant)
    if not isinstance(futures, str):
        futures = futures.reconstructed(world, commanded.starts)
    motion: MeasuredMotion | str = f"no motion read-out: {readout}"
    if not isinstance(readout, str):
        truth = clip_truth(evaluated, evidence.trajectories, dreams, readout.columns)
        readout, error = calibrate(readout, dreams, truth)
        starts, constant = commanded.starts, commanded.constant
        simulated = None
        if not isinstance(futures, str):
            simulated = read_displacements(readout, starts, SequenceDreams(constant.sequences, futures.frames))
        motion = MeasuredMotion(readout, error, read_displacements(readout, starts, constant), simulated)
        control.error, control.displacements = error, motion.dreams
        control.simulated_displacements = motion.futures
        control.details["readout"] = error.as_json()
        control.details["dream_motion"] = dream_motion(readout, dreams, truth)
    weights = bootstrap_weights(len(commanded.starts), draws, seed)
    context = ControlContext(world, judge, evidence, dreams, commanded, futures, motion, weights, seed)
    consistency, details = sequence_consistency(context)
    if details:
        control.details["sequences"] = details
    control.metrics = {
        "command_bits": command_bits(context),
        "sequence_consistency_flow": sequence_consistency_flow(context),
        "sequence_consistency": consistency,
        "command_bits_physical": command_bits_physical(context),
        "counterfactual_id": counterfactual_id(context),
    }
    return control
