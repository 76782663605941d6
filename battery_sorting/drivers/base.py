"""What every driver has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
