"""What every driver owes the cell, as checks that run on a live device. docs/how-to/drivers.md is the prose of it.

The checks move nothing unless they are allowed to. They connect several times: nothing else should use the device.
"""

from __future__ import annotations

import contextlib
import functools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psutil
from pydantic import ValidationError

from battery_sorting.core import readings
from battery_sorting.core.errors import (
    ConfigurationError,
    DeviceConnectionError,
    DeviceError,
    DeviceSettingsError,
    DeviceTimeoutError,
    OpenContactError,
    ReadingError,
)
from battery_sorting.core.types import count_difference
from battery_sorting.drivers.base import Driver
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.drivers.plc.base import BeltPlc, Eye, PlcStatus
from battery_sorting.drivers.plc.register_map import RING_LENGTH, ValveCommand
from battery_sorting.drivers.registry import driver_problems, find_driver
from battery_sorting.drivers.robot.base import MoveJob, Robot
from battery_sorting.drivers.station_plc.base import (
    ActionResult,
    FlipperPosition,
    StationAction,
    StationCommand,
    StationPlc,
    StationStatus,
)
from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.drivers.tester.measurement import ChannelPhase, ChannelState, CyclerRun, Limits, Rest

SLACK_S = 0.5
"""By how much a call may exceed its timeout."""
READER_S = 5.0
CLOCK_TOLERANCE_S = 0.1
OLDEST_FRAME_S = 5.0
CYCLES = 3
RUN_S = 2.0
STATION_S = 10.0
"""The longest that a movement of a station may take."""


class CheckOutcome(str, Enum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Result:
    """One check. ``remedy`` is empty unless it failed."""

    check: str
    outcome: CheckOutcome
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How far the checks may go.

    ``move`` allows to run the belt, at ``speed_mps``, or to close the contacts of a tester's channel; ``frames`` is
    how many frames to wait for, in ``wait_s``; ``timeout_s`` is what the device is given to connect,
    ``impostor_timeout_s`` what something is given that only poses as the device; ``overhead_s`` is what a check may
    take besides connecting before it counts as hanging.
    """

    move: bool = False
    speed_mps: float = 0.2
    frames: int = 3
    wait_s: float = 10.0
    timeout_s: float = 2.0
    impostor_timeout_s: float = 0.5
    overhead_s: float = 4.0


class _Violation(Exception):
    """The driver does not keep the contract."""


class _Skipped(Exception):
    """The check can't be done here; says why."""


@dataclass
class _Bench:
    """Where a driver is tried. Every driver it hands out is disconnected at the end of the check."""

    driver_class: type[Driver]
    settings: dict[str, Any]
    options: CheckOptions
    _built: list[Driver] = field(default_factory=list)

    def build(self, **changes: Any) -> Any:
        driver = self.driver_class.from_settings({**self.settings, **changes})
        self._built.append(driver)
        return driver

    def connect(self) -> Any:
        driver = self.build()
        driver.connect(self.options.timeout_s)
        return driver

    def clear(self) -> None:
        built, self._built = self._built, []
        for driver in built:
            driver.disconnect()


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    run: Callable[[_Bench], str]
    remedy: str
    limit_s: Callable[[CheckOptions], float]
    needs_device: bool = True


def check_driver(
    device: str, name: str, settings: dict[str, Any], options: CheckOptions | None = None
) -> Iterator[Result]:
    """Runs the contract on a live device, one result at a time.

    Args:
        device: A key of `battery_sorting.drivers.registry.KINDS`.
        name: Kind of driver or ``module:Class``.
        settings: The driver's settings, as in a site file.
        options: How far to go; by default nothing moves.
    """
    options = options or CheckOptions()
    problems = driver_problems(device, name, settings)
    if problems:
        yield Result("settings are valid", CheckOutcome.FAIL, "; ".join(problems), "correct the settings file")
        return
    yield Result("settings are valid", CheckOutcome.PASS)
    bench = _Bench(find_driver(device, name), settings, options)
    unusable = ""
    for check in [*_COMMON, *_OF_DEVICE[device], *_LAST]:
        if unusable and check.needs_device:
            yield Result(check.name, CheckOutcome.SKIP, unusable)
            continue
        result = _run(check, bench)
        if result.outcome is CheckOutcome.FAIL and check.run is _connects:
            unusable = "the device is not connected"
        yield result
        if result.detail.startswith(_HANGS):
            return  # its thread still holds the device: what came after would tell nothing


_HANGS = "did not come back"


def _run(check: _Check, bench: _Bench) -> Result:
    """One check in a thread of its own: a driver that hangs must not hang whoever checks it."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(_judge(check, bench)), name="check", daemon=True)
    thread.start()
    limit_s = check.limit_s(bench.options)
    thread.join(limit_s)
    if not results:
        return Result(check.name, CheckOutcome.FAIL, f"{_HANGS} within {limit_s:g} s", check.remedy)
    return results[0]


def _judge(check: _Check, bench: _Bench) -> Result:
    try:
        try:
            detail = check.run(bench)
        finally:
            bench.clear()
    except _Skipped as skipped:
        return Result(check.name, CheckOutcome.SKIP, str(skipped))
    except (_Violation, DeviceError, ConfigurationError) as error:
        return Result(check.name, CheckOutcome.FAIL, str(error), check.remedy)
    except Exception as error:  # the driver under test may do anything
        return Result(check.name, CheckOutcome.FAIL, f"raised {error!r}, which is no DeviceError", check.remedy)
    return Result(check.name, CheckOutcome.PASS, detail)


def _expect(kind: type[DeviceError], call: Callable[[], Any], what: str) -> DeviceError:
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise _Violation(f"{what} raised {type(error).__name__} ({error}), not {kind.__name__}") from error
    raise _Violation(f"{what} raised nothing, not {kind.__name__}")


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise _Violation(complaint)


# ---- any driver ----


def _refuses_unknown_settings(bench: _Bench) -> str:
    try:
        bench.build(no_such_setting=1)
    except ValidationError:
        return ""
    raise _Violation("took the unknown key 'no_such_setting'")


def _builds_closed(bench: _Bench) -> str:
    driver = bench.build()
    _require(not driver.connected, "is connected before connect() was called")
    driver.disconnect()
    _require_refusals(driver)
    return ""


def _connects(bench: _Bench) -> str:
    begin = time.monotonic()
    driver = bench.connect()
    took_s = time.monotonic() - begin
    _require(driver.connected, "connect() came back, but 'connected' is false")
    _require(took_s <= bench.options.timeout_s + SLACK_S, f"took {took_s:.2f} s")
    return f"{took_s * 1000:.0f} ms"


def _connects_once(bench: _Bench) -> str:
    driver = bench.connect()
    before = _open_files()
    driver.connect(bench.options.timeout_s)
    _require(driver.connected, "is not connected after the second connect()")
    _require(_open_files() <= before, "opened something more at the second connect()")
    _touch(driver)
    return ""


def _disconnects(bench: _Bench) -> str:
    driver = bench.connect()
    for _ in range(2):
        driver.disconnect()
        _require(not driver.connected, "'connected' is true after disconnect()")
    _require_refusals(driver)
    return ""


def _disconnect_ends_a_read(bench: _Bench) -> str:
    driver = bench.connect()
    errors: list[BaseException] = []
    reading = threading.Event()

    def read() -> None:
        reading.set()
        end = time.monotonic() + READER_S
        try:
            while time.monotonic() < end:
                with contextlib.suppress(DeviceTimeoutError):
                    _read_long(driver)
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read, name="reader", daemon=True)
    reader.start()
    reading.wait()
    time.sleep(0.1)  # so that it waits in its read
    driver.disconnect()
    begin = time.monotonic()
    reader.join(1.0)
    _require(not reader.is_alive(), "a read goes on 1 s after disconnect() in another thread")
    _require(
        bool(errors) and isinstance(errors[0], DeviceConnectionError),
        f"the read ended with {errors[0]!r}, not with a DeviceConnectionError" if errors else "the read went on",
    )
    _require(not driver.connected, "the read has connected it again")
    return f"{(time.monotonic() - begin) * 1000:.0f} ms"


def _connects_again(bench: _Bench) -> str:
    driver = bench.connect()
    for _ in range(2):
        driver.disconnect()
        driver.connect(bench.options.timeout_s)
        _require(driver.connected, "is not connected after connecting again")
        _touch(driver)
    return ""


def _leaves_nothing_open(bench: _Bench) -> str:
    bench.connect()
    bench.clear()  # what is opened once, such as a library's own files, may stay
    files, threads = _settled(_open_files), set(threading.enumerate())
    for _ in range(CYCLES):
        bench.connect()
        bench.clear()
    _wait_until(lambda: _open_files() <= files and not _more_threads(threads))
    _require(_open_files() <= files, f"{_open_files() - files} files or sockets stay open after disconnect()")
    _require(not _more_threads(threads), f"threads stay after disconnect(): {_more_threads(threads)}")
    return ""


def _more_threads(before: set[threading.Thread]) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread not in before]


def _gives_up_where_nothing_listens(bench: _Bench) -> str:
    with socket.socket() as reserved:  # bound, but not listening
        reserved.bind(("127.0.0.1", 0))
        return _gives_up(bench, reserved.getsockname()[1], DeviceConnectionError)


def _gives_up_on_silence(bench: _Bench) -> str:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        return _gives_up(bench, silent.getsockname()[1], DeviceError)


def _gives_up_on_garbage(bench: _Bench) -> str:
    with _babbling() as port:
        return _gives_up(bench, port, DeviceError)


def _gives_up(bench: _Bench, port: int, kind: type[DeviceError]) -> str:
    if not {"host", "port"} <= set(bench.driver_class.Settings.model_fields):
        raise _Skipped("its settings have no host and port")
    driver = bench.build(host="127.0.0.1", port=port)
    timeout_s = bench.options.impostor_timeout_s
    begin = time.monotonic()
    error = _expect(kind, lambda: driver.connect(timeout_s), "connect()")
    took_s = time.monotonic() - begin
    _require(took_s <= timeout_s + SLACK_S, f"took {took_s:.2f} s with a timeout of {timeout_s:g} s")
    _require(not driver.connected, "'connected' is true after connect() has failed")
    return f"{error.code}, {took_s:.2f} s"


@contextlib.contextmanager
def _babbling() -> Iterator[int]:
    """Port of a server that sends bytes without sense, and goes on and on."""
    ended = threading.Event()

    def babble() -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-babble\r\n")
                while not ended.wait(0.05):
                    connection.sendall(b"\x07\x00")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(READER_S)
        thread = threading.Thread(target=babble, name="babble", daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            with contextlib.suppress(OSError):  # wakes it if nobody has come
                socket.create_connection(server.getsockname(), timeout=0.1).close()
            thread.join()


def _require_refusals(driver: Driver) -> None:
    for name, call in _calls(driver).items():
        _expect(DeviceConnectionError, call, f"{name}() while disconnected")
        _require(not driver.connected, f"{name}() has connected it")


def _calls(driver: Driver) -> dict[str, Callable[[], Any]]:
    """Every call that needs the device. Even one that wrongly got through would move nothing."""
    if isinstance(driver, BeltPlc):
        return {
            "read_status": driver.read_status,
            "read_latches": lambda: driver.read_latches(Eye.CAMERA, 0, 1),
            "read_acks": lambda: driver.read_acks(0, 1),
            "set_belt": lambda: driver.set_belt(False, 0.0),
            "refresh_watchdog": driver.refresh_watchdog,
            "send": lambda: driver.send(ValveCommand(0, 0, 0, 1, 0)),
            "reset_faults": driver.reset_faults,
            "clear_queue": driver.clear_queue,
        }
    if isinstance(driver, StationPlc):
        return {
            "read_status": driver.read_status,
            "send": lambda: driver.send(StationCommand(1, StationAction.NONE)),
            "refresh_watchdog": driver.refresh_watchdog,
            "reset_faults": driver.reset_faults,
        }
    if isinstance(driver, CellTester):
        channel = driver.channels[0]
        return {
            "check_contact": lambda: driver.check_contact(channel),
            "measure_resistance": lambda: driver.measure_resistance(channel),
            "start": lambda: driver.start(channel, _QUIET_RUN),
            "read_progress": lambda: driver.read_progress(channel),
            "read_results": lambda: driver.read_results(channel),
            "stop": lambda: driver.stop(channel),
            "safe": lambda: driver.safe(channel),
            "emergency_stop": driver.emergency_stop,
            "emergency_stop_stands": driver.emergency_stop_stands,
            "reset_emergency_stop": driver.reset_emergency_stop,
        }
    if isinstance(driver, Robot):
        return {
            "places": driver.places,
            "read_state": driver.read_state,
            "send": lambda: driver.send(MoveJob(1, "nowhere", "nowhere")),
            "stop": driver.stop,
            "reset": driver.reset,
        }
    assert isinstance(driver, TriggeredCamera)
    return {"read": lambda: driver.read(0.1)}


def _touch(driver: Driver) -> None:
    """Shows that the connection is alive."""
    if isinstance(driver, (BeltPlc, StationPlc)):
        driver.read_status()
    elif isinstance(driver, CellTester):
        driver.read_progress(driver.channels[0])
    elif isinstance(driver, Robot):
        driver.read_state()


def _read_long(driver: Driver) -> None:
    if isinstance(driver, TriggeredCamera):
        driver.read(READER_S)
    else:
        _touch(driver)


def _open_files() -> int:
    return int(psutil.Process().num_fds())


def _settled(count: Callable[[], int]) -> int:
    """The count once it has stopped falling."""
    last = count()
    while True:
        time.sleep(0.05)
        now = count()
        if now >= last:
            return now
        last = now


def _wait_until(condition: Callable[[], bool], limit_s: float = 1.0) -> None:
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


# ---- PLC ----


def _tells_its_status(bench: _Bench) -> str:
    plc = bench.connect()
    begin = time.monotonic()
    first: PlcStatus | StationStatus = plc.read_status()
    _require(
        begin <= first.host_time <= time.monotonic(),
        "host_time lies outside the request: it is of time.monotonic()",
    )
    time.sleep(0.1)
    second: PlcStatus | StationStatus = plc.read_status()
    passed_ms = (second.time_ms - first.time_ms) % 2**32
    host_ms = (second.host_time - first.host_time) * 1000
    _require(first.boot_id != 0, "boot_id is 0: battery ids are made of it")
    _require(first.boot_id == second.boot_id, "boot_id changes from one request to the next")
    _require(
        abs(passed_ms - host_ms) <= 20 + 2000 * (first.round_trip_s + second.round_trip_s),
        f"the PLC's clock went on by {passed_ms} ms while {host_ms:.0f} ms passed",
    )
    return f"round trip {second.round_trip_s * 1000:.1f} ms"


def _keeps_its_rings(bench: _Bench) -> str:
    plc = bench.connect()
    status: PlcStatus = plc.read_status()
    totals = {Eye.GATE: status.gate_total, Eye.CAMERA: status.eye_total, Eye.EXIT: status.exit_total}
    for eye, total in totals.items():
        latches = plc.read_latches(eye, 0, total)
        numbers = [latch.number for latch in latches]
        _require(len(latches) <= RING_LENGTH, f"{eye.value}: {len(latches)} edges")
        _require(numbers == list(range(total - len(numbers) + 1, total + 1)), f"{eye.value}: edges {numbers}")
        _require(bool(latches) == bool(total) or total == 0, f"{eye.value}: no edges, though it counts {total}")
    acks = plc.read_acks(0, status.ack_total)
    _require(len(acks) <= RING_LENGTH, f"{len(acks)} acknowledgements")
    return f"edges {[totals[eye] for eye in Eye]}, acknowledgements {status.ack_total}"


def _reads_the_set_point_back(bench: _Bench) -> str:
    plc = bench.connect()
    status: PlcStatus = plc.read_status()
    if status.running:
        raise _Skipped("the belt is running: stop it to have this checked")
    other = status.speed_setpoint_mps + (-0.01 if status.speed_setpoint_mps >= 0.02 else 0.01)
    try:
        plc.set_belt(False, other)
        held = plc.read_status().speed_setpoint_mps
        _require(
            math.isclose(held, other, abs_tol=1e-3), f"was told {other:g} m/s without complaint, holds {held:g}"
        )
        _require(not plc.read_status().running, "the belt was switched on by set_belt(False, …)")
    finally:
        plc.set_belt(False, status.speed_setpoint_mps)
    return f"set-point {status.speed_setpoint_mps:g} m/s"


def _refuses_impossible_speeds(bench: _Bench) -> str:
    plc = bench.connect()
    status: PlcStatus = plc.read_status()
    if status.running:
        raise _Skipped("the belt is running: stop it to have this checked")
    _expect(DeviceSettingsError, lambda: plc.set_belt(False, math.nan), "set_belt(False, nan)")
    _expect(DeviceSettingsError, lambda: plc.set_belt(False, -1.0), "set_belt(False, -1)")
    held = plc.read_status().speed_setpoint_mps
    _require(held == status.speed_setpoint_mps, f"the set-point has become {held:g} m/s nevertheless")
    return ""


def _moves_the_encoder(bench: _Bench) -> str:
    if not bench.options.move:
        raise _Skipped("needs --move, which runs the belt")
    plc = bench.connect()
    before: PlcStatus = plc.read_status()
    if before.emergency_stop or before.watchdog_tripped:
        raise _Skipped("emergency stop or watchdog stands: reset it first")
    try:
        plc.set_belt(True, bench.options.speed_mps)
        end = time.monotonic() + RUN_S
        while not _moves(after := plc.read_status(), before) and time.monotonic() < end:
            plc.refresh_watchdog()
            time.sleep(0.05)
    finally:
        plc.set_belt(False, before.speed_setpoint_mps)
    counts = count_difference(after.encoder_count, before.encoder_count)
    _require(after.running, "was told to run and has stopped again")
    _require(counts > 0, f"the encoder went by {counts} counts while the belt should run")
    _require(after.speed_mps > 0, "its measured speed is 0 while the belt should run")
    return f"{counts} counts, {after.speed_mps:.2f} m/s"


def _moves(now: PlcStatus, before: PlcStatus) -> bool:
    return now.speed_mps > 0 and count_difference(now.encoder_count, before.encoder_count) > 0


# ---- station PLC ----


def _refuses_impossible_commands(bench: _Bench) -> str:
    plc: StationPlc = bench.connect()
    before = plc.read_status()
    load = StationAction.LOAD
    for command in (
        StationCommand(0, load),
        StationCommand(2**32, load),
        StationCommand(1, load, argument=-1),
        StationCommand(1, load, expiry_ms=0),
    ):
        _expect(DeviceSettingsError, functools.partial(plc.send, command), f"send({command})")
    after = plc.read_status()
    _require(
        (before.done_count, before.active_token) == (after.done_count, after.active_token), "something was sent"
    )
    return ""


def _flips_once(bench: _Bench) -> str:
    if not bench.options.move:
        raise _Skipped("needs --move, which homes and turns the flipper")
    plc: StationPlc = bench.connect()
    if plc.read_status().emergency_stop:
        raise _Skipped("the emergency stop is pressed: release it first")
    plc.reset_faults()
    home = _await_station(plc, _is_home)
    command = StationCommand(home.done_token + 1, StationAction.FLIP, expiry_ms=1000)
    plc.send(command)
    flipped = _await_station(plc, lambda status: status.done_token == command.token)
    _require(
        flipped.done_result is ActionResult.DONE and flipped.flipper is FlipperPosition.INVERTED,
        f"a flip ended as {flipped.done_result.name}, the flipper is {flipped.flipper.name}",
    )
    plc.send(command)
    time.sleep(0.2)
    again = plc.read_status()
    _require(again.active_token == 0, "a token that was used before has started something")
    _require(again.done_count == flipped.done_count, "a token that was used before was counted as done again")
    plc.reset_faults()
    _await_station(plc, _is_home)
    return f"token {command.token}"


def _is_home(status: StationStatus) -> bool:
    """An upright flipper may still be on its last degrees: nothing is taken until it stands."""
    return status.flipper is FlipperPosition.UPRIGHT and status.active_token == 0


def _await_station(plc: StationPlc, condition: Callable[[StationStatus], bool]) -> StationStatus:
    end = time.monotonic() + STATION_S
    while not condition(status := plc.read_status()):
        if time.monotonic() > end:
            raise _Violation(f"did not come within {STATION_S:g} s; its status is {status}")
        plc.refresh_watchdog()
        time.sleep(0.02)
    return status


# ---- camera ----


def _times_out(bench: _Bench) -> str:
    camera: TriggeredCamera = bench.connect()
    for _ in range(5):
        begin = time.monotonic()
        try:
            camera.read(0.2)
        except DeviceTimeoutError:
            took_s = time.monotonic() - begin
            _require(took_s <= 0.2 + SLACK_S, f"read(0.2) took {took_s:.2f} s")
            _require(camera.connected, "is disconnected after waiting for a frame in vain")
            return ""
    raise _Skipped("frames keep coming: stop the belt to have this checked")


def _delivers_frames(bench: _Bench) -> str:
    if bench.options.frames == 0:
        raise _Skipped("no frames are asked for")
    camera: TriggeredCamera = bench.connect()
    end = time.monotonic() + bench.options.wait_s
    frames: list[Frame] = []
    while len(frames) < bench.options.frames:
        left_s = end - time.monotonic()
        if left_s <= 0:
            raise _Violation(f"{len(frames)} of {bench.options.frames} frames in {bench.options.wait_s:g} s")
        try:
            frame = camera.read(left_s)
        except DeviceTimeoutError:
            if not camera.connected:
                raise
            continue
        _check_frame(camera, frame, frames[-1] if frames else None)
        frames.append(frame)
    last = frames[-1]
    return f"{len(frames)} frames of {last.width} x {last.height} {last.encoding}"


def _check_frame(camera: TriggeredCamera, frame: Frame, previous: Frame | None) -> None:
    name = f"frame {frame.frame_number}"
    age_s = time.monotonic() - frame.exposed_at
    oldest_s = getattr(camera.settings, "max_age_s", OLDEST_FRAME_S)
    said = camera.encodings or (frame.encoding,)
    _require(
        -CLOCK_TOLERANCE_S <= age_s <= oldest_s + SLACK_S, f"{name} is {age_s:.2f} s old: wrong clock, or stale"
    )
    _require(frame.width > 0 and frame.height > 0, f"{name} is empty")
    _require(len(frame.data) == frame.step * frame.height, f"{name} has {len(frame.data)} bytes: not step x height")
    _require(frame.encoding in said, f"{name} is {frame.encoding}, the settings say {' or '.join(said)}")
    if previous is not None:
        _require(frame.frame_number > previous.frame_number, f"{name} comes after {previous.frame_number}")
        _require(
            frame.exposed_at > previous.exposed_at and frame.stamp != previous.stamp,
            f"{name} has the time of the frame before, or an earlier one",
        )
        if frame.trigger_count is not None and previous.trigger_count is not None:
            triggers = count_difference(frame.trigger_count, previous.trigger_count)
            _require(
                triggers > 0, f"{name} has trigger {frame.trigger_count}, the one before {previous.trigger_count}"
            )


# ---- tester ----

_QUIET_RUN = CyclerRun((Rest(seconds=600.0),), Limits(voltage_min_v=0.5, voltage_max_v=4.9))
"""No current flows in it."""


def _tells_its_channels(bench: _Bench) -> str:
    tester: CellTester = bench.connect()
    _require(bool(tester.channels), "has no channels")
    for channel in tester.channels:
        state = tester.read_progress(channel)
        _require_readings(channel, state)
        _require(0 <= state.step <= state.steps, f"channel {channel}: step {state.step} of {state.steps}")
    return f"{len(tester.channels)} channels"


def _require_readings(channel: int, state: ChannelState) -> None:
    """All values of a channel are readings; of one that neither runs nor is done they may be NaN."""
    working = state.state in (ChannelPhase.RUNNING, ChannelPhase.DONE)
    shown = (
        (readings.VOLTAGE, state.voltage_v),
        (readings.CURRENT, state.current_a),
        (readings.TEMPERATURE, state.temperature_c),
        (readings.CHARGE, state.charge_ah),
        (readings.TIME, state.elapsed_s),
    )
    for quantity, value in shown:
        try:
            if working or not math.isnan(value):
                quantity.check(value)
        except ReadingError as error:
            raise _Violation(f"channel {channel}: {error}: {state}") from error


def _refuses_other_channels(bench: _Bench) -> str:
    tester: CellTester = bench.connect()
    calls: tuple[Callable[[int], Any], ...] = (
        tester.read_progress,
        tester.check_contact,
        tester.measure_resistance,
        tester.safe,
    )
    for channel in (0, tester.channels[-1] + 1):
        for call in calls:
            _expect(DeviceSettingsError, functools.partial(call, channel), f"{call.__name__}({channel})")
    _require(tester.connected, "is disconnected after refusing a channel")
    return ""


def _makes_safe(bench: _Bench) -> str:
    tester = bench.connect()
    _require(
        not tester.emergency_stop_stands(), "its emergency stop stands: release and reset it to have this checked"
    )
    channel = _free_channel(tester)
    for _ in range(2):
        tester.safe(channel)
        _require(not _runs(tester, channel), f"channel {channel} runs after safe()")
    return f"channel {channel}"


def _starts_and_stops(bench: _Bench) -> str:
    if not bench.options.move:
        raise _Skipped("needs --move, which closes the contacts of a channel")
    tester = bench.connect()
    channel = _free_channel(tester)
    try:
        try:
            contact = tester.check_contact(channel)
        except OpenContactError as error:
            raise _Skipped(f"put a cell into channel {channel}: {error}") from error
        reading = tester.measure_resistance(channel)
        _require(reading.resistance_mohm > 0, f"a resistance of {reading.resistance_mohm} mΩ")
        _require(
            abs(reading.ocv_v - contact.voltage_v) < 0.05,
            f"the meter shows {reading.ocv_v:.4f} V, the cycler {contact.voltage_v:.4f} V: two different cells?",
        )
        tester.start(channel, _QUIET_RUN)
        _require(_runs(tester, channel), "does not run after start()")
        tester.stop(channel)
        _require(not _runs(tester, channel), "runs after stop()")
        tester.start(channel, _QUIET_RUN)
    finally:
        tester.safe(channel)
    _require(not _runs(tester, channel), "runs after safe()")
    return f"channel {channel}: {reading.resistance_mohm:.3f} mΩ, {reading.ocv_v:.4f} V"


def _runs(tester: CellTester, channel: int) -> bool:
    state: ChannelState = tester.read_progress(channel)
    return state.state is ChannelPhase.RUNNING


def _free_channel(tester: CellTester) -> int:
    for channel in tester.channels:
        if not _runs(tester, channel):
            return channel
    raise _Skipped("all channels are running: stop one to have this checked")


# ---- robot ----


def _tells_its_places(bench: _Bench) -> str:
    robot: Robot = bench.connect()
    places = robot.places()
    _require(bool(places), "was taught no places")
    state = robot.read_state()
    _require(
        state.done_token >= 0 and state.active_token >= 0, f"tokens {state.active_token} and {state.done_token}"
    )
    return f"{len(places)} places, {'ready' if state.ready else state.fault or 'not ready'}"


def _refuses_unknown_places(bench: _Bench) -> str:
    robot: Robot = bench.connect()
    token = robot.read_state().done_token + 1
    place = next(iter(sorted(robot.places())))
    for source, target in (("no such place", place), (place, "no such place")):
        _expect(DeviceError, functools.partial(robot.send, MoveJob(token, source, target)), "send()")
    _require(robot.connected, "is disconnected after refusing a place")
    _require(robot.read_state().active_token == 0, "has begun to move")
    return ""


# ---- the list ----


def _connections(count: int) -> Callable[[CheckOptions], float]:
    return lambda options: count * (options.timeout_s + SLACK_S) + options.overhead_s


def _waiting(options: CheckOptions) -> float:
    return options.timeout_s + options.wait_s + options.overhead_s


_SEE = "see docs/how-to/drivers.md"
_COMMON = [
    _Check(
        "unknown settings are refused",
        _refuses_unknown_settings,
        "derive the settings from DriverSettings and leave its model_config as it is",
        _connections(1),
        needs_device=False,
    ),
    _Check(
        "building opens nothing",
        _builds_closed,
        f"open the device in connect(), and raise DeviceConnectionError while it is closed; {_SEE}",
        _connections(1),
        needs_device=False,
    ),
    _Check(
        "connects",
        _connects,
        "switch the device on; check host, port, cable and firewall, and that no other program holds it",
        _connections(1),
    ),
    _Check("connecting twice does nothing", _connects_once, "return at once if connected", _connections(2)),
    _Check("connects again", _connects_again, "let disconnect() undo all that connect() has done", _connections(3)),
    _Check(
        "disconnects at any time",
        _disconnects,
        "disconnect() may come twice; after it every call raises DeviceConnectionError",
        _connections(1),
    ),
    _Check(
        "disconnecting ends a read",
        _disconnect_ends_a_read,
        "shut the socket down (or wake the reader) in disconnect(), and raise DeviceConnectionError in the reader",
        _connections(1),
    ),
]
_OF_DEVICE = {
    "plc": [
        _Check(
            "tells its status",
            _tells_its_status,
            "docs/reference/plc.md says what each register holds",
            _connections(1),
        ),
        _Check(
            "keeps edges and acknowledgements", _keeps_its_rings, "docs/reference/plc.md, 'rings'", _connections(1)
        ),
        _Check(
            "set-point is read back",
            _reads_the_set_point_back,
            "compare what the device holds with what was written; raise DeviceSettingsError if it differs",
            _connections(1),
        ),
        _Check(
            "impossible speeds are refused",
            _refuses_impossible_speeds,
            "raise DeviceSettingsError before anything is written",
            _connections(1),
        ),
        _Check(
            "encoder moves",
            _moves_the_encoder,
            "check drive, release and encoder; the belt must accept the speed of --speed",
            _connections(1),
        ),
    ],
    "camera": [
        _Check(
            "waits in vain without harm",
            _times_out,
            "raise DeviceTimeoutError when no frame comes, and stay connected",
            _connections(3),
        ),
        _Check(
            "delivers frames",
            _delivers_frames,
            "run the belt or trigger the camera by hand while this runs; check trigger line and clock",
            _waiting,
        ),
    ],
}
_OF_DEVICE["station_plc"] = [
    _Check(
        "tells its status",
        _tells_its_status,
        "docs/reference/station_plc.md says what each register holds",
        _connections(1),
    ),
    _Check(
        "impossible commands are refused",
        _refuses_impossible_commands,
        "raise DeviceSettingsError before anything is written",
        _connections(1),
    ),
    _Check(
        "flips each token once",
        _flips_once,
        "docs/reference/station_plc.md, 'tokens': take newer tokens only, and home the flipper on reset",
        lambda options: options.timeout_s + 3 * STATION_S + options.overhead_s,
    ),
]
_OF_DEVICE["tester"] = [
    _Check(
        "tells its channels", _tells_its_channels, "docs/reference/tester.md, 'MEASure:CHANnel?'", _connections(2)
    ),
    _Check(
        "other channels are refused",
        _refuses_other_channels,
        "raise DeviceSettingsError for a channel that the tester hasn't, before anything is sent",
        _connections(1),
    ),
    _Check(
        "makes a channel safe",
        _makes_safe,
        "switch the current off, open the contacts, and read both back in safe()",
        _connections(1),
    ),
    _Check(
        "starts and stops",
        _starts_and_stops,
        "with a sound cell in the first channel: see docs/reference/tester.md for what start(), stop() and "
        "safe() owe",
        _connections(3),
    ),
]
_OF_DEVICE["robot"] = [
    _Check("tells its places", _tells_its_places, "docs/reference/robot.md, 'places' and 'state'", _connections(1)),
    _Check(
        "unknown places are refused",
        _refuses_unknown_places,
        'answer {"ok": false, …} to a move between places that were not taught, and don\'t move',
        _connections(1),
    ),
]
_LAST = [
    _Check(
        "leaves nothing open", _leaves_nothing_open, "close sockets, join threads in disconnect()", _connections(5)
    ),
    _Check(
        "gives up where nothing listens",
        _gives_up_where_nothing_listens,
        "turn the library's error into DeviceConnectionError",
        _connections(1),
        needs_device=False,
    ),
    _Check(
        "gives up on a silent device",
        _gives_up_on_silence,
        "ask the device something in connect(), with connect()'s timeout on the whole of it",
        _connections(1),
        needs_device=False,
    ),
    _Check(
        "gives up on garbage",
        _gives_up_on_garbage,
        "check what answers in connect(), raise DeviceProtocolError, and hold a deadline over all reads",
        _connections(1),
        needs_device=False,
    ),
]
