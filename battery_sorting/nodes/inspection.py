"""The inspection station: looks at retired cells from both sides and releases each to where it belongs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from battery_sorting.action import FlipBattery, InspectBattery
from battery_sorting.core.backlog import Backlog
from battery_sorting.core.errors import (
    BatterySortingError,
    DeviceError,
    DeviceTimeoutError,
    FrameError,
    LedgerError,
)
from battery_sorting.core.ev.inspection import (
    CellResult,
    Finished,
    Inspection,
    Look,
    Order,
    Progress,
    Recover,
    StationDo,
    Stuck,
)
from battery_sorting.core.ev.results import error_code, error_text
from battery_sorting.core.ev.types import FrameSeen, StationStatus, View, ViewResult
from battery_sorting.core.ledger import EventKind, ImageStore, Ledger
from battery_sorting.core.line import Record
from battery_sorting.core.paths import image_folder, ledger_location
from battery_sorting.core.types import make_battery_id
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.station_plc.base import StationPlc
from battery_sorting.msg import CellAppearance
from battery_sorting.msg import StationState as StationStateMessage
from battery_sorting.ros import convert, qos
from battery_sorting.ros.long_action import LongActionServer
from battery_sorting.ros.node import EvNode, run
from battery_sorting.ros.pictures import file_picture
from battery_sorting.vision.inspector import DefectInspector

POLL_S = 0.02
READ_S = 0.2
RECONNECT_S = 0.5
STATE_S = 0.2
FRAMES_KEPT = 3


@dataclass(frozen=True, slots=True)
class _Call:
    """Something that another thread wants to be done by the thread of the station."""

    work: Callable[[], None]


class InspectionStation(EvNode):
    """Wires PLC, cameras and inspector to `core.ev.inspection`.

    One thread owns the PLC and the machine: all that happens is handed to it by a queue. What the machine decides
    is in the ledger before it is sent.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("inspection", **kwargs)
        site = self.settings.site
        self._plc: StationPlc = _make(site.station_plc, "station_plc")
        self._cameras: dict[View, TriggeredCamera] = {
            View.LUG: _make(site.cameras.lug, "camera"),
            View.CASE: _make(site.cameras.case, "camera"),
        }
        self._inspectors: dict[View, DefectInspector] = {}
        self._store = ImageStore(image_folder(site, self.settings.run_dir))
        self._ledger: Ledger | None = None
        self._backlog: Backlog | None = None
        self._machine = self._new_machine("")
        self._inbox: queue.SimpleQueue[StationStatus | FrameSeen | ViewResult | _Call] = queue.SimpleQueue()
        self._looks: queue.SimpleQueue[tuple[Look, str] | None] = queue.SimpleQueue()
        self._frames: dict[View, dict[int, Frame]] = {view: {} for view in View}
        self._status: StationStatus | None = None
        self._plc_error = "not connected yet"
        self._resumed = False
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._goal: Any = None
        self._flipping: tuple[Any, int, float] | None = None  # goal, token, until when
        self._make_interfaces()

    def _make_interfaces(self) -> None:
        self._appearances = self.create_publisher(CellAppearance, "appearance", qos.BATTERY_EVENT)
        self._states = self.create_publisher(StationStateMessage, "station_state", qos.STATE)
        self._annotated = self.create_publisher(Image, "annotated_image", qos.PREVIEW)
        self._server = LongActionServer(
            self, InspectBattery, "inspect_battery", self._may_begin, self._on_goal, self._on_cancel
        )
        self._flips = LongActionServer(self, FlipBattery, "flip_battery", self._may_flip, self._on_flip)
        self.create_timer(STATE_S, self._publish_state)

    def _new_machine(self, last_battery_id: str) -> Inspection:
        site = self.settings.site
        outlets = {outlet.name: outlet.number for outlet in site.outlets}
        return Inspection(self.settings.recipe, outlets, frozenset(site.hand_over), last_battery_id)

    # ---- life cycle ----

    def open(self) -> None:
        """Loads the models, opens the ledger and the devices, and starts to work."""
        site, views = self.settings.site, self.settings.recipe.views
        for view, rules in ((View.LUG, views.lug), (View.CASE, views.case)):
            folder = site.model_directory(view.value)
            self._inspectors[view] = DefectInspector.load(folder, rules.threshold)
            self._inspectors[view].warm_up()
        self._ledger = Ledger.open(ledger_location(site, self.settings.run_dir))
        self._backlog = Backlog(self._ledger, self.get_logger().error)
        self._store.folder.mkdir(parents=True, exist_ok=True)
        last = self._ledger.last_ids(site.line, 1)
        self._machine = self._new_machine(last[0] if last else "")
        self._resumed = False
        for device in (self._plc, *self._cameras.values()):
            device.connect()
        self._stop.clear()
        self._threads = [
            self.start_thread("station", self._run_station),
            self.start_thread("look", self._look),
            *(self.start_thread(f"{view.value} camera", self._reader(view)) for view in View),
        ]

    def close(self) -> None:
        """Stops. A cell in the station stays there; the next start takes it up from the ledger."""
        self._stop.set()
        self._looks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(2 * READ_S + RECONNECT_S)
        self._threads = []
        for device in (self._plc, *self._cameras.values()):
            device.disconnect()
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    # ---- the station's thread ----

    def _run_station(self) -> None:
        poll_at = time.monotonic()
        while not self._stop.is_set():
            try:
                event = self._inbox.get(timeout=max(0.0, poll_at - time.monotonic()))
            except queue.Empty:
                poll_at = time.monotonic() + POLL_S
                self._poll()
                continue
            if isinstance(event, _Call):
                event.work()
            else:
                self._perform(self._machine.handle(event, time.time()))

    def _poll(self) -> None:
        try:
            if not self._plc.connected:
                self._plc.connect()
            self._plc.refresh_watchdog()
            status = self._plc.read_status()
        except DeviceError as error:
            if not self._stop.is_set():
                self._plc_error = str(error)
                self.degrade(error)
                self._perform(self._machine.tick(time.time()))
                self._stop.wait(0 if isinstance(error, DeviceTimeoutError) else RECONNECT_S)
            return
        self._plc_error = ""
        self._status = status
        self.recover()
        if not self._resumed and not (status.emergency_stop or status.active_token):
            self._resume()
            self._resumed = True
        self._perform(self._machine.handle(status, time.time()))
        self._follow_flip(status)

    def _resume(self) -> None:
        """Takes up the cell that lay in the station when the last run was cut off."""
        assert self._ledger is not None and self._status is not None
        self._ledger.join_shift(self.settings.site.line)
        for battery in self._ledger.open_batteries(self.settings.site.line):
            events = self._ledger.events(battery_id=battery.battery_id)
            if any(event.kind is EventKind.RELEASED for event in events):
                continue
            orders = [event.payload for event in events if event.kind is EventKind.RELEASE_ORDERED]
            outlet, token = (orders[-1]["outlet"], orders[-1]["token"]) if orders else ("", 0)
            same_boot = battery.battery_id.startswith(make_battery_id(self._status.boot_id, 0)[:-6])
            self.get_logger().warning(f"taking up cell {battery.battery_id}, whose inspection was cut off")
            self._machine.handle(self._status, time.time())
            self._perform(self._machine.resume(battery.battery_id, outlet, token if same_boot else 0, time.time()))

    def _perform(self, actions: list[StationDo]) -> None:
        """Carries out what was decided, the records first. Without its record nothing is moved."""
        records = [action for action in actions if isinstance(action, Record)]
        if records and not self._write(records):
            return
        for action in actions:
            if isinstance(action, (Order, Recover)):
                self._send(action)
            elif isinstance(action, Look):
                self._looks.put((action, self._machine.battery_id))
            elif isinstance(action, Progress):
                self._on_progress(action)
            elif isinstance(action, Stuck):
                self.get_logger().error(action.text)
                self.warning = action.text
            elif isinstance(action, Finished):
                self.warning = ""
                self._publish_fused(action.result)
                self._deliver(action.result)

    def _send(self, action: Order | Recover) -> None:
        """An order that does not reach the PLC is missed by the machine, which then knows what to do."""
        try:
            if isinstance(action, Order):
                self._plc.send(action.command)
            else:
                self._plc.reset_faults()
        except DeviceError as error:
            self.get_logger().error(str(error))

    def _write(self, records: list[Record]) -> bool:
        """Writes records; waits until the ledger takes them. False: the node ends before it does."""
        backlog = self._backlog
        while backlog is not None and not self._stop.is_set():
            backlog.write(records)
            if not len(backlog):
                return True
            records = []
            self.degrade(backlog.problem)
            self._stop.wait(RECONNECT_S)
            try:  # the station stands, and that is no fault of the PLC
                self._plc.refresh_watchdog()
            except DeviceError as error:
                self.get_logger().error(str(error))
        return False

    # ---- cameras and inspector ----

    def _reader(self, view: View) -> Callable[[], None]:
        def read() -> None:
            camera = self._cameras[view]
            while not self._stop.is_set():
                try:
                    if not camera.connected:
                        camera.connect()
                    self._on_frame(view, camera.read(READ_S))
                except FrameError as error:
                    self.get_logger().warning(f"{view.value} camera: {error}")
                except DeviceTimeoutError:
                    pass
                except DeviceError as error:
                    if not self._stop.is_set():
                        self.get_logger().error(f"{view.value} camera: {error}")
                        self._stop.wait(RECONNECT_S)

        return read

    def _on_frame(self, view: View, frame: Frame) -> None:
        kept = self._frames[view]
        kept[frame.frame_number] = frame
        while len(kept) > FRAMES_KEPT:
            del kept[next(iter(kept))]
        self._inbox.put(FrameSeen(view, frame.stamp, frame.frame_number))

    def _look(self) -> None:
        """The inspector's thread."""
        while not self._stop.is_set():
            task = self._looks.get()
            if task is None:
                return
            look, battery_id = task
            frame = self._frames[look.view].get(look.number)
            if frame is not None:
                self._judge(look, frame, battery_id)

    def _judge(self, look: Look, frame: Frame, battery_id: str) -> None:
        """Looks at a frame and hands over the verdict; what needs nobody to wait for it comes after that."""
        began = time.perf_counter()
        try:
            pixels = self._region(look.view, frame_pixels(frame))
            seen = self._inspectors[look.view].inspect(pixels)
        except BatterySortingError as error:
            self.get_logger().warning(f"{look.view.value} view of {battery_id}: {error}")
            self._inbox.put(ViewResult(look.view, look.number, frame.stamp, "bad_image", error.code))
            return
        result = ViewResult(
            look.view,
            look.number,
            frame.stamp,
            seen.verdict,
            seen.reason,
            seen.kind,
            seen.probability,
            dict(seen.kinds),
            seen.novelty,
            seen.code,
            seen.face,
            self._inspectors[look.view].name,
            time.perf_counter() - began,
        )
        self._inbox.put(result)
        self._appearances.publish(convert.appearance_message(battery_id, result))
        if self._annotated.get_subscription_count():
            self._publish_annotated(self._inspectors[look.view].overlay(pixels, seen), frame.stamp)
        self._keep(battery_id, look.view, frame.stamp, pixels, seen.verdict)

    def _region(self, view: View, pixels: np.ndarray) -> np.ndarray:
        """The part of the image that the recipe wants to be looked at."""
        views = self.settings.recipe.views
        region = (views.lug if view is View.LUG else views.case).region
        if region is None:
            return pixels
        x, y, width, height = region
        if x < 0 or y < 0 or x + width > pixels.shape[1] or y + height > pixels.shape[0]:
            size = f"{pixels.shape[1]}×{pixels.shape[0]}"
            raise FrameError(f"views.{view.value}.region {list(region)} does not fit into a frame of {size}")
        return pixels[y : y + height, x : x + width]

    def _publish_annotated(self, picture: np.ndarray, stamp: float) -> None:
        height, width = picture.shape[:2]
        frame = Frame(0, 0, stamp, width, height, "bgr8", 3 * width, np.ascontiguousarray(picture).tobytes())
        self._annotated.publish(convert.image_message(frame))

    def _keep(self, battery_id: str, view: View, stamp: float, pixels: np.ndarray, verdict: str) -> None:
        """Files the picture, as the site wants it. A picture that can't be kept does not stop the cell."""
        images, ledger = self.settings.site.images, self._ledger
        if ledger is None or images.keep == "none" or (images.keep == "rejected" and verdict == "good"):
            return
        try:
            eight_bit = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
            file_picture(self._store, ledger, battery_id, eight_bit, images.quality, stamp, view.value)
        except LedgerError as error:
            self.get_logger().error(str(error))

    # ---- the action ----

    def _may_begin(self, _: InspectBattery.Goal) -> bool:
        status = self._status
        free = self._goal is None and self._flipping is None and self._machine.idle
        ready = self.active and free and status is not None and self._resumed
        if not ready or self._plc_error:
            self.get_logger().warning(f"inspection refused: {self._plc_error or 'the station is not free'}")
            return False
        return True

    def _on_goal(self, handle: Any) -> None:
        self._goal = handle
        code = handle.request.code
        self._inbox.put(_Call(lambda: self._begin(code)))

    def _begin(self, code: str) -> None:
        text = ""
        if not self._machine.idle:  # since the goal was taken, the cell of a run that was cut off came up
            text = "the station is not free"
        elif self._ledger is not None and self._ledger.join_shift(self.settings.site.line) is None:
            text = "no shift is open: the line controller has not begun one"
        if text:
            result = InspectBattery.Result(error_code=InspectBattery.Result.NOT_READY, error_msg=text)
            self._server.finish(self._goal, result, self._forget_goal)
            return
        self._perform(self._machine.begin(time.time(), code))

    def _on_cancel(self, _: Any) -> None:
        self._inbox.put(_Call(lambda: self._perform(self._machine.cancel(time.time()))))

    def _on_progress(self, progress: Progress) -> None:
        goal = self._goal
        if goal is not None:
            message = InspectBattery.Feedback(battery_id=progress.battery_id, step=str(progress.step))
            self._server.feedback(goal, message)

    def _deliver(self, result: CellResult) -> None:
        """Hands out the result of the cell that has been inspected."""
        goal = self._goal
        if goal is not None:
            self._server.finish(goal, _result_message(result), self._forget_goal)

    def _forget_goal(self) -> None:
        self._goal = None

    def _publish_fused(self, result: CellResult) -> None:
        if result.battery_id:
            self._appearances.publish(convert.fused_message(result, time.time()))

    # ---- by hand ----

    def _may_flip(self, _: FlipBattery.Goal) -> bool:
        free = self.active and self._machine.idle and self._goal is None and self._flipping is None
        return free and self._status is not None

    def _on_flip(self, handle: Any) -> None:
        self._flipping = (handle, 0, float("inf"))
        self._inbox.put(_Call(lambda: self._begin_flip(handle)))

    def _begin_flip(self, handle: Any) -> None:
        if not self._machine.idle:  # since the goal was taken, a cell of before came up
            self._end_flip(handle, FlipBattery.Result.BUSY, "a cell is being inspected: hold the line first")
            return
        command = self._machine.flip_by_hand()
        self._flipping = (handle, command.token, time.monotonic() + self.settings.recipe.times.flip_s)
        self._send(Order(command))

    def _follow_flip(self, status: StationStatus) -> None:
        if self._flipping is None:
            return
        handle, token, until = self._flipping
        if token and status.done_token == token and not status.active_token:
            done = status.done_result.name.lower()
            code = FlipBattery.Result.NONE if done == "done" else FlipBattery.Result.FLIPPER
            self._end_flip(handle, code, "" if done == "done" else f"the PLC answered {done}")
        elif time.monotonic() > until:
            self._end_flip(handle, FlipBattery.Result.FLIPPER, "the flipper has not answered")

    def _end_flip(self, handle: Any, code: int, text: str) -> None:
        position = self._status.flipper.name.lower() if self._status is not None else ""
        self._flipping = (handle, 0, float("inf"))  # it is over, but the next one must wait until it is told
        result = FlipBattery.Result(success=not code, error_code=code, error_msg=text, position=position)
        self._flips.finish(handle, result, self._forget_flip)

    def _forget_flip(self) -> None:
        self._flipping = None

    # ---- what others see ----

    def _publish_state(self) -> None:
        status = self._status
        message = StationStateMessage(
            header=convert.header(time.time() if status is None else status.host_time, "station"),
            connected=not self._plc_error,
            step=str(self._machine.step),
            battery_id=self._machine.battery_id,
            error=self._plc_error,
        )
        if status is not None:
            message.emergency_stop = status.emergency_stop
            message.watchdog_tripped = status.watchdog_tripped
            message.jam = status.jam
            message.part_present = status.part_present
            message.flipper = status.flipper.name.lower()
            message.boot_id = status.boot_id
            message.loaded_total = status.loaded_total
        self._states.publish(message)


def _make(device: Any, kind: str) -> Any:
    return find_driver(kind, device.driver).from_settings(device.settings)


def _result_message(result: CellResult) -> InspectBattery.Result:
    return InspectBattery.Result(
        success=result.released and not result.faults,
        error_code=error_code(result),
        error_msg=error_text(result),
        num_retries=result.retries,
        battery_id=result.battery_id,
        code=result.code,
        outlet=result.verdict.outlet,
        reason=result.verdict.reason,
        released=result.released,
        faults=list(result.faults),
        views=[convert.appearance_message(result.battery_id, view) for view in result.views.values()],
    )


def frame_pixels(frame: Frame) -> np.ndarray:
    """Pixels of a camera frame: (height, width, 3) BGR or (height, width), uint8 or uint16.

    Raises:
        FrameError: The encoding is unknown, or the data don't fit the sizes.
    """
    layouts = {"bgr8": (np.uint8, 3), "rgb8": (np.uint8, 3), "mono8": (np.uint8, 1), "mono16": (np.uint16, 1)}
    if frame.encoding not in layouts:
        raise FrameError(f"encoding {frame.encoding!r} can't be used: set the camera to {', '.join(layouts)}")
    kind, channels = layouts[frame.encoding]
    row = frame.width * channels * np.dtype(kind).itemsize
    if frame.step < row or len(frame.data) != frame.step * frame.height:
        raise FrameError(f"frame of {frame.width}×{frame.height} {frame.encoding} has {len(frame.data)} bytes")
    rows = np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(kind).reshape(frame.height, frame.width, channels)
    if frame.encoding == "rgb8":
        pixels = pixels[..., ::-1]
    return pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels)


def main() -> None:
    """Entry point."""
    run(InspectionStation)
