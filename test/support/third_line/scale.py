"""The station: weighs a cell every 0.1 s while the line runs. (Its balance is only claimed: there is none.)"""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

from std_msgs.msg import Float32

from battery_sorting.core.types import LineStateId
from battery_sorting.ros import qos
from battery_sorting.ros.node import LineNode, RunSettings, run

from .files import WeighingRecipe, WeighingSite
from .kind import WEIGHING


class Scale(LineNode[RunSettings[WeighingSite, WeighingRecipe]]):
    """Publishes weights."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("scale", partial(RunSettings, kind=WEIGHING), **kwargs)
        self._weights = self.create_publisher(Float32, "weight", qos.BATTERY_EVENT)
        self._next = cycle((812.0, 640.0, 799.0))
        self.create_timer(0.1, self._weigh)

    def _weigh(self) -> None:
        if self.active and self.line_state is LineStateId.EXECUTE:
            self._weights.publish(Float32(data=next(self._next)))


def main() -> None:
    """Entry point."""
    run(Scale)
