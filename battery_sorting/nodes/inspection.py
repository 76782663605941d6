"""The inspection station: looks at retired cells from both sides and releases each to where it belongs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from battery_sorting.action import FlipCell, InspectCell
from battery_sorting.core.errors import (
    BatterySortingError,
    DeviceBusyError,
    DeviceError,
    DeviceTimeoutError,
    FrameError,
    LedgerError,
)
from battery_sorting.core.types import LineStateId, View, make_battery_id
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.station_plc.base import StationPlc, StationStatus
from battery_sorting.ev.camera_clock import CameraClock
from battery_sorting.ev.inspection import (
    CellResult,
    CompareClock,
    Finished,
    Inspection,
    Look,
    Missed,
    Recover,
    StationDo,
    StationOrder,
    Step,
    StepReached,
    Stuck,
)
from battery_sorting.ev.results import error_code, error_text
from battery_sorting.ev.types import FrameSeen, ViewResult
from battery_sorting.ev.unit import STARTED
from battery_sorting.ledger import Record
from battery_sorting.ledger.backlog import Backlog
from battery_sorting.ledger.events import Released, ReleaseOrdered
from battery_sorting.ledger.store import ImageStore, Ledger
from battery_sorting.line.paths import image_folder, ledger_location
from battery_sorting.msg import CellAppearance
from battery_sorting.msg import StationState as StationStateMessage
from battery_sorting.ros import convert, images, qos
from battery_sorting.ros.long_action import LongActionServer, Refusal
from battery_sorting.ros.node import EvNode, run
from battery_sorting.ros.pictures import PictureQueue, file_picture
from battery_sorting.vision.encodings import bgr_or_grey
from battery_sorting.vision.framing import CameraDepth
from battery_sorting.vision.inspector import DefectInspector

POLL_S = 0.02
READ_S = 0.2
RECONNECT_S = 0.5
STATE_S = 0.2
READ_AGAIN_S = 1.0
"""Between two looks whether a ledger that could not be read can be read again."""
LEDGER_S = 0.1
"""Between two tries to write what the ledger does not take: the PLC's watchdog waits 0.5 s for a sign of life."""
FRAMES_KEPT = 3
_NO_PICTURE_SOON = {Step.IDLE, Step.RELEASE}


@dataclass(frozen=True, slots=True)
class _Call:
    """Something that another thread wants to be done by the thread of the station.

    Attributes:
        work: Does it.
        withdraw: Is called instead where the node was deactivated since: an order of before is of the past then.
            None: it is done all the same.
        rests: How often the node had been deactivated when it was asked for.
    """

    work: Callable[[], None]
    withdraw: Callable[[], None] | None
    rests: int


class InspectionNode(EvNode):
    """Wires PLC, cameras and inspector to `ev.inspection`.

    One thread owns the PLC and the machine: all that happens is handed to it by a queue. What the machine decides
    is in the ledger before it is sent.

    Nothing is begun, and no cell of before taken up, unless the line is started. What has begun is brought to its
    end even if the line is halted, but not while the node is inactive: then the machine rests, and goes on later.
    If something goes wrong on the way, a halted line's station stands as it is until the line goes on.
    What was ordered and had not begun by then is withdrawn.

    The machine waits for devices alone, so its time is the host's monotonic clock, as that of statuses and frames.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("inspection", **kwargs)
        images.use_cv_bridge(self.get_logger().warning)
        site = self.settings.site
        self._plc: StationPlc = _make(site.station_plc, "station_plc")
        self._cameras: dict[View, TriggeredCamera] = {
            View.LUG: _make(site.cameras.lug, "camera"),
            View.CASE: _make(site.cameras.case, "camera"),
        }
        self._inspectors: dict[View, DefectInspector] = {}
        self._pictures = PictureQueue()  # of the inspector's thread
        self._store = ImageStore(image_folder(site, self.settings.run_dir))
        self._ledger: Ledger | None = None
        self._backlog: Backlog | None = None
        self._machine = self._new_machine("")
        self._inbox: queue.SimpleQueue[StationStatus | FrameSeen | ViewResult | _Call] = queue.SimpleQueue()
        self._looks: queue.SimpleQueue[tuple[Look, str] | None] = queue.SimpleQueue()
        self._frames: dict[View, dict[int, Frame]] = {view: {} for view in View}
        self._clocks = {view: CameraClock() for view in View}
        self._depths = {view: CameraDepth() for view in View}  # of the inspector's thread
        self._status: StationStatus | None = None
        self._plc_error = "not connected yet"
        self._resumed = False
        self._unread = ""  # why the ledger could not be read
        self._read_again_at = 0.0
        self._reset_at = 0.0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._rests = 0  # how often the node was deactivated
        self._goal: Any = None
        self._flipping: tuple[Any, int, float] | None = None  # goal, token, until when
        self._make_interfaces()

    def _make_interfaces(self) -> None:
        self._appearances = self.create_publisher(CellAppearance, "cell_appearance", qos.BATTERY_EVENT)
        self._states = self.create_publisher(StationStateMessage, "station_state", qos.STATE)
        self._annotated = self.create_publisher(Image, "annotated_image", qos.PREVIEW)
        self._server = LongActionServer(
            self,
            InspectCell,
            "inspect_cell",
            self._why_not_inspect,
            self._on_goal,
            (InspectCell.Result.CANCELLED,),
            self._on_cancel,
        )
        self._flips = LongActionServer(
            self, FlipCell, "flip_cell", self._why_not_flip, self._on_flip, (), may_cancel=False
        )
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
        self._resumed, self._unread = False, ""
        self._plc.connect()
        for view in View:
            self._connect_camera(view)
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

    def rest(self) -> None:
        """Withdraws what the station's thread has not begun yet. It orders nothing while the node is inactive."""
        self._rests += 1

    # ---- the station's thread ----

    def _later(self, work: Callable[[], None], withdraw: Callable[[], None] | None = None) -> None:
        """Lets the station's thread do something; ``withdraw`` instead, if the node is deactivated before."""
        self._inbox.put(_Call(work, withdraw, self._rests))

    def _is_withdrawn(self, event: Any) -> bool:
        return isinstance(event, _Call) and event.withdraw is not None and event.rests != self._rests

    def _run_station(self) -> None:
        poll_at = time.monotonic()
        while not self._stop.is_set():
            try:
                event = self._inbox.get(timeout=max(0.0, poll_at - time.monotonic()))
            except queue.Empty:
                poll_at = time.monotonic() + POLL_S
                self._poll()
                continue
            while not (self.active or self._is_withdrawn(event) or self._stop.wait(POLL_S)):
                self._poll()  # what has come in is looked at when the node is active again
            if self._stop.is_set():
                return
            if not isinstance(event, _Call):
                self._handle(event)
            elif event.withdraw is not None and self._is_withdrawn(event):
                event.withdraw()
            else:
                event.work()

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
                if self.active:
                    self._machine.may_recover = self._line_is_started
                    self._perform(self._machine.tick(time.monotonic()))
                self._stop.wait(0 if isinstance(error, (DeviceTimeoutError, DeviceBusyError)) else RECONNECT_S)
            return
        self._plc_error = ""
        self.see_emergency_stop(status.emergency_stop)
        self._reset_when_cleared(status)
        if not self.emergency.may_move:
            # For the machine it is pressed until a person has started the line again: nothing goes home by itself.
            status = replace(status, emergency_stop=True)
        self._status = status
        self._look_at_ledger()
        if not self._resumed and self._line_is_started and not (status.emergency_stop or status.active_token):
            self._resume()
        if self.active:
            self._handle(status)
        self._follow_flip(status)

    def _handle(self, event: StationStatus | FrameSeen | ViewResult) -> None:
        self._machine.may_recover = self._line_is_started
        self._perform(self._machine.handle(event, time.monotonic()))

    @property
    def _line_is_started(self) -> bool:
        """Whether the station may begin something. A person who has halted the line may have his hands in it."""
        return self.active and not self.line_is_silent and self.line_state in STARTED

    def _reset_when_cleared(self, status: StationStatus) -> None:
        """The PLC's emergency stop stands until it is reset; that is done when a person clears the line.

        The flipper goes home by that. The cell stays where it is until the line is started.
        """
        cleared = status.emergency_stop and self.line_state is LineStateId.CLEARING
        if not cleared or time.monotonic() < self._reset_at:
            return
        self._reset_at = time.monotonic() + RECONNECT_S
        try:
            self._plc.reset_faults()
        except DeviceError as error:
            self.get_logger().error(str(error))

    def _look_at_ledger(self) -> None:
        """All is well with the station; and with the ledger, if its file is where it was."""
        try:
            if self._ledger is not None:
                self._ledger.check_file()
                if self._unread and time.monotonic() >= self._read_again_at:
                    self._join_shift()
        except LedgerError as error:
            self.degrade(error)
            return
        if self._unread:
            self.degrade(self._unread)
        else:
            self.recover()

    def _join_shift(self) -> int | None:
        """The shift that is written into, None if there is none; and whether the ledger can be read.

        Raises:
            LedgerError: It can't. The line hears it by the heartbeat until it can.
        """
        assert self._ledger is not None
        try:
            shift_id = self._ledger.join_shift(self.settings.site.line)
        except LedgerError as error:
            self._miss_ledger(error)
            raise
        self._unread = ""
        return shift_id

    def _miss_ledger(self, error: LedgerError) -> None:
        self._unread, self._read_again_at = str(error), time.monotonic() + READ_AGAIN_S
        self.degrade(error)

    def _resume(self) -> None:
        """Takes up the cell that lay in the station when the last run was cut off; later, if the ledger is away."""
        assert self._status is not None
        if time.monotonic() < self._read_again_at:
            return
        try:
            cut_off = self._cut_off()
        except LedgerError as error:
            self._miss_ledger(error)
            return
        self._resumed, self._machine.may_recover = True, self._line_is_started
        for battery_id, outlet, token in cut_off:
            same_boot = battery_id.startswith(make_battery_id(self._status.boot_id, 0)[:-6])
            self.get_logger().warning(f"taking up cell {battery_id}, whose inspection was cut off")
            now = time.monotonic()
            self._machine.handle(self._status, now)
            self._perform(self._machine.resume(battery_id, outlet, token if same_boot else 0, now))

    def _cut_off(self) -> list[tuple[str, str, int]]:
        """Cells that were loaded and not released: id, and outlet and token of the order to release it, if any."""
        assert self._ledger is not None
        self._join_shift()
        found = []
        for battery in self._ledger.open_batteries(self.settings.site.line):
            events = self._ledger.events(battery_id=battery.battery_id, kinds=(Released, ReleaseOrdered))
            if not any(isinstance(event.data, Released) for event in events):
                orders = [event.data for event in events if isinstance(event.data, ReleaseOrdered)]
                outlet, token = (orders[-1].outlet, orders[-1].token) if orders else ("", 0)
                found.append((battery.battery_id, outlet, token))
        return found

    def _perform(self, actions: list[StationDo]) -> None:
        """Carries out what was decided, the records first. Without its record nothing is moved."""
        records = [action for action in actions if isinstance(action, Record)]
        if records and not self._write(records):
            return
        for action in actions:
            if isinstance(action, (StationOrder, Recover)):
                self._send(action)
            elif isinstance(action, CompareClock):
                self._clocks[action.view].refused()
            elif isinstance(action, Missed):
                self._clocks[action.view].missed()
            elif isinstance(action, Look):
                self._looks.put((action, self._machine.battery_id))
            elif isinstance(action, StepReached):
                self._on_progress(action)
            elif isinstance(action, Stuck):
                self.get_logger().error(action.text)
                self.warning = action.text
            elif isinstance(action, Finished):
                self.warning = ""
                self._publish_fused(action.result)
                self._deliver(action.result)

    def _send(self, action: StationOrder | Recover) -> None:
        """An order that does not reach the PLC is missed by the machine, which then knows what to do."""
        try:
            if not (self.active and self.emergency.may_move):
                return  # the machine asks again
            self._plc.refresh_watchdog()  # an order takes two requests, and the next sign of life comes after them
            if isinstance(action, StationOrder):
                self._plc.send(action.command)
                return
            if not self._line_is_started:  # its record may have waited long for the ledger
                return
            # An emergency stop since the last look, of a moment, must not be gone with what is acknowledged here.
            self.see_emergency_stop(self._plc.read_status().emergency_stop)
            if self.emergency.may_move:
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
            self._stop.wait(LEDGER_S)
            try:  # the station stands, and that is no fault of the PLC
                if self._plc.connected:
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
                        self._connect_camera(view)
                    self._on_frame(view, camera.read(READ_S))
                except FrameError as error:
                    self.get_logger().warning(f"{view.value} camera: {error}")
                except DeviceTimeoutError:
                    self._on_no_frame(view)
                except DeviceError as error:
                    if not self._stop.is_set():
                        self.get_logger().error(f"{view.value} camera: {error}")
                        self._stop.wait(RECONNECT_S)

        return read

    def _connect_camera(self, view: View) -> None:
        """Connects a camera, which compares its clock with ours."""
        self._cameras[view].connect()
        self._clocks[view].compared(time.monotonic())

    def _on_no_frame(self, view: View) -> None:
        """Nothing is under way, so no picture is lost if the clocks are compared now."""
        clock = self._clocks[view]
        doubt = clock.doubt()
        if doubt:
            self.get_logger().warning(f"{view.value} camera: {doubt}: connecting anew, which compares the clocks")
            self._cameras[view].disconnect()
        elif clock.is_outdated(time.monotonic()) and self._machine.step in _NO_PICTURE_SOON:
            self._cameras[view].disconnect()

    def _on_frame(self, view: View, frame: Frame) -> None:
        now = time.monotonic()
        age_s = now - frame.exposed_at
        if self._clocks[view].frame(age_s, now):
            self.get_logger().warning(
                f"{view.value} camera: a frame seems {age_s:.2f} s old: connecting anew, to compare the clocks"
            )
            self._cameras[view].disconnect()
        kept = self._frames[view]
        kept[frame.frame_number] = frame
        while len(kept) > FRAMES_KEPT:
            del kept[next(iter(kept))]
        self._inbox.put(FrameSeen(view, frame.exposed_at, frame.frame_number))

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

    def _eight_bits(self, view: View, frame: Frame) -> np.ndarray:
        """Pixels of a frame; how many bits its camera uses is said where it had to be found out."""
        depth = self._depths[view]
        before = depth.bits
        pixels = depth.eight_bits(bgr_or_grey(frame.data, frame.encoding, frame.height, frame.width, frame.step))
        if depth.bits != before:
            self.get_logger().warning(
                f"{view.value} camera sends {frame.encoding}, which doesn't say how many bits are used: taken as "
                f"{depth.bits}; better let its driver say mono10, mono12 or mono14"
            )
        return pixels

    def _judge(self, look: Look, frame: Frame, battery_id: str) -> None:
        """Looks at a frame and hands over the verdict; what needs nobody to wait for it comes after that."""
        began = time.perf_counter()
        try:
            pixels = self._region(look.view, self._eight_bits(look.view, frame))
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
        self._annotated.publish(images.image_message(frame))

    def _keep(self, battery_id: str, view: View, stamp: float, pixels: np.ndarray, verdict: str) -> None:
        """Files the picture, as the site wants it. A picture that can't be kept does not stop the cell."""
        images, ledger = self.settings.site.images, self._ledger
        if ledger is None or images.keep == "none" or (images.keep == "rejected" and verdict == "good"):
            return
        self._pictures.add(
            lambda: file_picture(self._store, ledger, battery_id, pixels, images.quality, stamp, view.value)
        )
        try:
            self._pictures.file()
        except LedgerError as error:
            self.get_logger().error(str(error))

    # ---- the action ----

    def _why_not_inspect(self, _: InspectCell.Goal) -> Refusal | None:
        text = self._why_not_now()
        if not text and not self._line_is_started:
            text = f"the line is {self.line_state}: start it"
            if self.line_is_silent:
                text = "the line controller is not heard: start the line"
        if not text and not self._resumed:
            text = "the ledger was not asked yet for a cell that a run before has left in the station"
        if not text and not self._is_free:
            text = "the station is not free"
        return Refusal(InspectCell.Result.NOT_READY, text) if text else None

    def _why_not_now(self) -> str:
        """What keeps the station from taking any goal; empty if nothing does."""
        if not self.active:
            return f"the node is {self.lifecycle.name.lower()}: activate it"
        if self._plc_error or self._status is None:
            return f"the station's PLC: {self._plc_error or 'no answer yet'}"
        if not self.emergency.may_move:
            return (
                "the station's emergency stop is pressed, or was: release it, then clear, reset and start the line"
            )
        return ""

    @property
    def _is_free(self) -> bool:
        return self._machine.idle and self._goal is None and self._flipping is None

    def _on_goal(self, handle: Any) -> None:
        self._goal = handle
        code = handle.request.code
        self._later(lambda: self._begin(code), lambda: self._refuse_goal("the station's node was deactivated"))

    def _begin(self, code: str) -> None:
        text = self._why_not_begin()
        if text:
            self._refuse_goal(text)
            return
        self._perform(self._machine.begin(time.monotonic(), code))

    def _refuse_goal(self, text: str) -> None:
        result = InspectCell.Result(error_code=InspectCell.Result.NOT_READY, error_msg=text)
        self._server.finish(self._goal, result, self._forget_goal)

    def _why_not_begin(self) -> str:
        if not self._machine.idle:  # since the goal was taken, the cell of a run that was cut off came up
            return "the station is not free"
        if not self._line_is_started:
            return "the line was halted"
        try:
            if self._ledger is not None and self._join_shift() is None:
                return "no shift is open: the line controller has not begun one"
        except LedgerError as error:
            return str(error)
        return ""

    def _on_cancel(self, _: Any) -> None:
        self._later(self._cancel)

    def _cancel(self) -> None:
        self._machine.may_recover = self._line_is_started
        self._perform(self._machine.cancel(time.monotonic()))

    def _on_progress(self, progress: StepReached) -> None:
        goal = self._goal
        if goal is not None:
            message = InspectCell.Feedback(battery_id=progress.battery_id, step=str(progress.step))
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

    def _why_not_flip(self, _: FlipCell.Goal) -> Refusal | None:
        text = self._why_not_now()
        if text:
            return Refusal(FlipCell.Result.NOT_READY, text)
        if not self._is_free:
            return Refusal(FlipCell.Result.BUSY, "a cell is being inspected: hold the line first")
        return None

    def _on_flip(self, handle: Any) -> None:
        self._flipping = (handle, 0, float("inf"))
        until = time.monotonic() + self.settings.recipe.times.flip_s
        self._later(
            lambda: self._begin_flip(handle, until),
            lambda: self._end_flip(handle, FlipCell.Result.OTHER, "the station's node was deactivated"),
        )

    def _begin_flip(self, handle: Any, until: float) -> None:
        """Nobody expects the flipper to turn after ``until`` (s), or by an order of before an emergency stop."""
        if not self._machine.idle:  # since the goal was taken, a cell of before came up
            self._end_flip(handle, FlipCell.Result.BUSY, "a cell is being inspected: hold the line first")
            return
        if time.monotonic() > until or not self.emergency.may_move:
            why = "the station was not free in time" if self.emergency.may_move else "emergency stop"
            self._end_flip(handle, FlipCell.Result.OTHER, why)
            return
        command = self._machine.flip_by_hand()
        self._flipping = (handle, command.token, time.monotonic() + self.settings.recipe.times.flip_s)
        self._send(StationOrder(command))

    def _follow_flip(self, status: StationStatus) -> None:
        if self._flipping is None:
            return
        handle, token, until = self._flipping
        if token and status.done_token == token and not status.active_token:
            done = status.done_result.name.lower()
            code = FlipCell.Result.NONE if done == "done" else FlipCell.Result.FLIPPER
            self._end_flip(handle, code, "" if done == "done" else f"the PLC answered {done}")
        elif time.monotonic() > until:
            self._end_flip(handle, FlipCell.Result.FLIPPER, "the flipper has not answered")

    def _end_flip(self, handle: Any, code: int, text: str) -> None:
        position = self._status.flipper.name.lower() if self._status is not None else ""
        self._flipping = (handle, 0, float("inf"))  # it is over, but the next one must wait until it is told
        result = FlipCell.Result(success=not code, error_code=code, error_msg=text, position=position)
        self._flips.finish(handle, result, self._forget_flip)

    def _forget_flip(self) -> None:
        self._flipping = None

    # ---- what others see ----

    def _publish_state(self) -> None:
        status = self._status
        message = StationStateMessage(
            header=convert.header(time.time(), "station"),
            connected=not self._plc_error,
            step=str(self._machine.step),
            battery_id=self._machine.battery_id,
            error=self._plc_error,
        )
        if status is not None:
            message.emergency_stop = self.emergency.standing
            message.watchdog_tripped = status.watchdog_tripped
            message.jam = status.jam
            message.part_present = status.part_present
            message.flipper = status.flipper.name.lower()
            message.boot_id = status.boot_id
            message.loaded_total = status.loaded_total
        self._states.publish(message)


def _make(device: Any, kind: str) -> Any:
    return find_driver(kind, device.driver).from_settings(device.settings)


def _result_message(result: CellResult) -> InspectCell.Result:
    return InspectCell.Result(
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


def main() -> None:
    """Entry point."""
    run(InspectionNode)
