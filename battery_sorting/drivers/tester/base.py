"""What the EV line needs from a tester: contacts, an AC resistance meter and a cycler for several channels."""

from __future__ import annotations

from abc import abstractmethod

from battery_sorting.drivers.base import Driver
from battery_sorting.drivers.tester.measurement import (
    ChannelState,
    ContactReading,
    CyclerRun,
    ResistanceReading,
    StepResult,
)


class CellTester(Driver):
    """A tester with channels that work independently of each other. Its calls may come from several threads.

    A call with a channel that the tester doesn't have raises DeviceSettingsError. What an instrument shows in place
    of a reading (over-range, not measured, what can't be true) raises a ReadingError: `core.readings` knows it.
    """

    @property
    @abstractmethod
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels, from 1. Known without the device."""

    @property
    def answers_dropped(self) -> int:
        """How many answers the tester has given that nobody had asked for: it or the link should be looked at."""
        return 0

    @abstractmethod
    def resistance_uncertainty_mohm(self, resistance_mohm: float) -> float:
        """Limit of error of a reading of ``resistance_mohm``, mΩ. Known without the device, for a site check."""

    @abstractmethod
    def check_contact(self, channel: int) -> ContactReading:
        """Closes the contacts anew and checks them. If that fails, they are open again.

        Raises:
            OpenContactError: A contact is open or bad, or its resistance is no reading.
            ReadingError: Voltage or temperature is no reading.
            ReversedPolarityError: The cell lies the wrong way round.
        """

    @abstractmethod
    def measure_resistance(self, channel: int) -> ResistanceReading:
        """AC resistance and open-circuit voltage. The contacts must be closed, and no current may flow.

        Raises:
            OpenContactError: The meter has no contact.
            ReadingError: What it shows is no reading, or the cell's temperature is none.
            ReversedPolarityError: It shows a negative voltage.
            CellTestError: The channel runs.
        """

    @abstractmethod
    def start(self, channel: int, run: CyclerRun) -> None:
        """Hands over steps and limits, reads them back, and starts. What ran in that channel is stopped.

        Raises:
            OpenContactError: The contacts aren't closed.
            DeviceSettingsError: The tester holds other steps or limits than it was given, or can't do them.
            TesterEmergencyStopError: Its emergency stop is pressed.
        """

    @abstractmethod
    def read_progress(self, channel: int) -> ChannelState:
        """What a channel is doing. A fault of the channel is no exception, but stands in the state.

        Raises:
            ReadingError: It runs, and something that it shows is no reading.
        """

    @abstractmethod
    def read_results(self, channel: int) -> tuple[StepResult, ...]:
        """What was recorded of the finished steps of the last run.

        Raises:
            ReadingError: Something in it is no reading. Energy may be NaN.
        """

    @abstractmethod
    def stop(self, channel: int) -> None:
        """Switches the current off; the contacts stay as they are."""

    @abstractmethod
    def safe(self, channel: int) -> None:
        """Switches the current off and opens the contacts. Comes back only when both have been read back.

        Raises:
            DeviceSettingsError: They were ordered, and didn't happen: a person must look.
        """

    @abstractmethod
    def emergency_stop(self) -> None:
        """Switches all channels off and opens all contacts, at once. A person releases it at the tester."""

    @abstractmethod
    def emergency_stop_stands(self) -> bool:
        """Whether the emergency stop is pressed, or was and has not been reset since."""

    @abstractmethod
    def reset_emergency_stop(self) -> None:
        """Lets the tester work again after its emergency stop was released; nothing starts by that.

        Raises:
            TesterEmergencyStopError: It is still pressed.
        """
