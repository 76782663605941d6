"""Runs the weighing line: PackML states, and a record of every cell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from std_msgs.msg import Float32

from battery_sorting.core.types import LineStateId, make_battery_id
from battery_sorting.ledger import Record
from battery_sorting.line.contract import CONTROLLER
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.unit import LineUnit, StateChanged
from battery_sorting.ros import qos
from battery_sorting.ros.controller import ControllerNode
from battery_sorting.ros.node import RunSettings, run

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


class WeighingController(ControllerNode[RunSettings[WeighingSite, WeighingRecipe]]):
    """Records the cells that the scale has weighed."""

    unit: WeighingUnit
    frame_id = "weighing"
    places = ()
    in_flight = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(partial(RunSettings, kind=WEIGHING), **kwargs)
        site = self.settings.site
        self.unit = WeighingUnit(
            nodes=tuple(name for name in WEIGHING.node_names(site) if name != CONTROLLER),
            observers=WEIGHING.contract.observers,
            auto_start=self.auto_start,
            heartbeat_s=site.timeouts.heartbeat_s,
        )
        self._boot, self._weighed = int(time.time()), 0
        self.create_subscription(Float32, "weight", self._on_weight, qos.BATTERY_EVENT)
        self.serve()

    @property
    def counts(self) -> dict[str, int]:
        """Of the shift."""
        return {"weighed": self._weighed}

    def tick(self, now: float) -> None:
        """Asks the line what is to be done, and does it."""
        problems = self.unit.problems(now)
        for action in self.unit.tick(now):
            if isinstance(action, Transition):
                self.bring_up.ask(action)
            else:
                self.state_changed(action)
        self.follow_alarms(problems)

    def commanded(self, name: str, bin_: str) -> None:
        """There is nothing else to be done."""

    def _on_weight(self, message: Float32) -> None:
        self._weighed += 1
        cell = make_battery_id(self._boot, self._weighed)
        enough = message.data >= self.settings.recipe.least_g
        outlet, reason = ("product", "sorted") if enough else ("light", "too_light")
        seen = {"trigger_count": self._weighed, "encoder_count": 0}
        self.write(
            [
                Record("detected", cell, None, seen),
                Record("disposed", cell, None, {"bin": outlet, "reason": reason}),
            ]
        )


def main() -> None:
    """Entry point."""
    run(WeighingController)
