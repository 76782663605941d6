"""The inspection of one retired cell after the other: load, look at the lugs, flip, look at the case, release.

`Inspection` is a pure machine: it is told what the PLC says, which frames came and what the inspector saw, and
returns what to do. It knows no clock, no hardware and no ROS. Whatever goes wrong has a name, is recorded, and
keeps the cell away from the product outlet; a cell is never given up while it may still lie in the station.
Between two cells a person may have the flipper turned: that is a step of the same machine, and of no cell.

The sequence follows Liu et al., Sustainability 2023, 15, 15523, section 2.2 (two-stage image acquisition).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from battery_sorting.core.types import NOWHERE, View, make_battery_id
from battery_sorting.drivers.station_plc.base import (
    ActionResult,
    FlipperPosition,
    StationAction,
    StationCommand,
    StationStatus,
)
from battery_sorting.ev.faults import FlipError, StationFault
from battery_sorting.ev.fusion import CellVerdict, Finding, fuse
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.types import FrameSeen, ViewResult
from battery_sorting.ledger import Record

TOKEN_BITS = 0x7FFF_FFFF
FRAME_TOLERANCE_S = 0.05
"""By so much the clock of a camera may be behind: less than any two orders are apart."""
FLIP_WHILE_BUSY = "a cell is being inspected: hold the line first"


class Step(str, Enum):
    """Where the inspection of a cell stands."""

    IDLE = "idle"
    LOAD = "load"
    LUG_IMAGE = "lug_image"
    LUG_VERDICT = "lug_verdict"
    FLIP = "flip"
    CASE_IMAGE = "case_image"
    CASE_VERDICT = "case_verdict"
    RELEASE = "release"
    RECOVER = "recover"
    STUCK = "stuck"
    FLIP_BY_HAND = "flip_by_hand"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class CellResult:
    """The last word of the station on a cell.

    Attributes:
        battery_id: Empty when no cell was loaded.
        verdict: Where it goes and why.
        released: Whether it has left the station by that outlet.
        retries: Steps that were tried again.
        faults: Codes of what went wrong on the way.
    """

    battery_id: str
    verdict: CellVerdict
    views: dict[View, ViewResult]
    code: str
    released: bool
    retries: int
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StationOrder:
    """Send a command to the PLC."""

    command: StationCommand


@dataclass(frozen=True, slots=True)
class Recover:
    """Acknowledge the PLC's faults: it gives up what it does and homes the flipper."""


@dataclass(frozen=True, slots=True)
class Look:
    """Let the inspector look at a frame of a cell."""

    view: View
    number: int
    battery_id: str


@dataclass(frozen=True, slots=True)
class CompareClock:
    """A frame seems older than the order that it should belong to: compare the camera's clock with ours anew.

    It may as well be a late frame of an order of before, so nothing that is under way may be lost by it.
    """

    view: View


@dataclass(frozen=True, slots=True)
class Missed:
    """The camera was triggered, and no frame of it has come."""

    view: View


@dataclass(frozen=True, slots=True)
class StepReached:
    """The inspection has come to another step."""

    battery_id: str
    step: Step


@dataclass(frozen=True, slots=True)
class Finished:
    """The station has done with the cell and is free."""

    result: CellResult


@dataclass(frozen=True, slots=True)
class FlipEnded:
    """A flip by hand is over, or could not begin. ``text`` says why it has failed, and is empty if it has not."""

    error: FlipError
    text: str = ""


@dataclass(frozen=True, slots=True)
class Stuck:
    """The station does not come back by itself: a person is needed. It is tried again while the line runs."""

    text: str


StationEvent = StationStatus | FrameSeen | ViewResult
StationDo = (
    Record | StationOrder | Recover | Look | CompareClock | Missed | StepReached | Finished | FlipEnded | Stuck
)

_CAPTURE = {View.LUG: StationAction.CAPTURE_LUG, View.CASE: StationAction.CAPTURE_CASE}
_IMAGE = {View.LUG: Step.LUG_IMAGE, View.CASE: Step.CASE_IMAGE}
_VERDICT = {View.LUG: Step.LUG_VERDICT, View.CASE: Step.CASE_VERDICT}
_FACING = {View.LUG: FlipperPosition.UPRIGHT, View.CASE: FlipperPosition.INVERTED}


@dataclass
class _Pending:
    """An action of the PLC that has been ordered and has not ended."""

    token: int
    action: StationAction
    sent_at: float
    done: bool = False


@dataclass
class _Cell:
    battery_id: str = ""
    code: str = ""
    views: dict[View, ViewResult] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    looks: dict[View, int] = field(default_factory=dict)
    outlet: str = ""
    verdict: CellVerdict | None = None


class Inspection:
    """The inspection station.

    Args:
        recipe: What happens to which cell.
        outlets: Name → number in the PLC.
        hand_over: Outlets from which the cell goes on to another station: its record stays open.
        last_battery_id: The last cell on record, so that no id is given twice.

    Attributes:
        may_recover: Whether the line is started. If not, a person may have the hands in the station, to free what
            is stuck: a station in which something went wrong is stuck until the line goes on, and not sent home.
    """

    def __init__(
        self,
        recipe: EvRecipe,
        outlets: dict[str, int],
        hand_over: frozenset[str] = frozenset(),
        last_battery_id: str = "",
    ) -> None:
        self.may_recover = True
        self._recipe = recipe
        self._outlets = outlets
        self._hand_over = hand_over
        self._step = Step.IDLE
        self._cell = _Cell()
        self._status: StationStatus | None = None
        self._pending: _Pending | None = None
        self._frame: FrameSeen | None = None
        self._since = 0.0
        self._token = 0
        self._first_token = 0  # of the orders for this cell
        self._boot_id: int | None = None
        self._loaded_before = 0
        self._last_id = last_battery_id
        self._done_count = 0
        self._after_recovery: StationAction = StationAction.RELEASE
        self._out: list[StationDo] = []

    # ---- what others see ----

    @property
    def step(self) -> Step:
        """Where the inspection stands."""
        return self._step

    @property
    def battery_id(self) -> str:
        """The cell in the station, empty for none."""
        return self._cell.battery_id

    @property
    def idle(self) -> bool:
        """Whether the station is free for the next cell."""
        return self._step is Step.IDLE

    # ---- what comes in ----

    def begin(self, now: float, code: str = "") -> list[StationDo]:
        """Load the next cell. Where ``code`` is given, the cell must carry it.

        A cell that lies in the station already (its inspection was cut off) gets an id of its own and goes to
        quarantine: nobody knows which way up it lies.

        Raises:
            RuntimeError: The station is not idle, or the PLC has not been heard yet.
        """
        status = self._status
        if self._step is not Step.IDLE or status is None:
            raise RuntimeError(
                f"the station can't begin: step {self._step}, PLC {'heard' if status else 'not heard'}"
            )
        self._cell = _Cell(code=code)
        self._resynchronise(status)
        self._first_token = self._token + 1
        if status.part_present:
            self._adopt(status, now)
        else:
            self._order(StationAction.LOAD, Step.LOAD, now)
        return self._flush()

    def resume(self, battery_id: str, outlet: str, token: int, now: float) -> list[StationDo]:
        """Take up the cell whose inspection was cut off, as the ledger has it. Call it once the PLC has been heard.

        Args:
            battery_id: The cell that had been loaded and not released.
            outlet: Where it was ordered to go; empty if nothing was decided.
            token: Of the order to release it, 0 if there was none.
            now: The time (s).
        """
        status = self._status
        assert status is not None
        self._cell = _Cell(battery_id)
        self._resynchronise(status)
        if status.part_present:
            self._fault(StationFault.INTERRUPTED, "the inspection was cut off with the cell in the station")
            self._give_up(now)
        elif token and status.done_token == token and status.done_result is ActionResult.DONE:
            self._cell.verdict = CellVerdict(outlet, "resumed", "the PLC has released it")
            self._cell.outlet = outlet
            self._leave()
        else:
            self._vanish()
        return self._flush()

    def handle(self, event: StationEvent, now: float) -> list[StationDo]:
        """Something has happened."""
        if isinstance(event, StationStatus):
            self._on_status(event, now)
        elif isinstance(event, FrameSeen):
            self._on_frame(event, now)
        else:
            self._on_result(event, now)
        self._on_time(now)
        return self._flush()

    def tick(self, now: float) -> list[StationDo]:
        """Time goes by."""
        self._on_time(now)
        return self._flush()

    def cancel(self, now: float) -> list[StationDo]:
        """The inspection shall end: the cell goes to quarantine."""
        if self._step not in {Step.IDLE, Step.RELEASE, Step.RECOVER, Step.STUCK, Step.FLIP_BY_HAND}:
            self._fault(StationFault.CANCELLED, "the inspection was cancelled")
            if self._cell.battery_id:
                self._recover(StationAction.RELEASE, now)
            else:
                self._recover(StationAction.NONE, now)
        return self._flush()

    def flip_by_hand(self, now: float, until: float) -> list[StationDo]:
        """A person wants what lies in the station, or the empty flipper, to be turned.

        Args:
            now: The time (s).
            until: Nobody expects the flipper to turn after this time (s).
        """
        status = self._status
        if self._step is not Step.IDLE:
            self._out.append(FlipEnded(FlipError.BUSY, FLIP_WHILE_BUSY))
        elif status is None:
            self._out.append(FlipEnded(FlipError.NOT_READY, "the station's PLC has not answered yet"))
        elif status.emergency_stop:
            self._out.append(FlipEnded(FlipError.OTHER, "emergency stop"))
        elif now > until:
            self._out.append(FlipEnded(FlipError.OTHER, "the station was not free in time"))
        else:
            self._resynchronise(status)
            self._order(StationAction.FLIP, Step.FLIP_BY_HAND, now)
        return self._flush()

    # ---- the PLC ----

    def _on_status(self, status: StationStatus, now: float) -> None:
        before, self._status = self._status, status
        if self._step is Step.FLIP_BY_HAND:
            self._follow_flip_by_hand(status)
        elif before is not None and status.boot_id != before.boot_id and self._step is not Step.IDLE:
            self._resynchronise(status)
            self._interrupt(StationFault.PLC_RESTARTED, "the station's PLC has restarted", now)
        elif self._step in {Step.RECOVER, Step.STUCK}:
            self._look_for_recovery(status, now)
        elif self._step is not Step.IDLE:
            self._follow(status, now)

    def _follow(self, status: StationStatus, now: float) -> None:
        if status.emergency_stop:
            self._interrupt(StationFault.EMERGENCY_STOP, "emergency stop", now)
        elif status.watchdog_tripped:
            self._interrupt(StationFault.WATCHDOG, "the PLC's watchdog has tripped", now)
        elif not self._account_for_answers(status):
            self._interrupt(
                StationFault.ANSWERED_TWICE, "the PLC has reported an action as ended that was over", now
            )
        elif self._cell.battery_id and self._step is not Step.RELEASE and not status.part_present:
            self._interrupt(StationFault.CELL_GONE, "the cell has left the station without an order", now)
        elif self._cell.battery_id and status.loaded_total != self._loaded_before + 1:
            self._interrupt(StationFault.LOADED_TWICE, "the loader has brought another cell", now)
        elif self._pending is not None and not self._pending.done and status.done_token == self._pending.token:
            self._pending.done = True
            self._on_done(self._pending.action, status.done_result, status, now)

    def _account_for_answers(self, status: StationStatus) -> bool:
        """Whether as many actions have ended as were ordered for this cell, and those that were ordered.

        An answer that comes so late that its cell has left is that cell's fault, which was on record by then.
        """
        waiting = self._pending is not None and not self._pending.done
        ended = (status.done_count - self._done_count) % 0x1_0000
        answered = waiting and self._pending is not None and status.done_token == self._pending.token
        self._done_count = status.done_count
        of_before = not answered and status.done_token < self._first_token
        return ended == (1 if answered else 0) or (ended == 1 and of_before)

    def _on_done(self, action: StationAction, result: ActionResult, status: StationStatus, now: float) -> None:
        if action is StationAction.LOAD:
            self._on_loaded(result, status, now)
        elif action is StationAction.RELEASE:
            self._on_released(result, status, now)
        elif result is not ActionResult.DONE:
            fault = StationFault.FLIP if action is StationAction.FLIP else StationFault.CAPTURE
            self._try_again(
                action, fault.with_detail(result.name.lower()), f"the PLC answered {result.name.lower()}", now
            )
        elif action is StationAction.FLIP:
            self._on_flipped(status, now)
        else:
            self._look_if_ready(now)

    def _on_loaded(self, result: ActionResult, status: StationStatus, now: float) -> None:
        if result is ActionResult.EMPTY:
            self._finish(CellVerdict(NOWHERE, "empty", "the loader has no more cells"), released=False)
        elif result is ActionResult.DONE and status.part_present:
            self._welcome(status, now)
        elif result is ActionResult.DONE:
            self._try_again(
                StationAction.LOAD, StationFault.LOAD.with_detail("nothing"), "the loader has brought nothing", now
            )
        else:
            code, text = (
                StationFault.LOAD.with_detail(result.name.lower()),
                f"the PLC answered {result.name.lower()}",
            )
            self._try_again(StationAction.LOAD, code, text, now)

    def _welcome(self, status: StationStatus, now: float) -> None:
        self._name(status)
        if status.flipper is not FlipperPosition.UPRIGHT:
            self._fault(StationFault.NOT_UPRIGHT, f"the flipper is {status.flipper.name.lower()} after loading")
            self._recover(StationAction.RELEASE, now)
        else:
            self._capture(View.LUG, now)

    def _name(self, status: StationStatus) -> None:
        """Give the cell that lies in the station its id, and open its record."""
        self._loaded_before = status.loaded_total - 1
        self._cell.battery_id = self._last_id = _next_id(self._last_id, status)
        payload = {"trigger_count": status.loaded_total, "encoder_count": 0}
        self._out.append(Record("detected", self._cell.battery_id, None, payload))
        for fault in self._cell.faults:  # of before it had a name
            self._record_fault(fault)

    def _adopt(self, status: StationStatus, now: float) -> None:
        self._name(status)
        self._fault(StationFault.INTERRUPTED, "a cell lay in the station before it was loaded")
        self._give_up(now)

    def _on_flipped(self, status: StationStatus, now: float) -> None:
        if status.flipper is FlipperPosition.INVERTED:
            self._capture(View.CASE, now)
        else:
            where = status.flipper.name.lower()
            self._try_again(
                StationAction.FLIP, StationFault.HALF_FLIP, f"the flipper is {where} after the flip", now
            )

    def _on_released(self, result: ActionResult, status: StationStatus, now: float) -> None:
        if result is ActionResult.DONE and not status.part_present:
            self._leave()
        elif result is ActionResult.DONE:
            self._interrupt(StationFault.NOT_RELEASED, "the cell is still in the station after its release", now)
        else:
            self._interrupt(StationFault.RELEASE_FAILED, f"the PLC answered {result.name.lower()}", now)

    def _follow_flip_by_hand(self, status: StationStatus) -> None:
        pending = self._pending
        if pending is None or status.done_token != pending.token or status.active_token:
            return
        if status.done_result is ActionResult.DONE:
            self._end_flip_by_hand(FlipError.NONE)
        else:
            self._end_flip_by_hand(FlipError.FLIPPER, f"the PLC answered {status.done_result.name.lower()}")

    def _end_flip_by_hand(self, error: FlipError, text: str = "") -> None:
        self._step, self._pending = Step.IDLE, None
        self._out.append(FlipEnded(error, text))

    # ---- looking ----

    def _capture(self, view: View, now: float) -> None:
        self._frame = None
        self._order(_CAPTURE[view], _IMAGE[view], now)

    def _on_frame(self, frame: FrameSeen, now: float) -> None:
        """Takes the one frame that belongs to the order. Any other is of an order of before, or of none."""
        pending = self._pending
        if pending is None or self._step is not _IMAGE[frame.view]:
            return
        if frame.stamp < pending.sent_at - FRAME_TOLERANCE_S:
            self._out.append(CompareClock(frame.view))
            return
        if self._frame is not None:
            self._fault(
                StationFault.FRAME_TWICE, f"the {frame.view.value} camera has delivered two frames for one order"
            )
            return
        self._frame = frame
        self._look_if_ready(now)

    def _look_if_ready(self, now: float) -> None:
        pending, frame, status = self._pending, self._frame, self._status
        if pending is None or not pending.done or frame is None or status is None:
            return
        self._pending = None
        if status.flipper is not _FACING[frame.view]:
            self._fault(StationFault.WRONG_POSITION, f"the flipper is {status.flipper.name.lower()} in the picture")
            self._recover(StationAction.RELEASE, now)
            return
        self._enter(_VERDICT[frame.view], now)
        self._out.append(Look(frame.view, frame.number, self._cell.battery_id))

    def _on_result(self, result: ViewResult, now: float) -> None:
        frame = self._frame
        if frame is None or self._step is not _VERDICT[result.view] or result.number != frame.number:
            return
        cell = self._cell
        cell.views[result.view] = result
        self._out.append(Record("looked", cell.battery_id, result.stamp, _payload(result)))
        cell.code = cell.code or result.code
        problem = self._doubt(result)
        if problem is not None:
            code, text, again = problem
            if again:
                self._try_again(_CAPTURE[result.view], code, text, now)
            else:
                self._fault(code, text)
                self._give_up(now)
        elif result.verdict == "unsure" and cell.looks.get(result.view, 0) < self._recipe.reinspect:
            cell.looks[result.view] = cell.looks.get(result.view, 0) + 1
            self._capture(result.view, now)
        elif result.view is View.LUG and not self._rejected_early(result):
            self._order(StationAction.FLIP, Step.FLIP, now)
        else:
            self._give_up(now)

    def _doubt(self, result: ViewResult) -> tuple[str, str, bool] | None:
        """What keeps a result from being used: code, text, and whether another picture may help."""
        view = result.view.value
        if result.face and result.face != view:
            return StationFault.WRONG_FACE, f"the {view} picture shows the {result.face} side", False
        if result.verdict == "bad_image":
            return (
                StationFault.BAD_IMAGE.with_detail(result.reason or "unknown"),
                f"the {view} picture can't be judged",
                True,
            )
        known = self._cell.code
        if result.code and result.code != known:
            return StationFault.IDENTITY, f"the {view} picture shows cell {result.code}, expected {known}", False
        if not result.code and self._recipe.identity == "required":
            return StationFault.CODE_UNREAD, f"no code can be read in the {view} picture", True
        return None

    def _rejected_early(self, result: ViewResult) -> bool:
        return result.verdict == "defective" and result.kind in self._recipe.early_reject

    # ---- the end of a cell ----

    def _give_up(self, now: float) -> None:
        """Decide with what is known, and release."""
        status, cell = self._status, self._cell
        cell.verdict = fuse(self._recipe, cell.views.values(), cell.faults)
        cell.outlet = cell.verdict.outlet
        payload = {"bin": cell.outlet, "reason": cell.verdict.reason, "text": cell.verdict.text}
        self._out.append(Record("decided", cell.battery_id, None, payload))
        if status is not None and (status.jam or status.active_token):
            self._recover(StationAction.RELEASE, now)
        else:
            self._release(now)

    def _release(self, now: float) -> None:
        cell = self._cell
        assert cell.verdict is not None
        token = self._order(StationAction.RELEASE, Step.RELEASE, now, self._outlets[cell.outlet])
        payload = {"outlet": cell.outlet, "token": token}
        self._out.insert(-2, Record("release_ordered", cell.battery_id, None, payload))

    def _leave(self) -> None:
        cell = self._cell
        assert cell.verdict is not None
        self._out.append(Record("released", cell.battery_id, None, {"outlet": cell.outlet}))
        if cell.outlet not in self._hand_over:
            payload = {"bin": cell.outlet, "reason": cell.verdict.reason}
            self._out.append(Record("disposed", cell.battery_id, None, payload))
        self._finish(cell.verdict, released=True)

    def _vanish(self) -> None:
        """The cell is no longer in the station, and nobody knows where it is."""
        verdict = CellVerdict(NOWHERE, "unaccounted", "the cell has left the station without an order")
        payload = {"bin": NOWHERE, "reason": "unaccounted"}
        self._out.append(Record("disposed", self._cell.battery_id, None, payload))
        self._out.append(Stuck(f"cell {self._cell.battery_id} is gone: look for it around the station"))
        self._finish(verdict, released=False)

    def _finish(self, verdict: CellVerdict, *, released: bool) -> None:
        cell = self._cell
        result = CellResult(
            cell.battery_id,
            verdict,
            dict(cell.views),
            cell.code,
            released,
            sum(cell.tries.values()),
            tuple(fault.reason for fault in cell.faults),
        )
        self._step, self._pending, self._frame = Step.IDLE, None, None
        self._cell = _Cell()
        self._out.append(Finished(result))

    # ---- what goes wrong ----

    def _fault(self, code: str, text: str) -> None:
        fault = Finding(str(code), text)
        self._cell.faults.append(fault)
        if self._cell.battery_id:
            self._record_fault(fault)

    def _record_fault(self, fault: Finding) -> None:
        payload = {"code": fault.reason, "text": fault.text, "step": str(self._step)}
        self._out.append(Record("station_fault", self._cell.battery_id, None, payload))

    def _try_again(self, action: StationAction, code: str, text: str, now: float) -> None:
        """One more try after a fault, if the recipe has one left; else the cell is released."""
        self._fault(code, text)
        name = {StationAction.LOAD: "load", StationAction.FLIP: "flip"}.get(action, "capture")
        tried = self._cell.tries.get(action.name, 0)
        allowed: int = getattr(self._recipe.retries, name)
        again = tried < allowed
        if again:
            self._cell.tries[action.name] = tried + 1
        elif not self._cell.battery_id:
            action = StationAction.NONE
        else:
            action = StationAction.RELEASE
        if name == "capture" and self._status is not None and not self._status.active_token:
            # The PLC has nothing to recover from: only the picture was missing or useless.
            self._after_recovery = action
            self._go_on(now)
        else:
            self._recover(action, now)

    def _interrupt(self, code: str, text: str, now: float) -> None:
        self._fault(code, text)
        self._recover(StationAction.RELEASE if self._cell.battery_id else StationAction.NONE, now)

    def _recover(self, then: StationAction, now: float) -> None:
        """Bring the PLC home, then go on with ``then`` (``NONE``: the inspection is over, no cell was loaded)."""
        self._pending, self._frame = None, None
        self._after_recovery = then
        if self.may_recover:
            self._enter(Step.RECOVER, now)
            self._out.append(Recover())
        else:
            self._stick("it goes home when the line goes on", now)

    def _stick(self, text: str, now: float) -> None:
        """Nothing more is ordered; what lies in the station is there on record, with a fault."""
        self._enter(Step.STUCK, now)
        self._fault(StationFault.STUCK, f"the station stands as it is: {text}")
        self._out.append(Stuck(f"the inspection station stands as it is: {text}"))

    def _look_for_recovery(self, status: StationStatus, now: float) -> None:
        if self._step is Step.STUCK and not self.may_recover:
            return  # whoever has freed it may still have the hands in it
        at_home = status.flipper is not FlipperPosition.BETWEEN
        healthy = not (status.jam or status.emergency_stop or status.watchdog_tripped or status.active_token)
        if at_home and healthy and status.host_time > self._since:
            self._resynchronise(status)
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        status, cell, action = self._status, self._cell, self._after_recovery
        assert status is not None
        if not cell.battery_id and status.part_present:
            self._adopt(status, now)
        elif not cell.battery_id and action is StationAction.LOAD:
            self._order(StationAction.LOAD, Step.LOAD, now)
        elif not cell.battery_id:
            fault = cell.faults[-1]
            self._finish(CellVerdict(NOWHERE, fault.reason, fault.text), released=False)
        elif not status.part_present:
            self._account_for_absence()
        elif action is StationAction.FLIP and status.flipper is FlipperPosition.UPRIGHT:
            self._order(StationAction.FLIP, Step.FLIP, now)
        elif action is StationAction.CAPTURE_LUG:
            self._capture(View.LUG, now)
        elif action is StationAction.CAPTURE_CASE:
            self._capture(View.CASE, now)
        elif cell.verdict is None:
            self._give_up(now)
        else:
            self._give_up_again(now)

    def _give_up_again(self, now: float) -> None:
        """Release once more, by the outlet that the faults since the decision allow."""
        cell = self._cell
        verdict = fuse(self._recipe, cell.views.values(), cell.faults)
        if verdict.outlet != cell.outlet:
            cell.verdict, cell.outlet = verdict, verdict.outlet
            payload = {"bin": cell.outlet, "reason": verdict.reason, "text": verdict.text}
            self._out.append(Record("decided", cell.battery_id, None, payload))
        self._release(now)

    def _account_for_absence(self) -> None:
        """The station is empty: the cell has left by the outlet of a release that was reported late, or is gone."""
        status, cell = self._status, self._cell
        assert status is not None
        late = cell.verdict is not None and status.done_token == self._token
        if late and status.done_result is ActionResult.DONE:
            self._leave()
        else:
            self._vanish()

    def _on_time(self, now: float) -> None:
        times, waited = self._recipe.times, now - self._since
        if self._step is Step.LOAD and waited > times.load_s:
            self._try_again(
                StationAction.LOAD, StationFault.LOAD.with_detail("timeout"), "the loader has not answered", now
            )
        elif self._step is Step.FLIP and waited > times.flip_s:
            self._try_again(
                StationAction.FLIP, StationFault.FLIP.with_detail("timeout"), "the flipper has not answered", now
            )
        elif self._step in {Step.LUG_IMAGE, Step.CASE_IMAGE} and waited > times.capture_s:
            self._on_no_picture(now)
        elif self._step in {Step.LUG_VERDICT, Step.CASE_VERDICT} and waited > times.look_s:
            self._fault(StationFault.NO_VERDICT, "the inspector has not answered")
            self._give_up(now)
        elif self._step is Step.RELEASE and waited > times.release_s:
            self._interrupt(StationFault.RELEASE_TIMEOUT, "the outlet has not answered", now)
        elif self._step is Step.RECOVER and waited > times.recover_s:
            self._stick("it does not come home: hold the line, free it, release its stops, then let it go on", now)
        elif self._step is Step.STUCK and self.may_recover and waited > times.recover_s:
            self._since = now
            self._out.append(Recover())
        elif self._step is Step.FLIP_BY_HAND and waited > times.flip_s:
            self._end_flip_by_hand(FlipError.FLIPPER, "the flipper has not answered")

    def _on_no_picture(self, now: float) -> None:
        view = View.LUG if self._step is Step.LUG_IMAGE else View.CASE
        if self._pending is not None and not self._pending.done:
            self._try_again(
                _CAPTURE[view],
                StationFault.CAPTURE.with_detail("timeout"),
                f"the PLC has not fired the {view.value} camera",
                now,
            )
        else:
            self._out.append(Missed(view))
            self._try_again(_CAPTURE[view], StationFault.NO_FRAME, f"no frame of the {view.value} camera", now)

    # ---- little helpers ----

    def _order(self, action: StationAction, step: Step, now: float, argument: int = 0) -> int:
        self._token = self._token % TOKEN_BITS + 1
        times = self._recipe.times
        expiry_s = {
            StationAction.LOAD: times.load_s,
            StationAction.FLIP: times.flip_s,
            StationAction.RELEASE: times.release_s,
        }.get(action, times.capture_s)
        self._pending = _Pending(self._token, action, now)
        self._enter(step, now)
        self._out.append(StationOrder(StationCommand(self._token, action, argument, round(expiry_s * 1000))))
        return self._token

    def _enter(self, step: Step, now: float) -> None:
        self._step, self._since = step, now
        self._out.append(StepReached(self._cell.battery_id, step))

    def _resynchronise(self, status: StationStatus) -> None:
        """Take the PLC's counts as they are now."""
        if status.boot_id != self._boot_id:
            self._boot_id, self._token = status.boot_id, 0
            if self._cell.battery_id:
                self._loaded_before = status.loaded_total - 1
        self._token = max(self._token, status.done_token, status.active_token)
        self._done_count = status.done_count
        if not self._cell.battery_id:
            self._loaded_before = status.loaded_total

    def _flush(self) -> list[StationDo]:
        out, self._out = self._out, []
        return out


def _next_id(last: str, status: StationStatus) -> str:
    """Id of the cell in the station. One that no loader has brought gets a number behind the last one's."""
    new = make_battery_id(status.boot_id, status.loaded_total)
    base, _, more = last.partition(".")
    return f"{new}.{int(more or 0) + 1}" if base == new else new


def _payload(result: ViewResult) -> dict[str, Any]:
    """What the ledger keeps of a look."""
    return {
        "view": result.view.value,
        "frame": result.number,
        "verdict": result.verdict,
        "reason": result.reason,
        "kind": result.kind,
        "probability": result.probability,
        "kinds": dict(result.kinds),
        "novelty": result.novelty,
        "code": result.code,
        "face": result.face,
        "model": result.model,
        "seconds": result.seconds,
    }
