"""Errors of the package. Each class maps to exactly one error code, which goes into results and the ledger."""

from __future__ import annotations


class BatterySortingError(Exception):
    """Base of every error that this package raises on purpose."""

    code = "error"


class ConfigurationError(BatterySortingError):
    """A site, recipe or settings file is wrong. ``problems`` lists every fault found, not just the first."""

    code = "configuration"

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{source}: {len(problems)} problem{'s' if len(problems) != 1 else ''}\n{lines}")


class DeviceError(BatterySortingError):
    """A device did not do what was asked of it."""

    code = "device"


class DeviceConnectionError(DeviceError):
    """The device can't be reached, or the connection broke."""

    code = "connection"


class DeviceTimeoutError(DeviceError):
    """The device did not answer in time."""

    code = "timeout"


class DeviceProtocolError(DeviceError):
    """The device answered something that its protocol doesn't allow."""

    code = "protocol"


class DeviceSettingsError(DeviceError):
    """A setting was written and read back differently."""

    code = "settings_not_taken"


class FrameError(DeviceError):
    """A frame is corrupt, stale or frozen and must not be used."""

    code = "bad_frame"


class ModelError(BatterySortingError):
    """A model or its card is missing, unreadable or does not match."""

    code = "model"


class LedgerError(BatterySortingError):
    """The ledger can't be opened or written."""

    code = "ledger"
