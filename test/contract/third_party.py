"""Drivers as an integrator would bring them: one that keeps the contract, and some that don't."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

from battery_sorting.core.errors import DeviceConnectionError, DeviceTimeoutError
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera


class AcmeSettings(DriverSettings):
    period_s: float = 0.05
    max_age_s: float = 1.0


class AcmeCamera(TriggeredCamera):
    """A camera that triggers itself."""

    Settings: ClassVar[type[DriverSettings]] = AcmeSettings

    def __init__(self, settings: AcmeSettings) -> None:
        super().__init__(settings)
        self._period_s = settings.period_s
        self._open = threading.Event()
        self._closed = threading.Event()
        self._number = 0

    @property
    def connected(self) -> bool:
        return self._open.is_set()

    def connect(self, timeout_s: float = 2.0) -> None:  # noqa: ARG002
        self._closed.clear()
        self._open.set()

    def disconnect(self) -> None:
        self._open.clear()
        self._closed.set()

    def read(self, timeout_s: float) -> Frame:
        if not self.connected:
            raise DeviceConnectionError("Acme camera is not connected")
        closed = self._closed.wait(min(timeout_s, self._period_s))
        if closed:
            raise DeviceConnectionError("Acme camera was disconnected")
        if timeout_s < self._period_s:
            raise DeviceTimeoutError(f"no frame within {timeout_s} s")
        self._number += 1
        return Frame(self._number, self._number, time.time(), 4, 2, "mono8", 4, bytes(8))


class CarelessCamera(AcmeCamera):
    """Reads without being connected, keeps a thread per connection, and repeats its time."""

    def __init__(self, settings: AcmeSettings) -> None:
        super().__init__(settings)
        self._stamp = time.time()

    def connect(self, timeout_s: float = 2.0) -> None:
        if not self.connected:
            threading.Thread(target=time.sleep, args=(1.8,), name="left behind", daemon=True).start()
        super().connect(timeout_s)

    def read(self, timeout_s: float) -> Frame:
        if not self.connected:
            raise KeyError("handle")
        frame = super().read(timeout_s)
        return Frame(frame.frame_number, frame.trigger_count, self._stamp, 4, 2, "mono8", 4, bytes(8))


class HangingCamera(AcmeCamera):
    def connect(self, timeout_s: float = 2.0) -> None:  # noqa: ARG002
        time.sleep(1.8)


class LazySettings(DriverSettings):
    host: str
    port: int


class GullibleCamera(AcmeCamera):
    """Takes whatever listens, or not, for its camera."""

    Settings: ClassVar[type[DriverSettings]] = LazySettings

    def __init__(self, settings: LazySettings) -> None:  # noqa: ARG002
        super().__init__(AcmeSettings())


class HalfCamera(TriggeredCamera):
    """Lacks most of what a camera needs."""

    Settings: ClassVar[type[DriverSettings]] = AcmeSettings

    def read(self, timeout_s: float) -> Frame:
        raise NotImplementedError


class NoSettings(AcmeCamera):
    Settings = dict  # type: ignore[assignment]


class NotADriver:
    pass
