"""What the line controllers of all lines have in common: shift and ledger, alarms, commands, what others see."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

import battery_sorting
from battery_sorting.core.clock import ListeningClock
from battery_sorting.core.disk import look_at_disk
from battery_sorting.core.errors import BatterySortingError, LedgerError
from battery_sorting.core.secrets import settings_without_passwords
from battery_sorting.core.types import LineStateId
from battery_sorting.ledger import EventKind, Record
from battery_sorting.ledger.backlog import Backlog, follow_ledger
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.contract import CONTROLLER
from battery_sorting.line.hearing import ControllerHearing
from battery_sorting.line.paths import ledger_folder, ledger_location
from battery_sorting.line.resume import EMPTIED
from battery_sorting.msg import Heartbeat, LineState
from battery_sorting.packml.alarms import AlarmBook, follow_fault
from battery_sorting.packml.machine import LineCommandId
from battery_sorting.packml.restart import SYSTEM, Restart, restart
from battery_sorting.packml.unit import LineUnit, StateChanged, UnknownPlaceError
from battery_sorting.ros import convert, qos
from battery_sorting.ros.bring_up import BringUp
from battery_sorting.ros.graph_watch import watch_contract, watch_graph
from battery_sorting.ros.hearing import Marks, watch_hearing
from battery_sorting.ros.lasting import LastingVoice
from battery_sorting.ros.node import ParentWatch, SettingsT, own, publish_diagnostics
from battery_sorting.ros.parameters import declare
from battery_sorting.ros.rival_watch import RivalWatch
from battery_sorting.ros.sim_clock import FAULT as CLOCK_FAULT
from battery_sorting.ros.sim_clock import uses_sim_time, waiting_clock, watch_sim_clock
from battery_sorting.ros.timers import SteadyTimers
from battery_sorting.srv import LineCommand

NAME = CONTROLLER
TICK_S = 0.05
STATE_S = 0.2
LONGEST_TEXT = 500
"""Characters of a name or reason that a command brings."""
FLICKER_S = 1.0
"""Between two records of nodes that were deactivated or activated at the least."""
LEDGER_S = 0.25
"""So often the ledger's file is looked at."""
STOOD_STILL_S = 0.5
"""A longer standstill of the controller's own is told."""
TOLD_S = 10.0
"""So long it stands in the diagnostics."""
UNWRITTEN = "ledger.unwritten.jsonl"
"""File in the run folder that takes the records which no ledger took until the end."""


class ControllerNode(SteadyTimers, LastingVoice, Node, Generic[SettingsT]):  # type: ignore[misc]
    """Runs the line's PackML unit and is the only one that writes the history of batteries.

    A sub-class sets ``unit``, then calls `serve`, and says what it has besides.

    Attributes:
        unit: The line's PackML unit.
        auto_start: Whether it is to start without a command.
        restart: How it goes on where the one before it has ended.
        ledger: With the shift that was begun, or taken up again.
        bring_up: Takes the nodes through their life cycles.
    """

    unit: LineUnit
    bring_up: BringUp
    frame_id: str
    """Of the line's states."""
    disk_free_mb = 0.0
    """Free space on the ledger's disk under which the line holds; 0: nobody looks."""

    def __init__(self, read_settings: Callable[[Node], SettingsT], **kwargs: Any) -> None:
        super().__init__(NAME, **kwargs)
        self.settings: SettingsT = read_settings(self)
        self._ownership = own(self, NAME, self.settings)
        # The controller waits for processes, which need the host's time however fast a replay is.
        self.now = ListeningClock(waiting_clock(self, at_most=1.0))
        site = self.settings.site
        # Real hardware moves when a person says so.
        wanted = bool(declare(self, "auto_start", site.simulated))
        self.ledger = Ledger.open(ledger_location(site, self.settings.run_dir))
        self._backlog = Backlog(self.ledger, self.get_logger().error)
        self.restart = self._resume(wanted)
        self.auto_start = self.restart.auto_start
        self._latched: dict[str, str] = {}
        self._deactivated = self.restart.deactivated
        self._deactivated_at = float("-inf")
        self._started_at = self.now()
        self._alarms = AlarmBook()
        self._ticked = False
        self._stood_still = ("", float("-inf"))  # what was told of it last, and when

    # ---- for sub-classes ----

    @abstractmethod
    def tick(self, now: float) -> None:
        """Every `TICK_S`: ask the unit what is to be done, and do it."""

    @abstractmethod
    def commanded(self, name: str, bin_: str) -> None:
        """A person's command took effect. ``bin_`` is what was emptied, by the command of that name."""

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

    def figures(self) -> dict[str, int]:
        """What goes into the diagnostics."""
        return self.counts

    def held(self) -> dict[str, Any]:
        """What bins, outlets and trays hold, for the end of the shift: it is still there when the next begins."""
        return {}

    def configuration(self) -> dict[str, Any]:
        """What the shift's batteries are judged by, for the ledger."""
        settings = self.settings
        site = settings_without_passwords(settings.site.model_dump(mode="json"))
        return {"site": site, "recipe": settings.recipe.model_dump(mode="json")}

    def serve(self) -> None:
        """Begin to run the unit, and let others see and command it."""
        self.unit.begin(self.restart)
        self._latched = dict(self.unit.latched_faults)
        self._states = self.create_publisher(LineState, "line_state", qos.STREAM)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        self.create_subscription(Heartbeat, "heartbeat", self._on_heartbeat, qos.STREAM)
        self._rivals = RivalWatch(self, self.unit.external_faults)
        self.bring_up = BringUp(self, self.unit.nodes)
        self._hearing = ControllerHearing(self.unit.nodes, self.unit.observers)
        self.create_service(LineCommand, "~/command", self._on_command)
        self.create_timer(TICK_S, self._tick)
        self.create_timer(STATE_S, self._publish_state)
        self.create_timer(LEDGER_S, self._look_at_ledger)
        self.create_timer(1.0, self._publish_diagnostics)
        if self.settings.exit_with_parent:
            ParentWatch(self)
        if uses_sim_time(self):
            self.unit.external_faults[CLOCK_FAULT] = "waits for /clock"  # nothing starts before it
        watch_sim_clock(self, self._follow_clock)
        self._watch_others()

    def _follow_clock(self, problem: str) -> None:
        """Without the clock of its replay a line holds, as it does without a node; it goes on by itself."""
        if problem:
            self.unit.external_faults[CLOCK_FAULT] = problem
            self.get_logger().error(problem)
        else:
            self.unit.external_faults.pop(CLOCK_FAULT, None)
            self.get_logger().info("/clock runs")

    def _watch_others(self) -> None:
        """Strangers and who breaks the contract hold the line; who hears nobody though others run ends itself."""
        watch_graph(self, self.settings.kind.contract, self.unit, self.now)
        watch_contract(self, self.settings.kind.contract, self.unit, self.now)
        if self.settings.run_id:  # else nobody starts it anew
            marks = Marks(self.settings.run_dir)
            watch_hearing(
                self,
                marks,
                lambda now: self._hearing.why_to_end(now, {name: marks.read(name) for name in self.unit.nodes}),
            )

    def write(self, records: Iterable[Record]) -> bool:
        """Writes records, first those that could not be written before. Returns whether all stand in the ledger."""
        written = self._backlog.write(records)
        follow_ledger(self._backlog, self.unit.external_faults, self.get_logger().error)
        return written

    @property
    def records_wait(self) -> bool:
        """Whether the ledger takes nothing now: then nothing may be moved."""
        return len(self._backlog) > 0

    def state_changed(self, change: StateChanged) -> None:
        """Into log, ledger and topic."""
        self.get_logger().info(f"line is {change.state}: {change.reason}")
        self._record_state(change.state, change.reason)
        self._publish_state()

    def _record_state(self, state: LineStateId, reason: str) -> None:
        """With what a controller that comes after this one must know."""
        self._latched = dict(self.unit.latched_faults)
        payload = {
            "state": int(state),
            "name": str(state),
            "reason": reason,
            "run_id": self.settings.run_id,
            "by_fault": self.unit.held_by_fault,
            "auto_start": self.unit.auto_start,
            "latched": self._latched,
        }
        self.write([Record("line_state", None, None, payload)])

    def follow_alarms(self, problems: dict[str, str]) -> None:
        """Records alarms that come and go, of observers too. While the line has time to come up, nothing is one."""
        now = self.now()
        coming_up = now - self._started_at < self.settings.site.timeouts.start_s
        if self.unit.auto_start and coming_up:
            return
        records = self._alarms.follow({**self.unit.warnings(now, came_up=coming_up), **problems})
        for record in records:
            if record.kind == "alarm_raised":
                self.get_logger().error(f"alarm {record.payload['code']}: {record.payload['text']}")
        self.write(records)

    # ---- its life ----

    def _resume(self, wanted: bool) -> Restart:
        """Goes on with the shift where the ledger ends, or begins one. Returns how the line goes on."""
        site = self.settings.site
        commands = self.ledger.commands(site.line)
        shift_id = self.ledger.resume_shift(site.line)
        states = [] if shift_id is None else self.ledger.events(shift_id, kinds=[EventKind.LINE_STATE], last=1)
        how = restart(
            states[-1].payload if states else None,
            commands,
            self.settings.run_id,
            cut_off=shift_id is not None,
            wanted=wanted,
            unreadable=next(iter(self.ledger.unreadable), ""),
        )
        for sentence in self.ledger.unreadable:
            self.get_logger().error(f"ledger: {sentence}")
        if shift_id is None:
            self.ledger.begin_shift(
                site.line,
                site.name,
                time.time(),
                software_version=battery_sorting.__version__,
                config=self.configuration(),
            )
        else:
            self.get_logger().warning("the last shift was cut off: going on with it")
        if not how.auto_start:
            self.get_logger().warning(f"the line does not start by itself: {how.reason}")
        return how

    def _tick(self) -> None:
        self._tell_own_standstill()
        if self.records_wait:
            self.write([])
        self.tick(self.now())
        self._follow_deactivated()
        if self.unit.latched_faults != self._latched:  # a controller that comes after this one holds for them, too
            self._record_state(self.unit.state, self.unit.reason)

    def _tell_own_standstill(self) -> None:
        """Says that it was this process that stood still, so that nobody looks for the fault elsewhere."""
        now, stood_s = self.now(), self.now.stood_still_s()
        if self._ticked and stood_s > STOOD_STILL_S:
            text = f"{NAME} stood still for {stood_s:.1f} s: look what kept it or the machine from running"
            self._stood_still = (text, now)
            self.get_logger().warning(text)
            self.write([Record("alarm_raised", None, None, {"code": "stood_still", "text": text})])
        self._ticked = True

    def _look_at_ledger(self) -> None:
        self._backlog.check_file()
        follow_ledger(self._backlog, self.unit.external_faults, self.get_logger().error)
        if self.disk_free_mb > 0:
            folder = ledger_folder(self.settings.site, self.settings.run_dir)
            follow_fault(self.unit.external_faults, "disk", look_at_disk(folder, self.disk_free_mb).problem)

    def close(self) -> None:
        """Ends the shift. Batteries that are on their way stay open in the ledger and are taken up again."""
        site = self.settings.site
        if self.unit.deactivated != self._deactivated:
            self._record_deactivated()
        try:
            if self.write([]):
                held = {} if site.simulated else self.held()  # the simulated plant begins with empty bins
                self.ledger.end_shift(time.time(), in_flight=self.in_flight, **held)
        except LedgerError as error:
            self.get_logger().error(str(error))
        self._rescue_records()
        self.ledger.close()

    def _rescue_records(self) -> None:
        path = self.settings.run_dir / UNWRITTEN
        try:
            number = self._backlog.rescue(path)
        except OSError as error:
            self.get_logger().error(f"{path}: {error}: {len(self._backlog)} records are lost")
            return
        if number:
            self.get_logger().error(f"{number} records that no ledger took are in {path}")

    # ---- what others say and see ----

    def _on_heartbeat(self, message: Heartbeat) -> None:
        if not convert.is_heartbeat(message):
            return
        self._hearing.heartbeat(message.node, time.monotonic())
        self.unit.heartbeat(
            message.node,
            message.lifecycle_state,
            message.ok,
            convert.detail(message),
            self.now(),
            emergency_stop=message.emergency_stop,
            deactivated=message.deactivated,
        )

    def _follow_deactivated(self) -> None:
        """On record at once, but not again and again: whoever makes a node's state flicker fills no ledger."""
        if self.unit.deactivated != self._deactivated and self.now() - self._deactivated_at > FLICKER_S:
            self._deactivated_at = self.now()
            self._record_deactivated()

    def _record_deactivated(self) -> None:
        """A person's word on a node outlives this controller."""
        before, self._deactivated = self._deactivated, self.unit.deactivated
        by = "a person, by the node's life cycle"
        self.write(
            Record("command", None, None, {"command": command, "node": node, "by": by})
            for command, nodes in (
                ("deactivate", self._deactivated - before),
                ("activate", before - self._deactivated),
            )
            for node in sorted(nodes)
        )

    def _on_command(self, request: LineCommand.Request, response: LineCommand.Response) -> LineCommand.Response:
        response.accepted, response.message = self._obey(request)
        response.state = int(self.unit.state)
        return response

    def _obey(self, request: LineCommand.Request) -> tuple[bool, str]:
        """Whether the command took effect, and why not. It stands in the ledger, refused ones as well."""
        try:
            command = LineCommandId(request.command)
            _check_texts(request)
        except ValueError as error:
            return False, str(error)
        name, payload = str(command), {"command": str(command), "by": request.by, "reason": request.reason}
        if name == EMPTIED:
            payload["bin"] = request.bin
        try:
            if name != EMPTIED:
                self.unit.command(name, f"{request.by}: {request.reason or command}")
            elif request.bin not in self.places:
                raise UnknownPlaceError(request.bin, self.places)
        except BatterySortingError as error:
            self.write([Record("command", None, None, {**payload, "accepted": False, "message": str(error)})])
            return False, str(error)
        self.write([Record("command", None, None, {**payload, "accepted": True})])
        self.commanded(name, request.bin)
        return True, ""

    def _publish_state(self) -> None:
        known = LineState.get_fields_and_field_types()
        self._states.publish(
            LineState(
                header=convert.header(time.time(), self.frame_id),
                state=int(self.unit.state),
                state_name=str(self.unit.state),
                reason=self.unit.reason,
                hears=self._hearing.hears(time.monotonic()),
                alarms=[f"{code}: {text}" for code, text in self.unit.alarms(self.now()).items()],
                run_id=self.settings.run_id,
                controller=self._rivals.own,
                in_flight=self.in_flight,
                **{name: count for name, count in self.counts.items() if name in known},
            )
        )

    def _publish_diagnostics(self) -> None:
        problems, alarms = self.unit.problems(self.now()), self.unit.alarms(self.now())
        running = self.unit.state is LineStateId.EXECUTE and not alarms
        level = DiagnosticStatus.ERROR if problems else DiagnosticStatus.OK if running else DiagnosticStatus.WARN
        text = "; ".join(alarms.values()) or str(self.unit.state)
        told, told_at = self._stood_still
        if not problems and self.now() - told_at < TOLD_S:
            level, text = DiagnosticStatus.WARN, f"{text}; {told}"
        publish_diagnostics(self._diagnostics, self, level, text, self.figures())


def _check_texts(request: LineCommand.Request) -> None:
    """Raises ValueError if it is not said who orders, or not in a way that can be kept."""
    if not request.by.strip():
        raise ValueError("nobody is named: say who orders it (field 'by'; battery-sorting command --by NAME)")
    if request.by.startswith(SYSTEM):
        raise ValueError(f"by: {SYSTEM}… is the line itself: give your own name")
    for name, text in (("by", request.by), ("reason", request.reason), ("bin", request.bin)):
        if len(text) > LONGEST_TEXT or not text.isprintable():
            raise ValueError(f"{name}: give at most {LONGEST_TEXT} printable characters")
