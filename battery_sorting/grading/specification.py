"""The specification of a cell: what an ideal one is like, what counts how much, and where the grades begin."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from battery_sorting.core.settings import (
    Settings,
    find_config,
    read_document,
    share_not_percent,
    validate,
)
from battery_sorting.grading.ahp import ComparisonError, priorities, synthesise
from battery_sorting.grading.table import COLUMNS, INDICATORS, UNITS, Column, Floats


def _as_ratio(value: Any) -> Any:
    """Validator for comparisons: takes ``1/3``, which YAML reads as text."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{value}' is no number: write 3, or 1/3 for the other way round") from None


Ratio = Annotated[float, BeforeValidator(_as_ratio)]
Share = Annotated[float, BeforeValidator(share_not_percent)]
Row = Annotated[tuple[Ratio, ...], Field(strict=False)]
Matrix = Annotated[tuple[Row, ...], Field(strict=False, min_length=1)]
Range = Annotated[tuple[float, float], Field(strict=False)]


class Values(Settings):
    """A value of each indicator."""

    capacity_ah: float = Field(ge=0, allow_inf_nan=False, description="capacity in Ah")
    resistance_mohm: float = Field(ge=0, allow_inf_nan=False, description="internal resistance in mΩ")
    ocv_v: float = Field(ge=0, allow_inf_nan=False, description="open-circuit voltage in V")

    def as_array(self) -> Floats:
        """(3,) in the order of the cell table."""
        return np.array([self.capacity_ah, self.resistance_mohm, self.ocv_v])


class Weights(Settings):
    """How much each indicator counts, in all 1."""

    capacity: Share = Field(ge=0, le=1, description="share of the capacity, 0..1")
    resistance: Share = Field(ge=0, le=1, description="share of the resistance, 0..1")
    ocv: Share = Field(ge=0, le=1, description="share of the open-circuit voltage, 0..1")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Weights:
        total = self.capacity + self.resistance + self.ocv
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights must add up to 1, not {total:g}")
        return self


class Comparisons(Settings):
    """Judgements in pairs, from which the analytic hierarchy process makes the weights."""

    criteria: tuple[str, ...] = Field(strict=False, min_length=1, description="names of the criteria")
    importance: Matrix = Field(description="the criteria compared with each other, a row each")
    indicators: dict[str, Matrix] = Field(
        description="for each criterion capacity, resistance and ocv compared with each other, a row each"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Comparisons:
        self.weights()
        return self

    def weights(self) -> Floats:
        """(3,) weights of capacity, resistance and open-circuit voltage. Raises `ComparisonError`."""
        missing = [name for name in self.criteria if name not in self.indicators]
        unknown = [name for name in self.indicators if name not in self.criteria]
        if missing or unknown or len(set(self.criteria)) < len(self.criteria):
            raise ComparisonError(
                f"indicators must have one matrix for each of the criteria {', '.join(self.criteria)}"
            )
        try:
            upper = priorities(_square(self.importance), self.criteria)
        except ComparisonError as error:
            raise ComparisonError(f"importance: {error}") from error
        lower = []
        for name in self.criteria:
            try:
                lower.append(priorities(_square(self.indicators[name]), INDICATORS))
            except ComparisonError as error:
                raise ComparisonError(f"indicators.{name}: {error}") from error
        return synthesise(upper, lower)


class Boundaries(Settings):
    """Relation degrees at which the grades begin: A and B from theirs on, C above its own, D what is left."""

    a: Share = Field(default=0.8, gt=0, lt=1, description="grade A from this relation degree on, 0..1")
    b: Share = Field(default=0.6, gt=0, lt=1, description="grade B from this relation degree on, 0..1")
    c: Share = Field(default=0.3, gt=0, lt=1, description="grade C above this relation degree, 0..1")

    @model_validator(mode="after")
    def _descending(self) -> Boundaries:
        if not self.a > self.b > self.c:
            raise ValueError(f"the boundaries must descend from a to c, not {self.a:g}, {self.b:g}, {self.c:g}")
        return self


class Gates(Settings):
    """Limits beyond which a cell is grade D whatever else it measures."""

    min_capacity: Share = Field(
        default=0.3, ge=0, le=1, description="least capacity as a share of the nominal one, 0..1"
    )
    max_resistance_mohm: float | None = Field(default=None, gt=0, description="highest resistance in mΩ")
    min_ocv_v: float | None = Field(default=None, ge=0, description="lowest open-circuit voltage in V")
    max_ocv_v: float | None = Field(default=None, gt=0, description="highest open-circuit voltage in V")


class Plausible(Settings):
    """Ranges outside which a value is a mistake and no measurement."""

    capacity_ah: Range = Field(description="lowest and highest capacity in Ah")
    resistance_mohm: Range = Field(description="lowest and highest resistance in mΩ")
    ocv_v: Range = Field(description="lowest and highest open-circuit voltage in V")

    @model_validator(mode="after")
    def _ordered(self) -> Plausible:
        for name in COLUMNS.values():
            low, high = getattr(self, name)
            if not 0 <= low < high < float("inf"):
                raise ValueError(f"{name}: must be [lowest, highest] in ascending order, not [{low:g}, {high:g}]")
        return self

    def as_array(self) -> Floats:
        """(2, 3): lowest and highest values in the order of the cell table."""
        return np.array([self.capacity_ah, self.resistance_mohm, self.ocv_v]).T


class ColumnSettings(Settings):
    """A column of the site's own tables."""

    name: str | None = Field(default=None, min_length=1, description="header of the column; else known by its name")
    unit: str | None = Field(default=None, description="unit of the column, if the header doesn't tell it")


class CellSpec(Settings):
    """One kind of cell. Read from config/cells or a file of the user's."""

    name: str = Field(min_length=1, description="name of the kind of cell")
    chemistry: str = Field(min_length=1, description="chemistry of the cell, such as LFP")
    about: str = Field(default="", description="where the values come from")
    nominal_capacity_ah: float = Field(gt=0, allow_inf_nan=False, description="rated capacity in Ah")
    ideal: Values = Field(description="the ideal cell (F*)")
    worst: Values = Field(description="a cell that is just bad enough to be scrapped (W)")
    rho: float = Field(
        default=0.5, gt=0, le=10, description="distinguishing coefficient of the relational analysis"
    )
    weights: Weights | None = Field(default=None, description="weights of the indicators, or give comparisons")
    comparisons: Comparisons | None = Field(default=None, description="judgements in pairs, or give weights")
    boundaries: Boundaries = Field(default=Boundaries(), description="where the grades begin")
    gates: Gates = Field(default=Gates(), description="limits beyond which a cell is grade D")
    plausible: Plausible = Field(description="ranges outside which a value is a mistake")
    uncertainty: Values | None = Field(
        default=None, description="standard uncertainties of the site's instruments, for tables without them"
    )
    toss_up: Share = Field(
        default=0.75,
        gt=0,
        lt=1,
        description="a cell is to be measured again if its grade is less likely than this, 0..1",
    )
    columns: dict[str, ColumnSettings] = Field(
        default={}, description="columns of id, capacity, resistance and ocv in the site's own tables"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> CellSpec:
        for problem in (*self._bad_references(), *self._bad_columns()):
            raise ValueError(problem)
        if (self.weights is None) == (self.comparisons is None):
            raise ValueError("give either weights or comparisons")
        return self

    def _bad_references(self) -> list[str]:
        problems = []
        if self.worst.capacity_ah >= self.ideal.capacity_ah:
            problems.append("worst.capacity_ah must be below ideal.capacity_ah")
        if self.worst.resistance_mohm <= self.ideal.resistance_mohm:
            problems.append("worst.resistance_mohm must be above ideal.resistance_mohm")
        if self.worst.ocv_v == self.ideal.ocv_v:
            problems.append("worst.ocv_v must differ from ideal.ocv_v: their distance is the scale of the voltage")
        lowest, highest = self.plausible.as_array()
        for which in ("ideal", "worst"):
            values = getattr(self, which).as_array()
            for name, value, low, high in zip(COLUMNS.values(), values, lowest, highest, strict=True):
                if not low <= value <= high:
                    problems.append(f"{which}.{name} is {value:g}, but plausible.{name} is {low:g} to {high:g}")
        return problems

    def _bad_columns(self) -> list[str]:
        problems = []
        for key, column in self.columns.items():
            units = UNITS.get(key)
            if units is None and key != "id":
                problems.append(f"columns.{key}: must be one of id, {', '.join(INDICATORS)}")
            elif column.unit is not None and column.unit.lower() not in (units or ()):
                known = ", ".join(units) if units else "none, an id has no unit"
                problems.append(f"columns.{key}.unit: must be one of {known}, not '{column.unit}'")
        return problems

    @classmethod
    def load(cls, name: str, overrides: Sequence[str] = ()) -> CellSpec:
        """Read and check a specification: the name of a file in config/cells, or a path.

        Raises:
            ConfigurationError: With every fault of the file, each with its path and remedy.
        """
        path = Path(name)
        if path.suffix == ".yaml" and len(path.parts) == 1 and not path.exists():
            name = path.stem  # lfp-20ah.yaml is that of config/cells
        document = read_document(find_config("cells", name), overrides)
        spec = validate(cls, document)
        document.raise_if_faulty()
        assert spec is not None
        return spec

    def weight_array(self) -> Floats:
        """(3,) weights of capacity, resistance and open-circuit voltage, of sum 1."""
        if self.weights is not None:
            return np.array([self.weights.capacity, self.weights.resistance, self.weights.ocv])
        assert self.comparisons is not None
        return self.comparisons.weights()

    def units(self) -> tuple[float, ...]:
        """What a difference of one means in Ah, mΩ and V: from ideal to worst, by weight; infinite at weight 0.

        Of two cells that are a unit apart in one quantity, one is better by all that this kind of cell can be.
        """
        span = np.abs(self.worst.as_array() - self.ideal.as_array())
        with np.errstate(divide="ignore"):
            return tuple((span / self.weight_array()).tolist())

    def heard(self) -> tuple[str, ...]:
        """The indicators that have a say in a grade: those with a weight, and those with a gate."""
        gated = (
            self.gates.min_capacity > 0,
            self.gates.max_resistance_mohm is not None,
            self.gates.min_ocv_v is not None or self.gates.max_ocv_v is not None,
        )
        shares = self.weight_array().tolist()
        return tuple(name for name, share, gate in zip(INDICATORS, shares, gated, strict=True) if share > 0 or gate)

    def table_columns(self) -> dict[str, Column]:
        """What `CellTable.read` must know of the site's own tables."""
        return {
            key: Column(column.name, column.unit.lower() if column.unit else None)
            for key, column in self.columns.items()
        }


def _square(matrix: tuple[tuple[float, ...], ...]) -> Floats:
    """Rows as an array; a ragged matrix as an error."""
    if any(len(row) != len(matrix) for row in matrix):
        raise ComparisonError(f"a comparison of {len(matrix)} things needs {len(matrix)} values in each row")
    return np.array(matrix)
