"""Colours of the battery in a cut-out. No type is told by its shape alone, many by their colours alone."""

from __future__ import annotations

import cv2
import numpy as np

from battery_sorting.vision.preprocessing import Cutout

HUE, SATURATION, VALUE, LIGHTNESS, GREEN_RED, BLUE_YELLOW = 24, 12, 12, 12, 24, 24
JOINT = (12, 5)  # hue × saturation
COLOUR_FEATURES = HUE + SATURATION + VALUE + LIGHTNESS + GREEN_RED + BLUE_YELLOW + JOINT[0] * JOINT[1]
"""Length k of `colour_histogram`. What is counted otherwise must not fit into models that learned the old way: let
the length change with it."""

SHRINK = 2


def colour_histogram(cutout: Cutout) -> np.ndarray:
    """Histograms of hue (weighted by saturation), saturation, value, L, a, b, and hue × saturation together.

    Only what ``cutout.mask`` says is battery counts, each histogram divided by the number of its pixels; so the
    figures hardly depend on what the battery lies on, nor on its size. A pixel counts in the two bins next to its
    value, by nearness, so that a little more light moves the figures a little.

    Returns:
        float32 (`COLOUR_FEATURES`,), each 0..1.
    """
    colours = _battery_colours(cutout)
    hue, saturation, value = _planes(colours, cv2.COLOR_RGB2HSV)
    light, green_red, blue_yellow = _planes(colours, cv2.COLOR_RGB2LAB)
    hue /= 360
    counts = [
        _count(hue, HUE, weights=saturation, circle=True),
        _count(saturation, SATURATION),
        _count(value, VALUE),
        _count(light / 100, LIGHTNESS),
        _count((green_red + 77) / 153, GREEN_RED),
        _count((blue_yellow + 77) / 153, BLUE_YELLOW),
        _count_pairs(hue, saturation),
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


def _planes(colours: np.ndarray, conversion: int) -> np.ndarray:
    return np.asarray(cv2.cvtColor(colours, conversion)).reshape(-1, 3).T.copy()


def _count(values: np.ndarray, bins: int, weights: np.ndarray | None = None, circle: bool = False) -> np.ndarray:
    """Soft histogram of values in 0..1; on a circle the last bin is the first one's neighbour."""
    low, high, share = _neighbours(values, bins, circle)
    upper = share if weights is None else share * weights
    whole = 1 if weights is None else weights
    return np.bincount(low, whole - upper, bins) + np.bincount(high, upper, bins)


def _count_pairs(hue: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """Soft histogram of both together: a pixel counts in four bins."""
    hues, saturations = JOINT
    hue_low, hue_high, hue_share = _neighbours(hue, hues, circle=True)
    low, high, share = _neighbours(saturation, saturations, circle=False)
    counts = np.zeros(hues * saturations)
    for row, by_hue in ((hue_low, 1 - hue_share), (hue_high, hue_share)):
        row = row * saturations
        upper = by_hue * share
        counts += np.bincount(row + low, by_hue - upper, len(counts)) + np.bincount(row + high, upper, len(counts))
    return counts


def _neighbours(values: np.ndarray, bins: int, circle: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bins whose centres lie around each value, and how much of it belongs to the upper one (0..1)."""
    position = values * bins - 0.5
    if not circle:
        position = np.clip(position, 0, bins - 1)
    floor = np.floor(position)
    low = floor.astype(np.intp)
    high = low + 1
    if circle:
        low, high = low % bins, high % bins
    else:
        np.minimum(high, bins - 1, out=high)
    return low, high, position - floor
