"""Results of work in threads, in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], num_ahead: int
) -> Iterator[Result]:
    """Yields `work(item)` of each item in order, like `pool.map`, with at most `num_ahead` results not yet taken."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= num_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
