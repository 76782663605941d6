"""How well defects are told from good cells. The positive class is *defective*, everywhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import beta, rankdata

from battery_sorting.core.proportions import share_with_interval

CONFIDENCE = 0.95
BOOTSTRAPS = 500


def defect_figures(
    probability: np.ndarray, defective: np.ndarray, pictures: Sequence[str], threshold: float = 0.5
) -> dict[str, Any]:
    """Accuracy, precision, recall, F1 (Liu et al. 2023, eqs 1-4) with the positive class *defective*, and AUROC.

    Args:
        probability: (n,) of being defective, 0..1; NaN counts as said to be defective.
        defective: bool (n,), the truth.
        pictures: (n,) names; a picture that was judged several times doesn't narrow an interval.
        threshold: Probability from which a picture counts as defective.
    """
    probability = np.nan_to_num(probability, nan=1.0)
    said = probability >= threshold
    names = np.asarray(pictures).astype(str)
    caught, false_alarm = int((said & defective).sum()), int((said & ~defective).sum())
    missed, passed = int((~said & defective).sum()), int((~said & ~defective).sum())
    precision, recall = _share(said == defective, said, names), _share(said == defective, defective, names)
    return {
        "positive": "defective",
        "threshold": threshold,
        "judged": len(said),
        "accuracy": accuracy(probability, defective, pictures, threshold),
        "precision": precision,
        "recall": recall,
        "f1": _f1(caught, false_alarm, missed),
        "auroc": auroc_with_interval(probability, defective, names),
        "confusion": {
            "defective": {"said_defective": caught, "said_good": missed},
            "good": {"said_defective": false_alarm, "said_good": passed},
        },
    }


def accuracy(
    probability: np.ndarray, defective: np.ndarray, pictures: Sequence[str], threshold: float = 0.5
) -> dict[str, Any]:
    """Share of pictures that are judged rightly, with its interval; arguments as for `defect_figures`."""
    said = np.nan_to_num(probability, nan=1.0) >= threshold
    return _share(said == defective, np.ones(len(said), bool), np.asarray(pictures).astype(str))


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Probability that a positive scores above a negative (Mann-Whitney); None where one of both is missing."""
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return None
    ranks = float(rankdata(score)[positive].sum())
    return (ranks - count * (count + 1) / 2) / (count * others)


def auroc_with_interval(score: np.ndarray, positive: np.ndarray, names: np.ndarray) -> dict[str, float | None]:
    """AUROC with a 95 % percentile interval, by drawing whole pictures again and again."""
    value = auroc(score, positive)
    if value is None:
        return {"value": None, "low": None, "high": None}
    rng = np.random.default_rng(0)
    unique, number = np.unique(names, return_inverse=True)
    rows = [np.flatnonzero(number == n) for n in range(len(unique))] if len(unique) < len(names) else None
    drawn = []
    for _ in range(BOOTSTRAPS if len(names) < 5000 else 100):
        chosen = rng.integers(len(unique), size=len(unique))
        again = chosen if rows is None else np.concatenate([rows[n] for n in chosen])
        one = auroc(score[again], positive[again])
        if one is not None:
            drawn.append(one)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (0.0, 1.0)
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def severity_curve(
    severity: np.ndarray, caught: np.ndarray, edges: Sequence[float] = (0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
) -> dict[str, Any]:
    """How the share of defects that are caught depends on their severity.

    Args:
        severity: (n,) of defective pictures, 0..1.
        caught: bool (n,).
        edges: Of the bins.

    Returns:
        ``bins`` with Wilson intervals, ``above_medium`` (severity over 0.5), and ``half`` the severity at which a
        logistic curve through the data is at 50 %; None where it never is within 0..1.
    """
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = (severity > low) & (severity <= high)
        if inside.any():
            share = share_with_interval(int(caught[inside].sum()), int(inside.sum()))
            bins.append({"from": low, "to": high, **share})
    above = severity > 0.5
    return {
        "bins": bins,
        "above_medium": share_with_interval(int(caught[above].sum()), int(above.sum())),
        "half": _half(severity, caught),
    }


def defectives_needed(escape: float, escapes: int = 0) -> int:
    """Defectives that must be judged, with so many escapes, to claim an escape rate with 95 % confidence.

    Without an escape it is log(0.05) / log(1 - rate): the "rule of three".
    """
    if escapes == 0:
        return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - escape))
    low, high = escapes + 1, math.ceil((escapes + 20) * 10 / escape)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if escape_bound(escapes, middle) <= escape else (middle + 1, high)
    return low


def escape_bound(escapes: int, defectives: int) -> float:
    """Escape rate (0..1) that is not exceeded with 95 % confidence (Clopper and Pearson 1934, one-sided)."""
    if escapes >= defectives:
        return 1.0
    return float(beta.ppf(CONFIDENCE, escapes + 1, defectives - escapes))


def escape_threshold(
    probability: np.ndarray, defective: np.ndarray, pictures: Sequence[str], escape: float
) -> dict[str, Any]:
    """The largest probability below which cells may pass, so that no more defectives than ``escape`` do.

    Args:
        probability: (n,) of being defective, 0..1.
        defective: bool (n,), the truth.
        pictures: (n,) names; a picture that was judged several times proves no more than one that was judged once.
        escape: Share of defectives that may pass, 0..1.

    Returns:
        ``good_below``; how many defectives stood behind it, how many of them escape (rounded up where some of a
        picture's judgements let it pass), the rate that this proves with 95 % confidence, how many defectives the
        wanted claim needs, whether it is ``proven``; and the share of good ones that are held back.
    """
    names = np.asarray(pictures).astype(str)
    bad = np.sort(probability[defective])
    allowed = math.floor(escape * len(bad))
    limit = float(bad[allowed]) if len(bad) else 0.0
    limit = min(limit, 0.999)
    judged = len(np.unique(names[defective]))
    escapes = math.ceil((bad < limit).sum() * judged / max(1, len(bad)))
    bound = escape_bound(escapes, judged)
    return {
        "wanted": escape,
        "good_below": round(max(limit, 1e-6), 6),
        "defectives": judged,
        "escapes": escapes,
        "escape_rate_below": round(bound, 5),
        "defectives_needed": defectives_needed(escape, escapes),
        "proven": bound <= escape,
        "good_held_back": _share(probability >= limit, ~defective, names),
    }


def _share(right: np.ndarray, rows: np.ndarray, names: np.ndarray) -> dict[str, Any]:
    count = len(np.unique(names[rows]))
    return share_with_interval(float(right[rows].mean()) * count if count else 0, count)


def _f1(caught: int, false_alarm: int, missed: int) -> float | None:
    total = 2 * caught + false_alarm + missed
    return round(2 * caught / total, 4) if total else None


def _half(severity: np.ndarray, caught: np.ndarray) -> float | None:
    """Where a logistic curve, held a little by a prior on its slope, crosses one half."""
    if len(severity) < 10 or caught.all() or not caught.any():
        return None
    truth = caught.astype(float)

    def loss(curve: np.ndarray) -> float:
        value = np.clip(np.exp(curve[1]) * (severity - curve[0]), -40, 40)
        return float(np.mean(np.log1p(np.exp(-value)) + (1 - truth) * value) + 0.002 * (curve[1] - 2.5) ** 2)

    at = float(minimize(loss, np.array([0.2, 2.5]), method="Nelder-Mead").x[0])
    return round(at, 3) if 0 <= at <= 1 else None
