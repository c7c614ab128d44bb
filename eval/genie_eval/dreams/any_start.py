"""Any start: pictures of other kinds than the model was trained on, and long dreams of simulated tables.

Does the world keep the picture it is given, and obey in it?     start_psnr, scene_retention, start_command_bits
Does a long dream keep its objects, and go on obeying?           object_permanence, long_command_bits
Does the world say when its dream is wrong?                      trust_auroc
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genie_eval.collect import Evidence
from genie_eval.dreams import trust
from genie_eval.dreams.picture_starts import PictureDreams, dream_pictures, measure_pictures
from genie_eval.dreams.starts import choose_starts
from genie_eval.dreams.table_starts import TableDreams, measure_tables
from genie_eval.interfaces import Judge, WorldModel
from genie_eval.metrics import Metric
from genie_eval.start_pictures.drawn import start_set
from genie_eval.start_pictures.picture import StartPicture

if TYPE_CHECKING:
    from genie_datasets import Split


@dataclass(frozen=True)
class AnyStartConfig:
    """Number and length of the dreams."""

    pictures: int | None = None
    """Pictures of the start set, spread over its kinds; None: all 24; 0: none."""
    steps: tuple[int, ...] = (16, 64, 180, 500)
    """Steps after which these pictures are compared with their dreams, and commands read."""
    tables: int = 16
    """Simulated tables; 0: none."""
    table_steps: tuple[int, ...] = (50, 180, 500)
    """Steps after which their objects are compared, and commands read."""


@dataclass
class AnyStart:
    """Metrics, details for report.json, and the dreams from which the figures are drawn."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    pictures: PictureDreams | None = None
    own: PictureDreams | None = None  # a user's own pictures
    tables: TableDreams | None = None


def measure_any_start(
    world: WorldModel, judge: Judge | None, config: AnyStartConfig, *, split: "Split | None" = None,
    evidence: Evidence | None = None, own: list[StartPicture] | None = None, draws: int = 2000, seed: int = 0,
    progress: bool = True,
) -> AnyStart:  # fmt: skip
    """Measures all six metrics, or those that the arguments allow.

    split, evidence: the evaluated data, from which the tables come; None: no tables. own: a user's own pictures, which
    are measured beside the start set and do not change the metrics.
    """
    result = AnyStart()
    oracle_bits: float | None = None
    if config.tables and split is not None and evidence is not None:
        starts = choose_starts(world, split, evidence, config.tables, seed)
        tables = result.tables = measure_tables(
            world, judge, split, evidence, starts, config.table_steps, draws, seed, progress
        )
        result.metrics |= tables.metrics
        steps, num = min(trust.STEPS, max(config.table_steps)), 2 * config.tables
        result.metrics["trust_auroc"] = trust.measure_trust(world, split, evidence, num, steps, draws, seed, progress)
        result.details["tables"] = tables.details
        first = tables.metrics["long_command_bits"].more["by_step"][str(config.table_steps[0])]
        for reading in first.get("simulator", {}).values():
            oracle_bits = oracle_bits if oracle_bits is not None else reading["value"]
    if config.pictures != 0:
        result.pictures = dream_pictures(world, judge, start_set(config.pictures), config.steps, seed, progress)
        metrics, result.details["pictures"] = measure_pictures(world, result.pictures, draws, seed, oracle_bits)
        result.metrics |= metrics
    if own:
        result.own = dream_pictures(world, judge, own, config.steps, seed, progress)
        metrics, details = measure_pictures(world, result.own, draws, seed, oracle_bits)
        details["metrics"] = {name: metric.as_json() for name, metric in metrics.items()}
        result.details["own"] = details
    return result
