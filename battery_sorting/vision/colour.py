"""Colours of the battery in a cut-out. No type is told by its shape alone, many by their colours alone."""

from __future__ import annotations

import cv2
import numpy as np

from battery_sorting.vision.preprocessing import Cutout

HUE, SATURATION, VALUE, LIGHTNESS, GREEN_RED, BLUE_YELLOW = 24, 12, 12, 12, 24, 24
JOINT = (12, 4)  # hue × saturation
COLOUR_FEATURES = HUE + SATURATION + VALUE + LIGHTNESS + GREEN_RED + BLUE_YELLOW + JOINT[0] * JOINT[1]
"""Length k of `colour_histogram`."""

SHRINK = 2


def colour_histogram(cutout: Cutout) -> np.ndarray:
    """Histograms of hue (weighted by saturation), saturation, value, L, a, b, and hue × saturation together.

    Only what ``cutout.mask`` says is battery counts, each histogram divided by the number of its pixels; so the
    figures hardly depend on what the battery lies on, nor on its size.

    Returns:
        float32 (`COLOUR_FEATURES`,), each 0..1.
    """
    colours = _battery_colours(cutout)
    hue, saturation, value = cv2.split(cv2.cvtColor(colours, cv2.COLOR_RGB2HSV))
    light, green_red, blue_yellow = cv2.split(cv2.cvtColor(colours, cv2.COLOR_RGB2LAB))
    hue = hue / 360
    joint = _bin(hue, 0, 1, JOINT[0]) * JOINT[1] + _bin(saturation, 0, 1, JOINT[1])
    counts = [
        np.bincount(_bin(hue, 0, 1, HUE), saturation.ravel(), HUE),
        np.bincount(_bin(saturation, 0, 1, SATURATION), None, SATURATION),
        np.bincount(_bin(value, 0, 1, VALUE), None, VALUE),
        np.bincount(_bin(light, 0, 100, LIGHTNESS), None, LIGHTNESS),
        np.bincount(_bin(green_red, -77, 76, GREEN_RED), None, GREEN_RED),
        np.bincount(_bin(blue_yellow, -77, 76, BLUE_YELLOW), None, BLUE_YELLOW),
        np.bincount(joint, None, JOINT[0] * JOINT[1]),
    ]
    return (np.concatenate(counts) / len(colours)).astype(np.float32)


def _battery_colours(cutout: Cutout) -> np.ndarray:
    """Its pixels on a smaller copy, float32 RGB (n, 1, 3) in 0..1; all pixels where the mask leaves none."""
    height, width = cutout.mask.shape
    size = (width // SHRINK, height // SHRINK)
    small = cv2.resize(cutout.pixels, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(cutout.mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
    colours = small[mask] if mask.any() else small.reshape(-1, 3)
    return (colours.astype(np.float32) / 255)[:, None]


def _bin(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """Number of each value's bin; what lies beyond the ends belongs to the first and the last."""
    scaled = (values.ravel() - low) * (bins / (high - low))
    return np.clip(scaled, 0, bins - 1).astype(np.intp)
