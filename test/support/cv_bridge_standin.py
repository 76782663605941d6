"""A package with the interface of cv_bridge (branch rolling, as Jazzy has it), to be written into a folder."""

from __future__ import annotations

from pathlib import Path

WORKING = '''
"""Stands in for cv_bridge: the part of its interface that battery_sorting uses, as that part behaves."""
import cv2
import numpy as np
from sensor_msgs.msg import Image

TYPES = {"rgb8": 3, "bgr8": 3, "mono8": 1, "bayer_rggb8": 1, "bgra8": 4}
CALLS = []


class CvBridgeError(TypeError):
    pass


class CvBridge:
    def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
        CALLS.append(("imgmsg_to_cv2", img_msg.encoding))
        if img_msg.encoding not in TYPES:
            raise CvBridgeError(f"Unrecognized image encoding [{img_msg.encoding}]")
        channels = TYPES[img_msg.encoding]
        shape = (img_msg.height, int(img_msg.step / channels), channels)
        im = np.ndarray(shape, np.uint8, buffer=img_msg.data)
        im = np.ascontiguousarray(im[:, :img_msg.width])
        if channels == 1:
            im = im[..., 0]
        if desired_encoding in ("passthrough", img_msg.encoding):
            return im
        code = {
            ("bgr8", "rgb8"): cv2.COLOR_BGR2RGB,
            ("rgb8", "bgr8"): cv2.COLOR_RGB2BGR,
            ("mono8", "rgb8"): cv2.COLOR_GRAY2RGB,
            ("mono8", "bgr8"): cv2.COLOR_GRAY2BGR,
            ("bayer_rggb8", "rgb8"): cv2.COLOR_BayerBG2RGB,
        }[img_msg.encoding, desired_encoding]
        return cv2.cvtColor(im, code)

    def cv2_to_imgmsg(self, cvim, encoding="passthrough", header=None):
        CALLS.append(("cv2_to_imgmsg", encoding))
        if not isinstance(cvim, (np.ndarray, np.generic)):
            raise TypeError("Your input type is not a numpy array")
        if TYPES[encoding] != (1 if cvim.ndim == 2 else cvim.shape[2]):
            raise CvBridgeError(f"encoding specified as {encoding}, but image has incompatible type")
        img_msg = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=encoding)
        if header is not None:
            img_msg.header = header
        img_msg.data.frombytes(cvim.tobytes())
        img_msg.step = len(img_msg.data) // img_msg.height
        return img_msg
'''

BROKEN = {
    "built for another NumPy": "raise ImportError('numpy.core.multiarray failed to import')",
    "ends the process": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "a part is missing": WORKING.replace(
        "        code = {", "        from cv_bridge.boost.cv_bridge_boost import cvtColor2\n        code = {"
    ),
    "other colours": WORKING.replace("cv2.COLOR_BGR2RGB", "cv2.COLOR_RGB2BGR + 0 * cv2.COLOR_BGR2RGB").replace(
        "return cv2.cvtColor(im, code)", "return cv2.cvtColor(im, code)[..., ::-1]"
    ),
}
"""Modules of the same name that can't be used, and why."""


def write_cv_bridge(folder: Path, source: str = WORKING) -> None:
    """Puts the package ``cv_bridge`` into ``folder``."""
    package = folder / "cv_bridge"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source, encoding="utf-8")
