"""Reads the code that is printed on a cell: QR or Data Matrix, by zxing-cpp.

OpenCV's two QR readers, tried on the same 800 drawn lugs and cases, took 26 ms on average, and up to 170. This one
takes a few milliseconds where a code is legible, and reads a few more.
"""

from __future__ import annotations

import cv2
import numpy as np
import zxingcpp

from battery_sorting.vision.framing import straightened, widened

FORMATS = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.DataMatrix])
MARGIN = 0.01
LEAST_SIDE = 32


def read_code(bgr: np.ndarray, box: np.ndarray) -> str:
    """Text of the code on a cell; empty if none can be read.

    The cell is cut out first, so that a neighbour's code is not taken for its own. Enlarged, small or dirty codes
    become legible; turned and inverted ones are looked for last, as that takes longest.

    Args:
        bgr: uint8 (h, w, 3).
        box: Corners (4, 2) of the cell in the picture's pixels, as `CellFinder` gives them.
    """
    box = widened(box, MARGIN)
    for scale, ways in ((1, (False,)), (2, (False, True))):
        grey = _cut_out(bgr, box, scale)
        for thorough in ways:
            found = zxingcpp.read_barcodes(
                grey, formats=FORMATS, try_rotate=thorough, try_downscale=thorough, try_invert=thorough
            )
            if found:
                return str(found[0].text)
    return ""


def _cut_out(bgr: np.ndarray, box: np.ndarray, scale: int) -> np.ndarray:
    """The cell, upright and grey, ``scale`` times its size in the picture."""
    across, down = np.linalg.norm(box[1] - box[0]), np.linalg.norm(box[3] - box[0])
    size = (max(int(scale * across), LEAST_SIDE), max(int(scale * down), LEAST_SIDE))
    return np.asarray(cv2.cvtColor(straightened(bgr, box, size), cv2.COLOR_BGR2GRAY))
