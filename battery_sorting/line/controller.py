"""What the controllers of all lines decide alike: commands and their checks, alarms, what must be on record.

A `LineController` is deterministic: it takes events and the time and returns actions, in the order in which they
must be carried out (`carry_out`). It knows no ROS, no clock and no ledger; what the ledger holds of an earlier
controller is handed to it once (`restore` of the line's own controller). So what was decided can be replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Generic, TypeVar

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.types import LineStateId as S
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import AlarmRaised, Commanded, LineStateChanged
from battery_sorting.line.contract import CONTROLLER
from battery_sorting.line.resume import EMPTIED
from battery_sorting.packml.alarms import AlarmBook, follow_fault
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.machine import LineCommandId
from battery_sorting.packml.restart import SYSTEM, Restart
from battery_sorting.packml.unit import LineUnit, StateChanged, UnknownPlaceError

LONGEST_TEXT = 500
"""Characters of a name or reason that a command brings."""
FLICKER_S = 1.0
"""Between two records of nodes that were deactivated or activated at the least."""
STOOD_STILL_S = 0.5
"""A longer standstill of the controller's own is told."""
TOLD_S = 10.0
"""So long it stands in the line's summary."""

_AT_REST = frozenset({S.STOPPING, S.STOPPED, S.RESETTING, S.IDLE, S.COMPLETE, S.ABORTING, S.ABORTED, S.CLEARING})
"""In these nothing moves: that a problem is gone is enough, and nobody need have looked."""


# ---- events ----


@dataclass(frozen=True, slots=True)
class NodeSpoke:
    """A node's heartbeat; its fields are the arguments of `LineUnit.heartbeat`."""

    node: str
    lifecycle: int
    ok: bool
    detail: str = ""
    emergency_stop: bool = False
    deactivated: bool = False


@dataclass(frozen=True, slots=True)
class ProblemSeen:
    """Something outside of the line is wrong, or no longer so.

    Attributes:
        code: Of the alarm.
        text: What is wrong; empty: it is gone.
        holds: Whether the line holds for it.
        latches: Whether a person must have looked before the line goes on, unless it rests.
    """

    code: str
    text: str
    holds: bool = True
    latches: bool = False


@dataclass(frozen=True, slots=True)
class LedgerTold:
    """How the ledger is: why it takes nothing (empty if it does), and whether records wait for it."""

    problem: str
    waiting: bool


@dataclass(frozen=True, slots=True)
class StoodStill:
    """The controller's own process stood still for so long (s)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CommandAsked:
    """A person, or another system, commands the line; the fields are those of LineCommand.srv."""

    command: int
    by: str
    reason: str = ""
    bin: str = ""


@dataclass(frozen=True, slots=True)
class Withheld:
    """An action was not carried out: its record could not be written, or nobody is there to do it."""

    action: object


LineEvent = NodeSpoke | ProblemSeen | LedgerTold | StoodStill | CommandAsked | Withheld


# ---- actions ----


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """Whether a command took effect, and why not."""

    accepted: bool
    message: str = ""


class Severity(IntEnum):
    """How bad it is, as in DiagnosticStatus.msg."""

    OK = 0
    WARN = 1
    ERROR = 2


LineAction = Record | Transition | StateChanged | Log | CommandAnswer

UnitT = TypeVar("UnitT", bound=LineUnit)
EventT = TypeVar("EventT")
ActionT = TypeVar("ActionT")


class LineController(ABC, Generic[UnitT, EventT, ActionT]):
    """Decides for a line: a sub-class says what is special to it.

    Args:
        unit: The line's PackML unit.
        run_id: Of the start of the line that this controller belongs to; empty: it was started by itself.
        start_s: While the line comes up by itself, nothing is an alarm for so long (s).

    Attributes:
        unit: The line's PackML unit.
        need_records: Actions that are not carried out while their record is not in the ledger.
    """

    need_records: tuple[type, ...] = ()

    def __init__(self, unit: UnitT, *, run_id: str = "", start_s: float = 0.0) -> None:
        self.unit = unit
        self.records_wait = False
        self._run_id = run_id
        self._start_s = start_s
        self._started_at = float("-inf")
        self._alarms = AlarmBook()
        self._latched: dict[str, str] = {}  # as on record
        self._deactivated: frozenset[str] = frozenset()  # as on record
        self._deactivated_at = float("-inf")
        self._told = ""  # of its own standstill
        self._told_at = float("-inf")

    # ---- for sub-classes ----

    @abstractmethod
    def take(self, event: EventT | Withheld, now: float) -> list[LineAction | ActionT]:
        """An event of this kind of line."""

    @abstractmethod
    def move_on(self, now: float) -> list[LineAction | ActionT]:
        """Ask the unit what is to be done, several times per second; ends with `follow_alarms`."""

    def commanded(self, name: str, place: str, now: float) -> list[LineAction | ActionT]:  # noqa: ARG002
        """A person's command took effect. ``place`` is what was emptied, by the command of that name."""
        return []

    @property
    @abstractmethod
    def places(self) -> list[str]:
        """Names of what a person can empty."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """How many batteries are on their way."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Of the shift; those that `LineState` knows are published."""

    @property
    def figures(self) -> dict[str, int]:
        """What goes into the diagnostics."""
        return self.counts

    def summary(self, now: float) -> tuple[Severity, str]:
        """How the line is, for a person."""
        problems, alarms = self.unit.problems(now), self.unit.alarms(now)
        text = "; ".join(alarms.values()) or str(self.unit.state)
        if problems:
            return Severity.ERROR, text
        if now - self._told_at < TOLD_S:
            return Severity.WARN, f"{text}; {self._told}"
        return (Severity.OK if self.unit.state is S.EXECUTE and not alarms else Severity.WARN), text

    def begin(self, restart: Restart, now: float) -> None:
        """Go on where a controller before this one has ended. Call it before anything else."""
        self.unit.begin(restart)
        self._started_at = now
        self._latched = dict(self.unit.latched_faults)
        self._deactivated = restart.deactivated

    def on_record(self, actions: Iterable[LineAction | ActionT]) -> list[LineAction | ActionT]:
        """The unit's actions, each new state with its record."""
        out: list[LineAction | ActionT] = []
        for action in actions:
            if isinstance(action, StateChanged):
                out.append(self._state(action.state, action.reason))
            out.append(action)
        return out

    def follow_alarms(self, problems: dict[str, str], now: float) -> list[LineAction | ActionT]:
        """Records alarms that come and go, of observers too. While the line has time to come up, nothing is one."""
        coming_up = now - self._started_at < self._start_s
        if self.unit.auto_start and coming_up:
            return []
        records = self._alarms.follow({**self.unit.warnings(now, came_up=coming_up), **problems})
        logs = [
            Log(f"alarm {record.data.code}: {record.data.text}", is_error=True)
            for record in records
            if isinstance(record.data, AlarmRaised)
        ]
        return [*logs, *records]

    # ---- what comes in ----

    def handle(self, event: LineEvent | EventT, now: float) -> list[LineAction | ActionT]:
        """Something has happened at time ``now`` (s)."""
        if isinstance(event, NodeSpoke):
            self._on_heartbeat(event, now)
        elif isinstance(event, ProblemSeen):
            self._on_problem(event)
        elif isinstance(event, LedgerTold):
            return self._on_ledger(event)
        elif isinstance(event, StoodStill):
            return self._on_standstill(event, now)
        elif isinstance(event, CommandAsked):
            return self._obey(event, now)
        else:
            return self.take(event, now)
        return []

    def tick(self, now: float) -> list[LineAction | ActionT]:
        """Moves on; call it at about 20 Hz."""
        actions = [*self.move_on(now), *self._follow_deactivated(now)]
        if self.unit.latched_faults != self._latched:  # a controller that comes after this one holds for them, too
            actions.append(self._state(self.unit.state, self.unit.reason))
        return actions

    def end(self) -> list[LineAction | ActionT]:
        """What must be on record before the controller ends."""
        return self._record_deactivated()

    def _on_heartbeat(self, event: NodeSpoke, now: float) -> None:
        self.unit.heartbeat(
            event.node,
            event.lifecycle,
            event.ok,
            event.detail,
            now,
            emergency_stop=event.emergency_stop,
            deactivated=event.deactivated,
        )

    def _on_problem(self, event: ProblemSeen) -> None:
        found = self.unit.external_faults if event.holds else self.unit.external_warnings
        follow_fault(found, event.code, event.text)
        if event.latches and event.text and self.unit.state not in _AT_REST:
            self.unit.latched_faults[event.code] = event.text

    def _on_ledger(self, event: LedgerTold) -> list[LineAction | ActionT]:
        is_new = bool(event.problem) and "ledger" not in self.unit.external_faults
        self.records_wait = event.waiting
        follow_fault(self.unit.external_faults, "ledger", event.problem)
        return [Log(event.problem, is_error=True)] if is_new else []

    def _on_standstill(self, event: StoodStill, now: float) -> list[LineAction | ActionT]:
        """Says that it was this process that stood still, so that nobody looks for the fault elsewhere."""
        if event.seconds <= STOOD_STILL_S:
            return []
        self._told_at = now
        text = self._told = (
            f"{CONTROLLER} stood still for {event.seconds:.1f} s: look what kept it or the machine from running"
        )
        return [Log(text), Record(AlarmRaised("stood_still", text))]

    def _obey(self, asked: CommandAsked, now: float) -> list[LineAction | ActionT]:
        """Every command stands in the ledger, refused ones as well."""
        try:
            name = str(LineCommandId(asked.command))
            _check_texts(asked)
        except ValueError as error:
            return [CommandAnswer(False, str(error))]
        place = asked.bin if name == EMPTIED else None
        data = Commanded(name, by=asked.by, reason=asked.reason, bin=place, accepted=True)
        try:
            if name != EMPTIED:
                self.unit.command(name, f"{asked.by}: {asked.reason or name}")
            elif asked.bin not in self.places:
                raise UnknownPlaceError(asked.bin, self.places)
        except BatterySortingError as error:
            refused = Record(replace(data, accepted=False, message=str(error)))
            return [refused, CommandAnswer(False, str(error))]
        return [Record(data), *self.commanded(name, asked.bin, now), CommandAnswer(True)]

    # ---- what must be on record ----

    def _state(self, state: S, reason: str) -> Record:
        """With what a controller that comes after this one must know."""
        self._latched = dict(self.unit.latched_faults)
        data = LineStateChanged(
            state,
            name=str(state),
            reason=reason,
            run_id=self._run_id,
            by_fault=self.unit.held_by_fault,
            auto_start=self.unit.auto_start,
            latched=dict(self._latched),
        )
        return Record(data)

    def _follow_deactivated(self, now: float) -> list[LineAction | ActionT]:
        """On record at once, but not again and again: whoever makes a node's state flicker fills no ledger."""
        if self.unit.deactivated == self._deactivated or now - self._deactivated_at <= FLICKER_S:
            return []
        self._deactivated_at = now
        return self._record_deactivated()

    def _record_deactivated(self) -> list[LineAction | ActionT]:
        """A person's word on a node outlives this controller."""
        before, self._deactivated = self._deactivated, self.unit.deactivated
        by = "a person, by the node's life cycle"
        return [
            Record(Commanded(command, node, by))
            for command, nodes in (
                ("deactivate", self._deactivated - before),
                ("activate", before - self._deactivated),
            )
            for node in sorted(nodes)
        ]


def carry_out(
    actions: Iterable[ActionT],
    need_records: tuple[type, ...],
    write: Callable[[list[Record]], bool],
    do: Callable[[ActionT], None],
    withhold: Callable[[ActionT], object],
) -> None:
    """Carries actions out in their order, records first: without its record nothing is moved.

    Args:
        actions: As a controller has returned them.
        need_records: Kinds of actions that are withheld if the records before them can't be written.
        write: Writes records; returns whether they stand in the ledger.
        do: Carries out what is no record.
        withhold: Is told of an action that was not carried out.
    """
    records: list[Record] = []
    written = True
    for action in actions:
        if isinstance(action, Record):
            records.append(action)
            continue
        if records:
            written, records = write(records), []
        if written or not isinstance(action, need_records):
            do(action)
        else:
            withhold(action)
    if records:
        write(records)


def _check_texts(asked: CommandAsked) -> None:
    """Raises ValueError if it is not said who orders, or not in a way that can be kept."""
    if not asked.by.strip():
        raise ValueError("nobody is named: say who orders it (field 'by'; battery-sorting command --by NAME)")
    if asked.by.startswith(SYSTEM):
        raise ValueError(f"by: {SYSTEM}… is the line itself: give your own name")
    for name, text in (("by", asked.by), ("reason", asked.reason), ("bin", asked.bin)):
        if len(text) > LONGEST_TEXT or not text.isprintable():
            raise ValueError(f"{name}: give at most {LONGEST_TEXT} printable characters")
