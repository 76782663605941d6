"""The camera over the belt: tells which frame shows which battery."""

from __future__ import annotations

import threading
import time
from typing import Any

from sensor_msgs.msg import Image

from battery_sorting.core.errors import DeviceError, DeviceTimeoutError, FrameError
from battery_sorting.core.tracking import FrameMatcher
from battery_sorting.core.types import Reason
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.drivers.registry import find_driver
from battery_sorting.msg import BatteryDetection, BatteryImage
from battery_sorting.ros import convert, qos
from battery_sorting.ros.node import DeviceNode, run

READ_S = 0.2
RECONNECT_S = 0.5
PREVIEW_S = 0.5


class Camera(DeviceNode):
    """Reads frames in a thread, and publishes each with the id of its battery as soon as both are here."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("camera", **kwargs)
        device = self.settings.site.camera
        self._camera: TriggeredCamera = find_driver("camera", device.driver).from_settings(device.settings)  # type: ignore[assignment]
        self._matcher = FrameMatcher(timeout_s=self.settings.site.timeouts.frame_s)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._preview_at = 0.0
        self._frames = 0
        self._bad_frames = 0
        self._images = self.create_publisher(BatteryImage, "battery_image", qos.BATTERY_IMAGE)
        self._previews = self.create_publisher(Image, "image_preview", qos.PREVIEW)
        self.create_subscription(BatteryDetection, "detection", self._on_detection, qos.BATTERY_EVENT)
        self.create_timer(0.05, self._expire)

    def open(self) -> None:
        """Connects to the camera and starts reading."""
        self._camera.connect()
        self._stop.clear()
        self._thread = self.start_thread("camera", self._read)

    def close(self) -> None:
        """Stops reading and disconnects."""
        self._stop.set()
        self._camera.disconnect()
        if self._thread is not None:
            self._thread.join(2 * READ_S + RECONNECT_S)
            self._thread = None

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._camera.connected:
                    self._camera.connect()
                    self.recover()
                self._on_frame(self._camera.read(READ_S))
                self.recover()
            except FrameError as error:
                self._bad_frames += 1
                self.get_logger().warning(str(error))
            except DeviceTimeoutError as error:
                if not self._camera.connected:
                    self.degrade(error)
            except DeviceError as error:
                if not self._stop.is_set():
                    self.degrade(error)
                    self._stop.wait(RECONNECT_S)

    def _on_frame(self, frame: Frame) -> None:
        self._frames += 1
        self.figures = {"frames": self._frames, "bad_frames": self._bad_frames}
        with self._lock:
            battery_id = self._matcher.offer(frame.stamp, frame)
        if battery_id is not None:
            self._publish(battery_id, frame)

    def _on_detection(self, message: BatteryDetection) -> None:
        stamp = convert.from_time(message.header.stamp)
        if time.time() - stamp > self.settings.site.timeouts.frame_s:
            return  # delivered again after a restart: its frame went by while nobody read
        with self._lock:
            frame = self._matcher.expect(message.battery_id, stamp)
        if isinstance(frame, Frame):
            self._publish(message.battery_id, frame)

    def _publish(self, battery_id: str, frame: Frame) -> None:
        image = convert.image_message(frame)
        self._images.publish(
            BatteryImage(
                header=convert.header(frame.stamp),
                battery_id=battery_id,
                frame_number=frame.frame_number,
                image=image,
            )
        )
        now = time.monotonic()
        if now - self._preview_at > PREVIEW_S and self._previews.get_subscription_count():
            self._preview_at = now
            self._previews.publish(image)

    def _expire(self) -> None:
        with self._lock:
            missing = list(self._matcher.expire(time.time()))
        for battery_id in missing:
            self.get_logger().warning(f"no frame for battery {battery_id}")
            message = BatteryImage(
                header=convert.header(time.time()), battery_id=battery_id, error=Reason.NO_IMAGE.value
            )
            self._images.publish(message)


def main() -> None:
    """Entry point."""
    run(Camera)
