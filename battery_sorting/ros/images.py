"""Frames in messages: `image_message` makes a sensor_msgs/Image of a frame, `decoded` the picture of a message.

Where a distribution provides cv_bridge, it converts; elsewhere, and for what it does otherwise, the package's own
code does. Both give the same, so that no decision depends on what is installed:

- Bayer frames are binned 2×2 by the package, as the networks were trained; cv_bridge interpolates them.
- Rows with padding, frames that are not whole, and encodings that ROS doesn't have stay with the package, which
  refuses them with a reason.
"""

from __future__ import annotations

import array
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from battery_sorting.drivers.camera.base import Frame
from battery_sorting.ros.convert import header
from battery_sorting.vision.encodings import BELT, LEAST_SIDE, FrameUse, decode, raw_pixels

CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1}
"""What cv_bridge converts, with its bytes per pixel."""
PROBE_S = 20.0
"""For cv_bridge to be imported and tried, on a busy machine."""

_bridge: Any = None
_tried = False


def use_cv_bridge(remark: Callable[[str], object]) -> bool:
    """Let cv_bridge convert if this machine has one that works; to be called before the first picture.

    A process looks once, whatever else is called later: the second node of a process finds it decided.

    It is tried in a process of its own: one that was built for another NumPy may end the process that imports it.

    Args:
        remark: Is told why a cv_bridge that is there is not used. One that isn't there is no remark.

    Returns:
        Whether cv_bridge converts from now on.
    """
    global _bridge, _tried
    if _tried:
        return _bridge is not None
    _tried = True
    if importlib.util.find_spec("cv_bridge") is None:
        return False
    why = _why_unusable()
    if why:
        remark(
            f"cv_bridge can't be used, so pictures are converted by the package's own code, which gives the same: "
            f"{why}. That of a ROS distribution wants the distribution's NumPy: requirements/distribution.txt"
        )
        return False
    _bridge = importlib.import_module("cv_bridge").CvBridge()
    return True


def image_message(frame: Frame) -> Image:
    """sensor_msgs/Image of a camera frame."""
    head = header(frame.stamp, "camera")
    if _bridge is not None and _is_plain(frame.encoding, frame.height, frame.width, frame.step, len(frame.data)):
        pixels = raw_pixels(frame.data, frame.height, frame.width, CHANNELS[frame.encoding])
        return _bridge.cv2_to_imgmsg(pixels, encoding=frame.encoding, header=head)
    return Image(
        header=head,
        height=frame.height,
        width=frame.width,
        encoding=frame.encoding,
        step=frame.step,
        # An array of bytes is taken as it is; anything else is checked and copied element by element.
        data=array.array("B", frame.data),
    )


def decoded(image: Image, use: FrameUse = BELT) -> np.ndarray:
    """Picture of an image message, as `decode` makes it for ``use``, whose pixels are uint8 with three channels.

    Returns:
        uint8 array (height, width, 3); half of that on each side for a Bayer frame.

    Raises:
        FrameError: The encoding can't be used, or the data don't fit the sizes.
    """
    if _bridge is not None and _is_plain(image.encoding, image.height, image.width, image.step, len(image.data)):
        return np.asarray(_bridge.imgmsg_to_cv2(image, desired_encoding=f"{use.order}8"))
    return decode(image.data, image.encoding, image.height, image.width, image.step, use)


def _is_plain(encoding: str, height: int, width: int, step: int, size: int) -> bool:
    """Whether cv_bridge gives the same as `decode`: it checks no size and loses its way in padded rows."""
    row = width * CHANNELS.get(encoding, 0)
    return row > 0 and step == row and size == height * step and min(height, width) >= LEAST_SIDE


def _why_unusable() -> str:
    """Why the cv_bridge of this machine can't be used; empty if it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import probe; probe()"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it was not imported and tried within {PROBE_S:g} s"
    except OSError as error:
        return f"no process could be started to try it: {error}"
    if done.returncode < 0:
        return f"trying it ends the process with signal {-done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return (lines[-1].strip() if lines else f"exit code {done.returncode}") if done.returncode else ""


def probe() -> None:
    """Tries cv_bridge: it must convert as the package does. For a process of its own; raises what goes wrong."""
    global _bridge
    rgb = np.arange(9 * LEAST_SIDE * 3, dtype=np.uint8).reshape(9, LEAST_SIDE, 3)
    bridge = importlib.import_module("cv_bridge").CvBridge()
    for encoding, channels in CHANNELS.items():
        pixels = rgb if channels == 3 else rgb[..., 0]
        frame = Frame(0, 0, 1.5, LEAST_SIDE, 9, encoding, LEAST_SIDE * channels, pixels.tobytes())
        _bridge = None
        message = image_message(frame)
        own = decoded(message)
        _bridge = bridge
        if image_message(frame) != message:
            raise RuntimeError(f"it makes another message of {encoding}")
        if not np.array_equal(decoded(message), own):
            raise RuntimeError(f"it makes another picture of {encoding}")
