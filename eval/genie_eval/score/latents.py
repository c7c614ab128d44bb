"""Anyone's latent actions as the table that all statistics read, with a note for every change to the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from genie_datasets.base.errors import UserError
from genie_eval.codes.motion import clip_glitches
from genie_eval.codes.quantize import COMPONENTS, quantize
from genie_eval.codes.transitions import Transitions
from genie_eval.score.columns import FORMAT, first_row, integers, labels, reals, take
from genie_eval.score.motions import assumed_names, split_motion

REQUIRED = ("motion", "trajectory", "step")
OPTIONAL = ("codes", "embedding", "scene", "state", "motion_names")
MAX_ROWS = 200_000  # transitions; more hardly narrow the intervals and cost memory
MIN_WINDOW = 1000  # steps to which a long trajectory is cut at least: MAX_ROWS hold 200 of the longest
MAX_CODES = 256  # codes in the statistics; transitions with a rarer code are left out
NUM_CODES = 8  # clusters of an embedding without codes
MAX_USAGE_CODES = 10_000  # largest codebook of which the usage of every code is counted, with an interval
MAX_CELLS = 50_000_000  # numbers of an embedding: 400 MB
DEAD_VARIANCE = 1e-4  # share of the variance of an embedding that its smallest columns may hold to be left out


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """Conversion of a file to a table."""

    num_codes: int | None = None
    """Size of the codebook (of all tuples, where there are several tokens). None: one more than the largest code; the
    number of tuples that occur; 8 clusters of an embedding without codes."""
    trajectories: int | None = 1000
    """Largest number of random trajectories; None: all that fit."""
    max_rows: int = MAX_ROWS
    """Transitions beyond which whole trajectories are left out."""
    seed: int = 0


@dataclass(frozen=True)
class Latents:
    """A table of M transitions and their codes in 0 .. num_codes-1.

    labels: name of each code in the file. motion_names: dimensions of `table.motions["base"]`. base_frame: whether
    these are x, y, z. ids: name of each trajectory in the file. tokens: the tokens of a latent action, where it has
    several. embedding: latents before quantization. notes: one line each. guessed: num_codes is only what the file
    shows, and the model may have more codes.

    whole_*: all W transitions with all codes; the table has only those with one of the most common codes.
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
    """Checks the columns of the file `where` and sorts its rows by trajectory and step.

    Raises:
        UserError: a column is missing or has a wrong type, shape or length; codes are negative; a step occurs twice in
            a trajectory.
    """
    config = config or LatentsConfig()
    missing = [name for name in REQUIRED if name not in columns]
    if "codes" not in columns and "embedding" not in columns:
        missing.insert(0, "codes (or embedding)")
    if missing:
        raise UserError(f"{where} has no {', no '.join(missing)}, only {', '.join(columns) or 'nothing'}; {FORMAT}")
    notes: list[str] = []
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    if unknown:
        notes.append(f"Unknown columns are not read: {', '.join(unknown)}.")

    trajectory = labels(np.asarray(columns["trajectory"]), "trajectory", where)
    if len(trajectory) == 0:
        raise UserError(f"{where} has no transitions: 'trajectory' is empty; {FORMAT}")
    rows, number, ids = _order(trajectory, columns, where, config, notes)
    everything = len(trajectory)
    del trajectory

    def column(name: str) -> np.ndarray | None:
        return take(columns, name, everything, where)[rows] if name in columns else None

    step = integers(take(columns, "step", everything, where)[rows], "step", where, rows)
    _note_gaps(number, step, notes)
    motion = reals(_needed(column("motion")), "motion", where, rows)
    names = assumed_names(columns.get("motion_names"), motion.shape[1], where)
    motions, motion_names, base_frame = split_motion(motion, names, notes, given="motion_names" in columns)
    state, scene = column("state"), column("scene")
    state = None if state is None else reals(state, "state", where, rows)
    table = Transitions(
        trajectory=number, step=step, motions=motions, position=_standardized(state),
        scene=None if scene is None else np.unique(labels(scene, "scene", where, rows), return_inverse=True)[1],
        state=state,
    )  # fmt: skip
    embedding = _embedding(columns, rows, everything, where, config, notes)
    codes, size, called, tokens = _codes(column("codes"), embedding, number, rows, where, config, notes)
    guessed = config.num_codes is None and "codes" in columns
    whole = Latents(
        table, codes, size, called, motion_names, base_frame, ids, table, codes, size, tokens, embedding, notes, guessed
    )
    common = _most_common(codes, size, notes)
    if common is None:
        return whole
    new = np.full(size, -1)
    new[common] = np.arange(len(common))
    kept = new[codes] >= 0
    left, renumbered = np.unique(number[kept], return_inverse=True)
    return replace(
        whole, table=table.select(kept, renumbered.reshape(-1)), codes=new[codes][kept], num_codes=len(common),
        labels=[called[k] for k in common], ids=ids[left], embedding=None if embedding is None else embedding[kept],
    )  # fmt: skip


def _order(
    trajectory: np.ndarray, columns: Mapping[str, np.ndarray], where: str, config: LatentsConfig, notes: list[str]
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"], np.ndarray]:
    """(rows of the file to read, in order; number of their trajectories, from 0; name of each trajectory)."""
    rng = np.random.default_rng(config.seed)
    ids, number, length = np.unique(trajectory, return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    longest = max(MIN_WINDOW, config.max_rows // len(ids))
    order = rng.permutation(len(ids))
    kept = order if config.trajectories is None else order[: max(config.trajectories, 1)]
    fits = int(np.searchsorted(np.cumsum(np.minimum(length[kept], longest)), config.max_rows, side="right"))
    kept = np.sort(kept[: max(fits, 2)])
    if len(kept) < len(ids):
        notes.append(f"{len(kept)} of {len(ids)} trajectories were chosen at random (seed {config.seed}).")
        chosen = np.full(len(ids), -1)
        chosen[kept] = np.arange(len(kept))
        number = chosen[number]
        rows = np.flatnonzero(number >= 0)
        number = number[rows]
    else:
        rows = np.arange(len(trajectory))
    step = take(columns, "step", len(trajectory), where)
    if step.ndim != 1:
        raise UserError(f"{where}: 'step' must have shape (M,), got {step.shape}; {FORMAT}")
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
            f"{rows[at + 1]}); give every transition of a trajectory its own step"
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
        notes.append(f"{len(over)} trajectories were cut to a random window of {longest} steps.")
    return rows, number, ids[kept]


def _note_gaps(number: np.ndarray, step: np.ndarray, notes: list[str]) -> None:
    """Notes missing steps, since the statistics count rows, not steps."""
    apart = np.diff(step)[np.diff(number) == 0]
    if len(apart) and apart.min() != apart.max():
        usual = int(np.median(apart))
        share = (apart != usual).mean()
        notes.append(
            f"Steps are not evenly spaced: {share:.1%} of neighboring rows are not {usual} apart. Lags and phases "
            "count rows, not steps."
        )


def _embedding(
    columns: Mapping[str, np.ndarray], rows: np.ndarray, everything: int, where: str, config: LatentsConfig,
    notes: list[str],
) -> Float[np.ndarray, "M E"] | None:  # fmt: skip
    """The embedding with one row per transition; None where the file has none or it is too large."""
    if "embedding" not in columns:
        return None
    given = take(columns, "embedding", everything, where)
    size = int(np.prod(given.shape[1:]))
    if size * len(rows) > MAX_CELLS:
        problem = f"'embedding' has {size} numbers in each of {len(rows)} transitions, more than {MAX_CELLS:,} in all"
        if "codes" not in columns:
            raise UserError(f"{where}: {problem}; pool its tokens, project it, or pass fewer --trajectories")
        notes.append(f"Not read: {problem}.")
        return None
    return reals(given[rows].reshape(len(rows), -1), "embedding", where, rows)


def _needed(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values


def _standardized(state: Float[np.ndarray, "M S"] | None) -> Float[np.ndarray, "M S"] | None:
    """Columns of the state at the same scale, for the codes that depend on the arm's position alone."""
    if state is None:
        return None
    spread = state.std(axis=0)
    return (state - state.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)


def _codes(
    given: np.ndarray | None, embedding: np.ndarray | None, number: np.ndarray, rows: np.ndarray, where: str,
    config: LatentsConfig, notes: list[str],
) -> tuple[np.ndarray, int, list[str], np.ndarray | None]:  # fmt: skip
    """(codes, number of codes, name of each code, tokens)."""
    if config.num_codes is not None and config.num_codes > MAX_USAGE_CODES:
        raise UserError(
            f"--num-codes must be at most {MAX_USAGE_CODES}, got {config.num_codes}; leave it out to count the codes "
            "that occur"
        )
    if given is None:
        return *_clusters(_needed(embedding), number, where, config, notes), None
    if given.ndim not in (1, 2) or given.shape[-1] == 0:
        raise UserError(f"{where}: 'codes' must have shape (M,), or (M, G) for G tokens, got {given.shape}; {FORMAT}")
    values = integers(given, "codes", where, rows)
    if values.min() < 0:
        row = first_row(values < 0, rows)
        raise UserError(f"{where}: 'codes' must count from 0, got {values.min()} (first below 0: row {row}); renumber")
    if values.ndim == 2 and values.shape[1] > 1:
        return *_tuples(values, where, config.num_codes, notes), values
    return *_numbers(values.reshape(-1), where, config.num_codes, notes), None


def _tuples(values: np.ndarray, where: str, asked: int | None, notes: list[str]) -> tuple[np.ndarray, int, list[str]]:
    """Every distinct tuple of tokens as one code; `asked` is the number of tuples."""
    tuples, joint = np.unique(values, axis=0, return_inverse=True)
    occur, tokens = len(tuples), values.shape[1]
    if asked is not None and asked < occur:
        raise UserError(
            f"{where}: {occur} different tuples of {tokens} tokens occur, more than --num-codes {asked}; it is the "
            "number of all tuples, not of the values of one token: leave it out or increase it"
        )
    size = asked or occur
    every = f"Each transition has {tokens} tokens; every distinct tuple is one code: {occur} occur"
    notes.append(f"{every}, K = {size}" + ("." if asked else "; pass --num-codes if the model has more tuples."))
    called = [f"({', '.join(map(str, row))})" for row in tuples.tolist()]
    return joint.reshape(-1), size, called + ["unused"] * (size - occur)


def _numbers(values: np.ndarray, where: str, asked: int | None, notes: list[str]) -> tuple[np.ndarray, int, list[str]]:
    """Codes as they are; renumbered where they hardly use their range and its size was not given."""
    size = int(values.max()) + 1
    if asked is not None:
        if asked < size:
            raise UserError(
                f"{where}: 'codes' holds code {size - 1}, but --num-codes {asked} allows 0 to {asked - 1}; pass {size} "
                "or more"
            )
        return values, asked, [str(code) for code in range(asked)]
    distinct, joint = np.unique(values, return_inverse=True)
    occur = len(distinct)
    if size > max(MAX_CODES, 2 * occur):  # hashes, or a large vocabulary of which little is used
        more = f"; --num-codes {size} counts all" if size <= MAX_USAGE_CODES else ""
        notes.append(f"Codes go up to {size - 1}, but only {occur} occur; only these are counted: K = {occur}{more}.")
        return joint.reshape(-1), occur, [str(code) for code in distinct.tolist()]
    if occur < size:
        notes.append(f"K = {size}, the largest code + 1; pass --num-codes if the model has more.")
    return values, size, [str(code) for code in range(size)]


def _clusters(
    embedding: np.ndarray, number: np.ndarray, where: str, config: LatentsConfig, notes: list[str]
) -> tuple[np.ndarray, int, list[str]]:
    """Codes by k-means on the embedding's principal components.

    Columns are not standardized, so that those that hardly vary have little weight.
    """
    size = config.num_codes or NUM_CODES
    bad = ~np.isfinite(embedding).all(axis=1)
    if bad.any():
        raise UserError(
            f"{where}: 'embedding' is not finite in {bad.sum()} of {len(bad)} rows and cannot be clustered; fix the "
            "rows or add 'codes'"
        )
    if number[-1] == 0 or len(embedding) < size:
        raise UserError(
            f"{where}: clustering 'embedding' into {size} codes needs 2 trajectories and {size} rows, got "
            f"{number[-1] + 1} and {len(embedding)}; add more"
        )
    if size > MAX_CODES:
        raise UserError(
            f"--num-codes, the clusters made of continuous latents, must be at most {MAX_CODES}, got {size}; "
            "pass a smaller number"
        )
    notes.append(
        f"The file has no codes: its {embedding.shape[1]}-dimensional embedding was clustered into {size} codes "
        "(k-means, fitted on other trajectories)."
    )
    embedding, _ = clip_glitches(embedding)
    live = _live(embedding)
    codes = np.zeros(len(embedding), dtype=np.int64)
    if live.any():
        codes = quantize(embedding[:, live], number, size, components=COMPONENTS, seed=config.seed)
    return codes, size, [str(code) for code in range(size)]


def _live(embedding: Float[np.ndarray, "M E"]) -> Bool[np.ndarray, " E"]:
    """Mask without the smallest columns, which together hold at most DEAD_VARIANCE of the variance."""
    variance = embedding.var(axis=0)
    order = np.argsort(variance, kind="stable")
    least = np.cumsum(variance[order]) <= DEAD_VARIANCE * variance.sum()
    live = np.ones(len(variance), dtype=bool)
    live[order[least]] = False
    return live


def _most_common(codes: np.ndarray, size: int, notes: list[str]) -> np.ndarray | None:
    """The MAX_CODES most common codes, ascending, to which the statistics are restricted; None: all.

    The others must not be merged into one code: its many pairs would count as "the same code" and dominate the rest
    (planted codes of CTC 1.05 then read 0.20).
    """
    if size <= MAX_CODES:
        return None
    count = np.bincount(codes, minlength=size)
    common = np.sort(np.argsort(-count, kind="stable")[:MAX_CODES])
    occur = int((count > 0).sum())
    share = count[common].sum() / len(codes)
    rest = f"Usage is of all {size} codes; all other metrics are" if size <= MAX_USAGE_CODES else "All metrics are"
    if occur <= MAX_CODES:
        notes.append(f"Only {occur} of {size} codes occur. {rest} of {MAX_CODES} codes, which include these.")
    else:
        notes.append(
            f"{occur} codes occur in {len(codes)} transitions. {rest} of the {MAX_CODES} most common ones, which "
            f"have {share:.0%} of the transitions."
        )
    return common
