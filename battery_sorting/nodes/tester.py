"""The tester of the EV line: measures cells, several at once."""

from __future__ import annotations

import contextlib
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
    TesterEmergencyStopError,
    TesterTimeoutError,
    VoltageWindowError,
)
from battery_sorting.core.types import LineStateId
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.ev.cell_test import (
    LINK_CODES,
    BeginTest,
    Cancel,
    CellTest,
    CellTestOutcome,
    CommandFailed,
    Event,
    MadeSafe,
    Phase,
    Rules,
    Tick,
)
from battery_sorting.ev.perform import perform
from battery_sorting.ros import convert
from battery_sorting.ros.lasting import printable
from battery_sorting.ros.long_action import LongActionServer, Refusal
from battery_sorting.ros.node import EvNode
from battery_sorting.ros.parameters import declare
from battery_sorting.ros.process import run

TICK_S = 0.05
LOOK_S = 0.1
"""Between two looks at the emergency stop."""
RECONNECT_S = 0.5
CLOSE_S = 2.5
"""So long tests are given to make their channels safe when the node ends."""

_Result = TestCell.Result
_CODES = {
    OpenContactError.code: _Result.BAD_CONTACT,
    ReversedPolarityError.code: _Result.REVERSED,
    OverTemperatureError.code: _Result.OVER_TEMPERATURE,
    VoltageWindowError.code: _Result.VOLTAGE,
    TesterTimeoutError.code: _Result.TIMEOUT,
    TesterEmergencyStopError.code: _Result.EMERGENCY_STOP,
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
        self._feedback_s = float(declare(self, "feedback_s"))
        self._rules = Rules(safe_s=float(declare(self, "safe_s", Rules().safe_s)))
        self._testing: set[int] = set()
        self._cancelled: set[int] = set()  # channels whose tests the node's deactivation ends
        self._ordered_by: dict[int, str] = {}  # channel → line controller
        self._live: set[int] = set()  # channels of which nobody has confirmed yet that they are off
        self._abandoned: set[int] = set()  # those of them that could not be switched off at the end of their tests
        self._saying = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connecting = threading.Lock()
        ended = (_Result.CANCELLED,)
        self._server = LongActionServer(self, TestCell, "test_cell", self._why_not, self._begin, ended)

    def open(self) -> None:
        """Connects to the tester and makes every channel safe: nobody knows what ran there before."""
        if self._channels > len(self._tester.channels):
            problem = f"measuring.channels: the tester has {len(self._tester.channels)}, not {self._channels}"
            raise ConfigurationError(f"site {self.settings.site.name}", [problem])
        self._tester.connect()
        for channel in range(1, self._channels + 1):
            self._tester.safe(channel)
        self._live.clear()
        self._abandoned.clear()
        self._stop.clear()
        self._threads = [self.start_thread("link", self._keep_link)]

    def close(self) -> None:
        """Cancels all tests: each makes its channel safe; what is not safe then is switched off here."""
        self._stop.set()
        until = time.monotonic() + CLOSE_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self._threads = []
        for channel in sorted(self._live):
            self._switch_off(channel)
        self._tester.disconnect()

    def rest(self) -> None:
        """Cancels all tests: each switches its channel off by command. Nothing is said about their cells."""
        self._cancelled = set(self._testing)

    def _switch_off(self, channel: int) -> None:
        """The last way to make a channel safe, when its test could not. After it there is the tester's watchdog."""
        try:
            if not self._tester.connected:
                self._tester.connect(1.0)
            self._confirm_off(channel)
        except DeviceError as error:
            text = f"channel {channel}: it could not be confirmed that the current is off: {error}"
            self.get_logger().error(text)

    def _confirm_off(self, channel: int) -> None:
        """Switches a channel off; it counts as live until the tester has confirmed that.

        Raises:
            DeviceError: It has not.
        """
        self._tester.safe(channel)
        self._live.discard(channel)
        self._abandoned.discard(channel)  # the last: from now on it may be tested again

    def _keep_link(self) -> None:
        """Connects again after a loss, switches off what may be live, and says how the tester is."""
        while not self._stop.wait(LOOK_S):
            try:
                with self._connecting:
                    if not self._tester.connected:
                        self._tester.connect()
                self._look_at_emergency_stop()
                problem = self._switch_off_abandoned()
            except DeviceError as error:
                problem = str(error)
            if not self._stop.is_set():
                self._say_how_it_is(problem)
                self._stop.wait(RECONNECT_S if problem else 0.0)

    def _switch_off_abandoned(self) -> str:
        """Tries again to switch off what may be live and is not being tested; returns what kept one from it."""
        problem = ""
        for channel in sorted(self._abandoned):
            try:
                self._confirm_off(channel)
                self.get_logger().info(f"channel {channel}: the current is off by now, and that is confirmed")
            except DeviceError as error:  # the other channels must be tried all the same
                problem = str(error)
        return problem

    def _say_how_it_is(self, problem: str = "") -> None:
        """In every heartbeat from now on. Whoever calls it has put the channel into ``_abandoned`` before."""
        with self._saying:  # else a look of before a test's end could call the tester well after it
            live = sorted(self._abandoned)
            if live:
                which = f"channel{'s' if live[1:] else ''} {', '.join(map(str, live))}"
                text = f"{which} may be live: nobody could confirm that the current is off: keep away from it"
                self.degrade(f"{text}: {problem}" if problem else text)
            elif problem:
                self.degrade(problem)
            elif self.emergency.standing:
                self.degrade("the tester's emergency stop is pressed, or was: release it, then clear the line")
            else:
                self.recover()

    def _look_at_emergency_stop(self) -> None:
        """It stays tripped until it is reset: that is done when a person, who has released it, clears the line."""
        stands = self._tester.emergency_stop_stands()
        if stands and self.line_state is LineStateId.CLEARING:
            with contextlib.suppress(TesterEmergencyStopError):  # it is still pressed
                self._tester.reset_emergency_stop()
            stands = self._tester.emergency_stop_stands()
        self.see_emergency_stop(stands)

    # ---- the action ----

    def _why_not(self, goal: TestCell.Goal) -> Refusal | None:
        text = self._why_not_at_all(goal) or self._why_not_now(goal.channel)
        return Refusal(_Result.NOT_READY, printable(text)) if text else None

    def _why_not_at_all(self, goal: TestCell.Goal) -> str:
        if not 1 <= goal.channel <= self._channels:
            return f"there is no channel {goal.channel}; there are 1 to {self._channels}"
        if goal.programme not in {"", self._programme.name}:
            return f"there is no programme {goal.programme!r}; the recipe's is {self._programme.name!r}"
        return ""

    def _why_not_now(self, channel: int) -> str:
        if not self.active:
            return f"the node is {self.lifecycle.name.lower()}: activate it"
        if not self.emergency.may_move:
            return (
                "the tester's emergency stop is pressed, or was: release it, then clear, reset and start the line"
            )
        if channel in self._abandoned:
            return f"channel {channel} may be live: nobody could confirm that the current is off"
        if not self.ok:
            return self.detail
        return f"channel {channel} is busy with a test" if channel in self._testing else ""

    def _begin(self, handle: Any) -> None:
        channel = int(handle.request.channel)
        self._cancelled.discard(channel)
        self._ordered_by[channel] = self.line_controller
        self._testing.add(channel)
        self._live.add(channel)
        self._tell_figures()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(self.start_thread(f"channel {channel}", lambda: self._test(handle, channel)))

    def _free(self, channel: int) -> None:
        self._testing.discard(channel)
        self._tell_figures()

    def _tell_figures(self) -> None:
        self.figures = {"testing": len(self._testing), "answers_dropped": self._tester.answers_dropped}

    def _test(self, handle: Any, channel: int) -> None:
        """Runs the machine of one test to its end, which is when the cell is safe; so it is if that breaks, too."""
        try:
            test = self._run(handle, channel)
        except BaseException:
            self._switch_off(channel)
            raise
        if test.safe:
            self._live.discard(channel)
        else:
            self._abandon(channel)
            self.get_logger().error(f"channel {channel}: it could not be confirmed that the current is off")
        result = self._result(str(handle.request.battery_id), test)
        self._server.finish(handle, result, lambda: self._free(channel))

    def _abandon(self, channel: int) -> None:
        """This channel should be off and may be live: the line hears that before any result of its test.

        A controller that was started anew waits for no result, and would have the cell taken out.
        """
        self._abandoned.add(channel)
        self._say_how_it_is()
        self._send_heartbeat()

    def _run(self, handle: Any, channel: int) -> CellTest:
        test, feedback_at = CellTest(self._programme, self._rules), 0.0
        test = self._advance(test, BeginTest(), channel)
        cancelled = False
        while not test.ended:
            if not cancelled and self._is_cancelled(handle, channel):
                cancelled = True
                test = self._advance(test, Cancel(), channel)
                continue
            test = self._advance(test, Tick(), channel)
            if time.monotonic() > feedback_at:
                feedback_at = time.monotonic() + self._feedback_s
                self._publish_feedback(handle, test)
            time.sleep(TICK_S)  # in vain would be an event: a cell is made safe to its end even when the node ends
        return test

    def _is_cancelled(self, handle: Any, channel: int) -> bool:
        ends = self._stop.is_set() or channel in self._cancelled
        # Another controller does not know of this test, and may have its cell taken away.
        ordered_by = self._ordered_by[channel] = self._ordered_by[channel] or self.line_controller
        ends = ends or self.line_controller != ordered_by
        return ends or self._server.cancel_requested(handle)

    def _advance(self, test: CellTest, event: Event, channel: int) -> CellTest:
        events = [event]
        while events:
            if test.phase is Phase.MAKING_SAFE and isinstance(events[0], CommandFailed):
                self._abandon(channel)
            elif test.phase is Phase.MAKING_SAFE and isinstance(events[0], MadeSafe):
                self._abandoned.discard(channel)
            test, commands = test.advance(events.pop(0), time.monotonic())
            events += [perform(self._tester, channel, command) for command in commands]
        return test

    def _result(self, battery_id: str, test: CellTest) -> TestCell.Result:
        outcome = test.outcome or CellTestOutcome.FAILED
        code = _CODES.get(test.error_code, _Result.OTHER if test.error_code else _Result.NONE)
        if outcome is CellTestOutcome.CANCELLED:
            code = _Result.CANCELLED
        elif outcome is CellTestOutcome.BAD_CONTACT and code == _Result.OTHER:
            code = _Result.BAD_CONTACT
        if not test.safe:
            code = _Result.NOT_SAFE
        return _Result(
            success=outcome is CellTestOutcome.MEASURED and test.safe,
            error_code=code,
            error_msg=test.error_message,
            num_retries=test.retries,
            outcome=outcome.value,
            code=test.error_code if outcome is not CellTestOutcome.MEASURED else "",
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
