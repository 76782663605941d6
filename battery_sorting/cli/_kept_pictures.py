"""Where the pictures of a ledger's batteries are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from battery_sorting.core.errors import FrameError
from battery_sorting.core.ledger import BatteryRecord, ImageRecord, Ledger, Shift
from battery_sorting.core.report import find_shift

ImagesOption = Annotated[
    Path | None, typer.Option("--images", help="Folder of the kept pictures, where it isn't beside the ledger.")
]


class KeptPictures:
    """Pictures of a ledger's batteries.

    Args:
        book: The ledger.
        folder: Where its pictures are; None: beside the ledger, as the shift's site says.
    """

    def __init__(self, book: Ledger, folder: Path | None = None) -> None:
        self._book = book
        self._folder = folder
        self._folders: dict[int, Path] = {}

    def path(self, shift_id: int, image: ImageRecord) -> Path:
        """Where the file of a picture is or would be."""
        if shift_id not in self._folders:
            self._folders[shift_id] = self._folder or self._of_shift(find_shift(self._book, shift_id))
        return self._folders[shift_id] / image.path

    def read(self, battery: BatteryRecord) -> bytes:
        """Bytes of the battery's first picture, as they were filed.

        Raises:
            FrameError: None was kept, it can't be read, or it was changed since.
        """
        images = self._book.images(battery.battery_id)
        if not images:
            raise FrameError(f"battery {battery.battery_id}: no picture was kept (see 'images.keep' of the site)")
        path = self.path(battery.shift_id, images[0])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FrameError(
                f"{path}: can't be read ({error.strerror}); name the folder of the pictures with --images"
            ) from error
        if hashlib.sha256(content).hexdigest() != images[0].sha256:
            raise FrameError(f"{path}: is not the picture that was filed: its sha256 differs from its name")
        return content

    def _of_shift(self, shift: Shift) -> Path:
        site = shift.config.get("site")
        name = site.get("images", {}).get("path", "images") if isinstance(site, dict) else "images"
        return Path(self._book.name).parent / name
