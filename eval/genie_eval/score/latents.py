"""Anyone's latent actions as the table that every statistic reads; what was done to the file on the way is noted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_datasets.base.errors import UserError
from genie_eval.codes.transitions import Transitions
from genie_eval.score.columns import FORMAT, first_row, integers, labels, reals, take
from genie_eval.score.motions import assumed_names, split_motion

REQUIRED = ("motion", "trajectory", "step")
OPTIONAL = ("codes", "embedding", "scene", "state", "motion_names")
MAX_ROWS = 200_000  # transitions; more make no interval visibly narrower and cost memory
LEAST_STEPS = 1000  # a trajectory is cut to a window of no fewer steps, so that MAX_ROWS hold 200 of the longest
MOST_CODES = 256  # codes in the statistics; transitions with a rarer one are left out of them
NUM_CODES = 8  # clusters of an embedding without codes
RAW_CODES = 10_000  # codes up to which the usage of every one can be counted, with an interval
MAX_CELLS = 50_000_000  # numbers of an embedding: 400 MB
DEAD = 1e-4  # share of the variance of an embedding: the least columns that together hold no more are left out


@dataclass(frozen=True)
class LatentsConfig:
    """How a file becomes a table."""

    num_codes: int | None = None
    """Size of the codebook; of several tokens, of all tuples. None: one more than the largest code; the tuples that
    occur; of an embedding without codes, 8."""
    trajectories: int | None = 1000
    """At most so many, chosen at random; none: all."""
    max_rows: int = MAX_ROWS
    seed: int = 0


@dataclass(frozen=True)
class Latents:
    """A table of M transitions and their codes in 0 .. num_codes-1.

    labels: what each code is called in the file. embedding: (M, E) latents before quantisation. motion_names:
    dimensions of `table.motions["base"]`. base_frame: whether these are x, y, z. ids: what each trajectory is called
    in the file. tokens: (W, G) where a latent action is several tokens. notes: one line each.

    guessed: whether num_codes is only what the file shows, so that the model may have more codes.

    whole_*: all W transitions with all codes, where the table has only those of the commonest; otherwise the same.
    """

    table: Transitions
    codes: Int[np.ndarray, " M"]
    num_codes: int
    labels: list[str]
    motion_names: list[str]
    base_frame: bool
    ids: np.ndarray
    whole_table: Transitions
    whole_codes: Int[np.ndarray, " W"]
    whole_num_codes: int
    tokens: Int[np.ndarray, "W G"] | None = None
    embedding: Float[np.ndarray, "M E"] | None = None
    notes: list[str] = field(default_factory=list)
    guessed: bool = False


def latents(columns: Mapping[str, np.ndarray], where: str, config: LatentsConfig | None = None) -> Latents:
    """Checks the columns of the file `where` and puts its rows in trajectory and step order.

    Raises UserError, one line: a column is missing or of the wrong type, shape or length; codes are negative; a step
    occurs twice in a trajectory.
    """
    config = config or LatentsConfig()
    missing = [name for name in REQUIRED if name not in columns]
    if "codes" not in columns and "embedding" not in columns:
        missing.insert(0, "codes (or embedding)")
    if missing:
        raise UserError(f"{where}: no {', no '.join(missing)}; it holds {', '.join(columns) or 'nothing'}; {FORMAT}")
    notes: list[str] = []
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    if unknown:
        notes.append(f"Columns of other names are not read: {', '.join(unknown)}.")

    trajectory = labels(np.asarray(columns["trajectory"]), "trajectory", where)
    if len(trajectory) == 0:
        raise UserError(f"{where}: no transitions: 'trajectory' is empty")
    rows, number, ids = _order(trajectory, columns, where, config, notes)
    everything = len(trajectory)
    del trajectory

    def column(name: str) -> np.ndarray | None:
        return take(columns, name, everything, where)[rows] if name in columns else None

    step = integers(take(columns, "step", everything, where)[rows], "step", where, rows)
    _say_gaps(number, step, notes)
    motion = reals(_needed(column("motion")), "motion", where, rows)
    names = assumed_names(columns.get("motion_names"), motion.shape[1], where)
    motions, motion_names, base_frame = split_motion(motion, names, notes, given="motion_names" in columns)
    state, scene = column("state"), column("scene")
    state = None if state is None else reals(state, "state", where, rows)
    table = Transitions(
        trajectory=number, step=step, motions=motions, position=_standardised(state),
        scene=None if scene is None else np.unique(labels(scene, "scene", where, rows), return_inverse=True)[1],
        state=state,
    )  # fmt: skip
    embedding = _embedding(columns, rows, everything, where, config, notes)
    codes, size, called, tokens = _codes(column("codes"), embedding, number, rows, where, config, notes)
    guessed = config.num_codes is None and "codes" in columns
    common = _commonest(codes, size, notes)
    if common is None:
        return Latents(
            table, codes, size, called, motion_names, base_frame, ids, table, codes, size, tokens, embedding, notes,
            guessed,
        )  # fmt: skip
    new = np.full(size, -1)
    new[common] = np.arange(len(common))
    kept = new[codes] >= 0
    return Latents(
        _rows_of(table, kept), new[codes][kept], len(common), [called[k] for k in common], motion_names, base_frame,
        ids[np.unique(number[kept])], table, codes, size, tokens, None if embedding is None else embedding[kept], notes,
        guessed,
    )  # fmt: skip


def _order(
    trajectory: np.ndarray, columns: Mapping[str, np.ndarray], where: str, config: LatentsConfig, notes: list[str]
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"], np.ndarray]:
    """(rows of the file to read, in order; number of each one's trajectory, from 0; what each number is called)."""
    rng = np.random.default_rng(config.seed)
    ids, number, length = np.unique(trajectory, return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    longest = max(LEAST_STEPS, config.max_rows // len(ids))
    order = rng.permutation(len(ids))
    kept = order if config.trajectories is None else order[: max(config.trajectories, 1)]
    fits = int(np.searchsorted(np.cumsum(np.minimum(length[kept], longest)), config.max_rows, side="right"))
    kept = np.sort(kept[: max(fits, 2)])
    if len(kept) < len(ids):
        notes.append(f"{len(kept)} of {len(ids)} trajectories were taken, at random (seed {config.seed}).")
        chosen = np.full(len(ids), -1)
        chosen[kept] = np.arange(len(kept))
        number = chosen[number]
        rows = np.flatnonzero(number >= 0)
        number = number[rows]
    else:
        rows = np.arange(len(trajectory))
    step = take(columns, "step", len(trajectory), where)
    if step.ndim != 1:
        raise UserError(f"{where}: 'step' has shape {step.shape}, not (M,)")
    step = integers(step[rows], "step", where, rows)
    if ((np.diff(step) < 0) & (np.diff(number) == 0)).any():
        notes.append("Steps inside a trajectory were out of order in the file; they have been sorted.")
    by_step = np.lexsort((step, number))
    rows, number, step = rows[by_step], number[by_step], step[by_step]
    twice = (np.diff(step) == 0) & (np.diff(number) == 0)
    if twice.any():
        at = int(np.argmax(twice))
        raise UserError(
            f"{where}: trajectory {ids[kept][number[at]]} has step {step[at]} twice (rows {rows[at]} and "
            f"{rows[at + 1]}): every transition needs a step of its own"
        )
    starts = np.searchsorted(number, np.arange(len(kept) + 1))
    over = np.flatnonzero(np.diff(starts) > longest)
    if len(over):
        keep = np.ones(len(rows), dtype=bool)
        for i in over:
            first = starts[i] + rng.integers(starts[i + 1] - starts[i] - longest + 1)
            keep[starts[i] : starts[i + 1]] = False
            keep[first : first + longest] = True
        rows, number = rows[keep], number[keep]
        notes.append(f"{len(over)} trajectories of more than {longest} steps were cut to a random window of so many.")
    return rows, number, ids[kept]


def _say_gaps(number: np.ndarray, step: np.ndarray, notes: list[str]) -> None:
    """The statistics count rows; where steps are missing, two neighbouring rows are further apart than others."""
    apart = np.diff(step)[np.diff(number) == 0]
    if len(apart) and apart.min() != apart.max():
        usual = int(np.median(apart))
        share = (apart != usual).mean()
        notes.append(
            f"Steps are not evenly spaced: {share:.1%} of neighbours are not {usual} apart. Lags and phases count "
            "transitions, not steps."
        )


def _embedding(
    columns: Mapping[str, np.ndarray], rows: np.ndarray, everything: int, where: str, config: LatentsConfig,
    notes: list[str],
) -> Float[np.ndarray, "M E"] | None:  # fmt: skip
    """A row a transition, whatever the shape in the file."""
    if "embedding" not in columns:
        return None
    given = take(columns, "embedding", everything, where)
    size = int(np.prod(given.shape[1:]))
    if size * len(rows) > MAX_CELLS:
        problem = f"'embedding' has {size} numbers in each of {len(rows)} transitions, more than {MAX_CELLS:,} in all"
        if "codes" not in columns:
            raise UserError(f"{where}: {problem}: pool its tokens or project it first, or use --trajectories")
        notes.append(f"Not read: {problem}.")
        return None
    return reals(given[rows].reshape(len(rows), -1), "embedding", where, rows)


def _needed(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values


def _standardised(state: Float[np.ndarray, "M S"] | None) -> Float[np.ndarray, "M S"] | None:
    """Each column of the state to the same scale, for the codes that only know where the arm is."""
    if state is None:
        return None
    spread = state.std(axis=0)
    return (state - state.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)


def _codes(
    given: np.ndarray | None, embedding: np.ndarray | None, number: np.ndarray, rows: np.ndarray, where: str,
    config: LatentsConfig, notes: list[str],
) -> tuple[np.ndarray, int, list[str], np.ndarray | None]:  # fmt: skip
    """(codes, how many there are, what they are called, tokens)."""
    if config.num_codes is not None and config.num_codes > RAW_CODES:
        raise UserError(
            f"--num-codes {config.num_codes}: at most {RAW_CODES}; leave it out, and the codes that occur are counted"
        )
    if given is None:
        return *_clusters(_needed(embedding), number, where, config, notes), None
    if given.ndim not in (1, 2) or given.shape[-1] == 0:
        raise UserError(f"{where}: 'codes' has shape {given.shape}, not (M,) or (M, G) for G tokens a transition")
    values = integers(given, "codes", where, rows)
    if values.min() < 0:
        row = first_row(values < 0, rows)
        raise UserError(f"{where}: 'codes' holds {values.min()} (first below 0: row {row}); codes count from 0")
    if values.ndim == 2 and values.shape[1] > 1:
        return *_tuples(values, where, config.num_codes, notes), values
    return *_numbers(values.reshape(-1), where, config.num_codes, notes), None


def _tuples(values: np.ndarray, where: str, asked: int | None, notes: list[str]) -> tuple[np.ndarray, int, list[str]]:
    """Every distinct tuple of tokens as one code; `asked` counts tuples too."""
    tuples, joint = np.unique(values, axis=0, return_inverse=True)
    occur, tokens = len(tuples), values.shape[1]
    if asked is not None and asked < occur:
        raise UserError(
            f"{where}: {occur} different tuples of {tokens} tokens occur, more than --num-codes {asked}: it counts "
            "tuples, not the values of one token; leave it out, or give the number of all tuples"
        )
    size = asked or occur
    every = f"Each transition has {tokens} tokens; every distinct tuple is one code: {occur} occur"
    notes.append(f"{every}, K = {size}" + ("." if asked else "; give --num-codes if the model has more tuples."))
    called = [f"({', '.join(map(str, row))})" for row in tuples.tolist()]
    return joint.reshape(-1), size, called + ["unused"] * (size - occur)


def _numbers(values: np.ndarray, where: str, asked: int | None, notes: list[str]) -> tuple[np.ndarray, int, list[str]]:
    """Codes as they are; numbered anew where they hardly use their range and its size was not given."""
    size = int(values.max()) + 1
    if asked is not None:
        if asked < size:
            raise UserError(
                f"{where}: 'codes' holds code {size - 1}, but --num-codes {asked} means 0 to {asked - 1}: give "
                f"{size} or more"
            )
        return values, asked, [str(code) for code in range(asked)]
    distinct, joint = np.unique(values, return_inverse=True)
    occur = len(distinct)
    if size > max(MOST_CODES, 2 * occur):  # hashes, or a vocabulary that is hardly used
        more = f"; --num-codes {size} counts all" if size <= RAW_CODES else ""
        notes.append(f"Codes go up to {size - 1}, but only {occur} occur; only these are counted: K = {occur}{more}.")
        return joint.reshape(-1), occur, [str(code) for code in distinct.tolist()]
    if occur < size:
        notes.append(f"K = {size}, the largest code + 1; give --num-codes if the model has more.")
    return values, size, [str(code) for code in range(size)]


def _clusters(
    embedding: np.ndarray, number: np.ndarray, where: str, config: LatentsConfig, notes: list[str]
) -> tuple[np.ndarray, int, list[str]]:
    """k-means of the embedding's principal components as they are: columns are not brought to one scale, so that what
    hardly moves counts for little, and how many columns there are for nothing."""
    from genie_eval.codes.motion import draw_in
    from genie_eval.codes.quantize import COMPONENTS, quantise

    size = config.num_codes or NUM_CODES
    bad = ~np.isfinite(embedding).all(axis=1)
    if bad.any():
        raise UserError(f"{where}: 'embedding' is not finite in {bad.sum()} of {len(bad)} rows; there are no 'codes'")
    if number[-1] == 0 or len(embedding) < size:
        raise UserError(f"{where}: to make {size} codes of 'embedding', 2 trajectories and {size} rows are needed")
    if size > MOST_CODES:
        raise UserError(f"--num-codes {size}: an embedding is clustered into at most {MOST_CODES} codes")
    notes.append(
        f"The file has no codes: its {embedding.shape[1]}-dimensional embedding was clustered into {size} (k-means, "
        "fitted on other trajectories)."
    )
    embedding, _ = draw_in(embedding)
    live = _live(embedding)
    codes = np.zeros(len(embedding), dtype=np.int64)
    if live.any():
        codes = quantise(embedding[:, live], number, size, components=COMPONENTS, seed=config.seed)
    return codes, size, [str(code) for code in range(size)]


def _live(embedding: Float[np.ndarray, "M E"]) -> Bool[np.ndarray, " E"]:
    """Columns without the least ones, which together hold no more than DEAD of the variance."""
    variance = embedding.var(axis=0)
    order = np.argsort(variance, kind="stable")
    least = np.cumsum(variance[order]) <= DEAD * variance.sum()
    live = np.ones(len(variance), dtype=bool)
    live[order[least]] = False
    return live


def _commonest(codes: np.ndarray, size: int, notes: list[str]) -> np.ndarray | None:
    """Which codes the statistics are of, ascending; None: all. Chosen by how often they occur and by nothing else.

    The others must not be put together as one code: its many pairs would count as "the same code" and swamp the rest
    (planted: codes of CTC 1.05 then read .20).
    """
    if size <= MOST_CODES:
        return None
    count = np.bincount(codes, minlength=size)
    common = np.sort(np.argsort(-count, kind="stable")[:MOST_CODES])
    occur = int((count > 0).sum())
    share = count[common].sum() / len(codes)
    rest = f"Usage is of all {size} codes; everything else is" if size <= RAW_CODES else "Everything is"
    if occur <= MOST_CODES:
        notes.append(f"Only {occur} of {size} codes occur. {rest} of {MOST_CODES} codes, those among them.")
    else:
        notes.append(
            f"{occur} codes occur in {len(codes)} transitions. {rest} of the {MOST_CODES} commonest, which "
            f"are {share:.0%} of the transitions."
        )
    return common


def _rows_of(table: Transitions, kept: np.ndarray) -> Transitions:
    """The same table with fewer rows; trajectories that have none left are gone."""

    def some(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else column[kept]

    return Transitions(
        trajectory=np.unique(table.trajectory[kept], return_inverse=True)[1].reshape(-1),
        step=table.step[kept], motions={name: values[kept] for name, values in table.motions.items()},
        position=some(table.position), scene=some(table.scene), state=some(table.state),
    )  # fmt: skip
