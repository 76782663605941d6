"""Files pictures of batteries: as JPEG in the image store, and in the ledger."""

from __future__ import annotations

import cv2
import numpy as np

from battery_sorting.core.ledger import ImageStore, Ledger


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
