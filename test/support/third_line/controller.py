"""Runs the weighing line: PackML states, and a record of every cell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from std_msgs.msg import Float32

from battery_sorting.core.types import LineStateId, make_battery_id
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import Detected, Disposed
from battery_sorting.line.contract import CONTROLLER
from battery_sorting.line.controller import LineAction, LineController, Withheld
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.unit import LineUnit, StateChanged
from battery_sorting.ros import qos
from battery_sorting.ros.controller import ControllerNode
from battery_sorting.ros.process import run
from battery_sorting.ros.settings import RunSettings

from .files import WeighingRecipe, WeighingSite
from .kind import WEIGHING

AT_REST = {LineStateId.IDLE, LineStateId.STOPPED, LineStateId.HELD, LineStateId.ABORTED, LineStateId.COMPLETE}


@dataclass
class WeighingUnit(LineUnit):
    """A line on which nothing moves: whatever is begun is done at once."""

    def tick(self, now: float) -> list[Transition | StateChanged]:
        """Moves on; call it at about 20 Hz."""
        problems = self.problems(now)
        orders = [*self._fleet.bring_up(now)]
        if self.state is LineStateId.EXECUTE:
            if problems:
                self._held_by_fault = True
                self._do("hold", "; ".join(problems.values()))
        elif self.state not in AT_REST:
            self._complete()
        elif not problems:
            self._take_up()
        return [*orders, *self._changes()]


@dataclass(frozen=True)
class Weighed:
    """The scale has weighed a cell (g)."""

    grams: float


class WeighingController(LineController[WeighingUnit, Weighed, Record]):
    """Decides by the weight of each cell.

    Args:
        unit: The line's PackML unit.
        least_g: A lighter cell is no product.
        boot: Number of the run that ids of cells begin with.
    """

    places = ()
    in_flight = 0

    def __init__(self, unit: WeighingUnit, least_g: float, boot: int, **kwargs: Any) -> None:
        super().__init__(unit, **kwargs)
        self._least_g, self._boot, self._weighed = least_g, boot, 0

    @property
    def counts(self) -> dict[str, int]:
        """Of the shift."""
        return {"weighed": self._weighed}

    def take(self, event: Weighed | Withheld, now: float) -> list[Record]:  # noqa: ARG002
        """A cell was weighed."""
        if isinstance(event, Withheld):
            return []
        self._weighed += 1
        cell = make_battery_id(self._boot, self._weighed)
        enough = event.grams >= self._least_g
        outlet, reason = ("product", "sorted") if enough else ("light", "too_light")
        return [
            Record(Detected(trigger_count=self._weighed, encoder_count=0), cell),
            Record(Disposed(bin=outlet, reason=reason), cell),
        ]

    def move_on(self, now: float) -> list[LineAction]:
        """Asks the unit what is to be done."""
        problems = self.unit.problems(now)
        return [*self.on_record(self.unit.tick(now)), *self.follow_alarms(problems, now)]


class WeighingControllerNode(ControllerNode[RunSettings[WeighingSite, WeighingRecipe]]):
    """Wires the decisions of the weighing line to the scale and the ledger."""

    frame_id = "weighing"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(partial(RunSettings, kind=WEIGHING), **kwargs)
        site = self.settings.site
        unit = WeighingUnit(
            nodes=tuple(name for name in WEIGHING.node_names(site) if name != CONTROLLER),
            observers=WEIGHING.contract.observers,
            heartbeat_s=site.timeouts.heartbeat_s,
        )
        self.controller = WeighingController(
            unit,
            self.settings.recipe.least_g,
            int(time.time()),
            run_id=self.settings.run_id,
            start_s=site.timeouts.start_s,
        )
        self.controller.begin(self.restart, self.now())
        self.create_subscription(Float32, "weight", self._on_weight, qos.BATTERY_EVENT)
        self.serve()

    def _on_weight(self, message: Float32) -> None:
        self.take(Weighed(message.data))


def main() -> None:
    """Entry point."""
    run(WeighingControllerNode)
