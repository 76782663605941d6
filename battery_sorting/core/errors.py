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


class CellTestError(DeviceError):
    """A cell can't be tested as it lies in its channel, or its test had to be stopped."""

    code = "cell_test"


class OpenContactError(CellTestError):
    """A contact to the cell is open or bad. Says nothing about the cell: seat it again."""

    code = "open_contact"


class ReversedPolarityError(CellTestError):
    """The cell lies the wrong way round in its channel."""

    code = "reversed_polarity"


class OverTemperatureError(CellTestError):
    """The cell is hotter than the programme allows."""

    code = "over_temperature"


class VoltageWindowError(CellTestError):
    """The cell's voltage lies outside the window that the programme allows."""

    code = "voltage_window"


class TesterTimeoutError(CellTestError):
    """A test didn't come to its end in time."""

    code = "tester_timeout"


class TesterStoppedError(CellTestError):
    """The tester has stopped by itself: emergency stop, watchdog, or a restart in the middle of a test."""

    code = "tester_stopped"


class ModelError(BatterySortingError):
    """A model or its card is missing, unreadable or does not match."""

    code = "model"


class LedgerError(BatterySortingError):
    """The ledger can't be opened or written."""

    code = "ledger"
