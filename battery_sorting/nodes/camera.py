"""The camera over the belt: tells which frame shows which battery."""

from __future__ import annotations

import threading
import time
from typing import Any

from sensor_msgs.msg import Image

from battery_sorting.belt.frames import CapturedFrame, Expected, FrameMatcher, Pair
from battery_sorting.core.errors import DeviceError, DeviceTimeoutError, FrameError, MessageError
from battery_sorting.core.types import Reason
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.drivers.registry import find_driver
from battery_sorting.msg import BatteryDetection, BatteryImage
from battery_sorting.ros import convert, images, qos
from battery_sorting.ros.node import DeviceNode
from battery_sorting.ros.process import run

READ_S = 0.2
RECONNECT_S = 0.5
PREVIEW_S = 0.5
COMPARE_S = 0.5
"""Between two comparisons of the clocks at the least."""
IN_VAIN = 2
"""So many comparisons one after the other without a pair since the first are a fault of the line."""
ALARM_S = 1.0
"""So long the fault stands, for the line to hold."""
AHEAD_S = 1.0
"""No edge is seen so long before it happened."""
UNSEEN = 3
"""After so many batteries without a frame of any kind the connection counts as dead."""
IDLE_S = 10.0
OUTDATED_S = 300.0
"""While nothing has come for `IDLE_S`, the clocks are compared that often: nothing is lost by it then, the camera's
clock doesn't drift away from ours in a long pause, and a camera that has died meanwhile is noticed."""


class CameraNode(DeviceNode):
    """Reads frames in a thread, and publishes each with the id of its battery as soon as both are here.

    All goes by the host's monotonic clock, which is that of the conveyor's process, too. Connecting compares the
    camera's clock with it, so the camera is connected anew when the matcher of frames doubts that clock.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("camera", **kwargs)
        images.use_cv_bridge(self.get_logger().warning)
        device = self.settings.site.camera
        self._camera: TriggeredCamera = find_driver("camera", device.driver).from_settings(device.settings)  # type: ignore[assignment]
        self._matcher = FrameMatcher(timeout_s=self.settings.site.timeouts.frame_s)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._preview_at = 0.0
        self._frames = 0
        self._bad_frames = 0
        self._comparisons = 0
        self._in_vain = 0
        self._unseen = 0  # batteries since the last frame, good or bad
        self._compared_at = 0.0
        self._busy_at = 0.0
        self._images = self.create_publisher(BatteryImage, "battery_image", qos.BATTERY_IMAGE)
        self._previews = self.create_publisher(Image, "image_preview", qos.PREVIEW)
        self.create_subscription(BatteryDetection, "battery_detection", self._on_detection, qos.BATTERY_EVENT)
        self.create_timer(0.05, self._expire)

    def open(self) -> None:
        """Connects to the camera and starts reading."""
        self._connect()
        self._stop.clear()
        self._thread = self.start_thread("camera", self._read)

    def close(self) -> None:
        """Stops reading and disconnects."""
        self._stop.set()
        self._camera.disconnect()
        if self._thread is not None:
            self._thread.join(2 * READ_S + RECONNECT_S)
            self._thread = None

    # ---- the reader's thread ----

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._camera.connected:
                    self._connect()
                    self.recover()
                self._on_frame(self._camera.read(READ_S))
                self.recover()
            except FrameError as error:
                self._bad_frames += 1
                self._unseen = 0
                self.get_logger().warning(str(error))
            except DeviceTimeoutError as error:
                if not self._camera.connected:
                    self.degrade(error)
            except DeviceError as error:
                if not self._stop.is_set():
                    self.degrade(error)
                    self._stop.wait(RECONNECT_S)
            self._watch_silence()
            self._watch_clocks()

    def _connect(self) -> None:
        self._camera.connect()
        now = time.monotonic()
        with self._lock:
            self._matcher.compared(now)
        self._compared_at = now
        self._busy_at = max(self._busy_at, now)

    def _watch_silence(self) -> None:
        """A connection may have died without a word: who only listens never hears of it."""
        if self._unseen < UNSEEN or not self._camera.connected:
            return
        self._unseen = 0
        self.get_logger().warning(f"no frame of {UNSEEN} batteries: the camera is connected anew")
        self._camera.disconnect()

    def _watch_clocks(self) -> None:
        now = time.monotonic()
        if not self._camera.connected or now - self._compared_at < COMPARE_S:
            return
        with self._lock:
            doubtful = self._matcher.is_doubtful(now)
        if doubtful:
            self._compare_anew()
        elif now - self._busy_at > IDLE_S and now - self._compared_at > OUTDATED_S:
            self._camera.disconnect()  # and connected again at once

    def _compare_anew(self) -> None:
        """Disconnects, for the clocks to be compared anew; the next round connects again."""
        self._comparisons += 1
        self._in_vain += 1
        self.get_logger().warning(
            "frames don't fit the batteries by counts and times: the camera's clock is compared anew"
        )
        if self._in_vain > IN_VAIN:
            self.degrade(
                "which frame shows which battery can't be told: counts and times of camera and PLC don't agree. "
                "Check the camera's trigger, its clock, and how long its frames take"
            )
            self._stop.wait(ALARM_S)
        self._camera.disconnect()

    def _on_frame(self, frame: Frame) -> None:
        now = time.monotonic()
        self._frames += 1
        self._unseen = 0
        self._busy_at = now
        self.figures = {
            "frames": self._frames,
            "bad_frames": self._bad_frames,
            "clock_comparisons": self._comparisons,
        }
        # A camera that doesn't count its triggers counts its frames; the matcher knows how little that may mean.
        count = frame.frame_number if frame.trigger_count is None else frame.trigger_count
        with self._lock:
            pairs = self._matcher.offer(CapturedFrame(frame.exposed_at, now, count, frame))
        self._publish(pairs)

    # ---- the executor's thread ----

    def _on_detection(self, message: BatteryDetection) -> None:
        try:
            convert.detection(message)
        except MessageError as error:
            self.get_logger().warning(f"a message was dropped: {error}", throttle_duration_sec=5.0)
            return
        now = time.monotonic()
        seen_at = message.seen_at or now - (time.time() - convert.from_time(message.header.stamp))
        if not -AHEAD_S <= now - seen_at <= self.settings.site.timeouts.frame_s:
            return  # of another clock, or delivered again after a restart: its frame went by while nobody read
        self._busy_at = now
        series = message.battery_id.rpartition("-")[0]
        with self._lock:
            pairs = self._matcher.expect(Expected(message.battery_id, seen_at, message.trigger_count, series))
        self._publish(pairs)

    def _expire(self) -> None:
        with self._lock:
            missing = self._matcher.expire(time.monotonic())
        for battery in missing:
            self._unseen += 1
            self.get_logger().warning(f"no frame for battery {battery.battery_id}")
            self._images.publish(
                BatteryImage(
                    header=convert.header(time.time()),
                    battery_id=battery.battery_id,
                    seen_at=battery.seen_at,
                    error=Reason.NO_IMAGE.value,
                )
            )

    # ---- both ----

    def _publish(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self._in_vain = 0
            self._publish_image(pair.battery, pair.shot.frame)  # type: ignore[arg-type]

    def _publish_image(self, battery: Expected, frame: Frame) -> None:
        image = images.image_message(frame)
        self._images.publish(
            BatteryImage(
                header=convert.header(frame.stamp),
                battery_id=battery.battery_id,
                seen_at=battery.seen_at,
                frame_number=frame.frame_number,
                image=image,
            )
        )
        now = time.monotonic()
        if now - self._preview_at > PREVIEW_S and self._previews.get_subscription_count():
            self._preview_at = now
            self._previews.publish(image)


def main() -> None:
    """Entry point."""
    run(CameraNode)
