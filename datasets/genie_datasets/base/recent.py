"""A cache of the items that were used last."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class RecentItems(Generic[Item]):
    """Keeps the items used last, up to `limit`; thread-safe. A pickled copy is empty, so workers fill their own.

    limit: number of items, or bytes if `count_bytes` (then an item has `nbytes`).
    """

    def __init__(self, limit: int, count_bytes: bool = False):
        self.limit, self.count_bytes = limit, count_bytes
        self._items: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self):
        return RecentItems, (self.limit, self.count_bytes)

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable, make: Callable[[], Item]) -> Item:
        """The item of `key`; `make` is called if it is not kept."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        item = make()
        with self._lock:
            self._items[key] = item
            while self._size() > self.limit:
                self._items.popitem(last=False)
        return item

    def _size(self) -> int:
        return sum(item.nbytes for item in self._items.values()) if self.count_bytes else len(self._items)
