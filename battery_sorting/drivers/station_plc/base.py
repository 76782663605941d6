"""What the cell needs from the PLC of an inspection station."""

from __future__ import annotations

from abc import abstractmethod

from battery_sorting.core.ev.types import StationCommand, StationStatus
from battery_sorting.drivers.base import Driver


class StationPlc(Driver):
    """The PLC of an inspection station: loader, flipper, ring lights with their cameras, outlets.

    It does one action at a time and each token once: a token that it knows already moves nothing, and only newer
    ones are taken. What it can't do now (another action runs, emergency stop, watchdog, a cell where none may be)
    it refuses. What became of an action stands in the status.
    """

    @abstractmethod
    def read_status(self) -> StationStatus:
        """Reads the status block."""

    @abstractmethod
    def send(self, command: StationCommand) -> None:
        """Hands over an action, which the PLC must not begin when ``expiry_ms`` from now have passed.

        Raises:
            DeviceSettingsError: The command can't be put into registers; nothing was sent.
        """

    @abstractmethod
    def refresh_watchdog(self) -> None:
        """Tells the PLC that the host is alive."""

    @abstractmethod
    def reset_faults(self) -> None:
        """Acknowledges watchdog, emergency stop and jam. What runs is cancelled, and the flipper goes home."""
