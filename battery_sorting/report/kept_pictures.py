"""Where the pictures of a ledger's batteries are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from battery_sorting.core.bounded import MIB, read_bytes
from battery_sorting.core.errors import FrameError
from battery_sorting.core.names import file_stem
from battery_sorting.ledger import BatteryRecord, ImageRecord, Shift
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import find_shift

LARGEST_PICTURE = 256 * MIB


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
        """Where the file of a picture is or would be: in the folder, whatever a record from elsewhere says."""
        if shift_id not in self._folders:
            self._folders[shift_id] = self._folder or self._of_shift(find_shift(self._book, shift_id))
        inside = not Path(image.path).is_absolute() and ".." not in Path(image.path).parts
        return self._folders[shift_id] / (image.path if inside else file_stem(image.path))

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
            content = read_bytes(path, LARGEST_PICTURE)
        except OSError as error:
            raise FrameError(
                f"{path}: can't be read ({error.strerror}); name the folder of the pictures with --images"
            ) from error
        if hashlib.sha256(content).hexdigest() != images[0].sha256:
            raise FrameError(f"{path}: is not the picture that was filed: its sha256 differs from its name")
        return content

    def _of_shift(self, shift: Shift) -> Path:
        site = shift.config.get("site")
        name = (site.get("images") or {}).get("path") or "images" if isinstance(site, dict) else "images"
        return Path(self._book.name).parent / name
