"""Notices when what comes along the belt is no longer what the model was put to work on.

Three measures over the last verdicts, each with a level at which an alarm is raised and a lower one at which it is
cleared. No clock: every verdict brings its time.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from battery_sorting.core.settings import Settings
from battery_sorting.core.types import Alarm, TypeResult

OTHERS_SHARE = "drift_others"
NOVELTY = "drift_novelty"
MIX = "drift_mix"


class Levels(Settings):
    """Where an alarm begins and where it ends. The distance between the two keeps it from flapping."""

    raise_at: float = Field(gt=0, allow_inf_nan=False, description="the alarm is raised from here on")
    clear_at: float = Field(ge=0, allow_inf_nan=False, description="the alarm is cleared below this")

    @model_validator(mode="after")
    def _clear_is_lower(self) -> Levels:
        if self.clear_at >= self.raise_at:
            raise ValueError(
                f"clear_at {self.clear_at:g} must be below raise_at {self.raise_at:g}, or the alarm flaps"
            )
        return self


class DriftLimits(Settings):
    """What counts as drift. A measure that is null is not watched."""

    window: int = Field(default=200, ge=10, le=100_000, description="number of batteries that are looked at")
    min_number: int = Field(default=50, ge=5, description="with fewer batteries nothing is said")
    max_age_s: float = Field(default=3600.0, gt=0, description="batteries longer ago than this no longer count")
    others: Levels | None = Field(
        default=Levels(raise_at=0.4, clear_at=0.3), description="share of rejected batteries, 0..1"
    )
    novelty: Levels | None = Field(
        default=Levels(raise_at=0.5, clear_at=0.3),
        description="rise of the mean novelty over the first batteries, in standard deviations of these",
    )
    mix: Levels | None = Field(
        default=Levels(raise_at=0.35, clear_at=0.25),
        description="total variation distance (0..1) of the mix of types from that of the first batteries",
    )

    @model_validator(mode="after")
    def _window_holds_enough(self) -> DriftLimits:
        if self.min_number > self.window:
            raise ValueError(f"min_number {self.min_number} is more than the window of {self.window} holds")
        return self


@dataclass(frozen=True, slots=True)
class _Seen:
    stamp: float
    type: str  # empty: rejected
    novelty: float


class Reference(Settings):
    """How it was at first: share of each type among the accepted, mean and spread of the novelty."""

    mix: dict[str, float]
    novelty_mean: float | None
    novelty_spread: float | None

    @classmethod
    def of(cls, seen: Iterable[_Seen]) -> Reference:
        """From batteries; the novelty is None where the model tells none, or always the same."""
        seen = list(seen)
        novelties = _novelties(seen)
        spread = statistics.stdev(novelties) if len(novelties) >= 2 else 0.0
        if not spread > 1e-9:
            return cls(mix=_shares(seen), novelty_mean=None, novelty_spread=None)
        return cls(mix=_shares(seen), novelty_mean=statistics.fmean(novelties), novelty_spread=spread)


class ReferenceBook:
    """References of a line by model, in a file: after a new start, too, its first batteries are what counts.

    Else a drift would be forgotten at every start, and what came of it be taken for normal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, model: str) -> Reference | None:
        """Reference of the model with this sha256; None where there is none, or the file is damaged."""
        return self._read().get(model)

    def keep(self, model: str, reference: Reference) -> None:
        """Write it down, instead of an earlier one of that model. Raises `OSError`."""
        self._write({**self._read(), model: reference})

    def forget(self, model: str) -> None:
        """Begin anew with that model. Raises `OSError`."""
        references = self._read()
        if references.pop(model, None) is not None:
            self._write(references)

    def _write(self, references: dict[str, Reference]) -> None:
        part = self._path.with_suffix(".part")
        part.write_bytes(_REFERENCES.dump_json(references, indent=2))
        part.replace(self._path)

    def _read(self) -> dict[str, Reference]:
        try:
            return _REFERENCES.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):  # it is no reason to stop a belt: another one is made
            return {}


_REFERENCES = TypeAdapter(dict[str, Reference])


class DriftMonitor:
    """Watches the verdicts of one model.

    Batteries are compared with a reference of earlier times, or else with the first ``window`` of them, so begin
    anew (`restart`) with each model. The share of rejected batteries has an absolute level and is watched from
    ``min_number`` batteries on.
    """

    def __init__(self, limits: DriftLimits) -> None:
        self._limits = limits
        self._recent: deque[_Seen] = deque(maxlen=limits.window)
        self._after_reference = 0
        self.reference: Reference | None = None
        """What batteries are compared with, as soon as it is known."""
        self.raised: dict[str, str] = {}
        """Alarms that stand: code → text."""

    def take(self, verdict: TypeResult, now: float) -> list[Alarm]:
        """Takes one verdict on a picture at ``now`` (s); returns the alarms that it raises or clears."""
        self._recent.append(_Seen(now, verdict.label if verdict.accepted else "", verdict.novelty))
        while now - self._recent[0].stamp > self._limits.max_age_s:
            self._recent.popleft()
        if self.reference is not None:
            self._after_reference += 1
        elif len(self._recent) == self._limits.window:
            self.reference = Reference.of(self._recent)
        judged = (
            self._judge(OTHERS_SHARE, self._limits.others, self.others_share, self._others_text, now),
            self._judge(NOVELTY, self._limits.novelty, self.novelty_rise, self._novelty_text, now),
            self._judge(MIX, self._limits.mix, self.mix_distance, self._mix_text, now),
        )
        return [alarm for alarm in judged if alarm is not None]

    def restart(self, now: float, why: str, reference: Reference | None = None) -> list[Alarm]:
        """Forgets all, for another model; returns the alarms that are cleared by it.

        With the ``reference`` of an earlier run, batteries are compared from ``min_number`` on.
        """
        cleared = [Alarm(now, code, why, raised=False) for code in self.raised]
        self.raised = {}
        self._recent.clear()
        self.reference = reference
        self._after_reference = 0 if reference is None else self._limits.window
        return cleared

    @property
    def others_share(self) -> float:
        """Share of rejected batteries among the last ones; NaN while there are too few."""
        if len(self._recent) < self._limits.min_number:
            return math.nan
        return sum(not seen.type for seen in self._recent) / len(self._recent)

    @property
    def novelty_rise(self) -> float:
        """Mean novelty above the reference's, in its standard deviations; NaN where that can't be said."""
        reference = self._comparable()
        if reference is None or reference.novelty_mean is None or reference.novelty_spread is None:
            return math.nan
        novelties = _novelties(self._recent)
        if len(novelties) < self._limits.min_number:
            return math.nan
        return (statistics.fmean(novelties) - reference.novelty_mean) / reference.novelty_spread

    @property
    def mix_distance(self) -> float:
        """Total variation distance (0..1) between the types accepted lately and at first; NaN if not known."""
        reference = self._comparable()
        accepted = sum(bool(seen.type) for seen in self._recent)
        if reference is None or not reference.mix or accepted < self._limits.min_number:
            return math.nan
        now = _shares(self._recent)
        types = {*now, *reference.mix}
        return 0.5 * sum(abs(now.get(name, 0.0) - reference.mix.get(name, 0.0)) for name in types)

    def figures(self) -> dict[str, float]:
        """The measures by name, those that are known."""
        measures = {
            "others_share": self.others_share,
            "novelty_rise": self.novelty_rise,
            "mix_distance": self.mix_distance,
        }
        return {name: round(value, 3) for name, value in measures.items() if not math.isnan(value)}

    def _comparable(self) -> Reference | None:
        """The reference, once none of its own batteries is among the last ones."""
        return self.reference if self._after_reference >= self._limits.window else None

    def _judge(
        self, code: str, levels: Levels | None, value: float, text: Callable[[float], str], now: float
    ) -> Alarm | None:
        if levels is None or math.isnan(value):
            return None
        if code not in self.raised and value >= levels.raise_at:
            self.raised[code] = f"{text(value)} (alarm from {levels.raise_at:g})"
            return Alarm(now, code, self.raised[code], raised=True)
        if code in self.raised and value < levels.clear_at:
            del self.raised[code]
            return Alarm(now, code, f"back to {value:.2f}", raised=False)
        return None

    def _others_text(self, value: float) -> str:
        return (
            f"share of rejected batteries is {value:.2f} over the last {len(self._recent)}: look at light, lens "
            "and what is fed; 'battery-sorting review' shows the pictures"
        )

    def _novelty_text(self, value: float) -> str:
        return (
            f"the last {len(self._recent)} batteries look less like the known types than the first ones, by "
            f"{value:.2f} standard deviations: look at light, lens and what is fed"
        )

    def _mix_text(self, value: float) -> str:
        assert self.reference is not None
        now, first = _shares(self._recent), self.reference.mix
        moved = max(sorted({*now, *first}), key=lambda name: abs(now.get(name, 0.0) - first.get(name, 0.0)))
        return (
            f"the mix of types has moved by {value:.2f}, most of all {moved} from {first.get(moved, 0.0):.0%} to "
            f"{now.get(moved, 0.0):.0%}: another delivery, or a type that is taken for another"
        )


def _novelties(seen: Iterable[_Seen]) -> list[float]:
    return [one.novelty for one in seen if not math.isnan(one.novelty)]


def _shares(seen: Iterable[_Seen]) -> dict[str, float]:
    """Type → its share among the accepted."""
    counts = Counter(one.type for one in seen if one.type)
    return {name: count / counts.total() for name, count in counts.items()}
