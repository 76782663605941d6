"""Selective classification: how pure the bins get at each threshold, and at which one a purity may be claimed.

*Purity* is the share of right labels among the accepted pictures, *coverage* the share of pictures accepted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Curve:
    """Purity over coverage; row i is the rule *accept what is at least as confident as threshold[i]*.

    Thresholds fall, so coverage rises. ``accepted`` and ``right`` are numbers of pictures.
    """

    threshold: np.ndarray
    accepted: np.ndarray
    right: np.ndarray
    pictures: int

    @property
    def purity(self) -> np.ndarray:
        """Right among the accepted, 0..1."""
        return np.asarray(self.right / self.accepted)

    @property
    def coverage(self) -> np.ndarray:
        """Accepted among all, 0..1."""
        return np.asarray(self.accepted / self.pictures)


@dataclass(frozen=True, slots=True)
class PurityClaim:
    """Whether a purity may be claimed, and at which threshold.

    ``accepted``, ``wrong``, ``bound`` (Clopper-Pearson lower bound of the purity) and ``coverage`` are those of
    ``threshold``; where nothing may be claimed, ``threshold`` is None and they are those of the strictest rule
    that was tested. ``needed`` is how many accepted pictures the claim takes without an error, ``needed_here`` with
    as many errors as ``wrong``.
    """

    target: float
    level: float
    threshold: float | None
    accepted: int
    wrong: int
    bound: float
    coverage: float
    needed: int
    needed_here: int

    @property
    def supported(self) -> bool:
        """Whether the pictures bear the claim."""
        return self.threshold is not None

    def __str__(self) -> str:
        seen = f"{self.wrong} wrong of {self.accepted} accepted"
        if self.threshold is not None:
            return (
                f"purity of {self.target:.4g} at {self.level:.0%} confidence holds from threshold "
                f"{self.threshold:.6g} on: {seen}, at least {self.bound:.4f}, coverage {self.coverage:.1%}"
            )
        text = f"a purity of {self.target:.4g} can't be claimed at {self.level:.0%} confidence: {seen}, at least "
        text += f"{self.bound:.4f}; it takes {self.needed} accepted test pictures without an error"
        return text + (f", or {self.needed_here} with {self.wrong}" if self.wrong else "")


def purity_coverage(confidence: np.ndarray, right: np.ndarray) -> Curve:
    """Purity and coverage at every threshold that makes a difference.

    Args:
        confidence: (n,), higher is surer; -inf for pictures that are never accepted.
        right: bool (n,), whether the label was right; False for a picture of an unknown type.

    Raises:
        ValueError: The two differ in length, are empty, or a confidence is NaN.
    """
    confidence, right = _checked(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    last_of_its_value = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    last_of_its_value = last_of_its_value[np.isfinite(falling[last_of_its_value])]
    return Curve(
        threshold=falling[last_of_its_value],
        accepted=last_of_its_value + 1,
        right=np.cumsum(right[order])[last_of_its_value],
        pictures=len(confidence),
    )


def area_under_risk(curve: Curve) -> float:
    """Mean share of errors over all coverages (AURC, Geifman et al. 2019): 0 is best. NaN for an empty curve."""
    if not len(curve.accepted):
        return float("nan")
    share = np.diff(curve.accepted, prepend=0) / curve.accepted[-1]
    return float(((1 - curve.purity) * share).sum())


def purity_bound(right: int, accepted: int, level: float = LEVEL) -> float:
    """One-sided lower bound of a proportion, exact (Clopper and Pearson 1934): 0 where nothing was right."""
    return float(_bounds(np.array([right]), np.array([accepted]), level)[0])


def pictures_needed(target: float, level: float = LEVEL, wrong: int = 0) -> int:
    """The fewest accepted pictures with which ``wrong`` errors still bear a purity of ``target``.

    998 for 99.7 % at 95 % without an error.

    Raises:
        ValueError: Target or level is not between 0 and 1.
    """
    _check_share("target", target)
    _check_share("level", level)
    low, high = wrong, wrong + 1
    while purity_bound(high - wrong, high, level) < target:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        enough = purity_bound(middle - wrong, middle, level) >= target
        low, high = (low, middle) if enough else (middle, high)
    return high


def threshold_for_purity(
    confidence: np.ndarray,
    right: np.ndarray,
    target: float = 0.997,
    level: float = LEVEL,
    start: float | None = None,
) -> PurityClaim:
    """The least threshold at which test pictures bear the claim *at least ``target`` of what is accepted is right*.

    Each threshold is tested by the exact binomial bound. That many are tried costs no confidence, since they are
    tried in a *fixed sequence* (Maurer et al. 1995; Angelopoulos et al., Learn then Test, 2021): from strict to
    lenient, and the first that fails ends the search. The sequence begins at ``start``, which must have been named
    before these pictures were looked at; without it, at the strictest threshold that accepts `pictures_needed`, the
    fewest that could bear the claim at all. Either choice uses no knowledge of what was right. The price: an error
    among the first `pictures_needed` ends the search; then name a lower ``start`` and judge it by *new* pictures.

    The pictures must be independent draws of what the belt will see (one of each shoot), and neither the model nor
    its calibration may have learnt from them.

    Raises:
        ValueError: Arrays of different length or empty, a NaN, target or level not between 0 and 1.
    """
    curve = purity_coverage(confidence, right)
    needed = pictures_needed(target, level)
    first = _first_rule(curve, needed, start)
    holds = _bounds(curve.right[first:], curve.accepted[first:], level) >= target
    passed = len(holds) if holds.all() else int(np.argmin(holds))
    chosen = first + passed - 1 if passed else None
    return _claim(curve, chosen, first, target, level, needed)


def _first_rule(curve: Curve, needed: int, start: float | None) -> int:
    """Row at which the sequence begins; one beyond the last where no row qualifies."""
    if start is None:
        return int(np.searchsorted(curve.accepted, needed))
    # The rule "at least start" accepts what the row of the least confidence above it accepts.
    return max(0, int(np.searchsorted(-curve.threshold, -start, side="right")) - 1)


def _claim(curve: Curve, chosen: int | None, first: int, target: float, level: float, needed: int) -> PurityClaim:
    rule = min(first if chosen is None else chosen, len(curve.threshold) - 1)
    accepted, right = (int(curve.accepted[rule]), int(curve.right[rule])) if rule >= 0 else (0, 0)
    threshold = None if chosen is None else float(curve.threshold[chosen])
    return PurityClaim(
        target=target,
        level=level,
        threshold=threshold,
        accepted=accepted,
        wrong=accepted - right,
        bound=purity_bound(right, accepted, level),
        coverage=accepted / curve.pictures,
        needed=needed,
        needed_here=pictures_needed(target, level, accepted - right),
    )


def _bounds(right: np.ndarray, accepted: np.ndarray, level: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(right > 0, beta.ppf(1 - level, np.maximum(right, 1), accepted - right + 1), 0.0)


def _checked(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    if confidence.shape != right.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(
            f"confidence {confidence.shape} and right {right.shape} must be of one length and not empty"
        )
    if np.isnan(confidence).any():
        raise ValueError("confidence: NaN; give -inf for pictures that are never accepted")
    return confidence, right


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}: {value} is not between 0 and 1, e.g. 0.997 for 99.7 %")
