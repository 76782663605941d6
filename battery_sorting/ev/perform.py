"""Carries out what a `CellTest` orders, on a tester."""

from __future__ import annotations

from battery_sorting.core.errors import DeviceError
from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.ev.cell_test import (
    CheckContact,
    Command,
    CommandFailed,
    ContactChecked,
    Event,
    MadeSafe,
    MeasureResistance,
    ProgressRead,
    ReadProgress,
    ReadResults,
    ResistanceRead,
    ResultsRead,
    RunStarted,
    StartRun,
)


def perform(tester: CellTester, channel: int, command: Command) -> Event:
    """Carries out a command of a `CellTest`; the event says what came of it, errors of the device included."""
    try:
        if isinstance(command, CheckContact):
            return ContactChecked(tester.check_contact(channel))
        if isinstance(command, StartRun):
            tester.start(channel, command.run)
            return RunStarted()
        if isinstance(command, ReadProgress):
            return ProgressRead(tester.read_progress(channel))
        if isinstance(command, ReadResults):
            return ResultsRead(tester.read_results(channel))
        if isinstance(command, MeasureResistance):
            return ResistanceRead(tester.measure_resistance(channel))
        tester.safe(channel)
        return MadeSafe()
    except DeviceError as error:
        return CommandFailed.of(error)
