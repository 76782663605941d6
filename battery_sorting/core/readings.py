"""What instruments print, as numbers: the one place that says what is a reading and what is a mark of none.

An instrument that can't measure still answers, with a number: SCPI-99 (volume 1, 7.2.1) has 9.9E+37 for infinity,
-9.9E+37, and 9.91E+37 for *not a number*; Hioki's meters have ±1E+8 to ±1E+10; others print OVLD or asterisks. None
of these is a reading, in whatever unit. Numbers come as NR1, NR2 or NR3 (IEEE 488.2, 8.7.2 to 8.7.4), as the
firmware likes: ``2``, ``+2``, ``2.0`` and ``+2.0E+00`` are the same.

`number` and its like read a text and raise `AnswerError` for what is none. A `Quantity` knows besides what can be
true of what it stands for, and raises a `ReadingError` for all that is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from battery_sorting.core.errors import ImplausibleReadingError, NotMeasuredError, OverloadError, ReadingError

OVERLOAD = 1e8
"""From here on a number is an instrument's mark and no reading, in whatever unit: SCPI has 9.9E37 (and 9.91E37 for
not a number), Hioki 1E8 to 1E10 for an open or overranged input."""
NOT_A_NUMBER, INFINITE = 9.91e37, 9.9e37
OVERLOAD_WORD = re.compile(
    r"[+-]?\s*(-?o\.?\s*l\.?-?|of|ovr?l?|over|ovld|ovrng|ovrflw|over\s*(load|range|flow)|超量程|\*{2,})",
    re.IGNORECASE,
)
"""What is printed in place of a number that is too large for the instrument or its display."""
NOT_MEASURED_WORD = re.compile(r"[+-]?\s*nan|n/?a|-{2,}|-(?: -)+", re.IGNORECASE)
"""What is printed in place of a number that was not measured."""

MAX_CHARACTERS = 200
"""No number is longer."""
_BLANKS = " \t\r\n"
_INFINITE_WORD = re.compile(r"([+-]?)\s*(n?)inf(?:inity)?", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?)[ \t]*((?:\d+(?:\.\d*)?|\.\d+)(?:[ \t]*[eE][ \t]*[+-]?\d+)?)", re.ASCII)
_BASES = {"H": (16, "0123456789ABCDEF"), "Q": (8, "01234567"), "B": (2, "01")}
_Word = TypeVar("_Word")


class AnswerError(ValueError):
    """A text is not what was asked for, and not the mark of a missing reading either."""


def fields(text: str, count: int) -> list[str]:
    """The ``count`` values between the commas of an answer, without the blanks around them.

    Raises:
        AnswerError: There are more or fewer.
    """
    found = [part.strip(_BLANKS) for part in text.split(",")]
    if len(found) != count:
        raise AnswerError(f"{len(found)} value{'s' * (len(found) != 1)}, {count} are expected")
    return found


def number(text: str) -> float:
    """A number without a unit. Plus or minus infinity is an overload, NaN *not measured*.

    Raises:
        AnswerError: It is none.
    """
    return meaning(printed_number(text))


def printed_number(text: str, factors: Mapping[str, float] | None = None) -> float:
    """A number as it is printed, marks included: for who knows the marks of one make. `number` knows those of all.

    Args:
        text: Of one value.
        factors: Units that may follow, in capitals, to what the number is multiplied by; ``""`` is without one. A
            mark is not multiplied.

    Raises:
        AnswerError: It is none, or has another unit.
    """
    text = text.strip(_BLANKS)
    if len(text) > MAX_CHARACTERS:
        raise AnswerError(f"{text[:20]!r}… is no number")
    if found := _INFINITE_WORD.fullmatch(text):
        return -math.inf if (found[1] == "-") != bool(found[2]) else math.inf
    if OVERLOAD_WORD.fullmatch(text):
        return -math.inf if text.startswith("-") and not text.endswith("-") else math.inf
    if NOT_MEASURED_WORD.fullmatch(text):
        return math.nan
    begin = _NUMBER.match(text)
    if begin is None:
        raise AnswerError(f"{text[:40]!r} is no number")
    value = float(begin[1] + re.sub("[ \t]", "", begin[2]))
    factor = _factor(text, text[begin.end() :], {"": 1.0} if factors is None else factors)
    return value if abs(value) >= OVERLOAD else value * factor


def _factor(text: str, unit: str, factors: Mapping[str, float]) -> float:
    name = re.sub("[ \t]", "", unit).upper()
    if name in factors:
        return factors[name]
    if name == "MOHM":
        raise AnswerError(f"{text[:40]!r} may be milliohms or megohms: have the instrument answer without units")
    if not re.fullmatch(r"[^\W\d_]+|°[CF]", name):
        raise AnswerError(f"{text[:40]!r} is no number")
    raise AnswerError(f"{text[:40]!r} has the unit {unit.strip()[:20]!r}, which is not that of the value")


def meaning(value: float) -> float:
    """The same number, or what it is the mark of: ±infinity of an overload, NaN of *not measured*."""
    if math.isnan(value) or abs(abs(value) - NOT_A_NUMBER) < (NOT_A_NUMBER - INFINITE) / 2:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= OVERLOAD else value


def integer(text: str, low: int, high: int) -> int:
    """A whole number: a count, a register, a number of an error. ``#HFF``, ``#Q17`` and ``#B101`` are read as well.

    Raises:
        AnswerError: It is none, or not within ``low`` to ``high``.
    """
    text = text.strip(_BLANKS)
    if text.startswith("#"):
        base, digits = _BASES.get(text[1:2].upper(), (0, ""))
        if not 2 < len(text) <= MAX_CHARACTERS or not set(text[2:].upper()) <= set(digits):
            raise AnswerError(f"{text[:40]!r} is no whole number")
        value: float = int(text[2:], base)
    else:
        value = printed_number(text)
    if not low <= value <= high:
        raise AnswerError(f"{text[:40]!r} is not a whole number from {low} to {high}")
    if value != int(value):
        raise AnswerError(f"{text[:40]!r} is no whole number")
    return int(value)


def flag(text: str) -> bool:
    """Yes or no, as ON or OFF, or as a number that is 1 or 0 (SCPI-99, volume 1, 7.3).

    Raises:
        AnswerError: It is neither.
    """
    words = {"ON": True, "OFF": False}
    name = text.strip(_BLANKS).upper()
    return words[name] if name in words else bool(integer(text, 0, 1))


def word(text: str, known: Mapping[str, _Word]) -> _Word:
    """What one of the words ``known`` (in capitals) stands for; it may be quoted, and in small letters.

    Raises:
        AnswerError: It is none of them.
    """
    name = text.strip(_BLANKS).strip("\"'").upper()
    if name not in known:
        raise AnswerError(f"{text[:40]!r} is none of {', '.join(known)}")
    return known[name]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured, and what it can be at all, at any cell, sound or not.

    Attributes:
        name: For messages.
        unit: Of the values.
        low: Smallest value that can be true, in ``unit``.
        high: Largest one.
        factors: Units of texts, as of `printed_number`, to what makes it ``unit``.
        remedy: What to look at where a value can't be true.
    """

    name: str
    unit: str
    low: float
    high: float
    factors: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})
    remedy: str = "check sensor and wiring"

    def read(self, text: str) -> float:
        """The reading that a text is.

        Raises:
            AnswerError: It is no number.
            ReadingError: It is one, but no reading.
        """
        return self.check(self.printed(text))

    def read_if_measured(self, text: str) -> float:
        """The same, but NaN for what is no reading."""
        try:
            return self.read(text)
        except ReadingError:
            return math.nan

    def printed(self, text: str) -> float:
        """The number in ``unit`` that a text is, with the marks as they are. Raises `AnswerError`."""
        return printed_number(text, self.factors)

    def check(self, value: float) -> float:
        """``value``, if it is a reading.

        Raises:
            NotMeasuredError: It is NaN, or stands for that.
            OverloadError: It is infinite, or the mark of an overload.
            ImplausibleReadingError: It can't be true.
        """
        known = meaning(value)
        if math.isnan(known):
            raise NotMeasuredError(f"the {self.name} was not measured: {self.remedy}")
        if math.isinf(known):
            beyond = "below" if known < 0 else "beyond"
            raise OverloadError(f"the {self.name} is {beyond} what can be measured (overload): {self.remedy}")
        if not self.low <= known <= self.high:
            raise ImplausibleReadingError(
                f"a {self.name} of {value:g} {self.unit} can't be true, it is not from {self.low:g} to "
                f"{self.high:g} {self.unit}: {self.remedy}"
            )
        return value


_OF_OHM = {"": 1e3, "OHM": 1e3, "OHMS": 1e3, "Ω": 1e3, "UOHM": 1e-3}
RESISTANCE = Quantity(
    "resistance",
    "mΩ",
    1e-6,
    1e5,
    _OF_OHM,
    "check the meter's range, wiring and contacts, and adjust its zero anew",
)
"""Of a cell; printed in Ω. None has 0, or less."""
CONTACT = Quantity("contact resistance", "mΩ", 0.0, 1e5, _OF_OHM, "seat the cell again, clean the contacts")
VOLTAGE = Quantity("voltage", "V", -100.0, 100.0, {"": 1.0, "V": 1.0, "VDC": 1.0, "MV": 1e-3, "UV": 1e-6})
CURRENT = Quantity("current", "A", -1e4, 1e4, {"": 1.0, "A": 1.0, "ADC": 1.0, "MA": 1e-3, "UA": 1e-6})
CHARGE = Quantity("charge", "Ah", -1e4, 1e4, {"": 1.0, "AH": 1.0, "MAH": 1e-3})
ENERGY = Quantity("energy", "Wh", -1e5, 1e5, {"": 1.0, "WH": 1.0})
TEMPERATURE = Quantity("temperature", "°C", -50.0, 150.0, dict.fromkeys(("", "C", "CEL", "DEGC", "°C"), 1.0))
TIME = Quantity("time", "s", 0.0, OVERLOAD, dict.fromkeys(("", "S", "SEC"), 1.0), "restart the instrument")
