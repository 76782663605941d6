"""What the plants of all lines have in common: their clock, their ports, and how they are run and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, Field, model_validator

from battery_sorting.core.errors import ConfigurationError, DeviceConnectionError
from battery_sorting.core.parent import parent_has_died
from battery_sorting.plant.control import ControlServer
from battery_sorting.plant.plc import PlcServer, Program
from battery_sorting.plant.record import Recorder

TICK_S = 0.005
PARENT_CHECK_S = 0.25

_log = logging.getLogger(__name__)


class ProcessConfig(BaseModel):
    """Settings of the process, whatever the line. docs/reference/plant.md explains each key."""

    seed: int = Field(0, ge=0)
    host: str = "127.0.0.1"
    modbus_port: int = Field(0, ge=0, le=65535)
    control_port: int = Field(0, ge=0, le=65535)
    record: str | None = None
    keep_record: bool = True
    readout_ms: float = Field(12.0, ge=0)

    @model_validator(mode="after")
    def _record_is_somewhere(self) -> ProcessConfig:
        if not self.keep_record and self.record is None:
            raise ValueError("keep_record: what is not kept must be written: name the file by the key record")
        return self


def settings_problem(entry: Any) -> str:
    """One fault of the settings, from pydantic's error."""
    key = ".".join(str(part) for part in entry["loc"])
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        message = "no such key; see docs/reference/plant.md for the keys of the plant"
    elif message.startswith("Input should be "):
        message = f"{message.replace('Input should be ', 'must be ')}, not {str(entry['input'])[:60]!r}"
    return f"{key}: {message}" if key else message


class Clock:
    """Plant time: 0 at the start, runs ``factor`` times as fast as real time."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self.start_ns = time.time_ns()
        self._start_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Real time since the start."""
        return time.monotonic() - self._start_s

    def now(self) -> float:
        """Plant time in s."""
        return self.elapsed_s() * self._factor

    def wall_ns(self, t_s: float) -> int:
        """Ns since 1970 at a plant time."""
        return self.start_ns + round(t_s / self._factor * 1e9)

    def seconds_until(self, t_s: float) -> float:
        """Real seconds until a plant time, negative when it is past."""
        return t_s / self._factor - self.elapsed_s()


class LagMeter:
    """Distribution of the tick's delay behind its plan, in bins of 0.1 ms."""

    BIN_MS = 0.1

    def __init__(self) -> None:
        self._bins = [0] * 1000  # the last one takes all from 99.9 ms up
        self._count = 0
        self._max_ms = 0.0

    def add(self, lag_ms: float) -> None:
        """Count one tick."""
        self._bins[max(0, min(int(lag_ms / self.BIN_MS), len(self._bins) - 1))] += 1
        self._count += 1
        self._max_ms = max(self._max_ms, lag_ms)

    def as_dict(self) -> dict[str, float]:
        """p50, p99 and max in ms."""
        return {"p50": self._quantile(0.5), "p99": self._quantile(0.99), "max": round(self._max_ms, 3)}

    def _quantile(self, share: float) -> float:
        seen = 0
        for number, count in enumerate(self._bins):
            seen += count
            if seen >= share * self._count:
                return round(min((number + 1) * self.BIN_MS, self._max_ms), 3)
        return 0.0


class TimedWorld(Protocol):
    """A world that knows how late it is."""

    t_s: float


class PlantCamera(Protocol):
    """A camera of the plant, behind its port."""

    port: int

    async def start(self) -> None: ...  # noqa: D102
    async def stop(self) -> None: ...  # noqa: D102
    async def follow_faults(self) -> None: ...  # noqa: D102


class PlantProcess(ABC):
    """What the plants of all lines have in common: clock, PLC, cameras, control port, record and life.

    Sub-classes set ``cameras`` (key of its port in the settings → camera) and say what they have besides.

    Args:
        config: Settings of the process.
        recorder: Takes the events.
        world: What the PLC moves.
        plc: The PLC's program.
        boot_id: Of the PLC.
        factor: The plant runs so many times as fast as real time.
    """

    _config: ProcessConfig
    world: TimedWorld
    plc: Program
    cameras: Mapping[str, PlantCamera]

    def __init__(
        self,
        config: ProcessConfig,
        recorder: Recorder,
        world: TimedWorld,
        plc: Program,
        boot_id: int,
        factor: float = 1.0,
    ) -> None:
        self.boot_id = boot_id
        self.world = world
        self.plc = plc
        self._config = config
        self._recorder = recorder
        self._clock = Clock(factor)
        self._lag = LagMeter()
        self._stop = asyncio.Event()
        self._modbus = PlcServer(plc, self._clock.now, config.host, config.modbus_port)
        getters = {"summary": self.summary, "record": self.record, "faults": self.faults, "state": self.state}
        self._control = ControlServer(getters, self._set_faults, self.stop, config.host, config.control_port)

    # ---- what each line says itself ----

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Counts so far and how well the plant kept time."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The record so far."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The plant at this moment."""

    @abstractmethod
    def faults(self) -> dict[str, Any]:
        """All fault switches."""

    @abstractmethod
    def switch(self, changes: dict[str, Any]) -> None:
        """Set fault switches: all of them or, on an error, none.

        Raises:
            ConfigurationError: Unknown switches or values of the wrong kind, all named.
        """

    @abstractmethod
    def start_facts(self) -> dict[str, Any]:
        """What the record says of this plant when it starts."""

    async def open_more(self) -> dict[str, int]:
        """Open what the plant has besides; returns its ports by their keys. Raises `DeviceConnectionError`."""
        return {}

    def started(self) -> None:  # noqa: B027
        """All ports are open, and the record has begun."""

    def jobs(self) -> list[Coroutine[Any, Any, Any]]:
        """What runs besides the clock, until it is cancelled."""
        return []

    async def advance_more(self) -> None:  # noqa: B027
        """Move on what the plant has besides; called after the PLC."""

    async def close_more(self) -> None:  # noqa: B027
        """Close what the plant has besides; may be called twice."""

    def tells_itself(self, name: str) -> bool:  # noqa: ARG002
        """Whether the record hears of a fault switch from elsewhere."""
        return False

    # ---- its life ----

    def stop(self) -> None:
        """Let `run` end."""
        self._stop.set()

    async def open(self) -> dict[str, Any]:
        """Open all ports, then the record file; returns what the ready line says. On an error nothing is left open.

        Raises:
            DeviceConnectionError: A port can't be used.
            ConfigurationError: The record file can't be written.
        """
        servers: dict[str, PlcServer | PlantCamera | ControlServer] = {
            "modbus_port": self._modbus,
            **self.cameras,
            "control_port": self._control,
        }
        for key, server in servers.items():
            try:
                await server.start()
            except OSError as error:
                port = server.port
                await self.close()
                raise DeviceConnectionError(
                    f"{key}: port {port} can't be used, probably another process holds it ({error}): "
                    "end that process, or give another port or 0 for any free one"
                ) from error
        try:
            more = await self.open_more()
        except DeviceConnectionError:
            await self.close()
            raise
        try:
            self._start_record()
        except OSError as error:
            await self.close()
            problem = f"record: {self._config.record} can't be written ({error.strerror}): give another file"
            raise ConfigurationError("plant settings", [problem]) from error
        self.started()
        ports = {key: server.port for key, server in servers.items()}
        return {"ready": True, **ports, **more, "boot_id": self.boot_id, "pid": os.getpid()}

    def out_of_reach(self) -> list[str]:
        """What the settings name and this host doesn't have: an address, the record's folder. Opens nothing."""
        problems = []
        with socket.socket() as probe:
            try:
                probe.bind((self._config.host, 0))
            except OSError as error:
                problems.append(
                    f"host: {self._config.host} is no address of this host ({error.strerror or error}): "
                    "give 127.0.0.1, or another that it has"
                )
        if self._config.record is not None:
            record = Path(self._config.record)
            if record.is_dir():
                problems.append(f"record: {record} is a folder: give a file")
            elif not os.access(next(folder for folder in record.absolute().parents if folder.exists()), os.W_OK):
                problems.append(f"record: {record} can't be written: give another file")
        return problems

    async def run(self, *, exit_with_parent: bool = False) -> None:
        """Run until `stop`, then close. A failure inside the plant is raised."""
        jobs: list[Coroutine[Any, Any, Any]] = [self._tick_forever(), *self.jobs(), self._stop.wait()]
        if exit_with_parent:
            jobs.append(_parent_died())
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Close all ports and complete the record; may be called twice."""
        await self._control.stop()
        for camera in self.cameras.values():
            await camera.stop()
        await self._modbus.stop()
        await self.close_more()
        self._recorder({"event": "summary", **self.summary()})
        self._recorder.close()

    def _start_record(self) -> None:
        if self._config.record is not None:
            self._recorder.open(self._config.record)
        self._recorder(
            {
                "event": "start",
                "t_s": 0.0,
                "boot_id": self.boot_id,
                "start_ns": self._clock.start_ns,
                "seed": self._config.seed,
                **self.start_facts(),
            }
        )

    def _set_faults(self, changes: dict[str, Any]) -> dict[str, Any]:
        self.switch(changes)
        for name, value in changes.items():
            if not self.tells_itself(name):
                t_s = round(self.world.t_s, 6)
                self._recorder({"event": "fault", "t_s": t_s, "name": name, "value": value})
        return self.faults()

    async def _tick_forever(self) -> None:
        due_s = self._clock.elapsed_s() + TICK_S
        while True:
            await asyncio.sleep(max(0.0, due_s - self._clock.elapsed_s()))
            now_s = self._clock.elapsed_s()
            self._lag.add((now_s - due_s) * 1000.0)
            self.plc.advance(self._clock.now())
            await self.advance_more()
            await self._modbus.follow_faults()
            for camera in self.cameras.values():
                await camera.follow_faults()
            due_s = max(due_s + TICK_S, now_s)


async def _parent_died() -> None:
    """Wait until the process that started this one has died."""
    while not parent_has_died():
        await asyncio.sleep(PARENT_CHECK_S)
