"""What becomes of the pictures of cells: those that are kept are filed, those with what was found are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sensor_msgs.msg import Image

from battery_sorting.core.errors import LedgerError
from battery_sorting.drivers.camera.base import Frame
from battery_sorting.ev.stations.looking import SeenView
from battery_sorting.ledger.store import ImageStore, Ledger
from battery_sorting.line.site import ImageSettings
from battery_sorting.ros import images
from battery_sorting.ros.pictures import PictureQueue, file_picture


class ViewKeeper:
    """Files the pictures of cells that the site wants to be kept. Used by one thread.

    Args:
        folder: Of the image store.
        settings: Which pictures are kept.
        complain: Is told why one can't be kept; that stops no cell.
    """

    def __init__(self, folder: Path, settings: ImageSettings, complain: Callable[[str], object]) -> None:
        self._store, self._settings, self._complain = ImageStore(folder), settings, complain
        self._pictures = PictureQueue()

    def open(self) -> None:
        """Makes the folder."""
        self._store.folder.mkdir(parents=True, exist_ok=True)

    def keep(self, ledger: Ledger | None, seen: SeenView) -> None:
        """Files what was seen, if it shall be kept and the ledger is open."""
        keep, result = self._settings.keep, seen.result
        if ledger is None or keep == "none" or (keep == "rejected" and result.verdict == "good"):
            return
        self._pictures.add(
            lambda: file_picture(
                self._store,
                ledger,
                seen.battery_id,
                seen.pixels,
                self._settings.quality,
                result.stamp,
                result.view.value,
            )
        )
        try:
            self._pictures.file()
        except LedgerError as error:
            self._complain(str(error))


def annotated_image(picture: np.ndarray, stamp: float) -> Image:
    """sensor_msgs/Image of a picture, uint8 (height, width, 3), BGR."""
    height, width = picture.shape[:2]
    frame = Frame(0, 0, stamp, width, height, "bgr8", 3 * width, np.ascontiguousarray(picture).tobytes())
    return images.image_message(frame)
