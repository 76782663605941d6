"""Reading pictures of any format into one form: uint8 RGB, upright, transparent parts white."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from battery_sorting.core.errors import FrameError
from battery_sorting.core.types import OTHERS

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 80_000_000
OTHER_FOLDERS = frozenset({"other", "others", "unknown"})
"""Folders of batteries that belong to no type, in small letters."""


def read_picture(path: Path) -> np.ndarray:
    """Read a picture file, whatever its ending says.

    Returns:
        uint8 array (height, width, 3), RGB, turned as its EXIF orientation says.

    Raises:
        FrameError: The file can't be read or holds no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{path}: can't be read ({error.strerror}); check the path and its permissions") from error
    try:
        return decode_picture(data)
    except FrameError as error:
        raise FrameError(f"{path}: {error}") from error


def decode_picture(data: bytes) -> np.ndarray:
    """Decode the bytes of a picture file; see `read_picture`.

    Raises:
        FrameError: The bytes are no picture.
    """
    encoded = np.frombuffer(data, np.uint8)
    if encoded.size == 0:
        raise FrameError("is empty; replace it or take it out of the folder")
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if _may_be_transparent(data) else None
        if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
            pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise FrameError("holds a picture that can't be decoded; convert it to JPEG or PNG") from error
    if pixels is None or pixels.size == 0:
        raise FrameError("is no picture that can be decoded; convert it to JPEG or PNG")
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise FrameError(f"has more than {MAX_PIXELS} pixels; scale it down")
    if pixels.dtype == np.uint16:
        pixels = (np.asarray(pixels) // 256).astype(np.uint8)
    if pixels.shape[2] == 4:
        pixels = _on_white(pixels)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def picture_files(folder: Path) -> list[Path]:
    """Files of ``folder`` whose ending is a picture's, sorted by name."""
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in ENDINGS)


def label_of_folder(name: str) -> str:
    """Label of the pictures in a folder: its name, or ``others`` for what belongs to no type."""
    return OTHERS if name.lower() in OTHER_FOLDERS else name


def background_mask(rgb: np.ndarray, tolerance: int = 14) -> np.ndarray | None:
    """Mask (uint8, 255 = background) of a white studio background, or None where the picture has none.

    It grows from the picture's edge, so that white lettering and bright metal inside the battery stay.
    """
    height, width = rgb.shape[:2]
    brightness = rgb.min(axis=2)
    edge = np.concatenate([brightness[0], brightness[-1], brightness[:, 0], brightness[:, -1]])
    if np.mean(edge >= 255 - tolerance) < 0.6:
        return None
    bright = np.zeros((height + 2, width + 2), np.uint8)
    bright[1:-1, 1:-1] = brightness >= 255 - tolerance
    bright[[0, -1]] = 1
    bright[:, [0, -1]] = 1
    cv2.floodFill(bright, None, (0, 0), 2)
    mask = np.where(bright[1:-1, 1:-1] == 2, 255, 0).astype(np.uint8)
    return mask if np.mean(mask == 0) > 0.02 else None


def _may_be_transparent(data: bytes) -> bool:
    return data[:4] == b"\x89PNG" or data[8:12] == b"WEBP"


def _on_white(bgra: np.ndarray) -> np.ndarray:
    alpha = bgra[..., 3:].astype(np.uint16)
    return ((bgra[..., :3] * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)
