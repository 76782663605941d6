"""What contract suites are made of: checks that run on a live device, where they try its driver, how they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from battery_sorting.core.errors import DeviceError
from battery_sorting.drivers.base import Driver

SLACK_S = 0.5
"""By how much a call may exceed its timeout."""
WAIT_S = 5.0
"""How long the longest call of a check waits."""


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


class ContractViolation(Exception):
    """The driver does not keep the contract."""


class CheckSkipped(Exception):
    """The check can't be done here; says why."""


@dataclass
class DriverBench:
    """Where a driver is tried. Every driver it hands out is disconnected at the end of the check."""

    driver_class: type[Driver]
    suite: Suite
    settings: dict[str, Any]
    options: CheckOptions
    _built: list[Driver] = field(default_factory=list)

    def build(self, **changes: Any) -> Any:
        """A driver that is not connected, with some settings changed."""
        driver = self.driver_class.from_settings({**self.settings, **changes})
        self._built.append(driver)
        return driver

    def connect(self) -> Any:
        """A driver that is connected."""
        driver = self.build()
        driver.connect(self.options.timeout_s)
        return driver

    def clear(self) -> None:
        """Disconnects all drivers."""
        built, self._built = self._built, []
        for driver in built:
            driver.disconnect()


Rule = Callable[[DriverBench], str]
Limit = Callable[[CheckOptions], float]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule of a contract. A check that takes longer than ``limit_s``, in s, counts as hanging."""

    name: str
    run: Rule
    remedy: str
    limit_s: Limit
    needs_device: bool


def connections(count: int) -> Limit:
    """Limit of a check that connects so often."""
    return lambda options: count * (options.timeout_s + SLACK_S) + options.overhead_s


def lasting(seconds: Limit) -> Limit:
    """Limit of a check that connects once and then takes so long."""
    return lambda options: options.timeout_s + seconds(options) + options.overhead_s


_CONNECTS_ONCE = connections(1)


class Checks(list[Check]):
    """Checks in the order in which they run."""

    def add(
        self, name: str, remedy: str, limit_s: Limit = _CONNECTS_ONCE, needs_device: bool = True
    ) -> Callable[[Rule], Rule]:
        """Makes the function below it a check.

        The function takes a bench and returns a detail for people. It raises `CheckSkipped` where it can't be done;
        a `ContractViolation`, or any other exception, fails it.

        Args:
            name: What the driver does if it passes, for people.
            remedy: What to do about a failure.
            limit_s: How long it may take.
            needs_device: Whether it is skipped if the device can't be connected.
        """

        def enter(run: Rule) -> Rule:
            self.append(Check(name, run, remedy, limit_s, needs_device))
            return run

        return enter


@dataclass(frozen=True, slots=True)
class Suite:
    """The contract of a kind of device: its own checks, and what the checks of all devices need of it.

    Attributes:
        checks: Of its own; `battery_sorting.drivers.contract` has those of every device.
        calls: Every call of a driver that needs the device, by name. Even one that wrongly got through must move
            nothing.
        touch: Asks the device something, which shows that the connection is alive.
        wait: The call in which a driver waits longest, for some seconds; None: `touch`.
    """

    checks: Checks
    calls: Callable[[Any], dict[str, Callable[[], Any]]]
    touch: Callable[[Any], Any]
    wait: Callable[[Any], Any] | None = None


def expect(kind: type[DeviceError], call: Callable[[], Any], what: str) -> DeviceError:
    """The error of ``kind`` that ``call`` raises.

    Raises:
        ContractViolation: It raises another one, or none.
    """
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise ContractViolation(f"{what} raised {type(error).__name__} ({error}), not {kind.__name__}") from error
    raise ContractViolation(f"{what} raised nothing, not {kind.__name__}")


def require(holds: bool, complaint: str) -> None:
    """Raises a `ContractViolation` with ``complaint`` unless it holds."""
    if not holds:
        raise ContractViolation(complaint)


def check_clock(read_status: Callable[[], Any]) -> str:
    """Whether the clock of a PLC goes right, by two readings of its status: a check that all kinds of PLC share."""
    begin = time.monotonic()
    first = read_status()
    require(
        begin <= first.host_time <= time.monotonic(),
        "host_time lies outside the request: it is of time.monotonic()",
    )
    time.sleep(0.1)
    second = read_status()
    passed_ms = (second.time_ms - first.time_ms) % 2**32
    host_ms = (second.host_time - first.host_time) * 1000
    require(first.boot_id != 0, "boot_id is 0: battery ids are made of it")
    require(first.boot_id == second.boot_id, "boot_id changes from one request to the next")
    require(
        abs(passed_ms - host_ms) <= 20 + 2000 * (first.round_trip_s + second.round_trip_s),
        f"the PLC's clock went on by {passed_ms} ms while {host_ms:.0f} ms passed",
    )
    return f"round trip {second.round_trip_s * 1000:.1f} ms"
