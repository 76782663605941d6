"""Which cells of a pack stand side by side: groups of equal capacity, alike in resistance and OCV."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from battery_sorting.grading.packing.compiled import kernels
from battery_sorting.grading.packing.layout import Layout
from battery_sorting.grading.packing.objective import Objective
from battery_sorting.grading.table import Floats

CAPACITY_FIRST = 30.0
"""How much more than its λ the groups' capacity counts: the weakest group ends the discharge of the whole pack."""
_MOVES_PER_CELL = 200
_CHUNK = 256


def arrange(
    rows: Floats,
    members: np.ndarray,
    layout: Layout,
    objective: Objective,
    seed: int,
    threads: int = os.cpu_count() or 1,
) -> np.ndarray:
    """The same packs with each ``layout.parallel`` cells in a row as a parallel group.

    Longest first (R. L. Graham, SIAM Journal on Applied Mathematics 17 (1969) 416), then swaps between groups.

    Args:
        rows: (n, 3) cells.
        members: (packs, size) row numbers.
        layout: Of every pack. All in series or all in parallel: nothing is to be done.
        objective: Gives scales and weights.
        seed: Of the swaps.
        threads: Used at the same time.
    """
    if layout.parallel == 1 or layout.series == 1 or not len(members):
        return members
    arranged = np.ascontiguousarray(members)
    points = objective.points(rows)
    alike = np.ascontiguousarray(points[:, 1:])
    capacity = np.ascontiguousarray(points[:, 0])
    moves = _MOVES_PER_CELL * layout.size * (10 if len(members) <= 1000 else 1)

    def run(first: int) -> None:
        end = min(first + _CHUNK, len(arranged))
        kernels().arrange(capacity, alike, arranged, layout.parallel, CAPACITY_FIRST, moves, seed, first, end)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for _ in pool.map(run, range(0, len(arranged), _CHUNK)):
            pass
    return arranged


def group_capacities(rows: Floats, members: np.ndarray, layout: Layout) -> Floats:
    """(packs, series) capacity of each parallel group in Ah."""
    shape = (len(members), layout.series, layout.parallel)
    return np.asarray(rows[:, 0][members].reshape(shape).sum(axis=2))
