"""The two cameras of the inspection station, each read by a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from battery_sorting.core.errors import DeviceError, DeviceTimeoutError, FrameError
from battery_sorting.core.types import View
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.ev.camera_clock import CameraClock
from battery_sorting.ev.stations.host import StationHost, Workers
from battery_sorting.ev.types import FrameSeen

READ_S = 0.2
RECONNECT_S = 0.5
FRAMES_KEPT = 3


class StationCameras:
    """Reads the cameras, keeps their last frames, and has their clocks compared when that is due.

    Args:
        host: The node.
        workers: Where the threads belong to.
        cameras: One per view.
        seen: Is told of each frame.
        no_picture_soon: Whether no picture is waited for, and none is lost if a camera is connected anew.
    """

    def __init__(
        self,
        host: StationHost,
        workers: Workers,
        cameras: Mapping[View, TriggeredCamera],
        seen: Callable[[FrameSeen], None],
        no_picture_soon: Callable[[], bool],
    ) -> None:
        self._host, self._workers = host, workers
        self._cameras, self._seen, self._no_picture_soon = cameras, seen, no_picture_soon
        self._frames: dict[View, dict[int, Frame]] = {view: {} for view in cameras}
        self._clocks = {view: CameraClock() for view in cameras}

    def open(self) -> None:
        """Connects to the cameras.

        Raises:
            DeviceError: One can't be reached.
        """
        for view in self._cameras:
            self._connect(view)

    def start(self) -> None:
        """Begins to read."""
        for view in self._cameras:
            self._workers.start(f"{view.value} camera", lambda view=view: self._read(view))  # type: ignore[misc]

    def close(self) -> None:
        """Disconnects, once the threads have ended."""
        for camera in self._cameras.values():
            camera.disconnect()

    def frame(self, view: View, number: int) -> Frame | None:
        """A frame, if it is still kept."""
        return self._frames[view].get(number)

    def refused(self, view: View) -> None:
        """The last frame seems older than the order that waits for one."""
        self._clocks[view].refused()

    def missed(self, view: View) -> None:
        """The camera was triggered, and no frame has come."""
        self._clocks[view].missed()

    def _read(self, view: View) -> None:
        camera, ending = self._cameras[view], self._workers.ending
        while not ending.is_set():
            try:
                if not camera.connected:
                    self._connect(view)
                self._on_frame(view, camera.read(READ_S))
            except FrameError as error:
                self._host.get_logger().warning(f"{view.value} camera: {error}")
            except DeviceTimeoutError:
                self._on_no_frame(view)
            except DeviceError as error:
                if not ending.is_set():
                    self._host.get_logger().error(f"{view.value} camera: {error}")
                    ending.wait(RECONNECT_S)

    def _connect(self, view: View) -> None:
        """Connects a camera, which compares its clock with ours."""
        self._cameras[view].connect()
        self._clocks[view].compared(time.monotonic())

    def _on_no_frame(self, view: View) -> None:
        """Nothing is under way, so no picture is lost if the clocks are compared now."""
        clock = self._clocks[view]
        doubt = clock.doubt()
        if doubt:
            self._host.get_logger().warning(
                f"{view.value} camera: {doubt}: connecting anew, which compares the clocks"
            )
            self._cameras[view].disconnect()
        elif clock.is_outdated(time.monotonic()) and self._no_picture_soon():
            self._cameras[view].disconnect()

    def _on_frame(self, view: View, frame: Frame) -> None:
        now = time.monotonic()
        age_s = now - frame.exposed_at
        if self._clocks[view].frame(age_s, now):
            self._host.get_logger().warning(
                f"{view.value} camera: a frame seems {age_s:.2f} s old: connecting anew, to compare the clocks"
            )
            self._cameras[view].disconnect()
        kept = self._frames[view]
        kept[frame.frame_number] = frame
        while len(kept) > FRAMES_KEPT:
            del kept[next(iter(kept))]
        self._seen(FrameSeen(view, frame.exposed_at, frame.frame_number))
