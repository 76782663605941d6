"""Reading pictures of any format into one form: uint8 RGB, upright, transparent parts white.

Pillow decodes: it gives the same pixels as OpenCV for the usual files, and it is right about CMYK, palettes and
broken files, knows a picture's size before it decodes it, and can decode a large JPEG at a fraction of its size.
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from battery_sorting.core.errors import FrameError
from battery_sorting.core.types import OTHERS

ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
"""What is decoded, whatever a file's ending says. Formats that run other programs (EPS) are not among them."""

MAX_PIXELS = 150_000_000
"""A picture that claims more is refused before it is decoded: a few bytes can unpack to many gigabytes."""
KEPT_PIXELS = 16_000_000
"""A larger picture is scaled down while it is read; no network here looks at more than a small part of that."""
MIN_SIDE = 8

OTHER_FOLDERS = frozenset({"other", "others", "unknown"})
"""Folders of batteries that belong to no type, in small letters."""

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STRIP_PIXELS = 4_000_000


def read_picture(path: Path) -> np.ndarray:
    """Read a picture file, whatever its ending says; of an animation the first frame.

    Returns:
        uint8 array (height, width, 3), RGB, turned as its EXIF orientation says, transparent parts white. A picture
        of more than `KEPT_PIXELS` is scaled down by a whole number to at most about that.

    Raises:
        FrameError: The file can't be read, is cut short, is larger than `MAX_PIXELS`, or holds no picture.
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
        FrameError: The bytes are no picture that can be used.
    """
    if not data:
        raise FrameError("is empty; replace it or take it out of the folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about large pictures (see MAX_PIXELS) and untidy metadata
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                return _decoded(picture)
    except FrameError:
        raise
    except UnidentifiedImageError as error:
        raise FrameError("is no picture that can be decoded; convert it to JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise FrameError(_too_large()) from error
    except Exception as error:  # decoders raise nearly anything for a file that is broken
        raise FrameError(f"is a broken picture ({error}); fetch it again or take it out of the folder") from error


def picture_format(path: Path) -> str:
    """Format that a file's content has, such as ``WEBP``; empty where it is no picture. Decodes nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                return picture.format or ""
    except Exception:  # as in decode_picture; who wants to know why reads the picture
        return ""


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
    brightness = np.asarray(cv2.min(cv2.min(rgb[..., 0], rgb[..., 1]), rgb[..., 2]))  # five times as fast as .min
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


def _decoded(picture: Image.Image) -> np.ndarray:
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise FrameError(_too_large())
    if pixels > KEPT_PIXELS:
        side = math.sqrt(KEPT_PIXELS / pixels)
        picture.draft(None, (math.ceil(picture.width * side), math.ceil(picture.height * side)))  # JPEG only
    picture.load()
    if min(picture.size) < MIN_SIDE:
        raise FrameError(f"has {picture.width}×{picture.height} pixels; {MIN_SIDE}×{MIN_SIDE} is the least")
    factor = min(math.ceil(math.sqrt(picture.width * picture.height / KEPT_PIXELS)), min(picture.size) // MIN_SIDE)
    rgb = _rgb(picture) if factor <= 1 else _scaled_down(picture, factor)
    turn = _UPRIGHT.get(_orientation(picture))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _scaled_down(picture: Image.Image, factor: int) -> Image.Image:
    """RGB at a whole fraction of its size, strip by strip: conversions never hold a second copy of all pixels."""
    rows = max(1, _STRIP_PIXELS // (picture.width * factor)) * factor
    small = Image.new("RGB", (math.ceil(picture.width / factor), math.ceil(picture.height / factor)))
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        small.paste(_rgb(strip).reduce(factor), (0, top // factor))
    return small


def _rgb(picture: Image.Image) -> Image.Image:
    """8 bits of red, green and blue, on white."""
    if picture.mode.startswith("I;16"):
        deep = np.asarray(picture)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise FrameError("has 32 bits per pixel, whose range is unknown; convert it to 8 or 16 bits")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata are no reason to lose the picture
        return 1


def _too_large() -> str:
    return f"claims more than {MAX_PIXELS // 1_000_000} million pixels; scale it down if it is genuine"
