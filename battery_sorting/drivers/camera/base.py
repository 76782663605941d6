"""What a line needs from a camera that is triggered by the photo-eye."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from dataclasses import dataclass

from battery_sorting.drivers.base import Driver


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure.

    ``data`` holds ``height`` rows of ``step`` bytes in the ROS image ``encoding``. A camera of 10, 12 or 14 bits in
    two bytes says so (``mono12``, ``bayer_rggb12``): ``mono16`` would leave open how many of its bits are used.

    Attributes:
        frame_number: Counts the frames.
        trigger_count: Counts the edges at the trigger's input (32 bits, wraps), those without a frame, too. It is
            what tells best which battery a frame shows. None: the camera does not count them.
        stamp: End of exposure on the host's wall clock, for people (s).
        exposed_at: The same on the host's monotonic clock, for what is decided (s). Where the driver leaves it out
            it follows from ``stamp``, so it is right as long as nobody has set the wall clock since the exposure.
    """

    frame_number: int
    trigger_count: int | None
    stamp: float
    width: int
    height: int
    encoding: str
    step: int
    data: bytes
    exposed_at: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.exposed_at):
            object.__setattr__(self, "exposed_at", time.monotonic() - (time.time() - self.stamp))


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
