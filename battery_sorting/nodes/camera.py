"""The camera over the belt: tells which frame shows which battery."""

from __future__ import annotations

import threading
import time
from typing import Any

from sensor_msgs.msg import Image

from battery_sorting.belt.camera_watch import CameraWatch
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
ALARM_S = 1.0
"""So long the fault stands, for the line to hold."""


class CameraNode(DeviceNode):
    """Reads frames in a thread, and publishes each with the id of its battery as soon as both are here.

    All goes by the host's monotonic clock, which is that of the conveyor's process, too. Which frame shows which
    battery, and when the camera must be connected anew, `CameraWatch` decides.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("camera", **kwargs)
        images.use_cv_bridge(self.get_logger().warning)
        device = self.settings.site.camera
        self._camera: TriggeredCamera = find_driver("camera", device.driver).from_settings(device.settings)  # type: ignore[assignment]
        self._watch = CameraWatch(FrameMatcher(timeout_s=self.settings.site.timeouts.frame_s))
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._preview_at = 0.0
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
                self._watch.miss()
                self.get_logger().warning(str(error))
            except DeviceTimeoutError as error:
                if not self._camera.connected:
                    self.degrade(error)
            except DeviceError as error:
                if not self._stop.is_set():
                    self.degrade(error)
                    self._stop.wait(RECONNECT_S)
            self._watch_connection()

    def _connect(self) -> None:
        self._camera.connect()
        self._watch.connected(time.monotonic())

    def _watch_connection(self) -> None:
        """Disconnects where that is needed; the next round connects again."""
        reconnection = self._watch.reconnection(time.monotonic()) if self._camera.connected else None
        if reconnection is None:
            return
        if reconnection.why:
            self.get_logger().warning(reconnection.why)
        if reconnection.fault:
            self.degrade(reconnection.fault)
            self._stop.wait(ALARM_S)
        self._camera.disconnect()

    def _on_frame(self, frame: Frame) -> None:
        # A camera that doesn't count its triggers counts its frames; the matcher knows how little that may mean.
        count = frame.frame_number if frame.trigger_count is None else frame.trigger_count
        pairs = self._watch.offer(CapturedFrame(frame.exposed_at, time.monotonic(), count, frame))
        self.figures = self._watch.figures()
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
        series = message.battery_id.rpartition("-")[0]
        battery = Expected(message.battery_id, seen_at, message.trigger_count, series)
        self._publish(self._watch.expect(battery, now))

    def _expire(self) -> None:
        for battery in self._watch.expire(time.monotonic()):
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
