"""Errors of the package. Each class maps to exactly one error code, which goes into results and the ledger."""

from __future__ import annotations

from battery_sorting.core.secrets import without_passwords


class BatterySortingError(Exception):
    """Base of every error that this package raises on purpose. Its text never shows a password."""

    code = "error"

    def __str__(self) -> str:
        return without_passwords(super().__str__())


class ConfigurationError(BatterySortingError):
    """A site, recipe or settings file is wrong. ``problems`` lists every fault found, not just the first."""

    code = "configuration"

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{source}: {len(problems)} problem{'s' if len(problems) != 1 else ''}\n{lines}")


class MessageError(BatterySortingError):
    """A message says what no node of the cell can say: it is dropped and counted."""

    code = "bad_message"


class DeviceError(BatterySortingError):
    """A device did not do what was asked of it."""

    code = "device"


class DeviceConnectionError(DeviceError):
    """The device can't be reached, or the connection broke."""

    code = "connection"


class DeviceTimeoutError(DeviceError):
    """The device did not answer in time."""

    code = "timeout"


class DeviceBusyError(DeviceError):
    """The device says that it has no time now. One that says so for longer than it may has a fault."""

    code = "busy"


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


class ReadingError(CellTestError):
    """The instrument has answered, but what it shows is no reading. Says nothing about the cell."""

    code = "no_reading"


class OverloadError(ReadingError):
    """The instrument shows the mark of an overload: its input is open, or the value beyond what it can measure."""

    code = "overload"


class NotMeasuredError(ReadingError):
    """The instrument shows that it has not measured the value (SCPI's *not a number*)."""

    code = "not_measured"


class ImplausibleReadingError(ReadingError):
    """The instrument shows a value that can't be true."""

    code = "implausible"


class TesterTimeoutError(CellTestError):
    """A test didn't come to its end in time."""

    code = "tester_timeout"


class TesterStoppedError(CellTestError):
    """The tester has stopped by itself: emergency stop, watchdog, or a restart in the middle of a test."""

    code = "tester_stopped"


class TesterEmergencyStopError(TesterStoppedError):
    """The tester's emergency stop was pressed. Says nothing about the cell: test it again when it is released."""

    code = "emergency_stop"


class ModelError(BatterySortingError):
    """A model or its card is missing, unreadable or does not match."""

    code = "model"


class LedgerError(BatterySortingError):
    """The ledger can't be opened or written."""

    code = "ledger"
