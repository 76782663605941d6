"""How sure a proportion is, and whether two that were counted on the same things differ."""

from __future__ import annotations

import math


def wilson(right: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % by default. Nothing counted: 0..1.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927) 209-212.
    """
    if total == 0:
        return 0.0, 1.0
    p = right / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_with_interval(right: float, total: int) -> dict[str, float | int | None]:
    """A share (0..1) with its Wilson interval, as it stands in JSON; ``None`` where nothing was counted."""
    low, high = wilson(right, total)
    value = round(right / total, 4) if total else None
    return {"value": value, "low": round(low, 4), "high": round(high, 4), "pictures": total}


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Args:
        only_first: Things that only the first of two methods got right.
        only_second: Things that only the second got right.

    Returns:
        Probability (0..1) of a difference at least as large if both were equally good.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157, with the binomial distribution in place of chi-square.
    """
    total = only_first + only_second
    tail = sum(math.comb(total, k) for k in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**total))
