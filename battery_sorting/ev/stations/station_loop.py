"""The thread that owns the inspection station's PLC and its machine."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from battery_sorting.core.errors import DeviceBusyError, DeviceError, DeviceTimeoutError, LedgerError
from battery_sorting.core.types import LineStateId, make_battery_id
from battery_sorting.drivers.station_plc.base import StationPlc, StationStatus
from battery_sorting.ev.faults import FlipError
from battery_sorting.ev.inspection import (
    Finished,
    FlipEnded,
    Inspection,
    Recover,
    StationDo,
    StationEvent,
    StationOrder,
    Step,
    Stuck,
)
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.ev.stations.host import StationHost, Workers
from battery_sorting.ev.stations.station_ledger import StationLedger
from battery_sorting.ev.unit import STARTED
from battery_sorting.ledger import Record

POLL_S = 0.02
RECONNECT_S = 0.5
DEACTIVATED = "the station's node was deactivated"


@dataclass(frozen=True, slots=True)
class _Call:
    """Something that another thread wants to be done by the thread of the station.

    Attributes:
        work: Does it.
        withdraw: Is called instead where the node was deactivated since: an order of before is of the past then.
            None: it is done all the same.
        rests: How often the node had been deactivated when it was asked for.
    """

    work: Callable[[], None]
    withdraw: Callable[[], None] | None
    rests: int


class StationLoop:
    """Wires PLC and ledger to the machine, `ev.inspection`.

    One thread owns the PLC and the machine: all that happens is handed to it by a queue. What the machine decides
    is in the ledger before it is sent.

    Nothing is begun, and no cell of before taken up, unless the line is started. What has begun is brought to its
    end even if the line is halted, but not while the node is inactive: then the machine rests, and goes on later.
    If something goes wrong on the way, a halted line's station stands as it is until the line goes on.
    What was ordered and had not begun by then is withdrawn. A flip by hand alone is followed to its end.

    The machine waits for devices alone, so its time is the host's monotonic clock, as that of statuses and frames.

    Args:
        host: The node.
        workers: Where the thread belongs to.
        site: Outlets of the station.
        recipe: What happens to which cell.
        plc: The station's PLC.
        ledger: Where the records go.
        tell: Is told by the loop's thread, in their order, of the machine's actions that are for neither PLC nor
            ledger.

    Attributes:
        status: What the PLC said last; None: nothing yet.
        plc_error: Why the PLC is not heard, empty if it is.
    """

    def __init__(
        self,
        host: StationHost,
        workers: Workers,
        site: EvSite,
        recipe: EvRecipe,
        plc: StationPlc,
        ledger: StationLedger,
        tell: Callable[[StationDo], None],
    ) -> None:
        self._host, self._workers = host, workers
        self._site, self._recipe = site, recipe
        self._plc, self._ledger, self._tell = plc, ledger, tell
        self._machine = self._new_machine("")
        self._inbox: queue.SimpleQueue[StationEvent | _Call] = queue.SimpleQueue()
        self.status: StationStatus | None = None
        self.plc_error = "not connected yet"
        self._resumed = False
        self._reset_at = 0.0
        self._rests = 0  # how often the node was deactivated

    def _new_machine(self, last_battery_id: str) -> Inspection:
        outlets = {outlet.name: outlet.number for outlet in self._site.outlets}
        return Inspection(self._recipe, outlets, frozenset(self._site.hand_over), last_battery_id)

    # ---- life cycle ----

    def open(self) -> None:
        """Connects to the PLC. The ledger must be open.

        Raises:
            DeviceError: The PLC can't be reached.
        """
        self._machine = self._new_machine(self._ledger.last_id())
        self._resumed = False
        self._plc.connect()

    def start(self) -> None:
        """Begins to work."""
        self._workers.start("station", self._run)

    def close(self) -> None:
        """Withdraws what was ordered, once the thread has ended. A cell in the station stays there on record."""
        self._plc.disconnect()
        while not self._inbox.empty():
            event = self._inbox.get()
            if isinstance(event, _Call) and event.withdraw is not None:
                event.withdraw()
        if self._machine.step is Step.FLIP_BY_HAND:
            self._tell(FlipEnded(FlipError.OTHER, DEACTIVATED))
        self._machine = self._new_machine("")

    def rest(self) -> None:
        """Withdraws what the thread has not begun yet. It orders nothing while the node is inactive."""
        self._rests += 1

    # ---- for other threads ----

    @property
    def step(self) -> Step:
        """Where the inspection stands."""
        return self._machine.step

    @property
    def battery_id(self) -> str:
        """The cell in the station, empty for none."""
        return self._machine.battery_id

    @property
    def idle(self) -> bool:
        """Whether the station is free."""
        return self._machine.idle

    def happened(self, event: StationEvent) -> None:
        """Lets the machine hear of something, as soon as the node is active."""
        self._inbox.put(event)

    def later(self, work: Callable[[], None], withdraw: Callable[[], None] | None = None) -> None:
        """Lets the thread work once the node is active; ``withdraw`` instead, if it is deactivated before."""
        self._inbox.put(_Call(work, withdraw, self._rests))

    def inspect(self, code: str, refuse: Callable[[str], None]) -> None:
        """Loads the next cell, which must carry ``code`` if that is given; ``refuse`` is told why that can't be."""
        self.later(lambda: self._begin(code, refuse), lambda: refuse(DEACTIVATED))

    def cancel(self) -> None:
        """The cell that is inspected goes to quarantine."""
        self.later(self._cancel)

    def flip_by_hand(self) -> None:
        """Flips by hand; what becomes of it is told as `FlipEnded`."""
        until = time.monotonic() + self._recipe.times.flip_s
        self.later(
            lambda: self._perform(self._machine.flip_by_hand(time.monotonic(), until)),
            lambda: self._tell(FlipEnded(FlipError.OTHER, DEACTIVATED)),
        )

    def why_not_now(self) -> str:
        """What keeps the station from taking any order; empty if nothing does."""
        if self.plc_error or self.status is None:
            return f"the station's PLC: {self.plc_error or 'no answer yet'}"
        if not self._host.emergency.may_move:
            return (
                "the station's emergency stop is pressed, or was: release it, then clear, reset and start the line"
            )
        return ""

    def why_not_inspect(self) -> str:
        """What keeps the line from having a cell inspected, but for one that is; empty if nothing does."""
        if self._host.line_is_silent:
            return "the line controller is not heard: start the line"
        if not self._line_is_started:
            return f"the line is {self._host.line_state}: start it"
        if not self._resumed:
            return "the ledger was not asked yet for a cell that a run before has left in the station"
        return ""

    @property
    def _line_is_started(self) -> bool:
        """Whether the station may begin something. A person who has halted the line may have his hands in it."""
        return self._host.active and not self._host.line_is_silent and self._host.line_state in STARTED

    # ---- the thread ----

    def _run(self) -> None:
        ending, poll_at = self._workers.ending, time.monotonic()
        while not ending.is_set():
            try:
                event = self._inbox.get(timeout=max(0.0, poll_at - time.monotonic()))
            except queue.Empty:
                poll_at = time.monotonic() + POLL_S
                self._poll()
                continue
            while not (self._host.active or self._is_withdrawn(event) or ending.wait(POLL_S)):
                self._poll()  # what has come in is looked at when the node is active again
            if ending.is_set():
                self._inbox.put(event)  # for `close`
                return
            if not isinstance(event, _Call):
                self._handle(event)
            elif event.withdraw is not None and self._is_withdrawn(event):
                event.withdraw()
            else:
                event.work()

    def _is_withdrawn(self, event: Any) -> bool:
        return isinstance(event, _Call) and event.withdraw is not None and event.rests != self._rests

    def _poll(self) -> None:
        try:
            if not self._plc.connected:
                self._plc.connect()
            self._plc.refresh_watchdog()
            status = self._plc.read_status()
        except DeviceError as error:
            self._on_loss(error)
            return
        self.plc_error = ""
        self._host.see_emergency_stop(status.emergency_stop)
        self._reset_when_cleared(status)
        if not self._host.emergency.may_move:
            # For the machine it is pressed until a person has started the line again: nothing goes home by itself.
            status = replace(status, emergency_stop=True)
        self.status = status
        self._ledger.watch()
        free = self._machine.idle and not (status.emergency_stop or status.active_token)
        if not self._resumed and self._line_is_started and free:
            self._resume(status)
        if self._may_go_on:
            self._handle(status)

    def _on_loss(self, error: DeviceError) -> None:
        if self._workers.ending.is_set():
            return
        self.plc_error = str(error)
        self._host.degrade(error)
        if self._may_go_on:
            self._machine.may_recover = self._line_is_started
            self._perform(self._machine.tick(time.monotonic()))
        self._workers.ending.wait(0 if isinstance(error, (DeviceTimeoutError, DeviceBusyError)) else RECONNECT_S)

    @property
    def _may_go_on(self) -> bool:
        """Whether the machine hears of the PLC. While the node is inactive it rests, but for the end of a flip."""
        return self._host.active or self._machine.step is Step.FLIP_BY_HAND

    def _handle(self, event: StationEvent) -> None:
        self._machine.may_recover = self._line_is_started
        self._perform(self._machine.handle(event, time.monotonic()))

    def _reset_when_cleared(self, status: StationStatus) -> None:
        """The PLC's emergency stop stands until it is reset; that is done when a person clears the line.

        The flipper goes home by that. The cell stays where it is until the line is started.
        """
        cleared = status.emergency_stop and self._host.line_state is LineStateId.CLEARING
        if not cleared or time.monotonic() < self._reset_at:
            return
        self._reset_at = time.monotonic() + RECONNECT_S
        try:
            self._plc.reset_faults()
        except DeviceError as error:
            self._host.get_logger().error(str(error))

    def _resume(self, status: StationStatus) -> None:
        """Takes up the cell that lay in the station when the last run was cut off; later, if the ledger is away."""
        if not self._ledger.may_be_read:
            return
        try:
            cut_off = self._ledger.cut_off()
        except LedgerError:
            return
        self._resumed, self._machine.may_recover = True, self._line_is_started
        for battery_id, outlet, token in cut_off:
            same_boot = battery_id.startswith(make_battery_id(status.boot_id, 0)[:-6])
            self._host.get_logger().warning(f"taking up cell {battery_id}, whose inspection was cut off")
            now = time.monotonic()
            self._machine.handle(status, now)
            self._perform(self._machine.resume(battery_id, outlet, token if same_boot else 0, now))

    def _begin(self, code: str, refuse: Callable[[str], None]) -> None:
        text = self._why_not_begin()
        if text:
            refuse(text)
            return
        self._perform(self._machine.begin(time.monotonic(), code))

    def _why_not_begin(self) -> str:
        if not self._machine.idle:  # since the goal was taken, the cell of a run that was cut off came up
            return "the station is not free"
        if not self._line_is_started:
            return "the line was halted"
        try:
            if self._ledger.join_shift() is None:
                return "no shift is open: the line controller has not begun one"
        except LedgerError as error:
            return str(error)
        return ""

    def _cancel(self) -> None:
        self._machine.may_recover = self._line_is_started
        self._perform(self._machine.cancel(time.monotonic()))

    # ---- what was decided ----

    def _perform(self, actions: list[StationDo]) -> None:
        """Carries out what was decided, the records first. Without its record nothing is moved."""
        records = [action for action in actions if isinstance(action, Record)]
        if records and not self._ledger.write(records, self._stay_awake):
            return
        for action in actions:
            if isinstance(action, (StationOrder, Recover)):
                self._send(action)
            elif isinstance(action, Stuck):
                self._host.get_logger().error(action.text)
                self._host.warning = action.text
            elif not isinstance(action, Record):
                if isinstance(action, Finished):
                    self._host.warning = ""
                self._tell(action)

    def _send(self, action: StationOrder | Recover) -> None:
        """An order that does not reach the PLC is missed by the machine, which then knows what to do."""
        try:
            if not (self._host.active and self._host.emergency.may_move):
                return  # the machine asks again
            self._plc.refresh_watchdog()  # an order takes two requests, and the next sign of life comes after them
            if isinstance(action, StationOrder):
                self._plc.send(action.command)
                return
            if not self._line_is_started:  # its record may have waited long for the ledger
                return
            # An emergency stop since the last look, of a moment, must not be gone with what is acknowledged here.
            self._host.see_emergency_stop(self._plc.read_status().emergency_stop)
            if self._host.emergency.may_move:
                self._plc.reset_faults()
        except DeviceError as error:
            self._host.get_logger().error(str(error))

    def _stay_awake(self) -> None:
        """While the ledger is away the station stands, and that is no fault of the PLC."""
        try:
            if self._plc.connected:
                self._plc.refresh_watchdog()
        except DeviceError as error:
            self._host.get_logger().error(str(error))
