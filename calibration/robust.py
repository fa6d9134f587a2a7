"""Level and scatter of many values in spite of outliers: they are sorted once, and every clipping is then two searches.

Running sums of the values in their order, and of their squares, give the mean and the scatter of any part of them.
"""

from dataclasses import dataclass, replace

import numpy as np

#: Clipping [sigma], and its passes at most: the defaults of astropy.stats.sigma_clip.
CLIP, PASSES = 3.0, 5
#: Values of a block, of which sums are kept.
BLOCK = 4096


@dataclass(frozen=True)
class Ordered:
    """Values in rising order, of which those from ``low`` to ``high`` count; moments of blocks of them, from their middle.

    ``sums`` and ``squares`` hold the sum of all blocks before each one.
    """

    values: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    low: int
    high: int

    @classmethod
    def of(cls, values: np.ndarray) -> "Ordered":
        values = np.sort(values, axis=None)
        nblocks = values.size // BLOCK
        blocks = values[: nblocks * BLOCK].reshape(nblocks, BLOCK) - np.float64(values[values.size // 2])
        sums, squares = np.zeros(nblocks + 1), np.zeros(nblocks + 1)
        np.cumsum(blocks.sum(axis=1), out=sums[1:])
        np.cumsum(np.einsum("ij,ij->i", blocks, blocks), out=squares[1:])
        return cls(values, sums, squares, 0, values.size)

    def within(self, lowest: float, highest: float) -> "Ordered":
        """Those within two limits; one at the least."""
        low = max(self.begin(lowest), self.low)
        return replace(self, low=low, high=max(min(self.end(highest), self.high), low + 1))

    def begin(self, limit: float) -> int:
        """Place of the first value that is not below a limit."""
        key = self.values.dtype.type(limit)  # of another type, it would make numpy convert the whole array
        return int(np.searchsorted(self.values, key if key >= limit else np.nextafter(key, np.inf), "left"))

    def end(self, limit: float) -> int:
        """Place behind the last value that is not above a limit."""
        key = self.values.dtype.type(limit)
        return int(np.searchsorted(self.values, key if key <= limit else np.nextafter(key, -np.inf), "right"))

    @property
    def count(self) -> int:
        return self.high - self.low

    @property
    def first(self) -> np.floating:
        return self.values[self.low]

    @property
    def last(self) -> np.floating:
        return self.values[self.high - 1]

    @property
    def median(self) -> float:
        middle = self.low + self.count // 2
        if self.count % 2:
            return float(self.values[middle])
        return 0.5 * (float(self.values[middle - 1]) + float(self.values[middle]))

    @property
    def mean(self) -> float:
        return self._offset + self._moments()[0] / self.count

    @property
    def sigma(self) -> float:
        total, squares = self._moments()
        return float(np.sqrt(max(squares / self.count - (total / self.count) ** 2, 0.0)))

    def sigma_about(self, level: float) -> float:
        """Root mean square distance from a level."""
        shift = level - self._offset
        total, squares = self._moments()
        return float(np.sqrt(max((squares - 2 * shift * total) / self.count + shift * shift, 0.0)))

    @property
    def _offset(self) -> np.float64:
        return np.float64(self.values[self.values.size // 2])

    def _moments(self) -> tuple[float, float]:
        """Sum of the distances from the middle value, and of their squares."""
        (total, squares), (less, less_squares) = self._before(self.high), self._before(self.low)
        return total - less, squares - less_squares

    def _before(self, place: int) -> tuple[float, float]:
        block = min(place // BLOCK, self.sums.size - 1)
        rest = self.values[block * BLOCK : place] - self._offset
        return float(self.sums[block] + rest.sum()), float(self.squares[block] + rest @ rest)


def clip(values: Ordered, width: float = CLIP) -> Ordered:
    """Those within so many sigma of their median, again and again."""
    for _ in range(PASSES):
        kept = values.within(values.median - width * values.sigma, values.median + width * values.sigma)
        if kept.count == values.count:
            break
        values = kept
    return values
