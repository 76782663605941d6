"""Files pictures of batteries: as JPEG in the image store, and in the ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from battery_sorting.ledger.store import ImageStore, Ledger

UNFILED = 64
"""More pictures than this don't wait for the ledger; the oldest are given up."""


class PictureQueue:
    """Pictures that wait to be filed, oldest first: what the ledger does not take now is filed later.

    Used by one thread.

    Attributes:
        given_up: How many were too many to wait.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self.given_up = 0

    def add(self, file: Callable[[], None]) -> None:
        """Take a picture; ``file`` files it, or raises `LedgerError`."""
        self._waiting.append(file)
        if len(self._waiting) > UNFILED:
            self._waiting.popleft()
            self.given_up += 1

    def file(self) -> int:
        """File what waits; returns how many pictures were filed.

        Raises:
            LedgerError: The ledger refuses; that picture and the later ones go on waiting.
        """
        filed = 0
        while self._waiting:
            self._waiting[0]()
            self._waiting.popleft()
            filed += 1
        return filed


def file_picture(
    store: ImageStore,
    ledger: Ledger,
    battery_id: str,
    bgr: np.ndarray,
    quality: int,
    stamp: float,
    station: str = "infeed",
) -> None:
    """File a picture of a battery.

    Args:
        store: Where the file goes.
        ledger: Where it is recorded.
        battery_id: What it shows.
        bgr: uint8 (height, width, 3) or (height, width).
        quality: Of the JPEG, 1 to 100.
        stamp: End of exposure in s.
        station: Where it was taken.

    Raises:
        LedgerError: It can't be written.
    """
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    sha256 = store.put(jpeg)
    with ledger.transaction() as transaction:
        transaction.add_image(
            battery_id,
            sha256,
            path=str(store.path(sha256).relative_to(store.folder)),
            width=bgr.shape[1],
            height=bgr.shape[0],
            size=len(jpeg),
            stamp=stamp,
            station=station,
        )
