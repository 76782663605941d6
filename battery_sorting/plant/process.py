"""The simulated plant as a process: `main` reads the settings, opens the ports and runs until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, Field, ValidationError, model_validator

from battery_sorting.core.errors import BatterySortingError, ConfigurationError, DeviceConnectionError
from battery_sorting.core.parent import parent_has_died
from battery_sorting.core.plant_control import load_record
from battery_sorting.core.strict_json import to_json
from battery_sorting.plant.control import ControlServer
from battery_sorting.plant.frame_server import FrameServer
from battery_sorting.plant.plc import Plc, PlcServer, Program
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.world import MIN_SPACING_MM, World, WorldConfig
from battery_sorting.vision.synthetic.renderer import Renderer, make_renderer

TICK_S = 0.005
PARENT_CHECK_S = 0.25
SWITCH_INTERVAL_S = 0.001  # lets the event loop in between the renderer's steps

_log = logging.getLogger(__name__)


class ProcessConfig(BaseModel):
    """Settings of the process, whatever the line. docs/plant.md explains each key."""

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


class PlantConfig(WorldConfig, ProcessConfig):
    """Settings of the belt line's plant: the world's, and those of the process."""

    rate_per_s: float | None = Field(None, gt=0)
    camera_port: int = Field(0, ge=0, le=65535)
    images: str | None = None
    real_time_factor: float = Field(1.0, gt=0, le=20)

    @model_validator(mode="after")
    def _rate_gives_the_pitch(self) -> PlantConfig:
        if self.rate_per_s is None:
            return self
        if "pitch_mm" in self.model_fields_set:
            raise ValueError("rate_per_s and pitch_mm: give one of them, the other follows from speed_mps")
        self.pitch_mm = self.speed_mps * 1000.0 / self.rate_per_s
        if self.pitch_mm < MIN_SPACING_MM:
            raise ValueError(
                f"rate_per_s: {self.rate_per_s:g} at {self.speed_mps:g} m/s is a pitch of {self.pitch_mm:.0f} mm, "
                f"less than {MIN_SPACING_MM:.0f}: raise speed_mps or lower rate_per_s"
            )
        return self


def read_settings(path: str | Path) -> dict[str, Any]:
    """Content of a settings file (JSON), not checked any further.

    Raises:
        ConfigurationError: It can't be read, or is no JSON object.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(str(path), [f"can't be read ({error.strerror}): check --config"]) from error
    except ValueError as error:
        raise ConfigurationError(str(path), [f"is no JSON ({error})"]) from error
    return _parse(text, str(path))


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(source, [f"is no JSON ({error})"]) from error
    if not isinstance(settings, dict):
        raise ConfigurationError(source, ["is no JSON object: write {key: value, …}"])
    return settings


def make_config(settings: dict[str, Any], source: str = "plant settings") -> PlantConfig:
    """Check settings.

    Raises:
        ConfigurationError: With all faults.
    """
    try:
        return PlantConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigurationError(source, [settings_problem(entry) for entry in error.errors()]) from error


def settings_problem(entry: Any) -> str:
    """One fault of the settings, from pydantic's error."""
    key = ".".join(str(part) for part in entry["loc"])
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        message = "no such key; see docs/plant.md for the keys of the plant"
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


class Camera(Protocol):
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
    cameras: Mapping[str, Camera]

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
        servers: dict[str, PlcServer | Camera | ControlServer] = {
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


class Plant(PlantProcess):
    """The plant of a belt line: world, PLC, camera, control port.

    Raises:
        ConfigurationError: The pictures can't be used.
    """

    _config: PlantConfig
    world: World
    plc: Plc

    def __init__(self, config: PlantConfig) -> None:
        renderer = make_renderer(config.images, config.seed)
        for skipped in renderer.skipped:
            _log.warning("picture left out: %s", skipped)
        recorder = Recorder(keep=config.keep_record)
        boot_id = int(time.time())
        world = World(with_labels(config, renderer), config.seed, recorder)
        super().__init__(config, recorder, world, Plc(world, boot_id), boot_id, config.real_time_factor)
        self._camera = FrameServer(
            self.world,
            renderer,
            self._clock.wall_ns,
            self._clock.seconds_until,
            config.host,
            config.camera_port,
            config.readout_ms,
        )
        self.cameras = {"camera_port": self._camera}

    def faults(self) -> dict[str, Any]:
        """All fault switches."""
        return self.world.faults.as_dict()

    def switch(self, changes: dict[str, Any]) -> None:
        """Set fault switches of the world."""
        self.world.faults.set(changes)

    def start_facts(self) -> dict[str, Any]:
        """How many batteries come, and the bins."""
        return {"items": self._config.items, "bins": [valve.bin for valve in self._config.valves]}

    def jobs(self) -> list[Coroutine[Any, Any, Any]]:
        """The camera's frames."""
        return [self._camera.deliver()]

    async def advance_more(self) -> None:
        """Have pictures drawn of what comes."""
        self._camera.prepare()

    def summary(self) -> dict[str, Any]:
        """Counts so far and how well the plant kept time."""
        counts = self._recorder.counts
        elapsed_s = self._clock.elapsed_s()
        return {
            "boot_id": self.boot_id,
            "t_s": round(self.world.t_s, 3),
            "items": self.world.spawned,
            "on_belt": len(self.world.on_belt),
            "finished": self.world.finished,
            "bins": dict(self._recorder.bins),
            "triggers": counts["trigger"],
            "false_triggers": counts["false_trigger"],
            "pulses": counts["pulse"],
            "empty_pulses": counts["empty_pulse"],
            "double_hits": counts["double_hit"],
            "modbus_requests": self._modbus.requests,
            "frames_sent": self._camera.frames_sent,
            "frames_late": self._camera.frames_late,
            "frames_lost": self._camera.frames_lost,
            "real_time_factor": round(self.world.t_s / elapsed_s, 4) if elapsed_s > 0 else None,
            "tick_lag_ms": self._lag.as_dict(),
            "cpu_s": round(time.process_time(), 3),
            "record_error": self._recorder.write_error,
        }

    def record(self) -> dict[str, Any]:
        """The record so far, see `PlantRecord.as_dict`; one that isn't kept is read from its file."""
        timing = {"real_time_factor": self.summary()["real_time_factor"], "tick_lag_ms": self._lag.as_dict()}
        kept = self._recorder.record.as_dict() if self._recorder.keep else load_record(self._config.record or "")
        return {**kept, **timing}

    def state(self) -> dict[str, Any]:
        """Belt, PLC and camera at this moment."""
        return {
            "t_s": round(self.world.t_s, 3),
            "running": self.plc.running,
            "speed_mps": self.world.speed_mps,
            "slip": self.world.slip,
            "encoder_count": self.world.encoder_count,
            "belt_mm": round(self.world.belt_mm, 3),
            "on_belt": len(self.world.on_belt),
            "queue_length": self.plc.queue_length,
            "camera_clients": self._camera.clients,
        }


def with_labels(config: PlantConfig, renderer: Renderer) -> PlantConfig:
    """Let those batteries come that the renderer has pictures of, unless the settings name others."""
    update: dict[str, Any] = {}
    if "types" not in config.model_fields_set:
        update["types"] = renderer.types()
    if "unknown_types" not in config.model_fields_set:
        unknown = renderer.unknown()
        update |= {"unknown_types": unknown} if unknown else {"unknown_fraction": 0.0}
    return config.model_copy(update=update)


async def _parent_died() -> None:
    """Wait until the process that started this one has died."""
    while not parent_has_died():
        await asyncio.sleep(PARENT_CHECK_S)


def make_plant(path: str | None) -> PlantProcess:
    """The plant of the line that the settings file describes by ``kind``: a belt line, or an EV line.

    Raises:
        ConfigurationError: The settings are wrong.
    """
    return _plant_of(read_settings(path) if path else {}, path or "plant settings")


def _plant_of(settings: dict[str, Any], source: str) -> PlantProcess:
    kind = settings.pop("kind", "belt")
    if kind == "ev":
        from battery_sorting.plant.ev_process import EvPlant, make_ev_config

        return EvPlant(make_ev_config(settings, source))
    if kind != "belt":
        raise ConfigurationError(source, [f"kind: {kind!r} is none; there are belt and ev"])
    return Plant(make_config(settings, source))


def problems_of(text: str) -> list[str]:
    """What is wrong with settings (JSON), each with its key; nothing is opened."""
    try:
        return _plant_of(_parse(text, "plant settings"), "plant settings").out_of_reach()
    except ConfigurationError as error:
        return error.problems
    except BatterySortingError as error:
        return [str(error)]


async def _run(path: str | None, *, exit_with_parent: bool, only_terminate: bool) -> None:
    plant = make_plant(path)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM,) if only_terminate else (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, plant.stop)
    ready = await plant.open()
    gc.collect()
    gc.freeze()
    print(to_json(ready, None), flush=True)
    await plant.run(exit_with_parent=exit_with_parent)


def main(argv: list[str] | None = None) -> None:
    """Entry point; ends the process: 0 when it was told to end, 2 when it can't start."""
    parser = argparse.ArgumentParser(prog="plant", description="Simulated plant of a battery sorting line.")
    parser.add_argument("--config", metavar="FILE", help="settings (JSON), see docs/plant.md")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="end when the process that started this one has died"
    )
    parser.add_argument(
        "--only-terminate",
        action="store_true",
        help="SIGINT, which a terminal sends to all, does not end it: the nodes end first, then comes SIGTERM",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="read settings (JSON) from the standard input, write what is wrong as a list (JSON), and end",
    )
    arguments = parser.parse_args(argv)
    if arguments.only_terminate:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s plant: %(message)s", stream=sys.stderr)
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it would report the faults that we inject
    if arguments.check:
        print(to_json(problems_of(sys.stdin.read()), None))
        raise SystemExit(0)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        asyncio.run(
            _run(
                arguments.config,
                exit_with_parent=arguments.exit_with_parent,
                only_terminate=arguments.only_terminate,
            )
        )
    except BatterySortingError as error:
        print(f"plant: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(0)


if __name__ == "__main__":
    main()
