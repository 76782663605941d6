"""The weighing line, as those see it who start, check and report on lines of any kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.ledger import BatteryRecord, Shift
from battery_sorting.line.contract import COMMAND, CONTROLLER, Contract, NodeContract, Role, Topic, shared_topics
from battery_sorting.line.kind import Findings, LineKind
from battery_sorting.line.reporting import ReportTable, ShiftReport, find_shift

from .files import WeighingRecipe, WeighingSite

if TYPE_CHECKING:
    from battery_sorting.ledger.store import Ledger

NODES = ("scale", CONTROLLER)
HEAVIEST_G = 3000.0

CONTRACT = Contract(
    "weighing",
    (
        NodeContract("scale", Role.DEVICE, "Weighs cells.", "the line holds", "no cell is weighed"),
        NodeContract(
            CONTROLLER,
            Role.DECISION,
            "Decides and records.",
            "the scale weighs nothing more",
            "it has no life cycle",
        ),
    ),
    (
        *shared_topics(NODES, ("scale",)),
        Topic(
            "weight",
            "std_msgs/msg/Float32",
            "BATTERY_EVENT",
            ("scale",),
            (CONTROLLER,),
            True,
            "Weight of the next cell, in grams.",
        ),
    ),
    (COMMAND,),
)


@dataclass(frozen=True)
class WeighingReport(ShiftReport):
    """How many cells had which weight."""

    of: Shift
    cells: list[BatteryRecord]
    item = "cell"

    @property
    def shift(self) -> Shift:
        """The shift that it is about."""
        return self.of

    @property
    def empty(self) -> bool:
        """Whether no cell has come yet."""
        return not self.cells

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {"cells": len(self.cells), "outlets": dict(Counter(cell.bin for cell in self.cells))}

    def tables(self) -> list[ReportTable]:
        """The figures for a person."""
        rows = tuple((name, str(count)) for name, count in self.to_dict()["outlets"].items())
        return [ReportTable("Cells by weight", ("outlet", "cells"), rows)]


class _WeighingLine(LineKind[WeighingSite, WeighingRecipe]):
    name = "weighing"
    entrance = "on the scale"
    site, recipe, contract = WeighingSite, WeighingRecipe, CONTRACT
    executables = {CONTROLLER: "weighing_controller"}  # noqa: RUF012

    def node_names(self, site: WeighingSite) -> tuple[str, ...]:  # noqa: ARG002
        return NODES

    def check(self, site: WeighingSite, recipe: WeighingRecipe) -> Findings:
        if recipe.least_g > HEAVIEST_G:
            problem = f"least_g: {recipe.least_g:g} is above the scale's {HEAVIEST_G:g} g"
            raise ConfigurationError(f"recipe {recipe.name} at site {site.name}", [problem])
        return Findings((f"recipe: {recipe.name}, at least {recipe.least_g:g} g",))

    def report(
        self,
        ledger: Ledger,
        shift_id: int | None = None,
        plant: Path | None = None,  # noqa: ARG002
    ) -> WeighingReport:
        shift = find_shift(ledger, shift_id)
        return WeighingReport(shift, ledger.batteries(shift.shift_id))


WEIGHING = _WeighingLine()
