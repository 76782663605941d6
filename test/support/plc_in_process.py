"""A `BeltPlc` that calls the plant's `Plc` directly: no sockets, and time goes on only when it is told to.

The real driver speaks the same registers over Modbus TCP; the contract suite looks after that one.
"""

from __future__ import annotations

from battery_sorting.core.errors import DeviceConnectionError
from battery_sorting.core.types import make_battery_id
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import Ack, AckStatus, BeltPlc, Eye, Latch, PlcStatus, ValveCommand
from battery_sorting.drivers.registers import to_int
from battery_sorting.plant.plc import Plc
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.world import Edge, Item, PhotoEye, World, WorldConfig

EPOCH_S = 1_700_000_000.0
"""Host time at the plant's start."""

_RINGS = {
    Eye.GATE: rm.GATE_RING_ADDRESS,
    Eye.CAMERA: rm.EYE_RING_ADDRESS,
    Eye.EXIT: rm.EXIT_RING_ADDRESS,
}


class PlcInProcess(BeltPlc):
    """Plant and PLC in one object.

    Attributes:
        items: battery_id → the item that made this edge of the photo-eye, None for a false edge.
        fail: names of methods; the next call of each raises a connection error, and its name is removed.
    """

    Settings = DriverSettings

    def __init__(self, seed: int = 1, boot_id: int = 0x6000_0001, **config: object) -> None:
        super().__init__(DriverSettings())
        self.recorder = Recorder()
        self.world = World(WorldConfig(**config), seed, self.recorder)
        self.plc = Plc(self.world, boot_id)
        self.items: dict[str, Item | None] = {}
        self.fail: list[str] = []
        self.world.edge_listeners.append(self._note)

    def _note(self, edge: Edge) -> None:
        if edge.eye is PhotoEye.CAMERA:
            self.items[make_battery_id(self.plc.boot_id, edge.number)] = edge.item

    @property
    def now(self) -> float:
        """Host time (s)."""
        return EPOCH_S + self.world.t_s

    def wait(self, seconds: float) -> None:
        """Lets the plant run on its own."""
        self.plc.advance(self.world.t_s + seconds)

    def reboot(self, boot_id: int) -> None:
        """Power off and on: belt and air stop, counters start over, nothing waits any more."""
        world = self.world
        world.close_valves()
        for listeners in (world.scan_listeners, world.edge_listeners, world.motion_listeners, world.air_listeners):
            listeners[:] = [
                listener for listener in listeners if getattr(listener, "__self__", None) is not self.plc
            ]
        world.set_drive(0.0, world.config.ramp_mps2)
        world.encoder_mm = 0.0
        world._edge_numbers = dict.fromkeys(PhotoEye, 0)
        self.plc = Plc(world, boot_id)
        self.plc.advance(world.t_s)

    # ---- BeltPlc ----

    @property
    def connected(self) -> bool:
        return True

    def connect(self, timeout_s: float = 2.0) -> None:
        pass

    def disconnect(self) -> None:
        pass

    def read_status(self) -> PlcStatus:
        self._may_fail("read_status")
        words = self.plc.read_input(rm.STATUS_ADDRESS, rm.STATUS_SIZE)
        status = rm.BeltStatusBits(words[rm.IR_STATUS])
        return PlcStatus(
            host_time=self.now,
            round_trip_s=0.001,
            boot_id=to_int(words, rm.IR_BOOT_ID),
            running=rm.BeltStatusBits.RUNNING in status,
            emergency_stop=rm.BeltStatusBits.EMERGENCY_STOP in status,
            watchdog_tripped=rm.BeltStatusBits.WATCHDOG_TRIPPED in status,
            encoder_count=to_int(words, rm.IR_ENCODER_COUNT),
            time_ms=to_int(words, rm.IR_TIME_MS),
            speed_mps=words[rm.IR_SPEED_MM_S] / 1000,
            speed_setpoint_mps=words[rm.IR_SPEED_SETPOINT_MM_S] / 1000,
            valve_faults=words[rm.IR_VALVE_FAULTS],
            watchdog_trips=words[rm.IR_WATCHDOG_TRIPS],
            gate_total=to_int(words, rm.IR_GATE_TOTAL),
            eye_total=to_int(words, rm.IR_EYE_TOTAL),
            exit_total=to_int(words, rm.IR_EXIT_TOTAL),
            ack_total=to_int(words, rm.IR_ACK_TOTAL),
            queue_length=words[rm.IR_QUEUE_LENGTH],
        )

    def read_latches(self, eye: Eye, since: int, total: int) -> list[Latch]:
        self._may_fail(f"read_latches {eye.value}")
        return [
            Latch(to_int(entry, 0), to_int(entry, 2), to_int(entry, 4))
            for entry in self._ring(_RINGS[eye], rm.LATCH_SIZE, since, total)
        ]

    def read_acks(self, since: int, total: int) -> list[Ack]:
        self._may_fail("read_acks")
        return [
            Ack(to_int(entry, 0), AckStatus(entry[2]), entry[3], to_int(entry, 4))
            for entry in self._ring(rm.ACK_RING_ADDRESS, rm.ACK_SIZE, since, total)
        ]

    def _ring(self, address: int, size: int, since: int, total: int) -> list[list[int]]:
        words = self.plc.read_input(address, size * rm.RING_LENGTH)
        numbers = range(max(since, total - rm.RING_LENGTH) + 1, total + 1)
        slots = [(number - 1) % rm.RING_LENGTH * size for number in numbers]
        return [words[slot : slot + size] for slot in slots]

    def set_belt(self, run: bool, speed_mps: float) -> None:
        self._may_fail("set_belt")
        self.plc.write_holding(rm.HR_RUN, [int(run), round(speed_mps * 1000)])

    def refresh_watchdog(self) -> None:
        self.plc.write_coil(rm.COIL_WATCHDOG, True)

    def send(self, command: ValveCommand) -> None:
        """Fails before the PLC has the command (``send``) or after (``answer to send``)."""
        self._may_fail("send")
        self.plc.write_holding(rm.HR_COMMAND, rm.to_mailbox(command))
        self._may_fail("answer to send")

    def reset_faults(self) -> None:
        self.plc.write_coil(rm.COIL_RESET, True)

    def clear_queue(self) -> None:
        self.plc.write_coil(rm.COIL_CLEAR_QUEUE, True)

    def _may_fail(self, name: str) -> None:
        if name in self.fail:
            self.fail.remove(name)
            raise DeviceConnectionError(f"cut at {name}")
