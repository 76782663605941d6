"""What the line controllers of all lines have in common: shift and ledger, alarms, commands, what others see."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

import battery_sorting
from battery_sorting.core.alarms import AlarmBook
from battery_sorting.core.backlog import Backlog, follow_ledger
from battery_sorting.core.errors import LedgerError
from battery_sorting.core.ledger import EventKind, Ledger
from battery_sorting.core.line import Record
from battery_sorting.core.packml import CommandNotAllowedError, LineCommandId, LineStateId
from battery_sorting.core.paths import ledger_location
from battery_sorting.core.unit import LineUnit, StateChanged
from battery_sorting.msg import Heartbeat, LineState
from battery_sorting.ros import convert, qos
from battery_sorting.ros.bring_up import BringUp
from battery_sorting.ros.node import ParentWatch, SettingsT, publish_diagnostics
from battery_sorting.srv import LineCommand

NAME = "line_controller"
TICK_S = 0.05
STATE_S = 0.2
_RESUMABLE = {
    LineStateId.STARTING,
    LineStateId.EXECUTE,
    LineStateId.HOLDING,
    LineStateId.HELD,
    LineStateId.UNHOLDING,
}


class ControllerNode(Node, Generic[SettingsT]):  # type: ignore[misc]
    """Runs the line's PackML unit and is the only one that writes the history of batteries.

    A sub-class sets ``unit``, then calls `serve`, and says what it has besides.

    Attributes:
        unit: The line's PackML unit.
        auto_start: Whether it is to start without a command.
        ledger: With the shift that was begun, or taken up again.
        bring_up: Takes the nodes through their life cycles.
    """

    unit: LineUnit
    bring_up: BringUp
    frame_id: str
    """Of the line's states."""

    def __init__(self, read_settings: Callable[[Node], SettingsT], **kwargs: Any) -> None:
        super().__init__(NAME, **kwargs)
        self.settings: SettingsT = read_settings(self)
        site = self.settings.site
        # Real hardware moves when a person says so.
        wanted = bool(self.declare_parameter("auto_start", site.simulated).value)
        self.ledger = Ledger.open(ledger_location(site, self.settings.run_dir))
        self._backlog = Backlog(self.ledger, self.get_logger().error)
        self.auto_start = self._resume() or wanted
        self._started_at = time.time()
        self._alarms = AlarmBook()

    # ---- for sub-classes ----

    @abstractmethod
    def tick(self, now: float) -> None:
        """Every `TICK_S`: ask the unit what is to be done, and do it."""

    @abstractmethod
    def commanded(self, name: str) -> None:
        """A person's command took effect."""

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

    def configuration(self) -> dict[str, Any]:
        """What the shift's batteries are judged by, for the ledger."""
        settings = self.settings
        return {"site": settings.site.model_dump(mode="json"), "recipe": settings.recipe.model_dump(mode="json")}

    def serve(self) -> None:
        """Begin to run the unit, and let others see and command it."""
        self._states = self.create_publisher(LineState, "line_state", qos.STREAM)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        self.create_subscription(Heartbeat, "heartbeat", self._on_heartbeat, qos.STREAM)
        self.bring_up = BringUp(self, self.unit.nodes)
        self.create_service(LineCommand, "~/command", self._on_command)
        self.create_timer(TICK_S, self._tick)
        self.create_timer(STATE_S, self._publish_state)
        self.create_timer(1.0, self._publish_diagnostics)
        if self.settings.exit_with_parent:
            ParentWatch(self)

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
        payload = {"state": int(change.state), "name": str(change.state), "reason": change.reason}
        self.write([Record("line_state", None, time.time(), payload)])
        self._publish_state()

    def follow_alarms(self, problems: dict[str, str]) -> None:
        """Records alarms that come and go. While the line has time to come up, nothing is an alarm."""
        now = time.time()
        if self.unit.auto_start and now - self._started_at < self.settings.site.timeouts.start_s:
            return
        records = self._alarms.follow(problems, now)
        for record in records:
            if record.kind == "alarm_raised":
                self.get_logger().error(f"alarm {record.payload['code']}: {record.payload['text']}")
        self.write(records)

    # ---- its life ----

    def _resume(self) -> bool:
        """Goes on with the shift where the ledger ends. Returns whether the line was running when cut off."""
        site = self.settings.site
        shift_id = self.ledger.resume_shift(site.line)
        if shift_id is not None:
            states = self.ledger.events(shift_id, kinds=[EventKind.LINE_STATE], last=1)
            self.get_logger().warning("the last shift was cut off: going on with it")
            return bool(states) and states[-1].payload["state"] in {int(state) for state in _RESUMABLE}
        self.ledger.begin_shift(
            site.line,
            site.name,
            time.time(),
            software_version=battery_sorting.__version__,
            config=self.configuration(),
        )
        return False

    def _tick(self) -> None:
        if self.records_wait:
            self.write([])
        self.tick(time.time())

    def close(self) -> None:
        """Ends the shift. Batteries that are on their way stay open in the ledger and are taken up again."""
        try:
            if self.write([]):
                self.ledger.end_shift(time.time(), in_flight=self.in_flight)
        except LedgerError as error:
            self.get_logger().error(str(error))
        self.ledger.close()

    # ---- what others say and see ----

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self.unit.heartbeat(message.node, message.lifecycle_state, message.ok, message.detail, time.time())

    def _on_command(self, request: LineCommand.Request, response: LineCommand.Response) -> LineCommand.Response:
        try:
            name = str(LineCommandId(request.command))
            self.unit.command(name, request.reason or "operator")
            self.commanded(name)
            response.accepted = True
            self.write([Record("command", None, time.time(), {"command": name, "reason": request.reason})])
        except (CommandNotAllowedError, ValueError) as error:
            response.accepted, response.message = False, str(error)
        response.state = int(self.unit.state)
        return response

    def _publish_state(self) -> None:
        now = time.time()
        known = LineState.get_fields_and_field_types()
        self._states.publish(
            LineState(
                header=convert.header(now, self.frame_id),
                state=int(self.unit.state),
                state_name=str(self.unit.state),
                reason=self.unit.reason,
                alarms=[f"{code}: {text}" for code, text in self.unit.problems(now).items()],
                in_flight=self.in_flight,
                **{name: count for name, count in self.counts.items() if name in known},
            )
        )

    def _publish_diagnostics(self) -> None:
        problems = self.unit.problems(time.time())
        running = self.unit.state is LineStateId.EXECUTE
        level = DiagnosticStatus.ERROR if problems else DiagnosticStatus.OK if running else DiagnosticStatus.WARN
        text = "; ".join(problems.values()) or str(self.unit.state)
        publish_diagnostics(self._diagnostics, self, level, text, self.figures())
