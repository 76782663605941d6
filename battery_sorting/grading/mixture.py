"""Gaussian mixture by expectation maximisation, with weights and regularised covariances. numpy alone.

Source: Liu et al., "Research on Appearance Detection, Sorting, and Regrouping Technology of Retired Batteries for
Electric Vehicles", section 5, with its misprints mended:

- equations 13 and 14: a covariance belongs to a group, T_i; the printed T_ij has a second index without meaning;
- equation 16: the log-likelihood is the sum over cells, not the product;
- equation 17: the density in the numerator is that of group i, not of group 1;
- equations 18 and 19: divided by the group's sum of responsibilities over the *cells* j; the printed sum runs over
  the groups i;
- equations 18 to 20: what is summed are the responsibilities of equation 17, normalised; printed are the densities.

Covariances are regularised as by Fraley and Raftery (Journal of Classification 24, 2007): the posterior mode under
an inverse Wishart prior, which a group of two cells or cells in a plane can't make singular.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

import numpy as np

FLOOR = 1e-6
"""Least variance, in scaled units: features that are the same for all cells have none of their own."""
AT_ONCE = 100_000
"""Rows that are assigned at a time, for the sake of memory."""
LEAST_SHARE = 1e-12
"""Least weight of a group that has lost its cells: its logarithm is finite."""


class Shape(str, Enum):
    """What the groups' covariances may be."""

    FULL = "full"
    DIAGONAL = "diagonal"
    SPHERICAL = "spherical"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Mixture:
    """Groups as Gaussian distributions.

    Attributes:
        means: (k, d), μ_i.
        covariances: (k, d, d), T_i.
        shares: (k,), δ_i, they sum to 1.
        log_likelihood: Of the rows that it was fitted to, per cell.
    """

    means: np.ndarray
    covariances: np.ndarray
    shares: np.ndarray
    log_likelihood: float = float("nan")

    def log_joint(self, rows: np.ndarray) -> np.ndarray:
        """log δ_i p(x_j | μ_i, T_i), (n, k), of rows (n, d)."""
        factors = np.linalg.cholesky(self.covariances)
        away = (rows[None] - self.means[:, None]) @ np.linalg.inv(factors).transpose(0, 2, 1)
        log_root = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        constant = np.log(self.shares) - log_root - 0.5 * rows.shape[1] * np.log(2.0 * np.pi)
        return np.asarray((constant[:, None] - 0.5 * (away**2).sum(axis=2)).T)

    def responsibilities(self, rows: np.ndarray) -> np.ndarray:
        """p(y_j = i | x_j), equation 17, (n, k); each row sums to 1."""
        joint = self.log_joint(rows)
        return np.asarray(np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)))

    def assign(self, rows: np.ndarray) -> np.ndarray:
        """The likeliest group of each row, (n,)."""
        parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
        return np.concatenate([np.argmax(self.log_joint(part), axis=1) for part in parts])


@dataclass(frozen=True)
class Fitter:
    """Fits mixtures to the same rows.

    Attributes:
        rows: (n, d).
        weights: (n,), how many cells a row stands for.
        shape: Of the covariances.
        tolerance: ε of equation 21, per cell.
        max_iterations: Rounds at most.
    """

    rows: np.ndarray
    weights: np.ndarray
    shape: Shape = Shape.FULL
    tolerance: float = 1e-4
    max_iterations: int = 100

    @cached_property
    def variance(self) -> np.ndarray:
        """(d,) of all rows."""
        mean = self.weights @ self.rows / self.weights.sum()
        return np.asarray(self.weights @ (self.rows - mean) ** 2 / self.weights.sum())

    def start(self, labels: np.ndarray, medoids: bool = True) -> Mixture:
        """Mixture of the clusters in labels (n,) from 0 to k − 1; rows with other labels have no part in it.

        With ``medoids`` the mean of a group is the row closest to it, as published.
        """
        groups = int(labels.max()) + 1
        responsibilities = np.zeros((len(labels), groups))
        kept = np.flatnonzero(labels >= 0)
        responsibilities[kept, labels[kept]] = 1.0
        mixture = self._maximise(responsibilities)
        if not medoids:
            return mixture
        means = []
        for group, mean in enumerate(mixture.means):
            members = self.rows[labels == group]
            means.append(members[np.argmin(((members - mean) ** 2).sum(axis=1))])
        return replace(mixture, means=np.stack(means))

    def fit(self, mixture: Mixture) -> Mixture:
        """Expectation maximisation from ``mixture`` until equation 21 holds."""
        total = self.weights.sum()
        before = -np.inf
        for iteration in range(1, self.max_iterations + 1):
            joint = mixture.log_joint(self.rows)
            each = np.logaddexp.reduce(joint, axis=1)
            likelihood = float(self.weights @ each / total)
            if abs(likelihood - before) <= self.tolerance or iteration == self.max_iterations:
                break
            before = likelihood
            mixture = self._maximise(np.exp(joint - each[:, None]))
        return replace(mixture, log_likelihood=likelihood)

    def _maximise(self, responsibilities: np.ndarray) -> Mixture:
        """Equations 18 to 20 on responsibilities (n, k)."""
        weighted = responsibilities * self.weights[:, None]
        sizes = weighted.sum(axis=0)
        means = weighted.T @ self.rows / np.maximum(sizes, LEAST_SHARE)[:, None]
        away = self.rows[None] - means[:, None]
        scatter = (away * weighted.T[:, :, None]).transpose(0, 2, 1) @ away
        shares = np.maximum(sizes / sizes.sum(), LEAST_SHARE)
        return Mixture(means, self._regularised(scatter, sizes), shares / shares.sum())

    def _regularised(self, scatter: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Posterior mode of the covariances (k, d, d), given weighted sums of squares (k, d, d)."""
        groups, features = scatter.shape[:2]
        prior = self._prior(groups)
        freedom = features + 2
        if self.shape is Shape.SPHERICAL:
            level = np.trace(prior) / features
            variance = (level + np.trace(scatter, axis1=1, axis2=2)) / (freedom + features * sizes + 2)
            return np.asarray((variance[:, None, None] + FLOOR) * np.eye(features))
        posterior = prior + scatter
        if self.shape is Shape.DIAGONAL:
            diagonal = np.diagonal(posterior, axis1=1, axis2=2)
            covariances = diagonal[:, :, None] * np.eye(features) / (freedom + sizes + 2)[:, None, None]
        else:
            covariances = posterior / (freedom + sizes + features + 1)[:, None, None]
        return np.asarray(covariances + FLOOR * np.eye(features))

    def _prior(self, groups: int) -> np.ndarray:
        """Scale (d, d) of the prior: the variances of all cells, shrunk as groups fill less of the space."""
        return np.asarray(np.diag(self.variance) / groups ** (2.0 / self.rows.shape[1]))
