"""The tester of the EV line: measures cells, several at once."""

from __future__ import annotations

from typing import Any

from battery_sorting.action import TestCell
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.ev.cell_test import CellTest, Rules
from battery_sorting.ev.stations.host import Workers
from battery_sorting.ev.stations.testing import TesterChannels, TestRequest
from battery_sorting.ros.lasting import printable
from battery_sorting.ros.long_action import LongActionServer, Refusal
from battery_sorting.ros.node import EvNode, run
from battery_sorting.ros.parameters import declare
from battery_sorting.ros.station_messages import cell_test_feedback, cell_test_result

CLOSE_S = 2.5
"""So long tests are given to make their channels safe when the node ends."""


class TesterNode(EvNode):
    """Serves the action TestCell: a goal for each channel, each in a thread of its own."""

    __test__ = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("tester", **kwargs)
        measuring, recipe = self.settings.site.measuring, self.settings.recipe.measuring
        if measuring is None or recipe is None:
            raise ConfigurationError(f"site {self.settings.site.name}", ["measuring: this section is missing"])
        self._programme = recipe.programme
        self._tester: CellTester = find_driver("tester", measuring.tester.driver).from_settings(
            measuring.tester.settings
        )  # type: ignore[assignment]
        feedback_s = float(declare(self, "feedback_s"))
        rules = Rules(safe_s=float(declare(self, "safe_s", Rules().safe_s)))
        self._channels = TesterChannels(
            self,
            Workers(self),
            self._tester,
            measuring.channels,
            self._programme,
            rules,
            feedback_s,
            self._send_heartbeat,
        )
        ended = (TestCell.Result.CANCELLED,)
        self._server = LongActionServer(self, TestCell, "test_cell", self._why_not, self._begin, ended)

    def open(self) -> None:
        """Connects to the tester and makes every channel safe: nobody knows what ran there before."""
        if self._channels.count > len(self._tester.channels):
            problem = f"measuring.channels: the tester has {len(self._tester.channels)}, not {self._channels.count}"
            raise ConfigurationError(f"site {self.settings.site.name}", [problem])
        self._channels.open()

    def close(self) -> None:
        """Cancels all tests: each makes its channel safe; what is not safe then is switched off here."""
        self._channels.close(CLOSE_S)

    def rest(self) -> None:
        """Cancels all tests: each switches its channel off by command. Nothing is said about their cells."""
        self._channels.rest()

    # ---- the action ----

    def _why_not(self, goal: TestCell.Goal) -> Refusal | None:
        text = self._why_not_at_all(goal) or self._why_not_now(goal.channel)
        return Refusal(TestCell.Result.NOT_READY, printable(text)) if text else None

    def _why_not_at_all(self, goal: TestCell.Goal) -> str:
        if not 1 <= goal.channel <= self._channels.count:
            return f"there is no channel {goal.channel}; there are 1 to {self._channels.count}"
        if goal.programme not in {"", self._programme.name}:
            return f"there is no programme {goal.programme!r}; the recipe's is {self._programme.name!r}"
        return ""

    def _why_not_now(self, channel: int) -> str:
        if not self.active:
            return f"the node is {self.lifecycle.name.lower()}: activate it"
        return self._channels.why_not_now(channel)

    def _begin(self, handle: Any) -> None:
        self._channels.begin(
            TestRequest(
                int(handle.request.channel),
                lambda: self._server.cancel_requested(handle),
                lambda test: self._publish_feedback(handle, test),
                lambda test: self._finish(handle, test),
            )
        )

    def _publish_feedback(self, handle: Any, test: CellTest) -> None:
        message = cell_test_feedback(test)
        if message is not None:
            self._server.feedback(handle, message)

    def _finish(self, handle: Any, test: CellTest) -> None:
        channel = int(handle.request.channel)
        result = cell_test_result(str(handle.request.battery_id), test, self._programme.name)
        self._server.finish(handle, result, lambda: self._channels.free(channel))


def main() -> None:
    """Entry point."""
    run(TesterNode)
