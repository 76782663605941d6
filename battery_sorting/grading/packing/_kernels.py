"""Inner loops of pack building, compiled by numba. Points are in weighted units: a pack costs its ranges' sum.

Every kernel releases the GIL and draws its random numbers from a generator of its own (xorshift64, G. Marsaglia,
Journal of Statistical Software 8 (2003) 14), so results don't depend on threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """``function``, compiled when it is first called and kept on disk where there is a place to write."""
    try:
        return cast(F, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # no folder of Python's or numba's cache can be written
        return cast(F, njit(nogil=True)(function))


@compiled
def _random(state: Any) -> Any:
    x = state[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = x
    return x


@compiled
def _below(state: Any, limit: int) -> int:
    """A random integer of 0 … limit − 1."""
    drawn = ((_random(state) >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)
    return np.int64(drawn)  # type: ignore[return-value]  # an int once compiled


@compiled
def _unit(state: Any) -> float:
    """A random number in (0, 1]."""
    return (float(_random(state) >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740993.0)


@compiled
def _seeded(seed: int, number: int) -> Any:
    """State of a generator: splitmix64 of seed and number (G. Steele et al., OOPSLA 2014), never 0."""
    x = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number + 1) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = np.empty(1, np.uint64)
    state[0] = (x ^ (x >> np.uint64(31))) | np.uint64(1)
    return state


@compiled
def pack_cost(points: Any, members: Any, pack: int, slot: int, cell: int, caps: Any, penalty: float) -> float:
    """Cost of a pack with ``cell`` in ``slot``. Each range over its cap costs ``penalty`` · (1 + excess / cap)."""
    size = members.shape[1]
    total = 0.0
    for feature in range(points.shape[1]):
        low = high = points[cell, feature]
        for other in range(size):
            if other != slot:
                value = points[members[pack, other], feature]
                low = min(low, value)
                high = max(high, value)
        width = high - low
        total += width
        if width > caps[feature]:
            total += penalty * (width / caps[feature])
    return total


@compiled
def nearest(points: Any, count: int, out: Any) -> None:
    """``out`` (n, count): row numbers of the other points with the least L1 distance, nearest first."""
    n = points.shape[0]
    distances = np.empty(count)
    for i in range(n):
        filled = 0
        for j in range(n):
            if j == i:
                continue
            distance = 0.0
            for feature in range(points.shape[1]):
                distance += abs(points[i, feature] - points[j, feature])
            if filled == count and distance >= distances[count - 1]:
                continue
            at = filled if filled < count else count - 1
            while at > 0 and distances[at - 1] > distance:
                distances[at] = distances[at - 1]
                out[i, at] = out[i, at - 1]
                at -= 1
            distances[at] = distance
            out[i, at] = j
            filled = min(filled + 1, count)


@compiled
def anneal(
    points: Any,
    members: Any,
    place: Any,
    near: Any,
    priority: Any,
    caps: Any,
    penalty: float,
    hot: float,
    cold: float,
    moves: int,
    seed: int,
    number: int,
) -> None:
    """Simulated annealing of swaps, in place.

    A move takes a cell out of a pack and, in exchange, a neighbour of one of its mates in: from another pack, or
    from the cells left over unless their priority is lower. The temperature falls geometrically.

    Args:
        points: (n, d) in weighted units.
        members: (packs, size) cells of each pack.
        place: (n,) pack · size + slot of each cell, −1 for those left over.
        near: (n, k) neighbours of each cell.
        priority: (n,).
        caps: (d,) in weighted units.
        penalty: Of a range over its cap.
        hot: First temperature.
        cold: Last temperature.
        moves: How many are tried.
        seed: Of the random generator.
        number: Of this annealing: each draws other numbers from the same seed.
    """
    packs, size = members.shape
    state = _seeded(seed, number)
    costs = np.empty(packs)
    for pack in range(packs):
        costs[pack] = pack_cost(points, members, pack, 0, members[pack, 0], caps, penalty)
    temperature = hot
    cooling = (cold / hot) ** (1.0 / max(1, moves // 256))
    for move in range(moves):
        if move & 255 == 255:
            temperature *= cooling
        pack = _below(state, packs)
        slot = _below(state, size)
        mate = members[pack, _below(state, size)]
        comes = near[mate, _below(state, near.shape[1])]
        goes = members[pack, slot]
        there = place[comes]
        if mate == goes or (there >= 0 and there // size == pack):
            continue
        if there < 0 and priority[comes] < priority[goes]:
            continue
        limit = -temperature * math.log(_unit(state))
        mine = pack_cost(points, members, pack, slot, comes, caps, penalty)
        change = mine - costs[pack]
        if there >= 0:
            other = there // size
            theirs = pack_cost(points, members, other, there % size, goes, caps, penalty)
            if change + theirs - costs[other] > limit:
                continue
            members[other, there % size] = goes
            costs[other] = theirs
        elif change > limit:
            continue
        place[goes] = there
        members[pack, slot] = comes
        place[comes] = pack * size + slot
        costs[pack] = mine


@compiled
def _select(points: Any, ids: Any, first: int, end: int, at: int, feature: int) -> None:
    """Hoare's selection: rows first…end are rearranged so that none before ``at`` exceeds one behind."""
    low = first
    high = end - 1
    while low < high:
        a = points[low, feature]
        b = points[(low + high) // 2, feature]
        c = points[high, feature]
        pivot = max(min(a, b), min(max(a, b), c))
        i = low
        j = high
        while i <= j:
            while points[i, feature] < pivot:
                i += 1
            while points[j, feature] > pivot:
                j -= 1
            if i <= j:
                for column in range(points.shape[1]):
                    kept = points[i, column]
                    points[i, column] = points[j, column]
                    points[j, column] = kept
                kept_id = ids[i]
                ids[i] = ids[j]
                ids[j] = kept_id
                i += 1
                j -= 1
        if at <= j:
            high = j
        elif at >= i:
            low = i
        else:
            break


@compiled
def kd_split(points: Any, ids: Any, size: int) -> None:
    """Rearrange points (n, d) and ids (n,), n a multiple of ``size``, so that each ``size`` in a row are a pack.

    Halves along the widest feature, at a multiple of ``size``, until single packs are left.
    """
    begins = [0]
    ends = [points.shape[0]]
    while len(begins) > 0:
        first = begins.pop()
        end = ends.pop()
        packs = (end - first) // size
        if packs <= 1:
            continue
        widest = 0
        width = -1.0
        for feature in range(points.shape[1]):
            low = high = points[first, feature]
            for row in range(first, end):
                low = min(low, points[row, feature])
                high = max(high, points[row, feature])
            if high - low > width:
                width = high - low
                widest = feature
        middle = first + (packs // 2) * size
        _select(points, ids, first, end, middle, widest)
        begins.append(first)
        ends.append(middle)
        begins.append(middle)
        ends.append(end)


@compiled
def anneal_block(
    points: Any,
    ids: Any,
    size: int,
    neighbours: int,
    caps: Any,
    penalty: float,
    hot: float,
    cold: float,
    moves_per_cell: int,
    seed: int,
    number: int,
) -> None:
    """Anneal the packs of one block, given as `kd_split` leaves them, and rearrange points and ids to the result.

    ``penalty``, ``hot`` and ``cold`` are shares of the block's mean cost per pack. ``number`` is the block's
    and makes its seed.
    """
    n = points.shape[0]
    packs = n // size
    members = np.arange(n).reshape(packs, size)
    place = np.arange(n)
    priority = np.zeros(n)
    near = np.empty((n, min(neighbours, n - 1)), np.int64)
    nearest(points, near.shape[1], near)
    mean = 0.0
    for pack in range(packs):
        mean += pack_cost(points, members, pack, 0, members[pack, 0], caps, 0.0) / packs
    if mean <= 0.0:
        return
    anneal(
        points,
        members,
        place,
        near,
        priority,
        caps,
        penalty * mean,
        hot * mean,
        cold * mean,
        moves_per_cell * n,
        seed,
        number,
    )
    flat = members.reshape(n)
    old_points = points.copy()
    old_ids = ids.copy()
    for row in range(n):
        points[row] = old_points[flat[row]]
        ids[row] = old_ids[flat[row]]


@compiled
def _sort(values: Any, rows: Any) -> None:
    """Both by the values, in place, by insertion: there are few, and NumPy's sort takes seconds to compile."""
    for end in range(1, values.shape[0]):
        value = values[end]
        row = rows[end]
        at = end
        while at > 0 and values[at - 1] > value:
            values[at] = values[at - 1]
            rows[at] = rows[at - 1]
            at -= 1
        values[at] = value
        rows[at] = row


@compiled
def _place(values: Any, value: float) -> int:
    """Where ``value`` first stands in sorted values."""
    at = 0
    while values[at] < value:
        at += 1
    return at


@compiled
def smallest_box(points: Any, cell: int, size: int, caps: Any, limit: float, budget: int, chosen: Any) -> float:
    """The cheapest pack of ``size`` cells that holds ``cell``, exactly, if it is cheaper than ``limit``.

    A pack costs what its bounding box's sides add up to. So boxes are tried: two sides run through the values of
    cells near enough, the third is the shortest window of cells within them.

    Args:
        points: (n, 3) in weighted units, sorted by the last column.
        cell: Row of the cell.
        size: Cells of a pack, at least 2.
        caps: (3,) longest sides.
        limit: Only cheaper packs are looked for.
        budget: Steps after which it gives up; about a nanosecond each.
        chosen: (size,) gets the rows of the pack; untouched if there is none.

    Returns:
        The cost, ``limit`` where no pack is cheaper, or −1 if it gave up.
    """
    n = points.shape[0]
    best = limit
    here_x = points[cell, 0]
    here_y = points[cell, 1]
    here_z = points[cell, 2]
    rows = np.empty(n, np.int64)
    count = 0
    for row in range(n):
        distance = 0.0
        within = True
        for feature in range(3):
            apart = abs(points[row, feature] - points[cell, feature])
            distance += apart
            within = within and apart <= caps[feature]
        if within and distance < limit:
            rows[count] = row
            count += 1
    if count < size:
        return best
    if count * count > budget:
        return -1.0
    xs = np.empty(count)
    ys = np.empty(count)
    by_x = rows[:count].copy()
    by_y = rows[:count].copy()
    for index in range(count):
        xs[index] = points[rows[index], 0]
        ys[index] = points[rows[index], 1]
    _sort(xs, by_x)
    _sort(ys, by_y)
    at_x = _place(xs, here_x)
    strip = np.empty(count, np.int64)
    strip_ys = np.empty(count)
    inside = np.empty(count, np.int64)
    spent = count * count
    for left in range(at_x, -1, -1):
        if here_x - xs[left] >= best:
            break
        for right in range(max(at_x, left + size - 1), count):
            wide = xs[right] - xs[left]
            if wide >= best or wide > caps[0]:
                break
            in_strip = 0  # cells between left and right, by z and their y sorted
            for index in range(count):
                value = points[rows[index], 0]
                if xs[left] <= value <= xs[right]:
                    strip[in_strip] = rows[index]
                    in_strip += 1
            in_strip = 0
            for index in range(count):
                value = points[by_y[index], 0]
                if xs[left] <= value <= xs[right]:
                    strip_ys[in_strip] = ys[index]
                    in_strip += 1
            spent += 2 * count
            if spent > budget:
                return -1.0
            at_y = _place(strip_ys, here_y)
            for bottom in range(at_y, -1, -1):
                if wide + here_y - strip_ys[bottom] >= best:
                    break
                for top in range(max(at_y, bottom + size - 1), in_strip):
                    high = strip_ys[top] - strip_ys[bottom]
                    if wide + high >= best or high > caps[1]:
                        break
                    found = 0
                    for index in range(in_strip):
                        value = points[strip[index], 1]
                        if strip_ys[bottom] <= value <= strip_ys[top]:
                            inside[found] = strip[index]
                            found += 1
                    spent += in_strip + found
                    if spent > budget:
                        return -1.0
                    for first in range(found - size + 1):
                        low_z = points[inside[first], 2]
                        if low_z > here_z:
                            break
                        high_z = points[inside[first + size - 1], 2]
                        deep = high_z - low_z
                        if high_z < here_z or deep > caps[2] or wide + high + deep >= best:
                            continue
                        best = wide + high + deep
                        has = False
                        for index in range(size):
                            chosen[index] = inside[first + index]
                            has = has or chosen[index] == cell
                        if not has:  # a tie in z: any of those alike will do, so take the cell itself
                            for index in range(size):
                                if points[chosen[index], 2] == here_z:
                                    chosen[index] = cell
                                    break
    return best


@compiled
def smallest_boxes(
    points: Any, size: int, limits: Any, caps: Any, budget: int, first: int, end: int, out: Any
) -> None:
    """``out[first:end]``: what `smallest_box` returns for these cells."""
    chosen = np.empty(size, np.int64)
    for cell in range(first, end):
        out[cell] = smallest_box(points, cell, size, caps, limits[cell], budget, chosen)


@compiled
def _group_cost(capacity: Any, alike: Any, cells: Any, parallel: int, capacity_weight: float) -> Any:
    """Cost of an arrangement: spread of the groups' capacity, and mean spread of the other features within one."""
    groups = cells.shape[0] // parallel
    least = np.inf
    most = -np.inf
    spread = 0.0
    for group in range(groups):
        total = 0.0
        for index in range(group * parallel, (group + 1) * parallel):
            total += capacity[cells[index]]
        least = min(least, total)
        most = max(most, total)
        for feature in range(alike.shape[1]):
            low = high = alike[cells[group * parallel], feature]
            for index in range(group * parallel, (group + 1) * parallel):
                low = min(low, alike[cells[index], feature])
                high = max(high, alike[cells[index], feature])
            spread += high - low
    return capacity_weight * (most - least) / parallel + spread / groups


@compiled
def arrange(
    capacity: Any,
    alike: Any,
    members: Any,
    parallel: int,
    capacity_weight: float,
    moves: int,
    seed: int,
    first: int,
    end: int,
) -> None:
    """Order the cells of packs first…end in place, so that each ``parallel`` in a row are a parallel group.

    Longest first: the cells by falling capacity, each into the group with the least capacity that has room. Then
    swaps between groups, with a falling temperature, and the best arrangement that was met is kept.
    """
    size = members.shape[1]
    groups = size // parallel
    for pack in range(first, end):
        cells = members[pack].copy()
        order = cells.copy()
        for index in range(1, size):
            cell = order[index]
            at = index
            while at > 0 and capacity[order[at - 1]] < capacity[cell]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = cell
        sums = np.zeros(groups)
        filled = np.zeros(groups, np.int64)
        for index in range(size):
            into = -1
            for group in range(groups):
                if filled[group] < parallel and (into < 0 or sums[group] < sums[into]):
                    into = group
            cells[into * parallel + filled[into]] = order[index]
            filled[into] += 1
            sums[into] += capacity[order[index]]
        cost = _group_cost(capacity, alike, cells, parallel, capacity_weight)
        best = cost
        members[pack] = cells
        state = _seeded(seed, pack)
        temperature = 0.1 * cost
        cooling = 0.001 ** (1.0 / max(1, moves))
        for _ in range(moves):
            temperature *= cooling
            a = _below(state, size)
            b = _below(state, size)
            if a // parallel == b // parallel:
                continue
            cells[a], cells[b] = cells[b], cells[a]
            changed = _group_cost(capacity, alike, cells, parallel, capacity_weight)
            if changed - cost <= -temperature * math.log(_unit(state)):
                cost = changed
                if cost < best:
                    best = cost
                    members[pack] = cells
            else:
                cells[a], cells[b] = cells[b], cells[a]
