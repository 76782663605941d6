"""The thread of the inspection station that looks at pictures."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from battery_sorting.core.errors import BatterySortingError, FrameError
from battery_sorting.core.types import View
from battery_sorting.drivers.camera.base import Frame
from battery_sorting.ev.inspection import Look
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.ev.stations.host import StationHost, Workers
from battery_sorting.ev.types import ViewResult
from battery_sorting.vision.encodings import bgr_or_grey
from battery_sorting.vision.framing import CameraDepth
from battery_sorting.vision.inspector import DefectInspector, ViewVerdict


@dataclass(frozen=True, slots=True)
class SeenView:
    """What the inspector saw.

    Attributes:
        battery_id: The cell.
        result: For the machine.
        pixels: uint8 (height, width, 3), BGR, or (height, width), of the region that the recipe names.
        overlay: Draws what was found: uint8 (height, width, 3), BGR.
    """

    battery_id: str
    result: ViewResult
    pixels: np.ndarray
    overlay: Callable[[], np.ndarray]


class StationInspector:
    """Judges the frames of both views, one after the other.

    Args:
        host: The node.
        workers: Where the thread belongs to.
        site: Where the models lie.
        recipe: Thresholds and regions of the views.
        frame: A frame by its view and number; None: it is no longer there.
        judged: Is told of each verdict, a picture that can't be judged included.
        seen: Is told of each picture that could be judged, after that; nobody waits for it.
    """

    def __init__(
        self,
        host: StationHost,
        workers: Workers,
        site: EvSite,
        recipe: EvRecipe,
        frame: Callable[[View, int], Frame | None],
        judged: Callable[[ViewResult], None],
        seen: Callable[[SeenView], None],
    ) -> None:
        self._host, self._workers = host, workers
        self._site, self._views = site, {View.LUG: recipe.views.lug, View.CASE: recipe.views.case}
        self._frame, self._judged, self._seen = frame, judged, seen
        self._inspectors: dict[View, DefectInspector] = {}
        self._depths = {view: CameraDepth() for view in View}
        self._looks: queue.SimpleQueue[Look | None] = queue.SimpleQueue()

    def open(self) -> None:
        """Loads the models.

        Raises:
            ConfigurationError: A model is missing or damaged.
        """
        for view, rules in self._views.items():
            self._inspectors[view] = DefectInspector.load(self._site.model_directory(view.value), rules.threshold)
            self._inspectors[view].warm_up()

    def start(self) -> None:
        """Begins to work."""
        self._workers.start("look", self._run)

    def wake(self) -> None:
        """Lets the thread see that it shall end."""
        self._looks.put(None)

    def look(self, look: Look) -> None:
        """Asks for a frame to be looked at."""
        self._looks.put(look)

    def _run(self) -> None:
        while not self._workers.ending.is_set():
            look = self._looks.get()
            if look is not None:
                self._look(look)

    def _look(self, look: Look) -> None:
        frame = self._frame(look.view, look.number)
        if frame is None:
            return
        began, inspector = time.perf_counter(), self._inspectors[look.view]
        try:
            pixels = self._region(look.view, self._eight_bits(look.view, frame))
            seen = inspector.inspect(pixels)
        except BatterySortingError as error:
            self._host.get_logger().warning(f"{look.view.value} view of {look.battery_id}: {error}")
            self._judged(ViewResult(look.view, look.number, frame.stamp, "bad_image", error.code))
            return
        result = _view_result(look, frame, seen, inspector.name, time.perf_counter() - began)
        self._judged(result)
        self._seen(SeenView(look.battery_id, result, pixels, lambda: inspector.overlay(pixels, seen)))

    def _eight_bits(self, view: View, frame: Frame) -> np.ndarray:
        """Pixels of a frame; how many bits its camera uses is said where it had to be found out."""
        depth = self._depths[view]
        before = depth.bits
        pixels = depth.eight_bits(bgr_or_grey(frame.data, frame.encoding, frame.height, frame.width, frame.step))
        if depth.bits != before:
            self._host.get_logger().warning(
                f"{view.value} camera sends {frame.encoding}, which doesn't say how many bits are used: taken as "
                f"{depth.bits}; better let its driver say mono10, mono12 or mono14"
            )
        return pixels

    def _region(self, view: View, pixels: np.ndarray) -> np.ndarray:
        """The part of the image that the recipe wants to be looked at."""
        region = self._views[view].region
        if region is None:
            return pixels
        x, y, width, height = region
        if x < 0 or y < 0 or x + width > pixels.shape[1] or y + height > pixels.shape[0]:
            size = f"{pixels.shape[1]}×{pixels.shape[0]}"
            raise FrameError(f"views.{view.value}.region {list(region)} does not fit into a frame of {size}")
        return pixels[y : y + height, x : x + width]


def _view_result(look: Look, frame: Frame, seen: ViewVerdict, model: str, seconds: float) -> ViewResult:
    return ViewResult(
        look.view,
        look.number,
        frame.stamp,
        seen.verdict,
        seen.reason,
        seen.kind,
        seen.probability,
        dict(seen.kinds),
        seen.novelty,
        seen.code,
        seen.face,
        model,
        seconds,
    )
