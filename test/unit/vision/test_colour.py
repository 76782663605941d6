"""Colour histograms of the battery alone."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from battery_sorting.vision.colour import COLOUR_FEATURES, HUE, colour_histogram
from battery_sorting.vision.preprocessing import Cutout, Preprocessing

PREPROCESSING = Preprocessing()


def battery_on(ground: tuple[int, int, int], body: tuple[int, int, int], angle: float = 20.0) -> np.ndarray:
    """A picture, (512, 640, 3), of a battery 300 × 90 pixels with a copper end."""
    frame = np.full((512, 640, 3), ground, np.uint8)
    for left, right, colour in ((-150, 90, body), (90, 150, (184, 115, 51))):
        corners = np.array([[left, -45], [right, -45], [right, 45], [left, 45]], np.float32)
        turn = cv2.getRotationMatrix2D((0, 0), angle, 1)[:, :2]
        cv2.fillConvexPoly(frame, (corners @ turn.T + (320, 256)).astype(np.int32), colour)
    return frame


def histogram(*args: object) -> np.ndarray:
    return colour_histogram(PREPROCESSING.cut_out(battery_on(*args)))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum())


def test_each_histogram_counts_every_pixel_once():
    features = histogram((90, 90, 90), (20, 120, 40))
    assert features.shape == (COLOUR_FEATURES,)
    assert features.dtype == np.float32
    sums = np.add.reduceat(features, [HUE, HUE + 12, HUE + 24, HUE + 36, HUE + 60, HUE + 84])
    assert sums == pytest.approx(np.ones(6), abs=1e-5)
    assert 0 < features[:HUE].sum() <= 1


@pytest.mark.parametrize("ground", [(255, 255, 255), (45, 45, 45), (150, 100, 60)])
def test_what_the_battery_lies_on_does_not_count(ground):
    green, yellow = (20, 120, 40), (230, 200, 30)
    ours = histogram(ground, green)
    assert distance(ours, histogram((100, 100, 100), green)) < 0.25
    assert distance(ours, histogram(ground, yellow)) > 2.5


def test_light_s_tint_is_taken_from_what_the_battery_lies_on():
    ours, corrected, as_it_came = in_warm_light(215)
    assert distance(ours, corrected) < 0.4 < 0.5 * distance(ours, as_it_came)


def test_the_darker_it_is_the_less_it_says_of_the_light():
    ours, corrected, as_it_came = in_warm_light(140)
    assert distance(ours, corrected) < 0.8 * distance(ours, as_it_came)


def in_warm_light(ground):
    """Colours of a green battery on grey, of the same in warm light, and of that uncorrected."""
    frame = battery_on((ground,) * 3, (20, 120, 40))
    warm = np.clip(frame * (1.12, 1.0, 0.88), 0, 255).astype(np.uint8)
    cutouts = PREPROCESSING.cut_out(frame), PREPROCESSING.cut_out(warm), Preprocessing(max_tint=0).cut_out(warm)
    return [colour_histogram(cutout) for cutout in cutouts]


def test_white_clipped_in_one_channel_was_brighter_than_it_shows():
    brown = (150, 100, 60)
    green = np.clip(battery_on((255,) * 3, brown) * (0.88, 1.12, 0.88), 0, 255).astype(np.uint8)
    cutout = PREPROCESSING.cut_out(green)
    seen = cutout.pixels[cutout.pixels.shape[0] // 2, cutout.pixels.shape[1] // 2] / np.array(brown)
    assert seen == pytest.approx(np.full(3, seen.mean()), rel=0.02)


def test_colour_of_a_dark_belt_is_its_own():
    green = battery_on((40, 46, 42), (20, 120, 40))
    assert np.array_equal(PREPROCESSING.cut_out(green).pixels, Preprocessing(max_tint=0).cut_out(green).pixels)


def test_white_side_on_white_is_part_of_the_battery():
    frame = np.full((512, 640, 3), 255, np.uint8)
    frame[200:300, 200:500] = (20, 120, 40)
    frame[200:250, 260:440] = 250
    cutout = PREPROCESSING.cut_out(frame)
    white = cutout.pixels[cutout.mask].min(axis=1) > 240
    assert white.mean() == pytest.approx(180 * 50 / (300 * 100), abs=0.05)


def test_white_end_on_white_is_part_of_the_battery_where_its_print_shows():
    frame = np.full((512, 640, 3), 255, np.uint8)
    frame[210:300, 300:480] = (230, 200, 30)
    frame[235:275, 200:230] = 30  # a logo on the white end
    cutout = PREPROCESSING.cut_out(frame)
    rows, columns = np.nonzero(cutout.mask)
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(280 / 90, rel=0.12)


def test_what_lies_beside_a_battery_or_too_far_off_is_no_part_of_it():
    frame = np.full((512, 640, 3), 255, np.uint8)
    frame[210:300, 200:480] = (20, 120, 40)
    alone = PREPROCESSING.cut_out(frame)
    frame[330:400, 220:460] = (20, 120, 40)
    frame[240:270, 10:40] = 30
    assert np.array_equal(PREPROCESSING.cut_out(frame).pixels, alone.pixels)


def test_direction_does_not_count():
    assert distance(histogram((90, 90, 90), (20, 20, 120), 0), histogram((90, 90, 90), (20, 20, 120), 200)) < 0.3


def test_mask_is_the_battery_and_never_the_padding():
    cutout = PREPROCESSING.cut_out(battery_on((90, 90, 90), (20, 120, 40)))
    assert cutout.mask.dtype == bool
    assert cutout.mask.shape == cutout.pixels.shape[:2]
    shown = cutout.pixels[cutout.mask]
    is_ground = np.abs(shown.astype(int) - 90).max(axis=1) < 10
    assert is_ground.mean() < 0.01
    assert cutout.mask.mean() > 0.4
    whole = PREPROCESSING.cut_out(np.random.default_rng(0).integers(0, 255, (120, 400, 3), np.uint8))
    assert whole.mask[:20].sum() == 0
    assert whole.mask[60].mean() > 0.9


def test_space_between_two_batteries_does_not_count():
    frame = np.full((512, 640, 3), 255, np.uint8)
    frame[100:400, 200:260] = frame[340:400, 200:480] = (20, 120, 40)
    cutout = PREPROCESSING.cut_out(frame)
    assert (cutout.pixels[cutout.mask].min(axis=1) > 240).mean() < 0.02


def test_empty_mask_means_all_pixels():
    pixels = np.full((128, 256, 3), (250, 0, 0), np.uint8)
    nothing = Cutout(pixels, "object", np.zeros((128, 256), bool))
    assert distance(colour_histogram(nothing), colour_histogram(replace(nothing, mask=~nothing.mask))) == 0


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)]
)
def test_colours_at_the_ends_of_the_scales_are_counted(colour):
    pixels = np.full((128, 256, 3), colour, np.uint8)
    features = colour_histogram(Cutout(pixels, "object", np.ones((128, 256), bool)))
    assert np.isfinite(features).all()
    assert features[HUE:].sum() == pytest.approx(6, abs=1e-4)


def test_a_little_more_light_moves_the_histograms_a_little():
    frame = battery_on((90, 90, 90), (20, 120, 40))
    cutout = PREPROCESSING.cut_out(frame)
    steps = [
        colour_histogram(replace(cutout, pixels=np.clip(cutout.pixels * gain, 0, 255).astype(np.uint8)))
        for gain in (1.0, 1.02, 1.04, 1.06, 1.08)
    ]
    assert max(distance(a, b) for a, b in pairwise(steps)) < 1.3


def test_red_is_next_to_red_on_the_circle_of_hues():
    ones = np.ones((128, 256), bool)
    reds = [np.full((128, 256, 3), colour, np.uint8) for colour in ((200, 0, 2), (200, 2, 0))]
    a, b = (colour_histogram(Cutout(pixels, "object", ones)) for pixels in reds)
    assert distance(a, b) < 1  # 4 and more if they were strangers


def test_histogram_is_quick():
    cutout = PREPROCESSING.cut_out(battery_on((90, 90, 90), (20, 120, 40)))
    times = []
    for _ in range(12):
        start = time.perf_counter()
        colour_histogram(cutout)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.01  # 1 ms on an idle core
