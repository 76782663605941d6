"""The channels of the EV line's tester: a test in each, and every channel off when none runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from battery_sorting.core.errors import DeviceError, TesterEmergencyStopError
from battery_sorting.core.types import LineStateId
from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.ev.cell_test import (
    BeginTest,
    Cancel,
    CellTest,
    CommandFailed,
    Event,
    MadeSafe,
    Phase,
    Rules,
    Tick,
)
from battery_sorting.ev.measurement import Programme
from battery_sorting.ev.perform import perform
from battery_sorting.ev.stations.host import StationHost, Workers

TICK_S = 0.05
LOOK_S = 0.1
"""Between two looks at the emergency stop."""
RECONNECT_S = 0.5


@dataclass(frozen=True, slots=True)
class TestRequest:
    """A test that is wanted.

    Attributes:
        channel: 1 is the first.
        is_cancelled: Whether it is no longer wanted.
        on_way: Is told of it every ``feedback_s``.
        ended: Is told of it when it has ended, which is when the cell is safe, or nobody could confirm that.
    """

    __test__ = False

    channel: int
    is_cancelled: Callable[[], bool]
    on_way: Callable[[CellTest], None]
    ended: Callable[[CellTest], None]


class TesterChannels:
    """Runs a test per channel, each in a thread of its own, and knows which channels may be live.

    Args:
        host: The node.
        workers: Where the threads belong to.
        tester: The tester.
        count: Channels that the line uses.
        feedback_s: Between two calls of `TestRequest.on_way` (s).
        report: Makes the line hear at once how the tester is.
    """

    __test__ = False

    def __init__(
        self,
        host: StationHost,
        workers: Workers,
        tester: CellTester,
        count: int,
        programme: Programme,
        rules: Rules,
        feedback_s: float,
        report: Callable[[], None],
    ) -> None:
        self._host, self._workers, self._tester = host, workers, tester
        self.count = count
        self._programme, self._rules, self._feedback_s, self._report = programme, rules, feedback_s, report
        self._testing: set[int] = set()
        self._cancelled: set[int] = set()  # channels whose tests the node's deactivation ends
        self._ordered_by: dict[int, str] = {}  # channel → line controller
        self._live: set[int] = set()  # channels of which nobody has confirmed yet that they are off
        self._abandoned: set[int] = set()  # those of them that could not be switched off at the end of their tests
        self._saying = threading.Lock()
        self._connecting = threading.Lock()

    # ---- life cycle ----

    def open(self) -> None:
        """Connects to the tester and makes every channel safe: nobody knows what ran there before.

        Raises:
            DeviceError: That can't be done.
        """
        self._tester.connect()
        for channel in range(1, self.count + 1):
            self._tester.safe(channel)
        self._live.clear()
        self._abandoned.clear()
        self._workers.ending.clear()
        self._workers.start("link", self._keep_link)

    def close(self, patience_s: float) -> None:
        """Cancels all tests: each makes its channel safe; what is not after ``patience_s`` is switched off here."""
        self._workers.end(patience_s)
        for channel in sorted(self._live):
            self._switch_off(channel)
        self._tester.disconnect()

    def rest(self) -> None:
        """Cancels all tests: each switches its channel off by command. Nothing is said about their cells."""
        self._cancelled = set(self._testing)

    # ---- orders ----

    def why_not_now(self, channel: int) -> str:
        """What keeps a channel from being tested; empty if nothing does."""
        if not self._host.emergency.may_move:
            return (
                "the tester's emergency stop is pressed, or was: release it, then clear, reset and start the line"
            )
        if channel in self._abandoned:
            return f"channel {channel} may be live: nobody could confirm that the current is off"
        if not self._host.ok:
            return self._host.detail
        return f"channel {channel} is busy with a test" if channel in self._testing else ""

    def begin(self, request: TestRequest) -> None:
        """Begins a test; the channel is busy until `free`."""
        channel = request.channel
        self._cancelled.discard(channel)
        self._ordered_by[channel] = self._host.line_controller
        self._testing.add(channel)
        self._live.add(channel)
        self._tell_figures()
        self._workers.start(f"channel {channel}", lambda: self._test(request))

    def free(self, channel: int) -> None:
        """The result of the channel's test has been handed out."""
        self._testing.discard(channel)
        self._tell_figures()

    def _tell_figures(self) -> None:
        self._host.figures = {"testing": len(self._testing), "answers_dropped": self._tester.answers_dropped}

    # ---- a test ----

    def _test(self, request: TestRequest) -> None:
        """Runs the machine of one test to its end, which is when the cell is safe; so it is if that breaks, too."""
        channel = request.channel
        try:
            test = self._run(request)
        except BaseException:
            self._switch_off(channel)
            raise
        if test.safe:
            self._live.discard(channel)
        else:
            self._abandon(channel)
            self._host.get_logger().error(f"channel {channel}: it could not be confirmed that the current is off")
        request.ended(test)

    def _abandon(self, channel: int) -> None:
        """This channel should be off and may be live: the line hears that before any result of its test.

        A controller that was started anew waits for no result, and would have the cell taken out.
        """
        self._abandoned.add(channel)
        self._say_how_it_is()
        self._report()

    def _run(self, request: TestRequest) -> CellTest:
        channel = request.channel
        test, feedback_at = CellTest(self._programme, self._rules), 0.0
        test = self._advance(test, BeginTest(), channel)
        cancelled = False
        while not test.ended:
            if not cancelled and self._is_cancelled(request):
                cancelled = True
                test = self._advance(test, Cancel(), channel)
                continue
            test = self._advance(test, Tick(), channel)
            if time.monotonic() > feedback_at:
                feedback_at = time.monotonic() + self._feedback_s
                request.on_way(test)
            time.sleep(TICK_S)  # in vain would be an event: a cell is made safe to its end even when the node ends
        return test

    def _is_cancelled(self, request: TestRequest) -> bool:
        channel = request.channel
        ends = self._workers.ending.is_set() or channel in self._cancelled
        # Another controller does not know of this test, and may have its cell taken away.
        ordered_by = self._ordered_by[channel] = self._ordered_by[channel] or self._host.line_controller
        ends = ends or self._host.line_controller != ordered_by
        return ends or request.is_cancelled()

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

    # ---- the link, and what may be live ----

    def _switch_off(self, channel: int) -> None:
        """The last way to make a channel safe, when its test could not. After it there is the tester's watchdog."""
        try:
            if not self._tester.connected:
                self._tester.connect(1.0)
            self._confirm_off(channel)
        except DeviceError as error:
            text = f"channel {channel}: it could not be confirmed that the current is off: {error}"
            self._host.get_logger().error(text)

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
        ending = self._workers.ending
        while not ending.wait(LOOK_S):
            try:
                with self._connecting:
                    if not self._tester.connected:
                        self._tester.connect()
                self._look_at_emergency_stop()
                problem = self._switch_off_abandoned()
            except DeviceError as error:
                problem = str(error)
            if not ending.is_set():
                self._say_how_it_is(problem)
                ending.wait(RECONNECT_S if problem else 0.0)

    def _switch_off_abandoned(self) -> str:
        """Tries again to switch off what may be live and is not being tested; returns what kept one from it."""
        problem = ""
        for channel in sorted(self._abandoned):
            try:
                self._confirm_off(channel)
                self._host.get_logger().info(f"channel {channel}: the current is off by now, and that is confirmed")
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
                self._host.degrade(f"{text}: {problem}" if problem else text)
            elif problem:
                self._host.degrade(problem)
            elif self._host.emergency.standing:
                self._host.degrade(
                    "the tester's emergency stop is pressed, or was: release it, then clear the line"
                )
            else:
                self._host.recover()

    def _look_at_emergency_stop(self) -> None:
        """It stays tripped until it is reset: that is done when a person, who has released it, clears the line."""
        stands = self._tester.emergency_stop_stands()
        if stands and self._host.line_state is LineStateId.CLEARING:
            with contextlib.suppress(TesterEmergencyStopError):  # it is still pressed
                self._tester.reset_emergency_stop()
            stands = self._tester.emergency_stop_stands()
        self._host.see_emergency_stop(stands)
