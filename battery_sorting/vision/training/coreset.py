"""A few rows that stand for many."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np


def farthest_first(
    rows: np.ndarray, count: int, first: int = 0, watched: Callable[[range], Iterable[int]] = iter
) -> np.ndarray:
    """Numbers of ``count`` rows (n, d) near which all others lie, in the order in which they were chosen.

    Each is the one farthest from those before it: greedy k-centre (Gonzalez, *Clustering to Minimize the Maximum
    Intercluster Distance*, 1985), from row ``first`` on. ``watched`` may show how far it is.
    """
    lengths = 0.5 * np.einsum("nd,nd->n", rows, rows)

    def distance(row: int) -> np.ndarray:
        """Half the squared distance, as a product: rows are many, and this is asked for each that is chosen."""
        return np.asarray(lengths + lengths[row] - rows @ rows[row])

    chosen = [first]
    nearest = distance(first)
    for _ in watched(range(count - 1)):
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, distance(chosen[-1]), out=nearest)
    return np.array(chosen)
