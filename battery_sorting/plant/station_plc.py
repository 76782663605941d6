"""The PLC of the simulated inspection station: its program, which `plant.plc.PlcServer` serves by Modbus TCP.

It does what `drivers/station_plc/register_map.py` and docs/reference/station_plc.md ask of a real one.
"""

from __future__ import annotations

from dataclasses import dataclass

from battery_sorting.core.types import View, count_difference
from battery_sorting.drivers.registers import to_words
from battery_sorting.drivers.station_plc import register_map as rm
from battery_sorting.drivers.station_plc.base import ActionResult, FlipperPosition, StationAction
from battery_sorting.plant.ev_station import EvWorld

HOMING = -1
"""Stands for a token while the flipper goes home."""

RESTART_S = 1.0


@dataclass(frozen=True, slots=True)
class _Link:
    plc_disconnect: bool
    plc_silent: bool
    plc_garbage: bool
    plc_busy: float


class StationPlcProgram:
    """The PLC's program over an `EvWorld`. All addresses are those of the register map.

    Call `advance` before a read or write: nothing happens in between, as the caller gives the world's time.
    """

    input_size = rm.STATUS_SIZE
    holding_size = rm.HR_COMMAND + rm.HR_COMMAND_SIZE

    def __init__(self, world: EvWorld, boot_id: int) -> None:
        self.world = world
        self.boot_id = boot_id % 2**32
        self._boot_s = 0.0
        self._back_s = 0.0
        self._watchdog_trips = 0
        self._forget()
        world.answer_listeners.append(self._on_answer)
        world.restart_listeners.append(self.restart)

    def _forget(self) -> None:
        """What is lost with the supply."""
        self._active_token = 0
        self._active_action = StationAction.NONE
        self._active_since_s = 0.0
        self._last_token = 0
        self._done_token = 0
        self._done_result = ActionResult.NONE
        self._done_count = 0
        self._loaded_total = 0
        self._watchdog_s = float("-inf")
        self._watchdog_tripped = False
        self._emergency_stop = False

    @property
    def link_faults(self) -> _Link:
        """Switches that the server follows."""
        faults = self.world.faults
        down = faults.plc_disconnect or self.world.t_s < self._back_s
        return _Link(down, faults.plc_silent, faults.plc_garbage, faults.plc_busy)

    def restart(self) -> None:
        """Lose the supply and come up again: another boot id, nothing in memory, everything stands."""
        self.world.abort()
        self._forget()
        self.boot_id = (self.boot_id + 1) % 2**32
        self._boot_s = self.world.t_s
        self._back_s = self.world.t_s + RESTART_S

    def advance(self, t_s: float) -> None:
        """Move the plant on to ``t_s`` and run the program."""
        self.world.advance(t_s)
        self._scan()

    # ---- what the master reads and writes ----

    def read_input(self, address: int, count: int) -> list[int]:
        """Input registers."""
        block = [0] * rm.STATUS_SIZE
        block[rm.IR_MAP_VERSION] = rm.MAP_VERSION
        block[rm.IR_STATUS] = int(self._status_bits())
        block[rm.IR_DONE_RESULT] = int(self._done_result)
        block[rm.IR_DONE_COUNT] = self._done_count
        block[rm.IR_ACTIVE_ACTION] = int(self._active_action)
        block[rm.IR_WATCHDOG_TRIPS] = self._watchdog_trips
        doubles = {
            rm.IR_BOOT_ID: self.boot_id,
            rm.IR_TIME_MS: self._time_ms(),
            rm.IR_LOADED_TOTAL: self._loaded_total,
            rm.IR_ACTIVE_TOKEN: self._active_token if self._active_token != HOMING else max(1, self._last_token),
            rm.IR_DONE_TOKEN: self._done_token,
            rm.IR_LUG_TRIGGERS: self.world.triggers(View.LUG),
            rm.IR_CASE_TRIGGERS: self.world.triggers(View.CASE),
        }
        for place, value in doubles.items():
            block[place : place + 2] = to_words(value)
        return block[address : address + count]

    def read_holding(self, address: int, count: int) -> list[int]:  # noqa: ARG002
        """Holding registers: the mailbox reads as 0."""
        return [0] * count

    def read_discrete(self) -> int:
        """The discrete inputs 0…15 as bits."""
        flipper = self.world.flipper
        return (
            int(self.world.faults.is_on("estop")) << rm.DI_EMERGENCY_STOP
            | int(self.world.part_present) << rm.DI_PART_PRESENT
            | int(flipper is FlipperPosition.UPRIGHT) << rm.DI_UPRIGHT
            | int(flipper is FlipperPosition.INVERTED) << rm.DI_INVERTED
        )

    def write_holding(self, address: int, values: list[int]) -> None:
        """Write the mailbox.

        Raises:
            ValueError: A part of the mailbox only, no token, or no such action. Nothing was written.
        """
        if address != rm.HR_COMMAND or len(values) != rm.HR_COMMAND_SIZE:
            raise ValueError("the mailbox takes a whole command in one request only")
        mailbox = rm.Mailbox.from_registers(values)
        if mailbox.token == 0:
            raise ValueError("token 0 stands for none")
        action = StationAction(mailbox.action)
        if mailbox.token <= self._last_token:
            return  # done, or passed over, before
        self._last_token = mailbox.token
        result = self._objection(mailbox, action)
        if result is not None:
            self._end(mailbox.token, result)
            return
        self._active_token, self._active_action = mailbox.token, action
        self._active_since_s = self.world.t_s
        self.world.start(action, mailbox.argument, mailbox.token)

    def write_coil(self, address: int, value: bool) -> None:
        """Write a coil; each acts on a 1 and reads as 0 again."""
        if not value:
            return
        if address == rm.COIL_WATCHDOG:
            self._watchdog_s = self.world.t_s
        elif address == rm.COIL_RESET:
            self._reset()

    # ---- the program ----

    def _scan(self) -> None:
        if self.world.faults.is_on("estop") and not self._emergency_stop:
            self._emergency_stop = True
            self._cancel()
        if self._active_token and self.world.t_s - self._heard_s() > rm.WATCHDOG_TIMEOUT_S:
            self._watchdog_tripped = True
            self._watchdog_trips = (self._watchdog_trips + 1) % 2**16
            self._cancel()

    def _heard_s(self) -> float:
        """When the host was last heard: an action counts as a sign of life."""
        return max(self._watchdog_s, self._active_since_s)

    def _objection(self, mailbox: rm.Mailbox, action: StationAction) -> ActionResult | None:
        """Why an action can't be done now, None if it can."""
        world = self.world
        if count_difference(mailbox.deadline_ms, self._time_ms()) < 0:
            return ActionResult.EXPIRED
        stands = self._emergency_stop or self._watchdog_tripped or world.jam
        if self._active_token or stands or world.moving or action is StationAction.NONE:
            return ActionResult.REFUSED
        possible = {
            StationAction.LOAD: not world.part_present and world.flipper is FlipperPosition.UPRIGHT,
            StationAction.FLIP: world.flipper is not FlipperPosition.BETWEEN,
            StationAction.RELEASE: world.part_present
            and world.flipper is not FlipperPosition.BETWEEN
            and world.knows_outlet(mailbox.argument),
        }
        return None if possible.get(action, True) else ActionResult.REFUSED

    def _on_answer(self, token: int, result: ActionResult) -> None:
        if token == HOMING:
            self._active_token, self._active_action = 0, StationAction.NONE
            return
        if self._active_token == token:
            if self._active_action is StationAction.LOAD and result is ActionResult.DONE:
                self._loaded_total += 1
            self._active_token, self._active_action = 0, StationAction.NONE
        self._end(token, result)

    def _end(self, token: int, result: ActionResult) -> None:
        self._done_token, self._done_result = token, result
        self._done_count = (self._done_count + 1) % 2**16

    def _cancel(self) -> None:
        """Give up what runs; everything stops where it is."""
        token, self._active_token, self._active_action = self._active_token, 0, StationAction.NONE
        self.world.abort()
        if token not in (0, HOMING):
            self._end(token, ActionResult.CANCELLED)

    def _reset(self) -> None:
        self._cancel()
        self._watchdog_tripped = False
        if self.world.faults.is_on("estop"):
            return
        self._emergency_stop = False
        self._active_token, self._active_since_s = HOMING, self.world.t_s
        self.world.home(HOMING)

    def _time_ms(self) -> int:
        return int((self.world.t_s - self._boot_s) * 1000) % 2**32

    def _status_bits(self) -> rm.StationStatusBits:
        flipper = self.world.flipper
        bits = {
            rm.StationStatusBits.EMERGENCY_STOP: self._emergency_stop,
            rm.StationStatusBits.WATCHDOG_TRIPPED: self._watchdog_tripped,
            rm.StationStatusBits.JAM: self.world.jam,
            rm.StationStatusBits.PART_PRESENT: self.world.part_present,
            rm.StationStatusBits.UPRIGHT: flipper is FlipperPosition.UPRIGHT,
            rm.StationStatusBits.INVERTED: flipper is FlipperPosition.INVERTED,
        }
        status = rm.StationStatusBits(0)
        for bit, is_set in bits.items():
            if is_set:
                status |= bit
        return status
