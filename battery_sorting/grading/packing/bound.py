"""A lower bound on the objective: no way to build the same number of packs can be better."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.spatial import cKDTree

from battery_sorting.grading.packing.compiled import kernels
from battery_sorting.grading.table import Floats

EXACT_CELLS = 500
"""Up to so many cells the cheapest pack around each cell is found exactly."""
_STEPS = 1_000_000_000
"""So many steps are spent on that in all, an equal share on each cell: about a second."""
_CHUNK = 200_000


def lower_bound(points: Floats, size: int, packs: int, threads: int = os.cpu_count() or 1) -> float:
    """Lower bound on the summed cost of ``packs`` disjoint packs of ``size`` cells each.

    Proof. Let f(i) be the least cost of any pack that holds cell i. A pack P that holds i costs c(P) ≥ f(i);
    averaged over its cells, c(P) ≥ Σ_{i∈P} f(i) / size. The packs are disjoint, so summed over them the costs are
    at least Σ f(i) / size over the packs · size cells that are used, whichever these are, and so at least the sum
    over the packs · size cells with the smallest f. Using any f' ≤ f instead keeps the inequality.

    Up to 500 cells f is found exactly (a pack costs the side lengths of its bounding box, so boxes around each
    cell are tried). For more, and for cells where that takes too many steps, f'(i) is the L1 distance to the
    (size − 1)-th nearest other cell: one of the size − 1 mates of i is at least as far, and the ranges of a pack
    add up to no less than the L1 distance of any two of its cells.

    Caps only forbid packs, so the bound holds with and without them.

    Args:
        points: (n, 3) in weighted units.
        size: Cells of a pack.
        packs: How many there are; packs · size ≤ n.
        threads: Used at the same time.
    """
    if packs == 0 or size == 1:
        return 0.0
    least = _exact(points, size, threads) if len(points) <= EXACT_CELLS else _nearest(points, size, threads)
    used = packs * size
    return float(np.partition(least, used - 1)[:used].sum() / size)


def _nearest(points: Floats, size: int, threads: int) -> Floats:
    tree = cKDTree(points)
    least = np.empty(len(points))
    for first in range(0, len(points), _CHUNK):
        part = slice(first, first + _CHUNK)
        least[part] = tree.query(points[part], k=[size], p=1, workers=threads)[0][:, 0]
    return least


def _exact(points: Floats, size: int, threads: int) -> Floats:
    points = np.ascontiguousarray(points[np.argsort(points[:, -1], kind="stable")])
    distances, mates = cKDTree(points).query(points, k=size, p=1)
    # Among identical cells a cell may be missing from its own nearest: with it, a pack and one more that it costs.
    own = np.concatenate([mates, np.arange(len(points))[:, None]], axis=1)
    limits = np.asarray(np.ptp(points[own], axis=1).sum(axis=1)) * (1 + 1e-9)
    least = np.empty(len(points))
    caps = np.full(points.shape[1], np.inf)
    step = max(1, len(points) // (4 * threads))

    def solve(first: int) -> None:
        end = min(first + step, len(points))
        kernels().smallest_boxes(points, size, limits, caps, _STEPS // len(points), first, end, least)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for _ in pool.map(solve, range(0, len(points), step)):
            pass
    return np.where(least < 0, distances[:, -1], np.minimum(least, limits)) * (1 - 1e-9)
