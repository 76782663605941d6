"""The inspection station: looks at retired cells from both sides and releases each to where it belongs."""

from __future__ import annotations

import time
from typing import Any

from sensor_msgs.msg import Image

from battery_sorting.action import FlipCell, InspectCell
from battery_sorting.core.types import View
from battery_sorting.drivers.registry import find_driver
from battery_sorting.ev.inspection import (
    FLIP_WHILE_BUSY,
    CellResult,
    CompareClock,
    Finished,
    FlipEnded,
    Look,
    Missed,
    StationDo,
    Step,
    StepReached,
)
from battery_sorting.ev.stations.cameras import StationCameras
from battery_sorting.ev.stations.host import Workers
from battery_sorting.ev.stations.looking import SeenView, StationInspector
from battery_sorting.ev.stations.station_ledger import StationLedger
from battery_sorting.ev.stations.station_loop import StationLoop
from battery_sorting.line.paths import image_folder
from battery_sorting.msg import CellAppearance, StationState
from battery_sorting.ros import convert, images, qos
from battery_sorting.ros import station_messages as messages
from battery_sorting.ros.held_publisher import HeldPublisher
from battery_sorting.ros.long_action import LongActionServer, Refusal
from battery_sorting.ros.node import EvNode, run
from battery_sorting.ros.view_keeper import ViewKeeper, annotated_image

STATE_S = 0.2
CLOSE_S = 0.9
_NO_PICTURE_SOON = {Step.IDLE, Step.RELEASE, Step.FLIP_BY_HAND}


class InspectionNode(EvNode):
    """Wires `StationLoop`, `StationCameras` and `StationInspector` to each other, to actions and to topics.

    Nothing is published while it is inactive, but for the state of the station, by which the line sees an emergency
    stop. What was seen of a cell is told when the node is active again.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("inspection", **kwargs)
        images.use_cv_bridge(self.get_logger().warning)
        site, recipe = self.settings.site, self.settings.recipe
        self._workers = workers = Workers(self)
        self._ledger = StationLedger(self, workers, site, self.settings.run_dir)
        plc = _make(site.station_plc, "station_plc")
        self._loop = loop = StationLoop(self, workers, site, recipe, plc, self._ledger, self._on_action)
        devices = {View.LUG: _make(site.cameras.lug, "camera"), View.CASE: _make(site.cameras.case, "camera")}
        self._cameras = cameras = StationCameras(
            self, workers, devices, loop.happened, lambda: loop.step in _NO_PICTURE_SOON
        )
        self._inspector = StationInspector(self, workers, site, recipe, cameras.frame, loop.happened, self._on_view)
        folder = image_folder(site, self.settings.run_dir)
        self._keeper = ViewKeeper(folder, site.images, self.get_logger().error)  # of the inspector's thread
        self._goal: Any = None
        self._flip: Any = None  # the goal to flip by hand
        self._make_interfaces()

    def _make_interfaces(self) -> None:
        publisher = self.create_publisher(CellAppearance, "cell_appearance", qos.BATTERY_EVENT)
        self._appearances = HeldPublisher(publisher, lambda: self.active)
        self._states = self.create_publisher(StationState, "station_state", qos.STATE)
        self._annotated = self.create_publisher(Image, "annotated_image", qos.PREVIEW)
        self._server = LongActionServer(
            self,
            InspectCell,
            "inspect_cell",
            self._why_not_inspect,
            self._on_goal,
            (InspectCell.Result.CANCELLED,),
            lambda _: self._loop.cancel(),
        )
        self._flips = LongActionServer(
            self, FlipCell, "flip_cell", self._why_not_flip, self._on_flip, (), may_cancel=False
        )
        self.create_timer(STATE_S, self._publish_state)

    # ---- life cycle ----

    def open(self) -> None:
        """Loads the models, opens the ledger and the devices, and starts to work."""
        self._inspector.open()
        self._ledger.open()
        self._keeper.open()
        self._loop.open()
        self._cameras.open()
        self._workers.ending.clear()
        for part in (self._loop, self._inspector, self._cameras):
            part.start()

    def close(self) -> None:
        """Stops. A cell in the station stays there; the next start takes it up from the ledger."""
        self._workers.end(CLOSE_S, self._inspector.wake)
        self._loop.close()
        self._cameras.close()
        self._ledger.close()

    def rest(self) -> None:
        """Withdraws what the station has not begun yet; it orders nothing while the node is inactive."""
        self._loop.rest()

    # ---- actions ----

    def _why_not_inspect(self, _: InspectCell.Goal) -> Refusal | None:
        free = "" if self._is_free else "the station is not free"
        text = self._why_not_now() or self._loop.why_not_inspect() or free
        return Refusal(InspectCell.Result.NOT_READY, text) if text else None

    def _why_not_flip(self, _: FlipCell.Goal) -> Refusal | None:
        text = self._why_not_now()
        if text:
            return Refusal(FlipCell.Result.NOT_READY, text)
        return None if self._is_free else Refusal(FlipCell.Result.BUSY, FLIP_WHILE_BUSY)

    def _why_not_now(self) -> str:
        if not self.active:
            return f"the node is {self.lifecycle.name.lower()}: activate it"
        return self._loop.why_not_now()

    @property
    def _is_free(self) -> bool:
        return self._loop.idle and self._goal is None and self._flip is None

    def _on_goal(self, handle: Any) -> None:
        self._goal = handle
        self._loop.inspect(handle.request.code, self._refuse_goal)

    def _refuse_goal(self, text: str) -> None:
        result = InspectCell.Result(error_code=InspectCell.Result.NOT_READY, error_msg=text)
        self._server.finish(self._goal, result, self._forget_goal)

    def _forget_goal(self) -> None:
        self._goal = None

    def _on_flip(self, handle: Any) -> None:
        self._flip = handle
        self._loop.flip_by_hand()

    def _forget_flip(self) -> None:
        self._flip = None

    # ---- what the station does ----

    def _on_action(self, action: StationDo) -> None:
        """By the station's thread."""
        if isinstance(action, CompareClock):
            self._cameras.refused(action.view)
        elif isinstance(action, Missed):
            self._cameras.missed(action.view)
        elif isinstance(action, Look):
            self._inspector.look(action)
        elif isinstance(action, StepReached) and self._goal is not None:
            message = InspectCell.Feedback(battery_id=action.battery_id, step=str(action.step))
            self._server.feedback(self._goal, message)
        elif isinstance(action, Finished):
            self._finish(action.result)
        elif isinstance(action, FlipEnded):
            self._flips.finish(self._flip, messages.flip_result(action, self._loop.status), self._forget_flip)

    def _finish(self, result: CellResult) -> None:
        if result.battery_id:
            self._appearances.publish(convert.fused_message(result, time.time()))
        if self._goal is not None:
            self._server.finish(self._goal, messages.inspection_result(result), self._forget_goal)

    def _on_view(self, seen: SeenView) -> None:
        """By the inspector's thread."""
        self._appearances.publish(convert.appearance_message(seen.battery_id, seen.result))
        if self.active and self._annotated.get_subscription_count():
            self._annotated.publish(annotated_image(seen.overlay(), seen.result.stamp))
        self._keeper.keep(self._ledger.ledger, seen)

    def _publish_state(self) -> None:
        """The line needs it while the node is inactive, too: it tells an emergency stop, and what is stuck."""
        loop, emergency_stop = self._loop, self.emergency.standing
        self._states.publish(
            messages.station_state(loop.status, loop.plc_error, emergency_stop, str(loop.step), loop.battery_id)
        )
        self._appearances.flush()


def _make(device: Any, kind: str) -> Any:
    return find_driver(kind, device.driver).from_settings(device.settings)


def main() -> None:
    """Entry point."""
    run(InspectionNode)
