"""Which faults strike a line, and when: drawn from a seed, written down, and read again to repeat them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import ConfigurationError

GAP_S = (15.0, 20.0)
"""From one fault to the next."""
FREEZE_S = (1.0, 10.0)
LINK_S = (0.5, 6.0)
LOCK_S = 1.0
STATE_S = (0.5, 5.0)
"""How long a state of the plant that is no count stands."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: ``switch`` of the plant, ``kill`` (SIGKILL) or ``freeze`` (SIGSTOP) of a node, ``link`` or ``lock``.
        target: Name of the switch, node or link; ``ledger``.
        value: What the switch is set to; trouble of the link with its settings.
        seconds: So long it stands; 0: it ends by itself.
        gap_s: It strikes so long after the one before, at the earliest.
        after_items: So many batteries (EV line: cells) had come since the line went on after the fault before,
            and ``phase_s`` had passed since the last of them. None: not struck yet.
    """

    number: int
    kind: str
    target: str
    value: Any = None
    seconds: float = 0.0
    gap_s: float = GAP_S[0]
    after_items: int | None = None
    phase_s: float = 0.0

    def __str__(self) -> str:
        value = "" if self.value is None or self.value is True else f" {_short(self.value)}"
        return f"{self.kind} {self.target}{value}" + (f" {self.seconds:.1f} s" if self.seconds else "")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        shown = (part for key, part in value.items() if key != "seed")
        return " ".join(part if isinstance(part, str) else f"{part:.2g}" for part in shown)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


Draw = Callable[[random.Random], tuple[Any, tuple[float, float] | None]]
"""Draws the value of a switch, and the range of seconds for which it stands (None: it counts down to its end)."""


def _count(most: int) -> Draw:
    return lambda dice: (dice.randint(1, most), None)


def _state(shortest_s: float, longest_s: float) -> Draw:
    return lambda _: (True, (shortest_s, longest_s))


def _within(low: float, high: float, seconds: tuple[float, float]) -> Draw:
    return lambda dice: (round(dice.uniform(low, high), 3), seconds)


def _some(numbers: Iterable[int], most: int, seconds: tuple[float, float]) -> Draw:
    pool = list(numbers)
    return lambda dice: (sorted(dice.sample(pool, dice.randint(1, most))), seconds)


def _one_of(texts: Sequence[str], names: Sequence[str], seconds: tuple[float, float]) -> Draw:
    return lambda dice: ({dice.choice(names): dice.choice(texts)}, seconds)


def _once(_: random.Random) -> tuple[Any, None]:
    return True, None


MARKS = ("9.91E+37", "9.9E+37", "-9.9E+37", "-1.0E+9", "OVLD", "****")
"""What instruments show in place of a reading."""
CYCLER_READINGS = [
    f"{name}@{channel}" for name in ("contact", "voltage", "temperature", "step_charge") for channel in range(1, 9)
]
SWITCHES: dict[str, dict[str, Draw]] = {
    "belt": {
        "feeder.tight_pair": _count(4),
        "feeder.empty": _state(1.0, 5.0),
        "plc.busy": _within(0.001, 0.2, (3.0, 10.0)),
        "encoder.freeze": _state(1.5, 4.0),
        "eye.miss": _count(3),
        "eye.ghost": _count(3),
        "valve.stick": _some(range(9), 3, (3.0, 10.0)),
        "valve.delay_ms": _within(5.0, 40.0, (3.0, 10.0)),
        "camera.drop": _count(8),
        "camera.corrupt": _count(8),
        "camera.delay_s": _within(0.1, 1.5, (2.0, 8.0)),
        "camera.clock_ahead_s": _within(0.02, 1.0, (2.0, 8.0)),
    },
    "ev": {
        "plc.busy": _within(0.001, 0.2, (3.0, 10.0)),
        "lug.clock_ahead_s": _within(0.02, 1.0, (2.0, 8.0)),
        "case.clock_ahead_s": _within(0.02, 1.0, (2.0, 8.0)),
        "robot.stall": _once,
        "tester.open_contact": _some(range(1, 9), 2, (5.0, 15.0)),
        "tester.reversed": _some(range(1, 9), 1, (5.0, 15.0)),
        "tester.hot": _some(range(1, 9), 1, (5.0, 15.0)),
        "tester.flat": _some(range(1, 9), 1, (5.0, 15.0)),
        "tester.bad_contact": _count(2),
        "meter.delay_s": _within(0.2, 3.0, (2.0, 8.0)),
        "cycler.delay_s": _within(0.2, 3.0, (2.0, 8.0)),
        "meter.shows": _one_of(MARKS, ("resistance", "voltage"), (2.0, 6.0)),
        "cycler.shows": _one_of(MARKS, CYCLER_READINGS, (2.0, 6.0)),
    },
}
"""Switches that need more than their kind: a state stands for `STATE_S`, a count is one, two or three."""

PARAMETERS = {"robot.late_s", "meter.numbers", "cycler.numbers"}
"""Switches that are no fault: they say how another one works."""


def switch_draw(line: str, name: str, default: Any) -> Draw:
    """How the value of a switch is drawn.

    Raises:
        KeyError: It is neither state nor count, and `SWITCHES` does not say.
    """
    if name in SWITCHES[line]:
        return SWITCHES[line][name]
    if isinstance(default, bool):
        return _state(*STATE_S)
    if isinstance(default, int):
        return _count(1 if line == "ev" else 3)
    raise KeyError(f"switch {name} ({default!r}) is not in SWITCHES of support/soak/faults.py: say what to draw")


def off(name: str, value: Any) -> Any:
    """What ends a switch that was set to ``value``."""
    if isinstance(value, dict):
        return {}
    if isinstance(value, list):
        return -1 if name == "valve.stick" else []
    return False if isinstance(value, bool) else 0


class Deck:
    """Faults without end, from a seed: every kind comes once before any comes again.

    Args:
        line: ``belt`` or ``ev``.
        seed: Same seed and same line, same faults.
        switches: All switches of the plant with their values while nothing is wrong.
        nodes: Names of the nodes.
        links: Names of the links.
    """

    def __init__(
        self, line: str, seed: int, switches: Mapping[str, Any], nodes: Iterable[str], links: Iterable[str]
    ) -> None:
        self._line = line
        self._dice = random.Random(f"soak {line} {seed}")
        self._switches = dict(switches)
        troubles = [f"{name}/{trouble}" for name in links for trouble in ("cut", "delay", "garble", "half_open")]
        self._kinds = [
            *(("switch", name) for name in sorted(switches.keys() - PARAMETERS)),
            *((kind, name) for kind in ("kill", "freeze") for name in nodes),
            *(("link", name) for name in troubles),
            ("lock", "ledger"),
        ]
        self._left: list[tuple[str, str]] = []
        self._number = 0

    def __iter__(self) -> Iterator[Fault]:
        return self

    def __next__(self) -> Fault:
        if not self._left:
            self._left = list(self._kinds)
            self._dice.shuffle(self._left)
        kind, target = self._left.pop()
        self._number += 1
        gap_s = round(self._dice.uniform(*GAP_S), 2)
        fault = Fault(self._number, kind, target, gap_s=gap_s)
        if kind == "switch":
            value, seconds = switch_draw(self._line, target, self._switches[target])(self._dice)
            return replace(fault, value=value, seconds=self._length(seconds))
        if kind == "freeze":
            return replace(fault, seconds=self._length(FREEZE_S))
        if kind == "link":
            name, _, trouble = target.partition("/")
            return replace(fault, target=name, value=self._trouble(trouble), seconds=self._length(LINK_S))
        return replace(fault, seconds=LOCK_S if kind == "lock" else 0.0)

    def _length(self, seconds: tuple[float, float] | None) -> float:
        return 0.0 if seconds is None else round(self._dice.uniform(*seconds), 2)

    def _trouble(self, trouble: str) -> dict[str, Any]:
        if trouble == "delay":
            return {"trouble": trouble, "delay_s": round(self._dice.uniform(0.05, 1.5), 3)}
        if trouble == "garble":
            share, seed = round(self._dice.uniform(0.02, 0.5), 3), self._dice.randrange(2**31)
            return {"trouble": trouble, "share": share, "seed": seed}
        return {"trouble": trouble}


# ---- on disk ----


def write_faults(path: Path, head: Mapping[str, Any], struck: Iterable[Mapping[str, Any]]) -> None:
    """Write down which faults have struck, so that `read_faults` can repeat them."""
    text = json.dumps({**head, "faults": list(struck)}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read_faults(path: Path, only: int | None = None) -> tuple[dict[str, Any], list[Fault]]:
    """What a soak has written down: its settings and its faults, or the one with the number ``only``.

    Raises:
        ConfigurationError: The file can't be read, or has no such fault.
    """
    names = {entry.name for entry in fields(Fault)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        faults = [
            Fault(**{key: value for key, value in entry.items() if key in names}) for entry in content.pop("faults")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"can't be read as the faults of a soak ({error!r}): give the faults.json of a soak's run folder"
        raise ConfigurationError(str(path), [problem]) from error
    if only is not None:
        faults = [fault for fault in faults if fault.number == only]
        if not faults:
            raise ConfigurationError(str(path), [f"has no fault {only}: give the number of one of its faults"])
    return content, faults


def facts(fault: Fault) -> dict[str, Any]:
    """A fault as data."""
    return asdict(fault)
