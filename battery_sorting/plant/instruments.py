"""The tester of the simulated plant: AC meter, scanner and cycler over the same cells, each behind its TCP port.

A plant process starts it in one line and hands cells to it as its robot does:

    tester = await start_instruments(settings, cells, record)
    tester.insert(channel=1, cell=17)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.plant.cells import Cells, CellSettings, Record
from battery_sorting.plant.cycler import SHOWN, STEP_SHOWN, Cycler
from battery_sorting.plant.meter import AcMeter, Probe
from battery_sorting.plant.scpi import LinkFaults, ScpiServer

TICK_S = 0.02

Shown = Annotated[str, Field(max_length=80, pattern="^[ -~]*$")]
"""What an instrument can print."""
Style = Literal["", "signed", "nr2", "nr3"]
MeterReading = Annotated[str, Field(pattern="^(resistance|voltage)$")]
CyclerReading = Annotated[str, Field(pattern=f"^({'|'.join(('contact', *SHOWN, *STEP_SHOWN))})(@[1-9][0-9]?)?$")]
"""Of all channels, or of one: ``temperature@2``."""


class TesterSettings(BaseModel):
    """Section ``tester`` of the plant's settings; docs/reference/tester.md explains each key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    channels: int = Field(default=8, ge=1, le=64)
    host: str = "127.0.0.1"
    meter_port: int = Field(default=0, ge=0, le=65535)
    cycler_port: int = Field(default=0, ge=0, le=65535)
    time_factor: float = Field(default=1.0, gt=0, le=100_000)
    """Seconds of the cells per second of the plant. The meter's sampling and the watchdog keep real time."""
    seed: int = Field(default=0, ge=0)
    cells: CellSettings = CellSettings()


class TesterFaults(BaseModel):
    """Fault switches of the tester. Lists hold channels; ``tester.bad_contact`` counts down as it takes effect.

    ``….shows`` has texts that stand in place of readings, ``….numbers`` the way in which numbers are written.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    open_contact: tuple[int, ...] = Field(default=(), alias="tester.open_contact")
    bad_contact: int = Field(default=0, ge=0, alias="tester.bad_contact")
    reversed: tuple[int, ...] = Field(default=(), alias="tester.reversed")
    hot: tuple[int, ...] = Field(default=(), alias="tester.hot")
    flat: tuple[int, ...] = Field(default=(), alias="tester.flat")
    estop: bool = Field(default=False, alias="tester.estop")
    meter_silent: bool = Field(default=False, alias="meter.silent")
    meter_delay_s: float = Field(default=0.0, ge=0, alias="meter.delay_s")
    meter_garbage: bool = Field(default=False, alias="meter.garbage")
    meter_disconnect: bool = Field(default=False, alias="meter.disconnect")
    meter_repeat: int = Field(default=0, ge=0, alias="meter.repeat")
    meter_shows: dict[MeterReading, Shown] = Field(default={}, alias="meter.shows")
    meter_numbers: Style = Field(default="", alias="meter.numbers")
    cycler_silent: bool = Field(default=False, alias="cycler.silent")
    cycler_delay_s: float = Field(default=0.0, ge=0, alias="cycler.delay_s")
    cycler_garbage: bool = Field(default=False, alias="cycler.garbage")
    cycler_disconnect: bool = Field(default=False, alias="cycler.disconnect")
    cycler_repeat: int = Field(default=0, ge=0, alias="cycler.repeat")
    cycler_shows: dict[CyclerReading, Shown] = Field(default={}, alias="cycler.shows")
    cycler_numbers: Style = Field(default="", alias="cycler.numbers")

    def as_dict(self) -> dict[str, Any]:
        """Switch names, e.g. ``tester.hot``, to values."""
        return self.model_dump(mode="json", by_alias=True)

    def set(self, changes: dict[str, Any]) -> None:
        """Set switches by name: all of them or, on an error, none.

        Raises:
            ConfigurationError: Unknown switches or values of the wrong kind, all named.
        """
        try:
            wanted = TesterFaults.model_validate({**self.as_dict(), **changes})
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()]
            raise ConfigurationError("fault switches", problems) from error
        for name in type(self).model_fields:
            setattr(self, name, getattr(wanted, name))

    def link(self, device: str) -> LinkFaults:
        """What is wrong with the link to ``meter`` or ``cycler``."""
        kinds = ("silent", "delay_s", "garbage", "disconnect")
        values = {kind: getattr(self, f"{device}_{kind}") for kind in kinds}
        return LinkFaults(**values, take_repeat=lambda: self._take_repeat(f"{device}_repeat"))

    def _take_repeat(self, name: str) -> bool:
        left = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return bool(left > 0)


class Instruments:
    """The tester. ``now`` is the plant's clock in s; the cells' runs ``settings.time_factor`` times as fast."""

    def __init__(
        self, settings: TesterSettings, cells: Cells, record: Record, now: Callable[[], float] = time.monotonic
    ) -> None:
        begin_s = now()
        self.settings = settings
        self.cells = cells
        self.faults = TesterFaults()
        self._record = record
        self._now = now
        self.cycler = Cycler(
            settings.channels,
            cells,
            lambda: (now() - begin_s) * settings.time_factor,
            time.monotonic,
            self.faults,
            record,
            settings.seed,
        )
        self.meter = AcMeter(self._probe, settings.seed + 1)
        self.meter.style = lambda: self.faults.meter_numbers
        self.cycler.style = lambda: self.faults.cycler_numbers
        self.meter.shows = lambda: self.faults.meter_shows
        self.cycler.shows = lambda: self.faults.cycler_shows
        self._servers = {
            "meter_port": ScpiServer(
                self.meter, lambda: self.faults.link("meter"), settings.host, settings.meter_port
            ),
            "cycler_port": ScpiServer(
                self.cycler, lambda: self.faults.link("cycler"), settings.host, settings.cycler_port
            ),
        }
        self._watch: asyncio.Task[None] | None = None

    @property
    def ports(self) -> dict[str, int]:
        """``meter_port`` and ``cycler_port``, for the plant's ready line."""
        return {key: server.port for key, server in self._servers.items()}

    async def start(self) -> None:
        """Open both ports.

        Raises:
            OSError: A port can't be used. Nothing is left open.
        """
        try:
            for server in self._servers.values():
                await server.start()
        except OSError:
            await self.stop()
            raise
        self._watch = asyncio.ensure_future(self._watch_forever())

    def tell_truth(self) -> None:
        """Record what the cells and the meter really are."""
        self.cells.record(self._record)
        gains = {"resistance_gain": self.meter.resistance_gain, "voltage_gain": self.meter.voltage_gain}
        self._record({"event": "meter", **gains})

    async def stop(self) -> None:
        """Close both ports and all connections; may be called twice."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        for server in self._servers.values():
            await server.stop()

    def insert(self, channel: int, cell: int) -> None:
        """The robot puts cell number ``cell`` of `cells` into ``channel`` (from 1).

        Raises:
            ValueError: There is no such channel or cell, or one of them is taken.
        """
        self.cycler.insert(channel, cell)

    def remove(self, channel: int) -> int | None:
        """The robot takes out what lies in ``channel``: the cell's number, or None.

        Raises:
            ValueError: There is no such channel.
        """
        return self.cycler.remove(channel)

    def set_faults(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Set fault switches, and record it. Raises ConfigurationError; then none was set."""
        self.faults.set(changes)
        for name, value in changes.items():
            self._record({"event": "fault", "t_s": round(self._now(), 6), "name": name, "value": value})
        return self.faults.as_dict()

    def _probe(self) -> Probe:
        touched = self.cycler.touched_by_meter()
        return Probe(False) if touched is None else Probe(True, *touched)

    async def _watch_forever(self) -> None:
        while True:
            self.cycler.watch()
            for server in self._servers.values():
                await server.follow_faults()
            await asyncio.sleep(TICK_S)


async def start_instruments(
    settings: TesterSettings, cells: Cells, record: Record, now: Callable[[], float] = time.monotonic
) -> Instruments:
    """Build the tester, open its ports, and record what its cells really are; end it with `Instruments.stop`.

    Raises:
        OSError: A port can't be used.
    """
    instruments = Instruments(settings, cells, record, now)
    await instruments.start()
    instruments.tell_truth()
    return instruments
