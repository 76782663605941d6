"""What every driver has in common."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class DriverSettings(BaseModel):
    """Base of a driver's settings: no unknown keys, no silent conversions; nothing is opened to validate them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Driver(ABC):
    """A piece of hardware.

    A driver is built from validated settings and touches nothing until `connect`. Every call that talks to the
    hardware is bounded in time and raises a `battery_sorting.core.errors.DeviceError`; after a
    `DeviceConnectionError` the driver is disconnected and may be connected again.
    """

    Settings: ClassVar[type[DriverSettings]]

    def __init__(self, settings: DriverSettings) -> None:
        self.settings = settings

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Driver:
        """Builds the driver from a mapping, e.g. of a site file.

        Raises:
            pydantic.ValidationError: The settings are wrong.
        """
        return cls(cls.Settings.model_validate(settings))

    @property
    def addresses(self) -> tuple[str, ...]:
        """What this driver needs for itself, in the same words for every driver that means the same device.

        They follow from the settings: one for each pair of ``port`` and ``host``, where ``x_port`` goes with
        ``x_host``, or with ``host`` if that is missing or empty. A driver without such settings is known by all of
        its settings; one that can tell its device better (a serial number, a device file) overrides this.
        """
        values = self.settings.model_dump(mode="json")
        found = []
        for name in values:
            if name == "port" or name.endswith("_port"):
                host = values.get(f"{name.removesuffix('port')}host") or values.get("host")
                if host:
                    found.append(f"tcp {_same_host(str(host))}:{values[name]}")
        return tuple(dict.fromkeys(found)) or (f"{type(self).__qualname__} {self.settings.model_dump_json()}",)

    @abstractmethod
    def connect(self, timeout_s: float = 2.0) -> None:
        """Opens the device and checks that it is the one it should be. Connecting twice does nothing.

        Raises:
            DeviceConnectionError: It can't be reached.
            DeviceTimeoutError: It does not answer within ``timeout_s``.
            DeviceProtocolError: What answers is not such a device.
            DeviceSettingsError: A setting did not take.
        """

    @abstractmethod
    def disconnect(self) -> None:
        """Closes the device. May be called at any time and any number of times; never raises."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether the device is open. False after a connection error."""

    def __enter__(self) -> Driver:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """A kind of device. What it names is a ``module:name`` that is imported when it is needed.

    Attributes:
        interface: Base class of its drivers.
        suite: The `battery_sorting.drivers.suite.Suite` that every driver of it must pass.
        drivers: Drivers that a site may name by a word, each with its class.
    """

    interface: str
    suite: str
    drivers: Mapping[str, str] = field(default_factory=dict)


def _same_host(host: str) -> str:
    """The same text for every name of a host; its own name if nobody knows it now."""
    with contextlib.suppress(OSError, UnicodeError):
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        addresses = sorted((ipaddress.ip_address(str(text).partition("%")[0]) for text in found), key=_order)
        if addresses:
            first = str(addresses[0])
            return "localhost" if first in {"127.0.0.1", "::1"} else first
    return host.lower()


def _order(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[int, int]:
    return address.version, int(address)
