"""The AC resistance meter of the simulated plant, in the manner of Hioki's BT356x (`drivers.tester.bt356x`).

Its errors are drawn once, within half of what the manual allows of the reading; each reading has noise within the
allowed digits. Like the real one it has no error queue: what goes wrong sets a bit in ``*ESR?`` and isn't answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from battery_sorting.drivers.tester import bt356x
from battery_sorting.drivers.tester.bt356x import Range
from battery_sorting.plant.scpi import Delayed, Instrument, ScpiError, choice, number

_ESR_BITS = {1: bt356x.COMMAND_ERROR, 2: bt356x.EXECUTION_ERROR, 3: bt356x.DEVICE_ERROR, 4: bt356x.QUERY_ERROR}


@dataclass(frozen=True, slots=True)
class Probe:
    """What the probes of the meter touch: resistance in Ω and voltage in V, or nothing."""

    connected: bool
    resistance_ohm: float = 0.0
    voltage_v: float = 0.0


class AcMeter(Instrument):
    """The meter. ``probe`` tells what its leads touch at this moment."""

    terminator = bt356x.TERMINATOR

    def __init__(self, probe: Callable[[], Probe], seed: int = 0) -> None:
        super().__init__(
            {
                "*IDN": lambda _query, _arguments: "SIMULATED,BT3562A,0,V1.00",
                "*RST": self._reset,
                "*CLS": self._clear,
                "*ESR": self._read_esr,
                "*OPC": lambda query, _arguments: "1" if query else None,
                "SYSTem:HEADer": self._set_headers,
                "FUNCtion": self._set_function,
                "AUTorange": self._set_autorange,
                "RESistance:RANGe": self._set_resistance_range,
                "VOLTage:RANGe": self._set_voltage_range,
                "SAMPle:RATE": self._set_rate,
                "TRIGger:SOURce": self._set_trigger,
                "INITiate:CONTinuous": self._set_continuous,
                "READ": self._read,
            }
        )
        self._probe = probe
        self._random = random.Random(seed)
        share = bt356x.READING_SHARE / 2
        self.resistance_gain = 1.0 + self._random.uniform(-share, share)
        self.voltage_gain = 1.0 + self._random.uniform(-0.5, 0.5) * bt356x.VOLTAGE_SHARE
        self._esr = bt356x.POWER_ON
        self._reset(False, [])

    def complain(self, error: ScpiError) -> None:
        """Set the bit of the error's kind."""
        self._esr |= _ESR_BITS.get(-error.number // 100, bt356x.EXECUTION_ERROR)

    def _reset(self, _query: bool, _arguments: list[str]) -> None:
        self._function = "RV"
        self._autorange = True
        self._resistance_range = bt356x.RESISTANCE_RANGES[0]
        self._voltage_range = bt356x.VOLTAGE_RANGES[0]
        self._rate = "SLOW"
        self._trigger = "IMMEDIATE"
        self._continuous = True

    def _clear(self, _query: bool, _arguments: list[str]) -> None:
        self._esr = 0

    def _read_esr(self, _query: bool, _arguments: list[str]) -> str:
        value, self._esr = self._esr, 0
        return str(value)

    def _set_headers(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return "OFF"
        if _on_off(arguments):
            raise ScpiError(-221, "Settings conflict")  # answers with headers aren't simulated
        return None

    def _set_function(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return self._function
        self._function = choice(arguments, 0, "RV", "RESistance", "VOLTage")
        return None

    def _set_autorange(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return "ON" if self._autorange else "OFF"
        self._autorange = _on_off(arguments)
        return None

    def _set_resistance_range(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return self._resistance_range.format(self._resistance_range.name).strip()
        value = number(arguments, 0, 0, bt356x.RESISTANCE_RANGES[-1].maximum)
        self._resistance_range = bt356x.range_for(value, bt356x.RESISTANCE_RANGES)
        self._autorange = False
        return None

    def _set_voltage_range(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return self._voltage_range.format(self._voltage_range.name).strip()
        value = number(arguments, 0, -60, 60)
        self._voltage_range = bt356x.range_for(value, bt356x.VOLTAGE_RANGES)
        self._autorange = False
        return None

    def _set_rate(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return self._rate
        self._rate = choice(arguments, 0, "EXFast", "FAST", "MEDium", "SLOW")
        return None

    def _set_trigger(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return self._trigger
        self._trigger = choice(arguments, 0, "IMMediate", "EXTernal")
        return None

    def _set_continuous(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return "ON" if self._continuous else "OFF"
        self._continuous = _on_off(arguments)
        return None

    def _read(self, query: bool, _arguments: list[str]) -> Delayed | None:
        if not query or self._continuous:
            raise ScpiError(-221, "Settings conflict")  # free-running: there is nothing to trigger
        if self._trigger != "IMMEDIATE":
            return None  # waits for the trigger line
        probe = self._probe()
        resistance_ohm = probe.resistance_ohm * self.resistance_gain
        voltage_v = probe.voltage_v * self.voltage_gain
        if self._autorange:
            self._resistance_range = bt356x.range_for(resistance_ohm, bt356x.RESISTANCE_RANGES)
            self._voltage_range = bt356x.range_for(voltage_v, bt356x.VOLTAGE_RANGES)
        texts = {
            "RESISTANCE": self._show(resistance_ohm, self._resistance_range, probe.connected),
            "VOLTAGE": self._show(voltage_v, self._voltage_range, probe.connected),
        }
        texts |= {name.upper(): text for name, text in self.shows().items()}
        text = ",".join(texts.values()) if self._function == "RV" else texts[self._function]
        return Delayed(text, bt356x.SECONDS[self._rate] + bt356x.RESPONSE_S)

    def _show(self, value: float, entry: Range, connected: bool) -> str:
        if not connected:
            return entry.format(bt356x.CONTACT_FAULT)
        limit = entry.error_digits(self._rate) * entry.digit
        value += min(max(self._random.gauss(0.0, limit / 4), -limit), limit)
        if abs(value) > entry.maximum:
            return entry.format(-bt356x.OVER_RANGE if value < 0 else bt356x.OVER_RANGE)
        return entry.format(value)


def _on_off(arguments: list[str]) -> bool:
    return choice(arguments, 0, "ON", "OFF", "1", "0") in ("ON", "1")
