"""What every driver owes its line, as checks that run on a live device; each kind of device adds its own.

The checks move nothing unless they are allowed to. They connect several times: nothing else should use the device.
`docs/how-to/drivers.md` is the prose of it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from pydantic import ValidationError

from battery_sorting.core.errors import ConfigurationError, DeviceConnectionError, DeviceError, DeviceTimeoutError
from battery_sorting.drivers.base import Driver
from battery_sorting.drivers.registry import driver_problems, find_driver, find_suite
from battery_sorting.drivers.suite import (
    SLACK_S,
    WAIT_S,
    Check,
    CheckOptions,
    CheckOutcome,
    Checks,
    CheckSkipped,
    ContractViolation,
    DriverBench,
    Result,
    connections,
    expect,
    require,
)

CYCLES = 3
_HANGS = "did not come back"


def check_driver(
    device: str, name: str, settings: dict[str, Any], options: CheckOptions | None = None
) -> Iterator[Result]:
    """Runs the contract on a live device, one result at a time.

    Args:
        device: Kind of device: one of `battery_sorting.drivers.registry.DEVICES`, or ``module:NAME``.
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
    suite = find_suite(device)
    bench = DriverBench(find_driver(device, name), suite, settings, options)
    unusable = ""
    for check in [*_FIRST, *suite.checks, *_LAST]:
        if unusable and check.needs_device:
            yield Result(check.name, CheckOutcome.SKIP, unusable)
            continue
        result = _run(check, bench)
        if result.outcome is CheckOutcome.FAIL and check.run is _connects:
            unusable = "the device is not connected"
        yield result
        if result.detail.startswith(_HANGS):
            return  # its thread still holds the device: what came after would tell nothing


def _run(check: Check, bench: DriverBench) -> Result:
    """One check in a thread of its own: a driver that hangs must not hang whoever checks it."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(_judge(check, bench)), name="check", daemon=True)
    thread.start()
    limit_s = check.limit_s(bench.options)
    thread.join(limit_s)
    if not results:
        return Result(check.name, CheckOutcome.FAIL, f"{_HANGS} within {limit_s:g} s", check.remedy)
    return results[0]


def _judge(check: Check, bench: DriverBench) -> Result:
    try:
        try:
            detail = check.run(bench)
        finally:
            bench.clear()
    except CheckSkipped as skipped:
        return Result(check.name, CheckOutcome.SKIP, str(skipped))
    except (ContractViolation, DeviceError, ConfigurationError) as error:
        return Result(check.name, CheckOutcome.FAIL, str(error), check.remedy)
    except Exception as error:  # the driver under test may do anything
        return Result(check.name, CheckOutcome.FAIL, f"raised {error!r}, which is no DeviceError", check.remedy)
    return Result(check.name, CheckOutcome.PASS, detail)


# ---- what is checked first ----

_FIRST = Checks()


@_FIRST.add(
    "unknown settings are refused",
    "derive the settings from DriverSettings and leave its model_config as it is",
    needs_device=False,
)
def _refuses_unknown_settings(bench: DriverBench) -> str:
    try:
        bench.build(no_such_setting=1)
    except ValidationError:
        return ""
    raise ContractViolation("took the unknown key 'no_such_setting'")


@_FIRST.add(
    "building opens nothing",
    "open the device in connect(), and raise DeviceConnectionError while it is closed; see docs/how-to/drivers.md",
    needs_device=False,
)
def _builds_closed(bench: DriverBench) -> str:
    driver = bench.build()
    require(not driver.connected, "is connected before connect() was called")
    driver.disconnect()
    _require_refusals(bench, driver)
    return ""


@_FIRST.add(
    "connects", "switch the device on; check host, port, cable and firewall, and that no other program holds it"
)
def _connects(bench: DriverBench) -> str:
    begin = time.monotonic()
    driver = bench.connect()
    took_s = time.monotonic() - begin
    require(driver.connected, "connect() came back, but 'connected' is false")
    require(took_s <= bench.options.timeout_s + SLACK_S, f"took {took_s:.2f} s")
    return f"{took_s * 1000:.0f} ms"


@_FIRST.add("connecting twice does nothing", "return at once if connected", connections(2))
def _connects_once(bench: DriverBench) -> str:
    driver = bench.connect()
    before = _open_files()
    driver.connect(bench.options.timeout_s)
    require(driver.connected, "is not connected after the second connect()")
    require(_open_files() <= before, "opened something more at the second connect()")
    bench.suite.touch(driver)
    return ""


@_FIRST.add("connects again", "let disconnect() undo all that connect() has done", connections(3))
def _connects_again(bench: DriverBench) -> str:
    driver = bench.connect()
    for _ in range(2):
        driver.disconnect()
        driver.connect(bench.options.timeout_s)
        require(driver.connected, "is not connected after connecting again")
        bench.suite.touch(driver)
    return ""


@_FIRST.add(
    "disconnects at any time", "disconnect() may come twice; after it every call raises DeviceConnectionError"
)
def _disconnects(bench: DriverBench) -> str:
    driver = bench.connect()
    for _ in range(2):
        driver.disconnect()
        require(not driver.connected, "'connected' is true after disconnect()")
    _require_refusals(bench, driver)
    return ""


@_FIRST.add(
    "disconnecting ends a read",
    "shut the socket down (or wake the reader) in disconnect(), and raise DeviceConnectionError in the reader",
)
def _disconnect_ends_a_read(bench: DriverBench) -> str:
    driver = bench.connect()
    wait = bench.suite.wait or bench.suite.touch
    errors: list[BaseException] = []
    reading = threading.Event()

    def read() -> None:
        reading.set()
        end = time.monotonic() + WAIT_S
        try:
            while time.monotonic() < end:
                with contextlib.suppress(DeviceTimeoutError):
                    wait(driver)
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read, name="reader", daemon=True)
    reader.start()
    reading.wait()
    time.sleep(0.1)  # so that it waits in its read
    driver.disconnect()
    begin = time.monotonic()
    reader.join(1.0)
    require(not reader.is_alive(), "a read goes on 1 s after disconnect() in another thread")
    require(
        bool(errors) and isinstance(errors[0], DeviceConnectionError),
        f"the read ended with {errors[0]!r}, not with a DeviceConnectionError" if errors else "the read went on",
    )
    require(not driver.connected, "the read has connected it again")
    return f"{(time.monotonic() - begin) * 1000:.0f} ms"


# ---- what is checked last ----

_LAST = Checks()


@_LAST.add("leaves nothing open", "close sockets, join threads in disconnect()", connections(5))
def _leaves_nothing_open(bench: DriverBench) -> str:
    bench.connect()
    bench.clear()  # what is opened once, such as a library's own files, may stay
    files, threads = _settled(_open_files), set(threading.enumerate())
    for _ in range(CYCLES):
        bench.connect()
        bench.clear()
    _wait_until(lambda: _open_files() <= files and not _more_threads(threads))
    require(_open_files() <= files, f"{_open_files() - files} files or sockets stay open after disconnect()")
    require(not _more_threads(threads), f"threads stay after disconnect(): {_more_threads(threads)}")
    return ""


def _more_threads(before: set[threading.Thread]) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread not in before]


@_LAST.add(
    "gives up where nothing listens", "turn the library's error into DeviceConnectionError", needs_device=False
)
def _gives_up_where_nothing_listens(bench: DriverBench) -> str:
    with socket.socket() as reserved:  # bound, but not listening
        reserved.bind(("127.0.0.1", 0))
        return _gives_up(bench, reserved.getsockname()[1], DeviceConnectionError)


@_LAST.add(
    "gives up on a silent device",
    "ask the device something in connect(), with connect()'s timeout on the whole of it",
    needs_device=False,
)
def _gives_up_on_silence(bench: DriverBench) -> str:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        return _gives_up(bench, silent.getsockname()[1], DeviceError)


@_LAST.add(
    "gives up on garbage",
    "check what answers in connect(), raise DeviceProtocolError, and hold a deadline over all reads",
    needs_device=False,
)
def _gives_up_on_garbage(bench: DriverBench) -> str:
    with _babbling() as port:
        return _gives_up(bench, port, DeviceError)


def _gives_up(bench: DriverBench, port: int, kind: type[DeviceError]) -> str:
    if not {"host", "port"} <= set(bench.driver_class.Settings.model_fields):
        raise CheckSkipped("its settings have no host and port")
    driver = bench.build(host="127.0.0.1", port=port)
    timeout_s = bench.options.impostor_timeout_s
    begin = time.monotonic()
    error = expect(kind, lambda: driver.connect(timeout_s), "connect()")
    took_s = time.monotonic() - begin
    require(took_s <= timeout_s + SLACK_S, f"took {took_s:.2f} s with a timeout of {timeout_s:g} s")
    require(not driver.connected, "'connected' is true after connect() has failed")
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
        server.settimeout(WAIT_S)
        thread = threading.Thread(target=babble, name="babble", daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            with contextlib.suppress(OSError):  # wakes it if nobody has come
                socket.create_connection(server.getsockname(), timeout=0.1).close()
            thread.join()


def _require_refusals(bench: DriverBench, driver: Driver) -> None:
    for name, call in bench.suite.calls(driver).items():
        expect(DeviceConnectionError, call, f"{name}() while disconnected")
        require(not driver.connected, f"{name}() has connected it")


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
