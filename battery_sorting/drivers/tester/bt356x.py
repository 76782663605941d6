"""The language and the accuracy of AC resistance meters of the kind of Hioki's BT3561A/BT3562A/BT3563A.

From Hioki's instruction manual BT3562A981 (2021): chapter 8 (messages, formats of measured values) and section 9.2
(accuracy at 23 ± 5 °C after zero adjustment, one year). Lines end with CR+LF in both directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from battery_sorting.core import readings

TERMINATOR = "\r\n"
OVER_RANGE = 1e9
CONTACT_FAULT = 1e10
MODELS = r"BT356[1-4]"
"""What the model's name, the second field of ``*IDN?``, begins with."""

RATES = ("EXFAST", "FAST", "MEDIUM", "SLOW")
SECONDS = {"EXFAST": 0.004, "FAST": 0.012, "MEDIUM": 0.042, "SLOW": 0.157}
"""Sampling time of resistance and voltage at 50 Hz mains."""
RESPONSE_S = 0.010
READING_SHARE = 0.005
VOLTAGE_SHARE = 0.0001

# standard event status register
OPERATION_COMPLETE, QUERY_ERROR, DEVICE_ERROR, EXECUTION_ERROR, COMMAND_ERROR, POWER_ON = 1, 4, 8, 16, 32, 128


@dataclass(frozen=True, slots=True)
class Range:
    """A measuring range: its name in Ω or V, the format of its values, and its share of error in digits."""

    name: float
    integers: int
    decimals: int
    exponent: int
    digits: int
    extra_digits: tuple[int, int, int, int]
    """To be added at the sampling rates of `RATES`."""
    maximum: float
    """Largest value that it shows, in Ω or V."""

    @property
    def digit(self) -> float:
        """Resolution, in Ω or V."""
        return math.pow(10.0, self.exponent - self.decimals)

    def error_digits(self, rate: str) -> int:
        """Limit of error in digits, besides the share of the reading."""
        return self.digits + self.extra_digits[RATES.index(rate)]

    def format(self, value: float) -> str:
        """``value`` as the instrument writes it: `OVER_RANGE` and `CONTACT_FAULT` in their own way."""
        if abs(value) >= OVER_RANGE:
            power = 10 if value >= CONTACT_FAULT else 9
            mantissa = "1" + "0" * (self.integers - 1) + "." + "0" * self.decimals
            sign = "+" if power == 10 else "-" if value < 0 else " "
            return f"{sign}{mantissa}E+{power - self.integers + 1}"
        number = f"{abs(value) / 10.0**self.exponent:.{self.decimals}f}"
        sign = "-" if value < 0 else " "
        return f"{sign}{number.rjust(self.integers + 1 + self.decimals)}E{self.exponent:+d}"


_FINE_EXTRA = (30, 10, 5, 0)
_EXTRA = (3, 2, 2, 0)
RESISTANCE_RANGES = (
    Range(3e-3, 2, 4, -3, 10, _FINE_EXTRA, 3.1e-3),
    Range(30e-3, 3, 3, -3, 5, _EXTRA, 31e-3),
    Range(300e-3, 4, 2, -3, 5, _EXTRA, 310e-3),
    Range(3.0, 2, 4, 0, 5, _EXTRA, 3.1),
)
VOLTAGE_RANGES = (Range(6.0, 1, 5, 0, 3, _EXTRA, 6.0), Range(60.0, 2, 4, 0, 3, _EXTRA, 60.0))


def range_for(value: float, ranges: tuple[Range, ...]) -> Range:
    """The smallest range that shows ``value`` (Ω or V), else the largest."""
    return next((entry for entry in ranges if abs(value) <= entry.maximum), ranges[-1])


def resistance_error_mohm(resistance_mohm: float, entry: Range, rate: str) -> float:
    """Limit of error of a reading, mΩ: 0.5 % of it and 10 digits (3 mΩ range) or 5."""
    return READING_SHARE * abs(resistance_mohm) + entry.error_digits(rate) * entry.digit * 1000.0


def voltage_error_v(voltage_v: float, entry: Range, rate: str) -> float:
    """Limit of error of a reading, V: 0.01 % of it and 3 digits."""
    return VOLTAGE_SHARE * abs(voltage_v) + entry.error_digits(rate) * entry.digit


_OHM = dict.fromkeys(("", "OHM", "OHMS"), 1.0)


def parse_reading(text: str) -> tuple[float, float]:
    """Resistance (Ω) and voltage (V) of an answer to ``:READ?``, or the marks that stand for them.

    Raises:
        AnswerError: It is none.
    """
    resistance, voltage = readings.fields(text, 2)
    return readings.printed_number(resistance, _OHM), readings.VOLTAGE.printed(voltage)


def is_contact_fault(shown: float) -> bool:
    """Whether a number of `parse_reading` says that the meter has no contact, whatever its sign."""
    return CONTACT_FAULT / 2 <= abs(shown) < CONTACT_FAULT * 10


def is_over_range(shown: float) -> bool:
    """Whether a number of `parse_reading` lies above the range: a larger one may show it."""
    return readings.meaning(shown) == math.inf and not is_contact_fault(shown)
