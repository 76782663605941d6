"""Grades A to D of cells, with the probability of each where the measurement's uncertainty is known."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from battery_sorting.grading._probability import Question
from battery_sorting.grading.relational import RelationalNorm, relation_degree
from battery_sorting.grading.specification import CellSpec
from battery_sorting.grading.table import COLUMNS, INDICATORS, CellTable, Floats

GRADES = ("A", "B", "C", "D")
INVALID = "invalid"
GRADED = "graded"
REMEASURE = "re-measure"

_ROUNDING = 9
"""Relation degrees are rounded to so many digits, so that 0.8 in exact numbers is grade A."""
_CERTAIN = 4.0
"""A grade is certain if it holds within so many standard uncertainties; 2e-4 at most lies beyond."""
_MISTAKEN_UNITS = {
    "capacity": ((1e-3, "mAh"),),
    "resistance": ((1e3, "Ω"), (1e-3, "µΩ")),
    "ocv": ((1e-3, "mV"),),
}


@dataclass(frozen=True)
class Grades:
    """What `CellGrader.grade` says of n cells.

    Attributes:
        ids: Names of the cells.
        grades: (n,) ``A`` to ``D``, or ``invalid``.
        degrees: (n,) relation degree 0..1, NaN for invalid cells.
        statuses: (n,) ``graded``, ``re-measure`` (the uncertainty leaves the grade open), or ``invalid``.
        reasons: Row → why it is invalid, failed a gate or should be measured again.
        probabilities: (n, 4) of grades A to D; NaN for invalid cells.
    """

    ids: Sequence[str]
    grades: npt.NDArray[np.str_]
    degrees: Floats
    statuses: npt.NDArray[np.str_]
    reasons: Mapping[int, str]
    probabilities: Floats

    def __len__(self) -> int:
        return len(self.grades)

    def counts(self) -> dict[str, int]:
        """How many cells have each grade, and how many are invalid."""
        found = Counter(self.grades.tolist())
        return {grade: found[grade] for grade in (*GRADES, INVALID)}

    @property
    def undecided(self) -> int:
        """How many cells should be measured again."""
        return int((self.statuses == REMEASURE).sum())


class CellGrader:
    """Grades cells by grey relational analysis with AHP weights, behind hard gates. A scikit-learn estimator.

    With ``norm="spec"`` a cell's grade depends on nothing but the cell and the specification, which `fit` reads.
    With ``norm="batch"`` the scales are those of the batch given to `fit`, as published.

    Source: section 4 of Liu et al., Sustainability 15 (2023) 15523, mended as docs/explanation/grading.md tells.

    Args:
        spec: A `CellSpec`, or its name in config/cells, or the path of a file.
        norm: ``spec`` or ``batch``.

    Attributes:
        spec_: The specification.
        weights_: (3,) of capacity, resistance and open-circuit voltage.
        norm_: The `RelationalNorm` in use.
        classes_: Grades in the order of `predict_proba`.
    """

    def __init__(self, spec: CellSpec | str = "lfp-20ah", norm: Literal["spec", "batch"] = "spec") -> None:
        self.spec = spec
        self.norm = norm

    # BaseEstimator would do this too, but importing it takes a node longer and more memory than all the grading.
    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Arguments of the constructor with their values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> CellGrader:
        """Change arguments of the constructor; `fit` anew afterwards.

        Raises:
            ValueError: There is no such argument.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"'{name}' is no parameter of {type(self).__name__}; there are {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """What pipelines ask an estimator."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False))

    def __repr__(self) -> str:
        name = self.spec.name if isinstance(self.spec, CellSpec) else self.spec
        return f"{type(self).__name__}(spec={name!r}, norm={self.norm!r})"

    def fit(self, cells: CellTable | npt.ArrayLike, target: Any = None) -> CellGrader:  # noqa: ARG002
        """Read the specification and, with ``norm="batch"``, the scales of the batch.

        Args:
            cells: A table, or (n, 3) of capacity in Ah, resistance in mΩ, open-circuit voltage in V.
            target: Not used.

        Raises:
            ConfigurationError: The specification is wrong.
            ValueError: ``norm`` is neither ``spec`` nor ``batch``, or ``cells`` is no (n, 3).
        """
        if self.norm not in ("spec", "batch"):
            raise ValueError(f"norm must be 'spec' or 'batch', not {self.norm!r}")
        self.spec_ = self.spec if isinstance(self.spec, CellSpec) else CellSpec.load(self.spec)
        self.weights_ = self.spec_.weight_array()
        self.classes_ = np.array(GRADES)
        ideal = self.spec_.ideal.as_array()
        table = _as_table(cells)
        if self.norm == "spec":
            self.norm_ = RelationalNorm.of_spec(ideal, self.spec_.worst.as_array(), self.spec_.rho)
        else:
            usable = self._plausible(table)
            self.norm_ = RelationalNorm.of_batch(self.heard_values(table)[usable], ideal, self.spec_.rho)
        return self

    def predict(self, cells: CellTable | npt.ArrayLike) -> npt.NDArray[np.str_]:
        """(n,) grades ``A`` to ``D``, or ``invalid``."""
        return self._grades_of(*self._judge(_as_table(cells)))

    def decision_function(self, cells: CellTable | npt.ArrayLike) -> Floats:
        """(n,) relation degrees 0..1, the higher the better; NaN for invalid cells. Gates don't touch them."""
        return self._judge(_as_table(cells))[0]

    def predict_proba(self, cells: CellTable | npt.ArrayLike, uncertainty: npt.ArrayLike | None = None) -> Floats:
        """(n, 4) probabilities of grades A to D if the errors are normal and independent; NaN for invalid cells.

        Args:
            cells: A table, or (n, 3) of capacity in Ah, resistance in mΩ, open-circuit voltage in V.
            uncertainty: Standard uncertainties (3,) or (n, 3) in the same units; else those of the table, else
                those of the specification, else none.
        """
        table = _as_table(cells)
        degrees, gated = self._judge(table)
        return self._probabilities(table, degrees, gated, self._uncertainty(table, uncertainty))

    def grade(self, cells: CellTable | npt.ArrayLike, uncertainty: npt.ArrayLike | None = None) -> Grades:
        """All that can be said of cells: grade, relation degree, status and its reason, probabilities."""
        table = _as_table(cells)
        degrees, gated = self._judge(table)
        grades = self._grades_of(degrees, gated)
        spread = self._uncertainty(table, uncertainty)
        probabilities = self._probabilities(table, degrees, gated, spread)
        own = np.where(grades[:, None] == self.classes_, probabilities, 0.0).sum(axis=1)
        undecided = (grades != INVALID) & (own < self.spec_.toss_up)
        statuses = np.where(grades == INVALID, INVALID, np.where(undecided, REMEASURE, GRADED))
        reasons = self._reasons(table, degrees, gated)
        for row in np.flatnonzero(undecided).tolist():
            likely = [
                f"{grade} {share:.0%}"
                for grade, share in zip(GRADES, probabilities[row], strict=True)
                if share >= 0.005
            ]
            doubt = f"the uncertainty leaves the grade open: {', '.join(likely)}"
            reasons[row] = f"{reasons[row]}; {doubt}" if row in reasons else doubt
        return Grades(table.ids, grades, degrees, statuses, reasons, probabilities)

    # ---- grades ----

    def _judge(self, table: CellTable) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Relation degrees (n,), NaN for invalid cells, and (n,) whether a gate is shut."""
        if not hasattr(self, "norm_"):
            raise ValueError("fit the grader before cells are graded")
        values = self.heard_values(table)
        degrees = np.full(len(values), np.nan)
        usable = self._plausible(table)
        coefficients = self.norm_.coefficients(values[usable])
        degrees[usable] = np.round(relation_degree(coefficients, self.weights_), _ROUNDING)
        low, high = self._gates()
        gated = np.zeros(len(values), bool)
        gated[usable] = ((values[usable] < low) | (values[usable] > high)).any(axis=1)
        return degrees, gated

    def _grades_of(self, degrees: Floats, gated: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:
        limits = self.spec_.boundaries
        grades = np.select(
            [np.isnan(degrees), gated, degrees >= limits.a, degrees >= limits.b, degrees > limits.c],
            [INVALID, "D", "A", "B", "C"],
            default="D",
        )
        return np.asarray(grades, dtype=np.str_)

    def heard_values(self, table: CellTable) -> Floats:
        """(n, 3) values of a table, with the ideal one of what has no say, as it may be missing."""
        heard = np.isin(INDICATORS, self.spec_.heard())
        return np.where(heard, table.as_array(), self.spec_.ideal.as_array())

    def _plausible(self, table: CellTable) -> npt.NDArray[np.bool_]:
        values = self.heard_values(table)
        low, high = self.spec_.plausible.as_array()
        return np.asarray(table.heard(self.spec_.heard()).valid & ((values >= low) & (values <= high)).all(axis=1))

    def _gates(self) -> tuple[Floats, Floats]:
        """Lowest and highest values (3,) that pass the gates."""
        gates = self.spec_.gates
        least = gates.min_capacity * self.spec_.nominal_capacity_ah
        low = [least, -np.inf, -np.inf if gates.min_ocv_v is None else gates.min_ocv_v]
        high = [
            np.inf,
            *(np.inf if limit is None else limit for limit in (gates.max_resistance_mohm, gates.max_ocv_v)),
        ]
        return np.array(low), np.array(high)

    def _reasons(self, table: CellTable, degrees: Floats, gated: npt.NDArray[np.bool_]) -> dict[int, str]:
        values = self.heard_values(table)
        reasons = dict(table.heard(self.spec_.heard()).faults)
        for row in np.flatnonzero(np.isnan(degrees)).tolist():
            if row not in reasons:
                reasons[row] = self._implausible(values[row]) or (
                    "the batch has nothing to compare: its cells are all the same; use norm 'spec'"
                )
        low, high = self._gates()
        for row in np.flatnonzero(gated).tolist():
            reasons[row] = "; ".join(
                f"{name} {value:g} is {'below' if value < least else 'above'} the limit of "
                f"{least if value < least else most:g}"
                for name, value, least, most in zip(COLUMNS.values(), values[row], low, high, strict=True)
                if not least <= value <= most
            )
        return reasons

    def _implausible(self, values: Floats) -> str:
        found = []
        limits = self.spec_.plausible.as_array()
        for indicator, value, low, high in zip(INDICATORS, values.tolist(), *limits.tolist(), strict=True):
            if low <= value <= high:
                continue
            units = [unit for factor, unit in _MISTAKEN_UNITS[indicator] if low <= value * factor <= high]
            guess = f": is it in {units[0]}?" if units else ""
            found.append(f"{COLUMNS[indicator]} {value:g} is not within {low:g} to {high:g}{guess}")
        return "; ".join(found)

    # ---- probabilities ----

    def _uncertainty(self, table: CellTable, stated: npt.ArrayLike | None) -> Floats:
        """Standard uncertainties (n, 3), 0 where none is known."""
        of_site = np.zeros(3) if self.spec_.uncertainty is None else self.spec_.uncertainty.as_array()
        given = table.uncertainty if stated is None else np.asarray(stated, float)
        spread = np.broadcast_to(
            of_site if given is None else np.where(np.isnan(given), of_site, given), (len(table), 3)
        )
        if stated is not None and not (np.isfinite(spread) & (spread >= 0)).all():
            raise ValueError("uncertainties must be finite and not negative")
        return np.where(np.isin(INDICATORS, self.spec_.heard()), np.asarray(spread, float), 0.0)

    def _probabilities(
        self, table: CellTable, degrees: Floats, gated: npt.NDArray[np.bool_], spread: Floats
    ) -> Floats:
        """Certain where nothing within `_CERTAIN` uncertainties has another grade, else integrated."""
        values = self.heard_values(table)
        grades = self._grades_of(degrees, gated)
        result = np.where(grades[:, None] == self.classes_, 1.0, 0.0)
        result[grades == INVALID] = np.nan
        rows = np.flatnonzero((grades != INVALID) & (spread > 0).any(axis=1))
        near = self._grades_in_reach(values[rows], spread[rows])
        open_rows = rows[near]
        result[open_rows] = self._integrate(values[open_rows], spread[open_rows])
        return result

    def _grades_in_reach(self, values: Floats, spread: Floats) -> npt.NDArray[np.bool_]:
        """(n,) whether errors within `_CERTAIN` can change the grade: the relation degree is monotone in each Δ."""
        low, high = values - _CERTAIN * spread, values + _CERTAIN * spread
        ideal = self.norm_.ideal
        nearest = self.norm_.coefficients(np.clip(ideal, low, high))
        farthest = np.minimum(self.norm_.coefficients(low), self.norm_.coefficients(high))
        best = np.round(relation_degree(nearest, self.weights_), _ROUNDING)
        least = np.round(relation_degree(farthest, self.weights_), _ROUNDING)
        gate_low, gate_high = self._gates()
        open_gate = ((high >= gate_low) & (low <= gate_high)).all(axis=1)
        safe = ((low >= gate_low) & (high <= gate_high)).all(axis=1)
        never = np.zeros(len(values), bool)
        same = self._grades_of(best, never) == self._grades_of(least, never)
        return np.asarray(open_gate & ~(safe & same))

    def _integrate(self, values: Floats, spread: Floats) -> Floats:
        """Probabilities (n, 4) of cells that may have one of several grades."""
        limits = self.spec_.boundaries
        above_c = np.nextafter(limits.c, 1)  # C begins above its boundary, the others at theirs
        question = Question(self.norm_, self.weights_, np.array([limits.a, limits.b, above_c]), self._gates())
        at_least = question.probabilities(values, spread)
        bounds = np.column_stack([at_least, np.ones(len(values))])
        return np.diff(np.maximum.accumulate(bounds, axis=1), axis=1, prepend=0)


def _as_table(cells: CellTable | npt.ArrayLike) -> CellTable:
    if isinstance(cells, CellTable):
        return cells
    values = np.asarray(cells, float)
    if values.ndim != 2 or values.shape[1] != len(INDICATORS):
        raise ValueError(
            f"cells must be (n, 3) of capacity in Ah, resistance in mΩ and open-circuit voltage in V, "
            f"not {values.shape}"
        )
    return CellTable.of_arrays(values[:, 0], values[:, 1], values[:, 2])
