"""What stands behind the simulated inspection station: pick place, robot, tester, buffer and trays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from battery_sorting.ev.places import PICK, channel_place, slot_place
from battery_sorting.plant.cells import Cells, Record
from battery_sorting.plant.ev_station import EvCell, EvWorld
from battery_sorting.plant.instruments import Instruments, TesterSettings
from battery_sorting.plant.robot import Place, RobotServer, SimulatedRobot, Slot
from battery_sorting.plant.switches import check_switches

PRODUCT = "product"
ENDLESS_CELLS = 10_000
"""So many electrical cells there are where the magazine is endless: then they come again."""


@dataclass
class _PickPlace:
    """Where the station lays down good cells: the robot sees the first."""

    world: EvWorld

    def cell(self) -> EvCell | None:
        waiting = self.world.outlets[PRODUCT]
        return waiting[0] if waiting else None

    def take(self) -> EvCell | None:
        return self.world.take(PRODUCT)

    def put(self, cell: EvCell) -> None:
        self.world.outlets[PRODUCT].appendleft(cell)


@dataclass
class _Channel:
    """A channel of the tester: what lies in it is wired to the instruments."""

    instruments: Instruments
    number: int
    content: EvCell | None = None

    def cell(self) -> EvCell | None:
        return self.content

    def take(self) -> EvCell | None:
        self.instruments.remove(self.number)
        content, self.content = self.content, None
        return content

    def put(self, cell: EvCell) -> None:
        self.instruments.insert(self.number, cell.index % len(self.instruments.cells))
        self.content = cell


@dataclass(frozen=True, slots=True)
class RobotSettings:
    """The robot and the port of its program.

    Attributes:
        boot_id: Of the program.
        move_s: Seconds of a move.
        host: Address to listen on.
        port: 0 for any free one.
    """

    boot_id: int
    move_s: float
    host: str
    port: int


class Floor:
    """All places that the robot reaches, and the robot.

    Args:
        world: The station.
        settings: Of the tester.
        buffer: Slots of the buffer.
        trays: Name → slots.
        record: Takes the plant's events.
        now: The plant's clock (s).
        robot: Its settings.
    """

    def __init__(
        self,
        world: EvWorld,
        settings: TesterSettings,
        buffer: int,
        trays: dict[str, int],
        record: Record,
        now: Callable[[], float],
        robot: RobotSettings,
    ) -> None:
        cells = Cells(world.config.items or ENDLESS_CELLS, settings.cells, settings.seed)

        def tell(event: dict[str, Any]) -> None:
            # The station's record calls the cells of its magazine so, too; these are their electrical sides.
            record({**event, "event": "electrical"} if event["event"] == "cell" else event)

        self.instruments = Instruments(settings, cells, tell, now)
        self.places = _places(world, self.instruments, settings.channels, buffer, trays)
        self.robot = SimulatedRobot(self.places, record, robot.boot_id, half_s=robot.move_s / 2)
        self._server = RobotServer(self.robot, robot.host, robot.port)
        self._now = now

    @property
    def ports(self) -> dict[str, int]:
        """Keys of the settings → ports in use."""
        return {**self.instruments.ports, "robot_port": self._server.port}

    async def start(self) -> None:
        """Open all ports.

        Raises:
            OSError: One can't be used.
        """
        await self.instruments.start()
        await self._server.start()

    async def stop(self) -> None:
        """Close all ports; may be called twice."""
        await self._server.stop()
        await self.instruments.stop()

    async def advance(self) -> None:
        """Move the robot on to now."""
        self.robot.advance(self._now())
        await self._server.follow_faults()

    def contents(self) -> dict[str, str]:
        """Place → serial of the cell that lies there."""
        found = {name: place.cell() for name, place in self.places.items()}
        return {name: cell.serial for name, cell in found.items() if cell is not None}

    # ---- faults ----

    def faults(self) -> dict[str, Any]:
        """Fault switches of robot and tester."""
        return {**self.robot.faults.as_dict(), **self.instruments.faults.as_dict()}

    def knows_fault(self, name: str) -> bool:
        """Whether the switch is one of robot or tester."""
        return name in self.faults()

    def set_faults(self, changes: dict[str, Any]) -> None:
        """Set switches that are known: all of them or, on an error, none.

        Raises:
            ConfigurationError: Values of the wrong kind, all named.
        """
        robot = {name: value for name, value in changes.items() if name.startswith("robot.")}
        check_switches(robot, self.robot.faults.as_dict())
        self.instruments.set_faults({name: value for name, value in changes.items() if name not in robot})
        self.robot.faults.set(robot)
        self.robot.look_at_the_button()


def _places(
    world: EvWorld, instruments: Instruments, channels: int, buffer: int, trays: dict[str, int]
) -> dict[str, Place]:
    places: dict[str, Place] = {PICK: _PickPlace(world)}
    places |= {channel_place(number): _Channel(instruments, number) for number in range(1, channels + 1)}
    for name, slots in {"buffer": buffer, **trays}.items():
        places |= {slot_place(name, number): Slot() for number in range(1, slots + 1)}
    return places
