"""Which cells make a pack: simulated annealing of swaps, over all cells at once or block by block of a kd-split.

Simulated annealing after S. Kirkpatrick et al., Science 220 (1983) 671; the kd-split after J. H. Friedman et al.,
ACM Transactions on Mathematical Software 3 (1977) 209.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from battery_sorting.grading.packing.compiled import kernels
from battery_sorting.grading.packing.objective import pack_ranges
from battery_sorting.grading.table import Floats

Report = Callable[[float], None]
"""Is told how much more was done, in cells."""

GLOBAL_CELLS = 10_000
"""Up to so many cells are annealed all at once, more in blocks."""
BLOCK_PACKS = 64
"""Packs of a block: cells of different blocks are not exchanged. Larger blocks are slower and hardly better."""
_BLOCK_CELLS = 2048
"""Blocks of large packs hold fewer of them, as the search for neighbours grows with the square."""
_BLOCK_NEIGHBOURS = 8
_BLOCK_MOVES = 100
_BLOCK_HEAT = (0.05, 0.01)
_ALL_NEIGHBOURS = 128
"""Up to so many cells each is every other's neighbour."""
_NEIGHBOURS = 16
_LEAST_MOVES = 500_000
_MOVES = 2400
_RUNS = 8
"""Small sets are annealed so many times; the best counts."""
_HEAT_FEW = (0.3, 0.001)
_HEAT = (0.1, 0.003)
"""First and last temperature in mean costs of a pack. Few cells that are all neighbours need more heat."""
_PENALTY = 2.0
"""Of a range over its cap, in mean costs of a pack."""
_ATTEMPTS = 6
"""So many numbers of packs are tried where caps keep some from being built."""


@dataclass(frozen=True)
class Search:
    """How packs are looked for.

    Attributes:
        size: Cells of a pack.
        caps: (3,) longest ranges in weighted units.
        seed: Of the random moves.
        effort: Factor on the number of moves.
        threads: Blocks that are annealed at the same time.
        report: Is told of progress, or None.
    """

    size: int
    caps: Floats
    seed: int = 0
    effort: float = 1.0
    threads: int = os.cpu_count() or 1
    report: Report | None = None

    def packs(self, points: Floats, priority: Floats) -> np.ndarray:
        """Packs of cells that keep to the caps.

        Aims for as many packs as the caps allow, then for the least cost. Without caps, n modulo size cells are
        left over: those of lowest priority.

        Args:
            points: (n, 3) in weighted units, finite.
            priority: (n,), finite.

        Returns:
            (packs, size) row numbers, perhaps none.
        """
        if len(points) < self.size:
            return self._none()
        found = self._by_blocks(points, priority) if len(points) > GLOBAL_CELLS else self._at_once(points, priority)
        order = np.argsort(found.min(axis=1), kind="stable") if len(found) else np.zeros(0, np.intp)
        return found[order]

    def _none(self) -> np.ndarray:
        return np.zeros((0, self.size), np.int64)

    # ---- up to 10,000 cells ----

    def _at_once(self, points: Floats, priority: Floats) -> np.ndarray:
        near = _neighbours(points)
        too_many = len(points) // self.size
        best = self._within_caps(points, self._annealed(points, near, priority, too_many))
        if len(best) == too_many:
            return best
        for _ in range(_ATTEMPTS):
            # With fewer packs there are more cells to choose from, and more packs may keep to the caps.
            wanted = (len(best) + too_many) // 2
            if wanted == 0:
                break
            found = self._within_caps(points, self._annealed(points, near, priority, wanted))
            best = min(best, found, key=lambda packs: self._rank(points, packs))
            if wanted + 1 >= too_many and len(found) <= wanted:
                break
            too_many = too_many if len(found) == wanted else wanted
        return best

    def _within_caps(self, points: Floats, members: np.ndarray) -> np.ndarray:
        return members[(pack_ranges(points, members) <= self.caps).all(axis=1)]

    def _annealed(self, points: Floats, near: np.ndarray, priority: Floats, packs: int) -> np.ndarray:
        """(packs, size), caps kept to where that is possible."""
        start = kd_packs(points, keep(points, priority, packs * self.size), self.size)
        count = len(points)
        if self.size == 1 or count == self.size:
            return start
        runs = _RUNS if count <= 1000 else 1
        moves = int(max(_LEAST_MOVES, _MOVES * count) * self.effort)
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            jobs = [pool.submit(self._run, points, start, near, priority, moves, run) for run in range(runs)]
            results = [job.result() for job in jobs]
        if self.report is not None:
            self.report(count)
        return min(results, key=lambda found: self._rank(points, found))

    def _run(
        self, points: Floats, start: np.ndarray, near: np.ndarray, priority: Floats, moves: int, run: int
    ) -> np.ndarray:
        members = start.copy()
        place = np.full(len(points), -1, np.int64)
        place[members.ravel()] = np.arange(members.size)
        mean = float(_costs(points, members).mean())
        if mean <= 0:
            return members
        hot, cold = (share * mean for share in (_HEAT_FEW if len(points) <= _ALL_NEIGHBOURS else _HEAT))
        kernels().anneal(
            points, members, place, near, priority, self.caps, _PENALTY * mean, hot, cold, moves, self.seed, run
        )
        return members

    def _rank(self, points: Floats, members: np.ndarray) -> tuple[int, float]:
        within = self._within_caps(points, members)
        return -len(within), float(_costs(points, within).sum())

    # ---- more cells ----

    def _by_blocks(self, points: Floats, priority: Floats) -> np.ndarray:
        rows = np.arange(len(points))
        parts: list[np.ndarray] = []
        while len(rows) >= self.size:
            if len(rows) <= GLOBAL_CELLS:
                chosen = np.ascontiguousarray(points[rows])
                parts.append(rows[self._at_once(chosen, priority[rows])])
                break
            found = rows[self._blocks(np.ascontiguousarray(points[rows]), priority[rows])]
            built = self._within_caps(points, found)
            parts.append(built)
            if len(built) == len(found) or len(built) < 0.02 * len(found):
                break
            rows = np.setdiff1d(rows, built.ravel(), assume_unique=True)
        return np.concatenate(parts) if parts else self._none()

    def _blocks(self, points: Floats, priority: Floats) -> np.ndarray:
        rows = keep(points, priority, len(points) // self.size * self.size)
        points = np.ascontiguousarray(points[rows])  # a copy, as it gets rearranged
        kernels().kd_split(points, rows, self.size)
        if self.size == 1:
            return rows.reshape(-1, 1)
        step = max(2, min(BLOCK_PACKS, _BLOCK_CELLS // self.size)) * self.size
        moves = max(1, int(_BLOCK_MOVES * self.effort))
        hot, cold = _BLOCK_HEAT

        def anneal(first: int) -> None:
            block = slice(first, first + step)
            kernels().anneal_block(
                points[block],
                rows[block],
                self.size,
                _BLOCK_NEIGHBOURS,
                self.caps,
                _PENALTY,
                hot,
                cold,
                moves,
                self.seed,
                first // step,
            )
            if self.report is not None:
                self.report(min(step, len(rows) - first))

        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            for _ in pool.map(anneal, range(0, len(rows), step)):
                pass
        return rows.reshape(-1, self.size)


def keep(points: Floats, priority: Floats, count: int) -> np.ndarray:
    """Rows (count,), ascending: those of highest priority; among equals those nearest to the middle."""
    if count == len(points):
        return np.arange(len(points))
    distance = np.abs(points - np.median(points, axis=0)).sum(axis=1)
    return np.sort(np.lexsort((distance, -priority))[:count])


def kd_packs(points: Floats, rows: np.ndarray, size: int) -> np.ndarray:
    """Packs (packs, size) of ``rows`` by halving along the widest feature, again and again."""
    chosen, numbers = np.ascontiguousarray(points[rows]), rows.astype(np.int64)
    kernels().kd_split(chosen, numbers, size)
    return numbers.reshape(-1, size)


def _neighbours(points: Floats) -> np.ndarray:
    """(n, k) rows of the others near each."""
    count = len(points)
    if count <= _ALL_NEIGHBOURS:
        others = np.arange(count - 1)[None, :]
        return np.ascontiguousarray(others + (others >= np.arange(count)[:, None]))
    found = cKDTree(points).query(points, k=_NEIGHBOURS + 1, p=1)[1]
    # Among identical cells a cell need not be its own nearest: take it out wherever it stands, else the last.
    own = found == np.arange(count)[:, None]
    own[~own.any(axis=1), -1] = True
    return np.ascontiguousarray(found[~own].reshape(count, _NEIGHBOURS), dtype=np.int64)


def _costs(points: Floats, members: np.ndarray) -> Floats:
    """(packs,) in weighted units."""
    return np.asarray(sum(pack_ranges(points, members).T))
