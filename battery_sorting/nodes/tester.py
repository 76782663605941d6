"""The tester of the EV line: measures cells, several at once."""

from __future__ import annotations

import threading
import time
from typing import Any

from battery_sorting.action import TestCell
from battery_sorting.core.errors import (
    ConfigurationError,
    DeviceError,
    OpenContactError,
    OverTemperatureError,
    ReversedPolarityError,
    TesterTimeoutError,
    VoltageWindowError,
)
from battery_sorting.core.ev.cell_test import LINK_CODES, Begin, Cancel, CellTest, Event, Outcome, Tick
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.tester.base import CellTester, perform
from battery_sorting.ros import convert
from battery_sorting.ros.long_action import LongActionServer
from battery_sorting.ros.node import EvNode, run

TICK_S = 0.05
RECONNECT_S = 0.5
FEEDBACK_S = 1.0

_Result = TestCell.Result
_CODES = {
    OpenContactError.code: _Result.BAD_CONTACT,
    ReversedPolarityError.code: _Result.REVERSED,
    OverTemperatureError.code: _Result.OVER_TEMPERATURE,
    VoltageWindowError.code: _Result.VOLTAGE,
    TesterTimeoutError.code: _Result.TIMEOUT,
    **dict.fromkeys(LINK_CODES, _Result.TESTER_LOST),
}


class TesterNode(EvNode):
    """Serves the action TestCell: a goal for each channel, each in a thread of its own."""

    __test__ = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("tester", **kwargs)
        measuring, recipe = self.settings.site.measuring, self.settings.recipe.measuring
        if measuring is None or recipe is None:
            raise ConfigurationError(f"site {self.settings.site.name}", ["measuring: this section is missing"])
        self._programme = recipe.programme
        self._channels = measuring.channels
        self._tester: CellTester = find_driver("tester", measuring.tester.driver).from_settings(
            measuring.tester.settings
        )  # type: ignore[assignment]
        self._testing: set[int] = set()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connecting = threading.Lock()
        self._server = LongActionServer(self, TestCell, "test_cell", self._may_test, self._begin)

    def open(self) -> None:
        """Connects to the tester and makes every channel safe: nobody knows what ran there before."""
        if self._channels > len(self._tester.channels):
            problem = f"measuring.channels: the tester has {len(self._tester.channels)}, not {self._channels}"
            raise ConfigurationError(f"site {self.settings.site.name}", [problem])
        self._tester.connect()
        for channel in range(1, self._channels + 1):
            self._tester.safe(channel)
        self._stop.clear()
        self._threads = [self.start_thread("link", self._keep_link)]

    def close(self) -> None:
        """Cancels all tests: each makes its channel safe; then disconnects."""
        self._stop.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(2.0)
        self._threads = []
        self._tester.disconnect()

    def _keep_link(self) -> None:
        """Connects again after a loss, and says how the tester is."""
        while not self._stop.wait(RECONNECT_S):
            try:
                with self._connecting:
                    if not self._tester.connected:
                        self._tester.connect()
                        self.recover()
                if not self._testing:
                    self._tester.read_progress(1)  # nobody else would notice that it is gone
                    self.recover()
            except DeviceError as error:
                if not self._stop.is_set():
                    self.degrade(error)

    # ---- the action ----

    def _may_test(self, goal: TestCell.Goal) -> bool:
        known = 1 <= goal.channel <= self._channels and goal.programme in {"", self._programme.name}
        return bool(known and self.active and self.ok and goal.channel not in self._testing)

    def _begin(self, handle: Any) -> None:
        channel = int(handle.request.channel)
        self._testing.add(channel)
        self.figures = {"testing": len(self._testing)}
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(self.start_thread(f"channel {channel}", lambda: self._test(handle, channel)))

    def _free(self, channel: int) -> None:
        self._testing.discard(channel)
        self.figures = {"testing": len(self._testing)}

    def _test(self, handle: Any, channel: int) -> None:
        """Runs the machine of one test to its end, which is when the cell is safe."""
        test, feedback_at = CellTest(self._programme), 0.0
        test = self._advance(test, Begin(), channel)
        cancelled = False
        while not test.ended:
            if not cancelled and (handle.is_cancel_requested or self._stop.is_set()):
                cancelled = True
                test = self._advance(test, Cancel(), channel)
                continue
            test = self._advance(test, Tick(), channel)
            if time.monotonic() > feedback_at:
                feedback_at = time.monotonic() + FEEDBACK_S
                self._publish_feedback(handle, test)
            time.sleep(TICK_S)  # in vain would be an event: a cell is made safe to its end even when the node ends
        result = self._result(str(handle.request.battery_id), channel, test)
        self._server.finish(handle, result, lambda: self._free(channel))

    def _advance(self, test: CellTest, event: Event, channel: int) -> CellTest:
        events = [event]
        while events:
            test, commands = test.advance(events.pop(0), time.monotonic())
            events += [perform(self._tester, channel, command) for command in commands]
        return test

    def _result(self, battery_id: str, channel: int, test: CellTest) -> TestCell.Result:
        outcome = test.outcome or Outcome.FAILED
        code = _CODES.get(test.error_code, _Result.OTHER if test.error_code else _Result.NONE)
        if outcome is Outcome.CANCELLED:
            code = _Result.CANCELLED
        elif outcome is Outcome.BAD_CONTACT and code == _Result.OTHER:
            code = _Result.BAD_CONTACT
        if not test.safe:
            code = _Result.NOT_SAFE
            self.get_logger().error(f"channel {channel}: it could not be confirmed that the current is off")
        return _Result(
            success=outcome is Outcome.MEASURED and test.safe,
            error_code=code,
            error_msg=test.error_message,
            num_retries=test.retries,
            outcome=outcome.value,
            code=test.error_code if outcome is not Outcome.MEASURED else "",
            measurement=convert.measurement_message(
                battery_id, test.measurement, self._programme.name, time.time()
            ),
        )

    def _publish_feedback(self, handle: Any, test: CellTest) -> None:
        last = test.last
        if last is not None:
            message = TestCell.Feedback(
                step=last.step,
                steps=last.steps,
                voltage_v=last.voltage_v,
                current_a=last.current_a,
                temperature_c=last.temperature_c,
                progress=test.progress,
            )
            self._server.feedback(handle, message)


def main() -> None:
    """Entry point."""
    run(TesterNode)
