"""The test of one cell in one channel, as a pure machine: (state, event, now) → (state, commands).

Whoever runs it (a node, a bench script) carries out the commands one after the other and hands back what came of
each as an event, and besides gives it a `Tick` now and then. A test ends in one of four ways, and in each of them
the cell has been made safe (current off, contacts open) or the state says that this could not be confirmed:

- `CellTestOutcome.MEASURED`: the programme is through.
- `CellTestOutcome.BAD_CONTACT`: the contacts stayed bad after all retries. Nothing is said about the cell: seat it
  again.
- `CellTestOutcome.FAILED`: with the code of the error. Cell too hot, voltage outside the window, tester lost …
- `CellTestOutcome.CANCELLED`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from battery_sorting.core import readings
from battery_sorting.core.errors import (
    DeviceConnectionError,
    DeviceError,
    DeviceProtocolError,
    DeviceTimeoutError,
    ImplausibleReadingError,
    OpenContactError,
    OverTemperatureError,
    ReadingError,
    TesterStoppedError,
    TesterTimeoutError,
    VoltageWindowError,
)
from battery_sorting.drivers.tester.base import (
    NAN,
    ChannelPhase,
    ChannelState,
    Charge,
    ContactReading,
    CyclerRun,
    ResistanceReading,
    StepEnd,
    StepResult,
)
from battery_sorting.ev.measurement import Measure, Measurement, Programme, measurement_of

LINK_CODES = {DeviceConnectionError.code, DeviceTimeoutError.code, DeviceProtocolError.code}
"""Errors of the link to the tester: they say nothing about cell or contacts, and may pass."""


# ---- commands ----


@dataclass(frozen=True, slots=True)
class CheckContact:
    """Close the contacts anew and check them. Answer: `ContactChecked`."""


@dataclass(frozen=True, slots=True)
class StartRun:
    """Hand this to the cycler and start it. Answer: `RunStarted`."""

    run: CyclerRun


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """Read the channel. Answer: `ProgressRead`."""


@dataclass(frozen=True, slots=True)
class ReadResults:
    """Read what the run has recorded. Answer: `ResultsRead`."""


@dataclass(frozen=True, slots=True)
class MeasureResistance:
    """Take a reading with the AC meter. Answer: `ResistanceRead`."""


@dataclass(frozen=True, slots=True)
class MakeSafe:
    """Current off, contacts open. Answer: `MadeSafe`."""


Command = CheckContact | StartRun | ReadProgress | ReadResults | MeasureResistance | MakeSafe


# ---- events ----


@dataclass(frozen=True, slots=True)
class BeginTest:
    """The cell is seated: begin."""


@dataclass(frozen=True, slots=True)
class ContactChecked:
    """The contacts are good."""

    reading: ContactReading


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The cycler runs."""


@dataclass(frozen=True, slots=True)
class ProgressRead:
    """What the channel is doing."""

    state: ChannelState


@dataclass(frozen=True, slots=True)
class ResultsRead:
    """Results of a finished run."""

    results: tuple[StepResult, ...]


@dataclass(frozen=True, slots=True)
class ResistanceRead:
    """A reading of the AC meter."""

    reading: ResistanceReading


@dataclass(frozen=True, slots=True)
class MadeSafe:
    """Current off, contacts open, both read back."""


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """The last command ended in an error."""

    code: str
    message: str = ""

    @classmethod
    def of(cls, error: DeviceError) -> CommandFailed:
        """The event that stands for an exception."""
        return cls(error.code, str(error))


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop, and leave the cell safe."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    BeginTest
    | ContactChecked
    | RunStarted
    | ProgressRead
    | ResultsRead
    | ResistanceRead
    | MadeSafe
    | CommandFailed
    | Cancel
    | Tick
)


# ---- the machine ----


class Phase(str, Enum):
    """Where a test stands. In each but ``PAUSE`` and ``ENDED`` it waits for the answer to a command."""

    NEW = "new"
    CONTACT = "contact"
    RETRY_SAFE = "retry_safe"
    PAUSE = "pause"
    STARTING = "starting"
    RUNNING = "running"
    RESULTS = "results"
    MEASURING = "measuring"
    MAKING_SAFE = "making_safe"
    ENDED = "ended"


class CellTestOutcome(str, Enum):
    """How a test ended."""

    MEASURED = "measured"
    BAD_CONTACT = "bad_contact"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Rules:
    """How patient a test is.

    Attributes:
        contact_retries: So often the contacts are closed anew before the cell is to be seated again.
        pause_s: Before each of these.
        poll_s: Between two looks at a running channel.
        silence_s: A tester from which nothing has been heard for so long is given up. Its own watchdog must be
            shorter, so that it has switched off by then.
        stall_s: The tester's clock may stand still for so long while it says that it runs.
        safe_s: So long it is tried to make the cell safe before the test ends without that.
    """

    contact_retries: int = 2
    pause_s: float = 1.0
    poll_s: float = 1.0
    silence_s: float = 30.0
    stall_s: float = 30.0
    safe_s: float = 60.0


@dataclass(frozen=True, slots=True)
class CellTest:
    """State of a test. `advance` gives the next one; nothing is changed in place.

    Attributes:
        phase: What it waits for.
        part: Index in ``programme.segments``.
        retries: Retries so far, because of bad contacts or a start whose answer was lost.
        course: Results and readings in the order of their occurrence.
        last: The channel as it was last seen.
        outcome: None before the end.
        error_code: Of what ended or troubled it last; empty if nothing did.
        safe: Whether the tester has confirmed that current is off and contacts are open.
    """

    programme: Programme
    rules: Rules = field(default_factory=Rules)
    phase: Phase = Phase.NEW
    part: int = 0
    retries: int = 0
    contact_mohm: float = NAN
    course: tuple[StepResult | ResistanceReading, ...] = ()
    last: ChannelState | None = None
    outcome: CellTestOutcome | None = None
    error_code: str = ""
    error_message: str = ""
    safe: bool = False
    due_s: float = 0.0
    heard_s: float = 0.0
    moved_s: float = 0.0
    begun_safe_s: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens."""
        return self.phase is Phase.ENDED

    @property
    def progress(self) -> float:
        """Share of the programme's steps that are done, 0..1."""
        if self.outcome is CellTestOutcome.MEASURED:
            return 1.0
        running = self.last.step - 1 if self.phase is Phase.RUNNING and self.last and self.last.step else 0
        return (len(self.course) + running) / len(self.programme.steps)

    @property
    def measurement(self) -> Measurement:
        """What is known so far."""
        return measurement_of(self.course, self.contact_mohm)

    def advance(self, event: Event, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        """The state after ``event`` and what is to be done, in that order.

        Args:
            event: What has happened.
            now: Any steady clock of the host, in s.
        """
        if self.phase is Phase.ENDED:
            return self, ()
        if not isinstance(event, (Tick, Cancel, CommandFailed)):
            self = replace(self, heard_s=now)
        if isinstance(event, Cancel):
            return self._cancelled(now)
        if isinstance(event, CommandFailed):
            return self._failed(event, now)
        if isinstance(event, Tick):
            return self._tick(now)
        return self._answered(event, now)

    # ---- answers ----

    def _answered(self, event: Event, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        """Takes in an answer; one that belongs to another phase (a cancel came between) changes nothing."""
        phase = self.phase
        if phase is Phase.NEW and isinstance(event, BeginTest):
            return replace(self, phase=Phase.CONTACT), (CheckContact(),)
        if phase is Phase.CONTACT and isinstance(event, ContactChecked):
            return self._checked(event.reading, now)
        if phase is Phase.STARTING and isinstance(event, RunStarted):
            return replace(self, phase=Phase.RUNNING, last=None, due_s=now + self.rules.poll_s, moved_s=now), ()
        if phase is Phase.RUNNING and isinstance(event, ProgressRead):
            return self._progressed(event.state, now)
        if phase is Phase.RESULTS and isinstance(event, ResultsRead):
            return self._finished_run(event.results, now)
        if phase is Phase.MEASURING and isinstance(event, ResistanceRead):
            return self._measured(event.reading, now)
        if phase is Phase.RETRY_SAFE and isinstance(event, MadeSafe):
            return replace(self, phase=Phase.PAUSE, safe=True, due_s=now + self.rules.pause_s), ()
        if phase is Phase.MAKING_SAFE and isinstance(event, MadeSafe):
            return replace(self, phase=Phase.ENDED, safe=True), ()
        return self, ()

    def _checked(self, reading: ContactReading, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        if not 0 <= reading.contact_mohm < readings.OVERLOAD:
            message = f"the contact resistance is {reading.contact_mohm:g} mΩ: {readings.CONTACT.remedy}"
            return self._failed(CommandFailed(OpenContactError.code, message), now)
        if problem := self._no_reading((readings.VOLTAGE, reading.voltage_v), hottest_c=reading.temperature_c):
            return self._failed(problem, now)
        limits = self.programme.limits
        if not limits.voltage_min_v <= reading.voltage_v <= limits.voltage_max_v:
            return self._end(
                CellTestOutcome.FAILED,
                now,
                VoltageWindowError.code,
                f"the cell has {reading.voltage_v:.3f} V, the programme allows "
                f"{limits.voltage_min_v:g}..{limits.voltage_max_v:g} V",
            )
        return replace(self, contact_mohm=reading.contact_mohm, part=0, course=())._enter_part(now)

    def _progressed(self, state: ChannelState, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        moved = self.last is None or state.elapsed_s != self.last.elapsed_s or state.step != self.last.step
        self = replace(self, last=state, due_s=now + self.rules.poll_s, moved_s=now if moved else self.moved_s)
        self = replace(self, error_code="", error_message="")
        if state.state is ChannelPhase.FAULT:
            message = f"the tester has stopped in step {state.step}"
            return self._failed(CommandFailed(state.fault or TesterStoppedError.code, message), now)
        if state.state is ChannelPhase.IDLE:
            message = "the tester knows nothing of the run: it was restarted, or somebody has stopped it"
            return self._failed(CommandFailed(TesterStoppedError.code, message), now)
        if problem := self._no_reading(
            (readings.VOLTAGE, state.voltage_v),
            (readings.CURRENT, state.current_a),
            (readings.CHARGE, state.charge_ah),
            (readings.TIME, state.elapsed_s),
            hottest_c=state.temperature_c,
        ):
            return self._failed(problem, now)
        if state.state is ChannelPhase.DONE:
            return replace(self, phase=Phase.RESULTS), (ReadResults(),)
        if now - self.moved_s > self.rules.stall_s:
            message = f"the tester's clock has stood still for {now - self.moved_s:.0f} s in step {state.step}"
            return self._end(CellTestOutcome.FAILED, now, TesterTimeoutError.code, message)
        return self, ()

    def _measured(self, reading: ResistanceReading, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        if problem := self._no_reading(
            (readings.RESISTANCE, reading.resistance_mohm),
            (readings.VOLTAGE, reading.ocv_v),
            hottest_c=reading.temperature_c,
        ):
            return self._failed(problem, now)
        return replace(self, course=(*self.course, reading))._next_part(now)

    def _no_reading(self, *shown: tuple[readings.Quantity, float], hottest_c: float) -> CommandFailed | None:
        """Why the test can't go on: a value that is no reading, or a temperature that is not within the limit.

        The tester watches the limit itself, but may be without a sensor. One that shows nothing is not within it.
        """
        limit_c = self.programme.limits.temperature_max_c
        try:
            for quantity, value in (*shown, (readings.TEMPERATURE, hottest_c)):
                quantity.check(value)
        except ReadingError as error:
            return CommandFailed.of(error)
        if hottest_c > limit_c:
            message = f"the cell has {hottest_c:.1f} °C, the programme allows {limit_c:g} °C"
            return CommandFailed(OverTemperatureError.code, message)
        return None

    def _no_result(self, result: StepResult) -> CommandFailed | None:
        problem = self._no_reading(
            (readings.TIME, result.seconds),
            (readings.CHARGE, result.charge_ah),
            (readings.VOLTAGE, result.before_v),
            (readings.VOLTAGE, result.end_v),
            (readings.CURRENT, result.current_a),
            hottest_c=result.temperature_c,
        )
        if problem is None:
            return None
        return replace(problem, message=f"step {result.number} ({result.kind}): {problem.message}")

    def _finished_run(self, results: tuple[StepResult, ...], now: float) -> tuple[CellTest, tuple[Command, ...]]:
        if problem := next(filter(None, map(self._no_result, results)), None):
            return self._failed(problem, now)
        self = replace(self, course=(*self.course, *results))
        for result in results:
            if result.end is StepEnd.TIME:
                message = f"step {result.number} ({result.kind}) was not through after {result.seconds:.0f} s"
                return self._end(CellTestOutcome.FAILED, now, TesterTimeoutError.code, message)
        run = self.programme.segments[self.part]
        if not isinstance(run, Measure) and len(results) != len(run):
            message = f"the tester has results of {len(results)} steps, {len(run)} were handed over"
            return self._end(CellTestOutcome.FAILED, now, TesterStoppedError.code, message)
        capacity_ah = self.measurement.capacity_ah
        if capacity_ah <= 0:  # NaN where none was measured
            message = f"a capacity of {capacity_ah:g} Ah can't be true: check the cycler's sign of a discharge"
            return self._end(CellTestOutcome.FAILED, now, ImplausibleReadingError.code, message)
        return self._next_part(now)

    # ---- going on ----

    def _next_part(self, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        return replace(self, part=self.part + 1)._enter_part(now)

    def _enter_part(self, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        segments = self.programme.segments
        if self.part >= len(segments):
            return self._end(CellTestOutcome.MEASURED, now)
        run = segments[self.part]
        if isinstance(run, Measure):
            return replace(self, phase=Phase.MEASURING), (MeasureResistance(),)
        capacity_ah = self.measurement.capacity_ah
        stops = tuple(
            step.to_soc * capacity_ah if isinstance(step, Charge) and step.to_soc is not None else None
            for step in run
        )
        return replace(self, phase=Phase.STARTING, safe=False), (
            StartRun(CyclerRun(run, self.programme.limits, stops)),
        )

    def _tick(self, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        if self.phase is Phase.NEW:
            return replace(self, heard_s=now), ()
        if self.phase is Phase.MAKING_SAFE:
            return self._tick_safe(now)
        if self.phase is Phase.PAUSE:
            if now < self.due_s:
                return self, ()
            return replace(self, phase=Phase.CONTACT, heard_s=now, safe=False), (CheckContact(),)
        if now - self.heard_s > self.rules.silence_s:
            message = f"nothing heard from the tester for {now - self.heard_s:.0f} s"
            if self.error_message:
                message += f": {self.error_message}"
            return self._end(CellTestOutcome.FAILED, now, TesterTimeoutError.code, message)
        if now < self.due_s:
            return self, ()
        if self.phase is Phase.RUNNING:
            return replace(self, due_s=now + self.rules.poll_s), (ReadProgress(),)
        if self.error_code in LINK_CODES:
            return self._again(now)
        return self, ()

    def _again(self, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        """The command whose answer was lost, once more. All of these may be carried out twice."""
        self = replace(self, due_s=now + self.rules.poll_s, error_code="")
        commands: dict[Phase, Command] = {
            Phase.CONTACT: CheckContact(),
            Phase.RETRY_SAFE: MakeSafe(),
            Phase.RESULTS: ReadResults(),
            Phase.MEASURING: MeasureResistance(),
        }
        return self, (commands[self.phase],)

    # ---- going wrong ----

    def _failed(self, event: CommandFailed, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        if self.phase is Phase.MAKING_SAFE:
            return replace(self, due_s=now + self.rules.poll_s), ()
        if self.phase in (Phase.NEW, Phase.PAUSE):
            return self, ()
        self = replace(self, error_code=event.code, error_message=event.message)
        if event.code in LINK_CODES and self.phase is not Phase.STARTING:
            return replace(self, due_s=now + self.rules.poll_s), ()
        if event.code == OpenContactError.code or event.code in LINK_CODES:
            return self._retry(event, now)
        return self._end(CellTestOutcome.FAILED, now, event.code, event.message)

    def _retry(self, event: CommandFailed, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        """From the very beginning: what was measured before the contact opened can't be joined to what follows."""
        if self.retries >= self.rules.contact_retries:
            bad_contact = event.code == OpenContactError.code
            outcome = CellTestOutcome.BAD_CONTACT if bad_contact else CellTestOutcome.FAILED
            return self._end(outcome, now, event.code, event.message)
        return replace(self, phase=Phase.RETRY_SAFE, retries=self.retries + 1, last=None), (MakeSafe(),)

    def _cancelled(self, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        if self.phase is Phase.NEW:
            return replace(self, phase=Phase.ENDED, outcome=CellTestOutcome.CANCELLED), ()
        if self.phase is Phase.MAKING_SAFE:
            return self, ()
        return self._end(CellTestOutcome.CANCELLED, now)

    def _end(
        self, outcome: CellTestOutcome, now: float, code: str = "", message: str = ""
    ) -> tuple[CellTest, tuple[Command, ...]]:
        ending = replace(
            self,
            phase=Phase.MAKING_SAFE,
            outcome=outcome,
            error_code=code,
            error_message=message,
            begun_safe_s=now,
            due_s=now + self.rules.silence_s,
        )
        return ending, (MakeSafe(),)

    def _tick_safe(self, now: float) -> tuple[CellTest, tuple[Command, ...]]:
        """Tries on, as long as the rules say. Then the tester's watchdog is what has switched off."""
        if now - self.begun_safe_s > self.rules.safe_s:
            return replace(self, phase=Phase.ENDED, safe=False), ()
        if now < self.due_s:
            return self, ()
        return replace(self, due_s=now + self.rules.silence_s), (MakeSafe(),)
