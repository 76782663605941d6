"""The node around a line's controller: messages become its events, and what it wants is carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from battery_sorting.core.clock import ListeningClock
from battery_sorting.ledger import Record
from battery_sorting.line.contract import CONTROLLER
from battery_sorting.line.controller import (
    CommandAnswer,
    CommandAsked,
    LedgerTold,
    LineController,
    Log,
    StoodStill,
    Withheld,
    carry_out,
)
from battery_sorting.line.record_keeper import RecordKeeper, configuration_of
from battery_sorting.msg import Heartbeat, LineState
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.restart import Restart
from battery_sorting.packml.unit import LineUnit, StateChanged
from battery_sorting.ros import convert, qos
from battery_sorting.ros.bring_up import BringUp
from battery_sorting.ros.health import publish_diagnostics
from battery_sorting.ros.lasting import LastingVoice
from battery_sorting.ros.line_watch import LineWatch
from battery_sorting.ros.parameters import declare
from battery_sorting.ros.settings import SettingsT, own
from battery_sorting.ros.sim_clock import waiting_clock
from battery_sorting.ros.timers import SteadyTimers
from battery_sorting.srv import LineCommand

TICK_S = 0.05
STATE_S = 0.2
LEDGER_S = 0.25
"""So often the ledger's file is looked at."""


class ControllerNode(SteadyTimers, LastingVoice, Node, Generic[SettingsT]):  # type: ignore[misc]
    """Runs a line's controller, and is the only one that writes the history of batteries.

    A sub-class sets ``controller``, hands it what the ledger holds, and calls `serve`. It carries out what is
    special to its line (`do`).

    Attributes:
        controller: Decides for the line.
        restart: How the line goes on where the controller before this one has ended.
        keeper: Keeps the ledger, with the shift that was begun, or taken up again.
    """

    controller: LineController[Any, Any, Any]
    frame_id: str
    """Of the line's states."""
    disk_free_mb = 0.0
    """Free space on the ledger's disk under which the line holds; 0: nobody looks."""

    def __init__(self, read_settings: Callable[[Node], SettingsT], **kwargs: Any) -> None:
        super().__init__(CONTROLLER, **kwargs)
        self.settings: SettingsT = read_settings(self)
        self._ownership = own(self, CONTROLLER, self.settings)
        # The controller waits for processes, which need the host's time however fast a replay is.
        self.now = ListeningClock(waiting_clock(self, at_most=1.0))
        site = self.settings.site
        self.keeper = RecordKeeper(site, self.settings.run_dir, self.get_logger().error)
        # Real hardware moves when a person says so.
        wanted = bool(declare(self, "auto_start", site.simulated))
        self.restart: Restart = self.keeper.resume(self.settings.run_id, wanted=wanted)
        if not self.keeper.begin_shift(self.configuration()):
            self.get_logger().warning("the last shift was cut off: going on with it")
        if not self.restart.auto_start:
            self.get_logger().warning(f"the line does not start by itself: {self.restart.reason}")
        self._told = self.keeper.told
        self._ticked = False

    # ---- for sub-classes ----

    def do(self, action: Any) -> None:
        """Carry out an action of this kind of line."""

    def held(self) -> dict[str, Any]:
        """What bins, outlets and trays hold, for the end of the shift: it is still there when the next begins."""
        return {}

    def figures(self) -> dict[str, int]:
        """What goes into the diagnostics."""
        return self.controller.figures

    def configuration(self) -> dict[str, Any]:
        """What the shift's batteries are judged by, for the ledger."""
        return configuration_of(self.settings.site, self.settings.recipe)

    @property
    def unit(self) -> LineUnit:
        """The line's PackML unit."""
        return self.controller.unit

    def serve(self) -> None:
        """Begin to run the controller, and let others see and command it."""
        self._states = self.create_publisher(LineState, "line_state", qos.STREAM)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        self.create_subscription(Heartbeat, "heartbeat", self._on_heartbeat, qos.STREAM)
        self._bring_up = BringUp(self, self.unit.nodes)
        self._watch = LineWatch(self, self.settings, self.unit, self.now, self.take)
        self.create_service(LineCommand, "~/command", self._on_command)
        self.create_timer(TICK_S, self._tick)
        self.create_timer(STATE_S, self._publish_state)
        self.create_timer(LEDGER_S, self._look_at_ledger)
        self.create_timer(1.0, self._publish_diagnostics)

    # ---- the controller ----

    def take(self, event: Any) -> CommandAnswer | None:
        """Lets the controller take an event, and carries out what it wants. Returns its answer to a command."""
        return self.carry_out(self.controller.handle(event, self.now()))

    def carry_out(self, actions: Iterable[Any]) -> CommandAnswer | None:
        """Carries out what the controller wants, the records first. Returns its answer to a command."""
        actions = list(actions)
        carry_out(actions, self.controller.need_records, self._write, self._do, lambda it: self.take(Withheld(it)))
        return next((action for action in actions if isinstance(action, CommandAnswer)), None)

    def _write(self, records: list[Record]) -> bool:
        written = self.keeper.write(records)
        self._tell_of_ledger(self.keeper.told)
        return written

    def _tell_of_ledger(self, told: LedgerTold) -> None:
        if told != self._told:
            self._told = told
            self.take(told)

    def _do(self, action: Any) -> None:
        if isinstance(action, Transition):
            self._bring_up.ask(action)
        elif isinstance(action, StateChanged):
            self.get_logger().info(f"line is {action.state}: {action.reason}")
            self._publish_state()
        elif isinstance(action, Log):
            (self.get_logger().error if action.is_error else self.get_logger().warning)(action.text)
        elif not isinstance(action, CommandAnswer):
            self.do(action)

    def _tick(self) -> None:
        now, stood_s = self.now(), self.now.stood_still_s()
        if self._ticked and stood_s > 0:
            self.take(StoodStill(stood_s))
        self._ticked = True
        if self._told.waiting:
            self._write([])
        self.carry_out(self.controller.tick(now))

    def _look_at_ledger(self) -> None:
        for seen in self.keeper.look(self.disk_free_mb):
            if isinstance(seen, LedgerTold):
                self._tell_of_ledger(seen)
            else:
                self.take(seen)

    def close(self) -> None:
        """Ends the shift."""
        self.carry_out(self.controller.end())
        self.keeper.close(self.controller.in_flight, self.held)

    # ---- what others say and see ----

    def _on_heartbeat(self, message: Heartbeat) -> None:
        event = convert.node_spoke(message)
        if event is not None:
            self._watch.heartbeat(event.node)
            self.take(event)

    def _on_command(self, request: LineCommand.Request, response: LineCommand.Response) -> LineCommand.Response:
        answer = self.take(CommandAsked(request.command, request.by, request.reason, request.bin))
        assert answer is not None  # a controller answers every command
        response.accepted, response.message = answer.accepted, answer.message
        response.state = int(self.unit.state)
        return response

    def _publish_state(self) -> None:
        seen = convert.line_state_message(self.controller, self.now(), self.frame_id)
        seen.run_id, seen.controller, seen.hears = self.settings.run_id, self._watch.own, self._watch.hears
        self._states.publish(seen)

    def _publish_diagnostics(self) -> None:
        severity, text = self.controller.summary(self.now())
        publish_diagnostics(self._diagnostics, self, bytes([severity]), text, self.figures())
