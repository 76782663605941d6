"""The softmax head on frozen features: groups, fit, calibration, figures with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SAME_SHOOT = 0.87
"""Cosine of two photographs' features above which they count as near-duplicates and stay on one side of a split."""


@dataclass(frozen=True, slots=True)
class Head:
    """Weights (labels, features) and bias (labels,)."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n, features) → (n, labels)."""
        return np.asarray(features @ self.weight.T + self.bias)


def fit_head(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, labels: int, l2: float) -> Head:
    """Weighted softmax regression by L-BFGS, started from zero: the same data give the same head.

    Args:
        features: float32 (n, features).
        targets: int (n,), 0..labels-1.
        weights: (n,), scaled to a mean of 1 here.
        labels: Number of labels.
        l2: Penalty on the squared weights.
    """
    x, y = torch.from_numpy(features), torch.from_numpy(targets)
    w = torch.from_numpy((weights / weights.mean()).astype(np.float32))
    weight = torch.zeros(labels, x.shape[1], requires_grad=True)
    bias = torch.zeros(labels, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        losses = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="none")
        loss = (losses * w).mean() + l2 * (weight**2).sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return Head(weight.detach().numpy(), bias.detach().numpy())


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature (0.2..5) that makes held-out confidences right on average: least log-loss."""
    grid = np.geomspace(0.2, 5, 80)
    return float(grid[np.argmin([log_loss(logits / t, targets) for t in grid])])


def log_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative log-likelihood of the targets."""
    return float(-log_softmax(logits)[np.arange(len(targets)), targets].mean())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise, without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def balance(labels: list[str], sources: list[str]) -> np.ndarray:
    """Weights with which each label of each source counts the same, and each source the same in all."""
    keys = list(zip(labels, sources, strict=True))
    count = {key: keys.count(key) for key in set(keys)}
    per_source = {source: len({key for key in count if key[1] == source}) for source in set(sources)}
    return np.array([1.0 / (count[key] * per_source[key[1]]) for key in keys])


def group_near_duplicates(features: np.ndarray, threshold: float = SAME_SHOOT) -> np.ndarray:
    """Group number of each row: rows that are alike, or alike to one that is, share a group."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    parent = list(range(len(unit)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in np.argwhere(np.triu(unit @ unit.T > threshold, 1)):
        parent[root(int(a))] = root(int(b))
    return np.array([root(node) for node in range(len(unit))])


def assign_folds(groups: np.ndarray, labels: list[str], folds: int, seed: int) -> np.ndarray:
    """Fold of each row: whole groups, largest first, each where its label is rarest so far."""
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(groups), int)
    names = sorted(set(labels))
    load = np.zeros((folds, len(names)))
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for index in sorted(rng.permutation(len(members)), key=lambda i: -len(members[i])):
        rows = members[index]
        label = names.index(labels[rows[0]])
        chosen = int(np.lexsort((load.sum(axis=1), load[:, label]))[0])
        fold[rows] = chosen
        load[chosen, label] += len(rows)
    return fold


def wilson(right: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion."""
    if total == 0:
        return 0.0, 1.0
    p = right / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def figures(
    probabilities: np.ndarray,
    targets: np.ndarray,
    owners: np.ndarray,
    names: list[str],
    others: str,
    threshold: float,
) -> dict[str, Any]:
    """How well known types are told and unknown ones turned away; fractions (0..1) with 95 % Wilson intervals.

    Several views of one picture (same entry in ``owners``; -1: a picture of its own) don't narrow the intervals.
    """
    best = probabilities.argmax(axis=1)
    unknown = names.index(others)
    known = targets != unknown
    accepted = (probabilities.max(axis=1) >= threshold) & (best != unknown)
    right = best == targets

    def share(of: np.ndarray, among: np.ndarray) -> dict[str, Any]:
        pictures = _count_pictures(owners[among])
        value = float(of[among].mean()) if pictures else float("nan")
        low, high = wilson(value * pictures, pictures)
        return {"value": _rounded(value), "low": round(low, 4), "high": round(high, 4), "pictures": pictures}

    result: dict[str, Any] = {
        "views": len(targets),
        "accuracy": share(right, known),
        f"accepted_at_{threshold:g}": share(accepted, known),
        f"accuracy_of_accepted_at_{threshold:g}": share(right, known & accepted),
        "accuracy_per_type": {
            name: _rounded(float(right[targets == n].mean()))
            for n, name in enumerate(names)
            if n != unknown and (targets == n).any()
        },
    }
    if not known.all():
        result[f"unknown_rejected_at_{threshold:g}"] = share(~accepted, ~known)
    return result


def _count_pictures(owners: np.ndarray) -> int:
    return int((owners < 0).sum()) + len(set(owners[owners >= 0].tolist()))


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
