"""The two cameras of the simulated inspection station: fired by the PLC, they push frames over TCP.

They speak `drivers/camera/frame_protocol.py`. What the loader brings is known before it is looked at, so its
pictures are rendered ahead, in a worker thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from battery_sorting.core.types import View
from battery_sorting.drivers.camera.frame_protocol import FrameHeader, checksum
from battery_sorting.plant.ev_station import EvWorld, Exposure, StationScene
from battery_sorting.plant.frame_server import FramePort, encode
from battery_sorting.vision.synthetic import prismatic

KEPT_PICTURES = 12
UNPLUGGED_S = 1.0  # for so long the fault ``disconnect`` cuts the line
BLUR_PX = 25.0


@dataclass(frozen=True, slots=True)
class _Print:
    """A picture as it goes over the wire to those who asked for the encoding ``asked``."""

    asked: str
    encoding: str
    width: int
    height: int
    pixels: bytes
    crc: int


class SceneRenderer:
    """Renders scenes in a worker thread, each once.

    Args:
        renderer: Makes the pictures.
        backdrop: Seed of the station's fixtures and lamps, the same for all cells.
    """

    def __init__(self, renderer: prismatic.PrismaticRenderer, backdrop: int = 0) -> None:
        self._renderer = renderer
        self._backdrop = backdrop
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="renderer")
        self._press = ThreadPoolExecutor(1, thread_name_prefix="frames")  # no frame waits for a picture of later
        self._pictures: OrderedDict[StationScene, Future[np.ndarray]] = OrderedDict()

    def prepare(self, scenes: list[StationScene]) -> None:
        """Have pictures rendered that will be asked for."""
        for scene in scenes:
            self.picture(scene)

    def picture(self, scene: StationScene) -> Future[np.ndarray]:
        """The picture of a scene, uint8 (height, width, 3) RGB."""
        future = self._pictures.get(scene)
        if future is None:
            future = self._pictures[scene] = self._worker.submit(self._render, scene)
            while len(self._pictures) > KEPT_PICTURES:
                self._pictures.popitem(last=False)[1].cancel()
        return future

    def has(self, scenes: list[StationScene]) -> bool:
        """Whether the pictures of these scenes are there; those that were not asked for yet are begun."""
        pictures = [self.picture(scene) for scene in scenes]
        return all(picture.done() for picture in pictures)

    def develop(self, rgb: np.ndarray, exposure: Exposure, encodings: set[str]) -> Future[list[_Print]]:
        """A picture with its faults and the noise of its exposure, ready to be sent in each of the encodings."""
        return self._press.submit(_develop, rgb, exposure, encodings)

    def close(self) -> None:
        """End the workers; may be called twice."""
        self._press.shutdown(wait=True, cancel_futures=True)
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _render(self, scene: StationScene) -> np.ndarray:
        look, beside = (*scene.cells, None, None)[:2]
        turn_deg = scene.turn_deg[0] if scene.turn_deg else None
        light = replace(look.scene if look else prismatic.CellScene(), backdrop=self._backdrop)
        bgr = self._renderer.render(scene.view, look, turn_deg=turn_deg, beside=beside, scene=light)
        return np.ascontiguousarray(bgr[..., ::-1])


class StationCamera(FramePort):
    """One camera.

    Args:
        world: Fires the camera; its switch ``<view>.unplugged`` cuts the line.
        view: Which camera.
        darkroom: Makes the pictures.
        wall_ns: Turns plant time (s) into ns since 1970.
        seconds_until: Real seconds until a plant time; negative when it is past.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        readout_ms: From the end of exposure until the frame leaves.
    """

    def __init__(
        self,
        world: EvWorld,
        view: View,
        darkroom: SceneRenderer,
        wall_ns: Callable[[float], int],
        seconds_until: Callable[[float], float],
        host: str = "127.0.0.1",
        port: int = 0,
        readout_ms: float = 12.0,
    ) -> None:
        super().__init__(lambda: self._clock_ns(world.t_s - seconds_until(world.t_s)), host, port)
        self._world = world
        self._view = view
        self._darkroom = darkroom
        self._wall_ns = wall_ns
        self._seconds_until = seconds_until
        self._readout_s = readout_ms / 1000
        self._plugged_s = 0.0
        self._underway: set[asyncio.Task[Any]] = set()
        world.exposure_listeners.append(self._on_exposure)

    async def stop(self) -> None:
        """Close the port and all connections; frames that are under way are lost."""
        tasks = list(self._underway)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.disconnect()

    async def follow_faults(self) -> None:
        """Drop or take up connections as the faults say."""
        unplugged = self._world.faults.is_on(f"{self._view.value}.unplugged")
        await self.follow_switch(unplugged or self._world.t_s < self._plugged_s)

    def _clock_ns(self, t_s: float) -> int:
        """The camera's clock at a plant time, ns since 1970."""
        return self._wall_ns(t_s) + round(self._world.faults.clock_ahead_s(self._view) * 1e9)

    def _on_exposure(self, exposure: Exposure) -> None:
        if exposure.scene.view is not self._view:
            return
        if "disconnect" in exposure.faults:
            self._plugged_s = exposure.t_s + UNPLUGGED_S
        if exposure.faults & {"disconnect", "drop"}:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(exposure))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def _deliver(self, exposure: Exposure) -> None:
        rgb = await asyncio.wrap_future(self._darkroom.picture(exposure.scene))
        late_s = self._world.config.late_frame_s if "late" in exposure.faults else 0.0
        encodings = {client.encoding for client in self._clients}
        prints = await asyncio.wrap_future(self._darkroom.develop(rgb, exposure, encodings))
        await asyncio.sleep(max(0.0, self._seconds_until(exposure.t_s + self._readout_s + late_s)))
        for client in list(self._clients):
            for made in prints:
                if made.asked == client.encoding:
                    self._write(client, self._header(exposure, made), made.pixels)

    def _header(self, exposure: Exposure, made: _Print) -> FrameHeader:
        return FrameHeader(
            frame_number=exposure.number,
            trigger_count=exposure.number,
            exposure_end_ns=self._clock_ns(exposure.t_s),
            width=made.width,
            height=made.height,
            encoding=made.encoding,
            size=len(made.pixels),
            crc32=made.crc,
        )


def _develop(rgb: np.ndarray, exposure: Exposure, encodings: set[str]) -> list[_Print]:
    noise = np.random.default_rng(exposure.number).integers(-1, 2, rgb.shape, np.int8)
    faults = exposure.faults
    rgb = spoilt(cv2.add(rgb, noise, dtype=cv2.CV_8U), faults)
    height, width = rgb.shape[:2]
    prints = []
    for asked in sorted(encodings):
        deep = "depth16" in faults
        pixels = _sixteen_bit(rgb).tobytes() if deep else encode(rgb, asked)
        prints.append(_Print(asked, "mono16" if deep else asked, width, height, pixels, checksum(pixels)))
    return prints


def spoilt(rgb: np.ndarray, faults: frozenset[str]) -> np.ndarray:
    """What a disturbed camera makes of a picture, uint8 (height, width, 3)."""
    if "wrong_size" in faults:
        rgb = np.ascontiguousarray(rgb[::2, ::2])
    if "blank" in faults:
        rgb = np.zeros_like(rgb)
    if "saturated" in faults:
        rgb = np.full_like(rgb, 255)
    if "blurred" in faults:
        rgb = cv2.GaussianBlur(rgb, (0, 0), BLUR_PX)
    if "gray" in faults:
        rgb = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return rgb


def _sixteen_bit(rgb: np.ndarray) -> np.ndarray:
    deep: np.ndarray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint16) << 8
    return deep
