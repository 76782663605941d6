"""What the cell needs from a camera that is triggered by the photo-eye."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from battery_sorting.drivers.base import Driver


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure.

    ``stamp`` is the end of exposure on the host's clock; ``data`` holds ``height`` rows of ``step`` bytes in the
    ROS image ``encoding``.
    """

    frame_number: int
    trigger_count: int
    stamp: float
    width: int
    height: int
    encoding: str
    step: int
    data: bytes


class TriggeredCamera(Driver):
    """A camera that delivers one frame per trigger."""

    @abstractmethod
    def read(self, timeout_s: float) -> Frame:
        """Waits for the next frame.

        Raises:
            DeviceTimeoutError: No frame within ``timeout_s``. Not a fault: nothing may have triggered the camera.
            DeviceConnectionError: The camera is lost.
            DeviceProtocolError: What comes is no frame; the connection has been closed.
            FrameError: This frame is corrupt, stale or a repetition and must not be used.
        """
