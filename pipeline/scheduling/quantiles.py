"""What was seen of late, in order of size."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable


class Window:
    """The last values of a stream, any quantile of which is known at once."""

    def __init__(self, size: int, values: Iterable[float] = ()):
        self._size = size
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        """Counts the values."""
        return len(self._sorted)

    def add(self, value: float) -> None:
        """Takes a value in the place of the oldest."""
        if len(self._arrived) == self._size:
            del self._sorted[bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(value)
        insort(self._sorted, value)

    def quantile(self, share: float, *, above: float | None = None) -> float:
        """Reads the value that `share` of those seen do not exceed; of those `above` a value only, where one is given. There must be some."""
        first = 0 if above is None else bisect_right(self._sorted, above)
        return self._sorted[first + min(int(share * (len(self._sorted) - first)), len(self._sorted) - first - 1)]

    def count_above(self, value: float) -> int:
        """Counts the values above this one."""
        return len(self._sorted) - bisect_right(self._sorted, value)

    def values(self) -> list[float]:
        """Lists the values, oldest first."""
        return list(self._arrived)
