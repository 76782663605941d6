"""The belt PLC of the simulated plant: its program (`Plc`) and its Modbus TCP server (`PlcServer`).

It does what `drivers/plc/register_map.py` and docs/reference/plc.md ask of a real one.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from battery_sorting.core.types import count_difference
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import AckStatus, ValveCommand
from battery_sorting.drivers.plc.register_map import BeltStatusBits, from_mailbox
from battery_sorting.drivers.registers import to_words
from battery_sorting.plant.world import Edge, PhotoEye, Segment, World

QUEUE_LENGTH = 32
TOKENS_REMEMBERED = 1000
PULSE_RANGE_MS = (1, 200)
MAX_SPEED_MM_S = 1500
SPEED_WINDOW_S = 0.05

INPUT_SIZE = rm.ACK_RING_ADDRESS + rm.RING_LENGTH * rm.ACK_SIZE
HOLDING_SIZE = rm.HR_COMMAND + rm.HR_COMMAND_SIZE
COIL_COUNT = 16

_RINGS = {
    PhotoEye.GATE: (rm.IR_GATE_TOTAL, rm.GATE_RING_ADDRESS),
    PhotoEye.CAMERA: (rm.IR_EYE_TOTAL, rm.EYE_RING_ADDRESS),
    PhotoEye.EXIT: (rm.IR_EXIT_TOTAL, rm.EXIT_RING_ADDRESS),
}


_NOT_NOW = (
    ExcCodes.ACKNOWLEDGE,
    ExcCodes.DEVICE_BUSY,
    ExcCodes.GATEWAY_PATH_UNAVIABLE,
    ExcCodes.GATEWAY_NO_RESPONSE,
)


class Plc:
    """The PLC's program over a `World`. All addresses are those of the register map.

    Call `advance` before a read or write: nothing happens in between, as the caller gives the world's time.
    """

    input_size = INPUT_SIZE
    holding_size = HOLDING_SIZE

    def __init__(self, world: World, boot_id: int) -> None:
        self.world = world
        self.boot_id = boot_id % 2**32
        self._input = [0] * INPUT_SIZE
        self._running = False
        self._run_since_s = 0.0
        self._speed_mm_s = round(world.config.speed_mps * 1000)
        self._watchdog_s: float | None = None
        self._watchdog_tripped = False
        self._emergency_stop = False
        self._queue: list[tuple[int, int, ValveCommand]] = []  # heap by counts since the start, then by arrival
        self._arrivals = 0
        self._waiting: set[int] = set()
        self._opening: dict[int, ValveCommand] = {}  # switched; the valve's feedback comes with its air
        self._used: OrderedDict[int, None] = OrderedDict()
        self._acks = 0
        self._speed_from = (0.0, 0)
        self._measured_mm_s = 0
        self._valves = {valve.valve for valve in world.config.valves}
        self._put(rm.IR_MAP_VERSION, [rm.MAP_VERSION])
        self._put(rm.IR_BOOT_ID, to_words(self.boot_id))
        world.scan_listeners.append(self._scan)
        world.edge_listeners.append(self._latch)
        world.motion_listeners.append(self._on_motion)
        world.air_listeners.append(self._on_air)

    @property
    def link_faults(self) -> LinkSwitches:
        """Switches that the server follows."""
        return self.world.faults

    @property
    def running(self) -> bool:
        """The drive is switched on."""
        return self._running

    @property
    def queue_length(self) -> int:
        """Commands that wait for their count, or for their valve's feedback."""
        return len(self._queue) + len(self._opening)

    def advance(self, t_s: float) -> None:
        """Move the plant on to ``t_s`` and run the program."""
        self.world.advance(t_s)
        self._scan()

    # ---- what the master reads and writes ----

    def read_input(self, address: int, count: int) -> list[int]:
        """Input registers."""
        if address < rm.STATUS_ADDRESS + rm.STATUS_SIZE:
            self._refresh_status()
        return self._input[address : address + count]

    def read_holding(self, address: int, count: int) -> list[int]:
        """Holding registers: run and speed as they are in force; the mailbox reads as 0."""
        block = [0] * HOLDING_SIZE
        block[rm.HR_RUN] = int(self._running)
        block[rm.HR_SPEED_MM_S] = self._speed_mm_s
        return block[address : address + count]

    def read_discrete(self) -> int:
        """The discrete inputs 0…15 as bits."""
        return int(self.world.faults.estop) << rm.DI_EMERGENCY_STOP

    def write_holding(self, address: int, values: list[int]) -> None:
        """Write holding registers.

        Raises:
            ValueError: A part of the mailbox only, or a speed beyond the drive's limit. Nothing was written.
        """
        written = dict(enumerate(values, start=address))
        mailbox = [
            written[key] for key in range(rm.HR_COMMAND, rm.HR_COMMAND + rm.HR_COMMAND_SIZE) if key in written
        ]
        if mailbox and len(mailbox) < rm.HR_COMMAND_SIZE:
            raise ValueError("the mailbox takes a whole command in one request only")
        if written.get(rm.HR_SPEED_MM_S, 0) > MAX_SPEED_MM_S:
            raise ValueError(f"the drive can't run faster than {MAX_SPEED_MM_S} mm/s")
        if rm.HR_SPEED_MM_S in written:
            self._speed_mm_s = written[rm.HR_SPEED_MM_S]
            self.world.set_point_mps = self._speed_mm_s / 1000
            self._drive()
        if rm.HR_RUN in written:
            self._run(bool(written[rm.HR_RUN]))
        if mailbox:
            self._take(from_mailbox(mailbox))

    def write_coil(self, address: int, value: bool) -> None:
        """Write a coil; each acts on a 1 and reads as 0 again."""
        if not value:
            return
        if address == rm.COIL_WATCHDOG:
            self._watchdog_s = self.world.t_s
        elif address == rm.COIL_RESET:
            self._reset()
        elif address == rm.COIL_CLEAR_QUEUE:
            self._cancel_queue()

    # ---- the program ----

    def _scan(self) -> None:
        if self.world.faults.estop and not self._emergency_stop:
            self._emergency_stop = True
            self._make_safe(self.world.config.estop_ramp_mps2)
        if self._watchdog_expired():
            self._watchdog_tripped = True
            self._input[rm.IR_WATCHDOG_TRIPS] = (self._input[rm.IR_WATCHDOG_TRIPS] + 1) % 2**16
            self._make_safe(self.world.config.ramp_mps2)

    def _watchdog_expired(self) -> bool:
        if self._watchdog_s is None or not self._running:
            return False
        since_s = max(self._watchdog_s, self._run_since_s)
        return self.world.t_s - since_s > rm.WATCHDOG_TIMEOUT_S

    def _make_safe(self, ramp_mps2: float) -> None:
        for token in self.world.close_valves():
            self._acknowledge(self._opening.pop(token), AckStatus.CANCELLED, self.world.encoder_count)
        self._cancel_queue()
        self._running = False
        self.world.set_drive(0.0, ramp_mps2)

    def _run(self, on: bool) -> None:
        if on and (self._emergency_stop or self._watchdog_tripped):
            return
        if on and not self._running:
            self._run_since_s = self.world.t_s
        self._running = on
        self._drive()

    def _drive(self) -> None:
        if self._emergency_stop:
            return  # the steep ramp stays in force
        self.world.set_drive(self._speed_mm_s / 1000 if self._running else 0.0, self.world.config.ramp_mps2)

    def _reset(self) -> None:
        self._watchdog_tripped = False
        if self._emergency_stop and not self.world.faults.estop:
            self._emergency_stop = False

    def _latch(self, edge: Edge) -> None:
        total_address, ring = _RINGS[edge.eye]
        slot = ring + (edge.number - 1) % rm.RING_LENGTH * rm.LATCH_SIZE
        time_ms = int(edge.t_s * 1000) % 2**32
        self._put(slot, [*to_words(edge.number), *to_words(edge.encoder_count), *to_words(time_ms)])
        self._put(total_address, to_words(edge.number))

    def _take(self, command: ValveCommand) -> None:
        now = self.world.encoder_count
        counts_ahead = count_difference(command.encoder_count, now)
        if command.token in self._waiting or command.token in self._used:
            self._acknowledge(command, AckStatus.DUPLICATE, now)
        elif not self._can_fire(command):
            self._acknowledge(command, AckStatus.REJECTED, now)
        elif counts_ahead <= 0 or count_difference(command.expiry_count, command.encoder_count) < 0:
            self._acknowledge(command, AckStatus.EXPIRED, now)
        elif self._emergency_stop or self._watchdog_tripped:
            self._acknowledge(command, AckStatus.CANCELLED, now)
        elif len(self._queue) >= QUEUE_LENGTH:
            self._acknowledge(command, AckStatus.REJECTED, now)
        else:
            self._arrivals += 1
            due = self.world.counts_at(self.world.encoder_mm) + counts_ahead
            heapq.heappush(self._queue, (due, self._arrivals, command))
            self._waiting.add(command.token)
            self._acknowledge(command, AckStatus.QUEUED, command.encoder_count)

    def _can_fire(self, command: ValveCommand) -> bool:
        shortest, longest = PULSE_RANGE_MS
        return command.token != 0 and command.valve in self._valves and shortest <= command.pulse_ms <= longest

    def _on_motion(self, segment: Segment) -> None:
        self._measure_speed(segment)
        if not self._queue:
            return
        counts = self.world.counts_at(self.world.encoder_mm)
        while self._queue and self._queue[0][0] <= counts:
            due, _, command = heapq.heappop(self._queue)
            self._retire(command.token)
            self._fire(command, segment.t_s + segment.tau_at_encoder(due * self.world.config.mm_per_count))

    def _fire(self, command: ValveCommand, at_s: float) -> None:
        count = command.encoder_count
        if count_difference(command.expiry_count, count) < 0:
            self._acknowledge(command, AckStatus.EXPIRED, count)
            return
        if self.world.open_valve(command.valve, at_s, command.pulse_ms, command.token):
            self._opening[command.token] = command
            return
        self._input[rm.IR_VALVE_FAULTS] |= 1 << command.valve
        self._acknowledge(command, AckStatus.VALVE_FAULT, count)

    def _on_air(self, token: int) -> None:
        command = self._opening.pop(token)
        self._input[rm.IR_VALVE_FAULTS] &= ~(1 << command.valve)
        self._acknowledge(command, AckStatus.FIRED, command.encoder_count)

    def _cancel_queue(self) -> None:
        now = self.world.encoder_count
        for _, _, command in sorted(self._queue, key=lambda entry: entry[:2]):
            self._retire(command.token)
            self._acknowledge(command, AckStatus.CANCELLED, now)
        self._queue.clear()

    def _retire(self, token: int) -> None:
        self._waiting.discard(token)
        self._used[token] = None
        if len(self._used) > TOKENS_REMEMBERED:
            self._used.popitem(last=False)

    def _acknowledge(self, command: ValveCommand, status: AckStatus, count: int) -> None:
        slot = rm.ACK_RING_ADDRESS + self._acks % rm.RING_LENGTH * rm.ACK_SIZE
        self._acks += 1
        self._put(slot, [*to_words(command.token), int(status), command.valve, *to_words(count)])
        self._put(rm.IR_ACK_TOTAL, to_words(self._acks))

    def _measure_speed(self, segment: Segment) -> None:
        now_s = segment.t_s + segment.dt_s
        from_s, from_counts = self._speed_from
        if now_s - from_s < SPEED_WINDOW_S:
            return
        counts = self.world.counts_at(self.world.encoder_mm)
        travel_mm = (counts - from_counts) * self.world.config.mm_per_count
        self._measured_mm_s = round(travel_mm / (now_s - from_s))
        self._speed_from = (now_s, counts)

    def _refresh_status(self) -> None:
        status = BeltStatusBits(0)
        if self._running:
            status |= BeltStatusBits.RUNNING
        if self._emergency_stop:
            status |= BeltStatusBits.EMERGENCY_STOP
        if self._watchdog_tripped:
            status |= BeltStatusBits.WATCHDOG_TRIPPED
        self._input[rm.IR_STATUS] = int(status)
        self._put(rm.IR_ENCODER_COUNT, to_words(self.world.encoder_count))
        self._put(rm.IR_TIME_MS, to_words(int(self.world.t_s * 1000) % 2**32))
        self._input[rm.IR_SPEED_MM_S] = self._measured_mm_s
        self._input[rm.IR_SPEED_SETPOINT_MM_S] = self._speed_mm_s
        self._input[rm.IR_QUEUE_LENGTH] = self.queue_length

    def _put(self, address: int, words: list[int] | tuple[int, ...]) -> None:
        self._input[address : address + len(words)] = words


class LinkSwitches(Protocol):
    """The fault switches of a PLC's connection."""

    @property
    def plc_disconnect(self) -> bool: ...  # noqa: D102
    @property
    def plc_silent(self) -> bool: ...  # noqa: D102
    @property
    def plc_garbage(self) -> bool: ...  # noqa: D102
    @property
    def plc_busy(self) -> float: ...  # noqa: D102


class Program(Protocol):
    """What a PLC's server needs from its program; `Plc` says what each part does."""

    boot_id: int
    input_size: int
    holding_size: int

    @property
    def link_faults(self) -> LinkSwitches: ...  # noqa: D102
    def advance(self, t_s: float) -> None: ...  # noqa: D102
    def read_input(self, address: int, count: int) -> list[int]: ...  # noqa: D102
    def read_holding(self, address: int, count: int) -> list[int]: ...  # noqa: D102
    def read_discrete(self) -> int: ...  # noqa: D102
    def write_holding(self, address: int, values: list[int]) -> None: ...  # noqa: D102
    def write_coil(self, address: int, value: bool) -> None: ...  # noqa: D102


class PlcServer:
    """Modbus TCP server of a PLC.

    ``now`` gives the plant's time; every request first moves the plant on to it. The server follows the fault
    switches ``plc.*``: call `follow_faults` regularly.
    """

    def __init__(self, plc: Program, now: Callable[[], float], host: str = "127.0.0.1", port: int = 0) -> None:
        self.port = port
        self.requests = 0
        self._plc = plc
        self._now = now
        self._host = host
        self._server: ModbusTcpServer | None = None
        self._noise = random.Random(plc.boot_id)

    async def start(self) -> None:
        """Listen; afterwards `port` is the real port.

        Raises:
            OSError: The port can't be used.
        """
        server = ModbusTcpServer(
            SimDevice(
                0,
                simdata=(
                    [SimData(0, values=[False] * COIL_COUNT, datatype=DataType.BITS)],
                    [SimData(0, values=[False] * COIL_COUNT, datatype=DataType.BITS)],
                    [SimData(0, count=self._plc.holding_size, datatype=DataType.REGISTERS)],
                    [SimData(0, count=self._plc.input_size, datatype=DataType.REGISTERS)],
                ),
                action=self._serve,
            ),
            address=(self._host, self.port),
            trace_packet=self._on_wire,
        )
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:
            raise OSError(f"can't listen on {self._host}:{self.port}") from error
        self.port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._server = server

    async def stop(self) -> None:
        """Close the port and all connections; may be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        await server.shutdown()  # type: ignore[no-untyped-call]
        for _ in range(3):
            await asyncio.sleep(0)  # a connection that was just being accepted appears only now
        for connection in list(server.active_connections.values()):
            connection.close()

    async def follow_faults(self) -> None:
        """Drop or take up connections as the switch ``plc.disconnect`` says."""
        cut = self._plc.link_faults.plc_disconnect
        if cut and self._server is not None:
            await self.stop()
        elif not cut and self._server is None:
            await self.start()

    async def _serve(
        self,
        function_code: int,
        _start_address: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[Any] | None,
    ) -> ExcCodes | None:
        faults = self._plc.link_faults
        if faults.plc_garbage or faults.plc_silent:
            return ExcCodes.DEVICE_FAILURE  # nothing that it is told takes effect
        if faults.plc_busy and self._noise.random() < faults.plc_busy:
            return self._noise.choice(_NOT_NOW)
        self._plc.advance(self._now())
        if values is not None:
            return self._write(function_code, address, values)
        if function_code == 4:
            registers[address : address + count] = self._plc.read_input(address, count)
        elif function_code == 3:
            registers[address : address + count] = self._plc.read_holding(address, count)
        elif function_code == 2:
            registers[0] = self._plc.read_discrete()
        elif function_code == 1:
            registers[0] = 0
        return None

    def _write(self, function_code: int, address: int, values: list[Any]) -> ExcCodes | None:
        if function_code in (5, 15):
            for offset, value in enumerate(values):
                self._plc.write_coil(address + offset, bool(value))
            return None
        try:
            self._plc.write_holding(address, [int(value) for value in values])
        except ValueError:
            return ExcCodes.ILLEGAL_VALUE
        return None

    def _on_wire(self, sending: bool, data: bytes) -> bytes:
        faults = self._plc.link_faults
        if not sending:
            return data
        self.requests += 1
        if faults.plc_silent:
            return b""
        if faults.plc_garbage and self._noise.random() < 0.5:
            return self._noise.randbytes(len(data))
        return data
