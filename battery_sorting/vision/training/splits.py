"""Which pictures train and which judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of the pictures that train and that judge; together, all of them."""

    train: np.ndarray
    test: np.ndarray


def random_splits(labels: Sequence[str], splits: int, seed: int, share: float = 0.2) -> list[Split]:
    """Random splits as in the BatSort paper (section III): ``share`` of each label's pictures judge.

    Near-duplicates of what is judged may stand among what trains, so figures on such splits are kind.
    """
    return grouped_splits(labels, np.arange(len(labels)), splits, seed, share)


def grouped_splits(
    labels: Sequence[str], groups: np.ndarray, splits: int, seed: int, share: float = 0.2
) -> list[Split]:
    """Splits in which a group (near-duplicates, see `group_near_duplicates`) is never divided.

    Of each label, groups are drawn at random until ``share`` of its pictures judge; a label with one group alone
    only trains.
    """
    names = np.asarray(labels)
    return [_split(names, groups, np.random.default_rng([seed, 31, number]), share) for number in range(splits)]


def _split(labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator, share: float) -> Split:
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = labels == label
        wanted = max(1, round(share * own.sum()))
        drawn = rng.permutation(np.unique(groups[own]))[:-1]
        for group in drawn:
            left = wanted - (test & own).sum()
            members = groups == group
            # A large group is let pass when it would overshoot by more than it brings nearer.
            if left > 0 and (members & own).sum() <= 2 * left:
                test |= members
    return Split(np.flatnonzero(~test), np.flatnonzero(test))
