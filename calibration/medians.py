"""The median of a few values, in the kernels that ask for one at each pixel: it should fit in registers, not allocate."""

import numpy as np

from calibration.jit import kernel

#: Up to the first number values are sorted by insertion, up to the second by their ranks.
_FEW, _MANY = 24, 256


# j, k = value
@kernel
def sort_first(values, n):
    """Sort the first ``n`` values, none of them NaN."""
    if n > _MANY:
        values[:n].sort()
    elif n > _FEW:
        # Each value goes to the place that its rank gives it: no branch depends on the values.
        placed = np.full(n, np.float32(np.nan))
        for j in range(n):
            value, rank = values[j], np.int32(0)
            for k in range(n):
                rank += np.int32(values[k] < value)
            while placed[rank] == value:
                rank += 1
            placed[rank] = value
        values[:n] = placed
    else:
        for j in range(1, n):
            value = values[j]
            k = j
            while k > 0 and values[k - 1] > value:
                values[k] = values[k - 1]
                k -= 1
            values[k] = value


@kernel
def median_of(values, n):
    """Median of the first ``n`` values; they are reordered."""
    if n <= _MANY:
        sort_first(values, n)
        return 0.5 * (np.float64(values[(n - 1) // 2]) + np.float64(values[n // 2]))
    # Hoare's selection of the upper middle; what is below it then stands before it.
    middle = n // 2
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if middle <= right:
            high = right
        elif middle >= left:
            low = left
        else:
            break
    upper = np.float64(values[middle])
    if n % 2:
        return upper
    lower = np.float64(values[0])
    for k in range(1, middle):
        if values[k] > lower:
            lower = np.float64(values[k])
    return 0.5 * (lower + upper)
