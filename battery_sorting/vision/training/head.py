"""The fast head: regressions on frozen features and colours and a forest on colours, mixed and calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from battery_sorting.core.proportions import share_with_interval
from battery_sorting.vision.likeness import Likeness, alike, root_histogram, standardised, unit
from battery_sorting.vision.training.backbone import SAME_SHOOT
from battery_sorting.vision.training.views import DRAWN, ViewTable

EQUAL = (0.6, 0.9, 8.0)
"""Shares of the three parts before calibration, by which each counts about the same: a rule of thumb."""
RULE_OF_THUMB = 20
"""Held-out pictures that it outweighs: the shares that so few ask for make more errors than it does."""
FLOOR = 1e-3
"""Added to the forest's probabilities, which may be zero, before their logarithm is taken."""


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


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """How the fast head is fitted.

    Attributes:
        l2: Penalty on the squared weights of the softmax regression, on standardised features.
        trees: Of the colour forest (extra-trees, Geurts et al. 2006).
        leaf: Least samples in a leaf.
        ridge: Penalty of the kernel regression.
        width: Of its kernel on colours.
        seed: Of the forest.
    """

    l2: float = 0.01
    trees: int = 60
    leaf: int = 4
    ridge: float = 0.5
    width: float = 0.4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class FastHead:
    """A fitted head: three opinions, and how much each counts.

    Attributes:
        labels: In the order of all outputs.
        linear: Softmax regression on the features, standardisation folded in.
        forest: Extra-trees on colour histograms.
        likeness: Kernel regression on both.
        shares: Factors of the regression's log-probabilities, the forest's, and the likeness in the mix.
    """

    labels: tuple[str, ...]
    linear: Head
    forest: Any
    likeness: Likeness
    shares: tuple[float, float, float] = EQUAL

    def evidence(self, views: ViewTable) -> np.ndarray:
        """What each part says for itself (3, n, L): logits, the forest's log-probabilities, and the likeness."""
        return np.stack(
            [
                self.linear.logits(views.features),
                self.forest_evidence(views.colour),
                self.likeness.to(views.features, views.colour),
            ]
        )

    def forest_evidence(self, colour: np.ndarray) -> np.ndarray:
        """Log-probabilities (n, L) of the forest for colour histograms (n, k)."""
        probabilities = np.zeros((len(colour), len(self.labels)))
        if len(colour):  # else scikit-learn refuses
            # A type with a single picture is missing where that one was kept back.
            probabilities[:, self.forest.classes_] = self.forest.predict_proba(colour)
        return np.asarray(np.log(probabilities + FLOOR))

    def mixed(self, evidence: np.ndarray) -> np.ndarray:
        """Probabilities (n, L), a log-linear pool (Genest and Zidek 1986): softmax(a · log p + b · log q + c · s).

        Logits do for log p: what they differ by is the same for all labels.
        """
        return np.asarray(np.exp(log_softmax(np.tensordot(np.array(self.shares), evidence, axes=1))))

    def probabilities(self, views: ViewTable) -> np.ndarray:
        """(n, L) of views."""
        return self.mixed(self.evidence(views))


def fit_fast_head(views: ViewTable, labels: Sequence[str], options: HeadOptions) -> FastHead:
    """Fit to views whose label is one of ``labels``; the mix stands as a rule of thumb until it is calibrated."""
    from sklearn.ensemble import ExtraTreesClassifier

    targets = index_of(views.label, labels)
    weights = balance(views.label.tolist(), np.where(views.sha256 == "", DRAWN, "photograph").tolist())
    mean, spread = views.features.mean(axis=0), views.features.std(axis=0) + 1e-6
    standard = fit_head((views.features - mean) / spread, targets, weights, len(labels), options.l2)
    weight = standard.weight / spread
    linear = Head(weight, standard.bias - weight @ mean)
    forest = ExtraTreesClassifier(options.trees, min_samples_leaf=options.leaf, random_state=options.seed)
    forest.fit(views.colour, targets, weights)
    return FastHead(tuple(labels), linear, forest, _fit_likeness(views, targets, weights, len(labels), options))


def _fit_likeness(
    views: ViewTable, targets: np.ndarray, weights: np.ndarray, labels: int, options: HeadOptions
) -> Likeness:
    # Half precision, in which the network keeps them: so both go by the same numbers.
    reference = root_histogram(views.colour).astype(np.float16).astype(np.float32)
    embedding = unit(views.features)
    mean, spread = embedding.mean(axis=0), embedding.std(axis=0) + 1e-6
    rows = standardised(embedding, mean, spread)
    kernel = alike(rows, reference, options.width)
    kernel[np.diag_indices(len(kernel))] += (options.ridge * weights.mean() / weights).astype(np.float32)
    wanted = np.eye(labels, dtype=np.float32)[targets]
    bias = wanted.mean(axis=0)
    factor = cho_solve(cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False), wanted - bias)
    factor = factor.astype(np.float32)
    return Likeness(mean, spread, rows.T @ factor, reference, factor, bias, np.array(options.width))


def calibrate(head: FastHead, evidence: np.ndarray, targets: np.ndarray, pictures: int) -> FastHead:
    """The head with those shares with which held-out views have least log-loss.

    A factor for each part is temperature scaling (Guo et al. 2017) of the parts and of the mix at once. They are
    drawn towards the rule of thumb, which counts as much as `RULE_OF_THUMB` pictures; views of one picture count as
    one, since they say nearly the same.

    Args:
        head: Fitted head.
        evidence: (3, n, L), what heads that were fitted without the views say of them: see `FastHead.evidence`.
        targets: int (n,), the views' labels.
        pictures: How many pictures the views are of.
    """

    def loss(logs: np.ndarray) -> float:
        pooled = np.tensordot(np.exp(logs), evidence, axes=1)
        return log_loss(pooled, targets) + 0.5 * RULE_OF_THUMB / pictures * float(((logs - start) ** 2).sum())

    start = np.log(EQUAL)
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 400}).x
    a, b, c = np.exp(np.clip(found, start - 4, start + 3)).tolist()
    return replace(head, shares=(a, b, c))


def index_of(label: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Position in ``labels`` of each of ``label`` (n,)."""
    position = {name: n for n, name in enumerate(labels)}
    return np.array([position[one] for one in label])


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
    """Group number of each row: rows that are alike, or alike to one that is, share a group.

    ``threshold`` is the least cosine of two that are alike, see `backbone.same_shoot`.
    """
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    parent = list(range(len(rows)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in np.argwhere(np.triu(rows @ rows.T > threshold, 1)):
        parent[root(int(a))] = root(int(b))
    return np.array([root(node) for node in range(len(rows))])


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


def share(right: np.ndarray, pictures: np.ndarray) -> dict[str, Any]:
    """Fraction (0..1) of views that are right, with its 95 % Wilson interval.

    Several views of one picture don't narrow the interval: ``pictures`` (n,) names the picture of each.
    """
    count = len(np.unique(pictures.astype(str)))
    return share_with_interval(float(np.mean(right)) * count if count else 0, count)


def figures(probabilities: np.ndarray, views: ViewTable, labels: Sequence[str], threshold: float) -> dict[str, Any]:
    """How well views (n) of known types are told, by probabilities (n, L); fractions 0..1."""
    targets = index_of(views.label, labels)
    right = probabilities.argmax(axis=1) == targets
    accepted = probabilities.max(axis=1) >= threshold
    return {
        "views": len(targets),
        "accuracy": share(right, views.picture),
        f"accepted_at_{threshold:g}": share(accepted, views.picture),
        f"accuracy_of_accepted_at_{threshold:g}": share(right[accepted], views.picture[accepted]),
        "recall": recall(right, targets, labels),
    }


def recall(right: np.ndarray, targets: np.ndarray, labels: Sequence[str]) -> dict[str, float | None]:
    """Share of each label's views that are right; labels without a view are left out."""
    return {
        name: rounded(float(right[targets == n].mean())) for n, name in enumerate(labels) if (targets == n).any()
    }


def calibration(probabilities: np.ndarray, targets: np.ndarray, bins: int = 10) -> dict[str, float | None]:
    """Expected calibration error (Guo et al. 2017, eq. 3) and mean negative log-likelihood (nats)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(right[which == n].mean() - confidence[which == n].mean())) * (which == n).mean()
        for n in range(bins)
        if (which == n).any()
    ]
    likelihood = probabilities[np.arange(len(targets)), targets]
    return {"ece": rounded(float(sum(gaps))), "nll": rounded(float(-np.log(likelihood + 1e-9).mean()))}


def rounded(value: float) -> float | None:
    """To four places; None for NaN, which JSON doesn't know."""
    return None if np.isnan(value) else round(value, 4)
