"""Reading pictures of any format into one form: uint8 RGB, upright, transparent parts white.

What has more than 8 bits a sample is brought to 8 in `deep_pictures`; `picture_folders` walks folders of pictures.
Pillow decodes: it gives the same pixels as OpenCV for the usual files, and it is right about CMYK, palettes and
broken files, knows a picture's size before it decodes it, and can decode a large JPEG at a fraction of its size.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import math
import stat
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.deep_pictures import (
    MAX_PIXELS,
    Deep,
    camera_bits,
    deep_facts,
    eight_bit_picture,
    is_raw,
    is_tiff,
)

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF")
"""What is decoded, whatever a file's ending says. Formats that run other programs (EPS) are not among them."""
_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm", ".pnm", ".pbm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
HEIC = "HEIF"
HEIC_READERS = ("pillow_heif", "pi_heif")
"""Packages that read HEIC, what iPhones take; one of them, if it is installed."""
HEIC_REMEDY = "pip install pillow-heif, or convert them to JPEG"
MAX_BYTES = 2_000_000_000
"""A larger file is not read; 150 million pixels of 16 bits take less than half of that."""
KEPT_PIXELS = 16_000_000
"""A larger picture is scaled down while it is read; no network here looks at more than a small part of that."""
MIN_SIDE = 8

OTHER_FOLDERS = frozenset({"other", "others", "unknown"})
"""Folders of batteries that belong to no type, in small letters."""

RAW = "a camera's raw file"


def endings(text: str) -> frozenset[str]:
    """Endings of files, with their dots."""
    return frozenset(f".{word}" for word in text.split())


RAW_ENDINGS = endings(
    "3fr arw cr2 cr3 crw dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
)
_SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "iconcache.db", "icon\r")
)
_RAW_REMEDY = f"is {RAW}, of which only a thumbnail could be read; convert it to JPEG or PNG"
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P4", b"P5", b"P6")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_KINDS = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript drawing"),
    (b"8BPS", "a Photoshop file"),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"IIRO", RAW),
    (b"IIU\0", RAW),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"PK\x03\x04", "an archive"),
    (b"\0\x05\x16\x07", "what macOS keeps beside a file (AppleDouble), not the file"),
    (b"<svg", "a drawing (SVG)"),
    (b"<!DOCTYPE", "a page of the web, not a picture: fetch it again"),
    (b"<html", "a page of the web, not a picture: fetch it again"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the picture: run git lfs pull"),
)

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


def read_picture(path: Path, bits: int | None = None, transparent: bool = False) -> np.ndarray:
    """Read a picture file, whatever its ending says; of an animation or a file of several pages the first.

    Args:
        path: The file.
        bits: Used by a file of 16 bits a sample that doesn't say how many it uses: `camera_bits` of all pictures
            that are read together. None: that of the pictures in its folder.
        transparent: Transparent parts are not to become white: a fourth channel says how opaque each pixel is.

    Returns:
        uint8 array (height, width, 3), RGB, turned as its EXIF orientation says, transparent parts white. A picture
        of more than `KEPT_PIXELS` is scaled down by a whole number to at most about that.

    Raises:
        FrameError: The file can't be read, is cut short, is larger than `MAX_PIXELS`, or holds no picture.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would never end
            raise FrameError(f"{path}: is no plain file; name a picture")
        if state.st_size > MAX_BYTES:
            raise FrameError(f"{path}: has more than {MAX_BYTES // 1_000_000} MB; scale it down if it is genuine")
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{path}: can't be read ({error.strerror}); check the path and its permissions") from error
    try:
        if path.suffix.lower() in RAW_ENDINGS and is_tiff(data):
            raise FrameError(_RAW_REMEDY)
        return decode_picture(data, _bits_of(path, data) if bits is None else bits, transparent)
    except FrameError as error:
        raise FrameError(f"{path}: {error}") from error


def _bits_of(path: Path, data: bytes) -> int | None:
    facts = deep_facts(data)
    if facts is None or facts.declared is not None or facts.packed:
        return None
    return camera_bits([path])


def decode_picture(data: bytes, bits: int | None = None, transparent: bool = False) -> np.ndarray:
    """Decode the bytes of a picture file; see `read_picture`. Without ``bits`` its own values tell.

    Raises:
        FrameError: The bytes are no picture that can be used.
    """
    if not data:
        raise FrameError("is empty; replace it or take it out of the folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about large pictures (see MAX_PIXELS) and untidy metadata
            if is_tiff(data) and is_raw(data):
                raise FrameError(_RAW_REMEDY)
            facts = deep_facts(data)
            if facts is not None and facts.packed:  # which Pillow can't read, but of one channel and 12 bits
                return _finished(_unpacked(data, facts), None, transparent)
            with Image.open(io.BytesIO(data), formats=readable_formats()) as picture:
                eight, turn = _decoded(picture, data, facts, bits)
                return _finished(eight, turn, transparent)
    except FrameError:
        raise
    except UnidentifiedImageError as error:
        raise FrameError(_why_not(data)) from error
    except Image.DecompressionBombError as error:
        raise FrameError(_too_large()) from error
    except Exception as error:  # decoders raise nearly anything for a file that is broken
        raise FrameError(f"is a broken picture ({error}); fetch it again or take it out of the folder") from error


def picture_format(path: Path) -> str:
    """Format that a file's content has, such as ``WEBP``; empty where it is no picture. Decodes nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=readable_formats()) as picture:
                return picture.format or ""
    except Exception:  # as in decode_picture; who wants to know why reads the picture
        return ""


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the Pillow here can decode, and HEIC where a reader of it is installed."""
    Image.init()
    found = [name for name in FORMATS if name in Image.OPEN]
    if reads_heic():
        for name in HEIC_READERS:
            try:
                importlib.import_module(name).register_heif_opener()
            except Exception as error:  # built for another Pillow or libheif: pictures of other kinds are read
                log.warning("%s is installed, but does not work (%s); install it anew", name, error)
            else:
                return (*found, HEIC)
    return tuple(found)


def reads_heic() -> bool:
    """Whether one of `HEIC_READERS` is installed."""
    return any(importlib.util.find_spec(name) is not None for name in HEIC_READERS)


def picture_endings() -> frozenset[str]:
    """Endings, in small letters, of the files that are taken for pictures."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    return frozenset(end for name in (*formats, *([HEIC] if reads_heic() else [])) for end in _ENDINGS[name])


def is_ending_of(path: Path, kind: str) -> bool:
    """Whether a file of the format ``kind`` (`picture_format`) is called as such; True for what is no picture."""
    return path.suffix.lower() in _ENDINGS.get(kind, (path.suffix.lower(),))


def clean_name(name: str) -> str:
    """A folder's name as the name of a type: letters with accents as one (NFC), nothing invisible at its ends.

    macOS writes ``ü`` as ``u`` and dots (NFD), and archives carry that to other systems: two names that look alike.
    """
    text = unicodedata.normalize("NFC", name)
    begin, end = 0, len(text)
    while begin < end and _is_invisible(text[begin]):
        begin += 1
    while end > begin and _is_invisible(text[end - 1]):
        end -= 1
    return text[begin:end]


def picture_name(picture: Path) -> str:
    """``FOLDER/FILE``: by that a picture is known wherever the data lie, however a file system writes accents."""
    return f"{clean_name(picture.parent.name)}/{unicodedata.normalize('NFC', picture.name)}"


def is_system_file(name: str) -> bool:
    """Whether a file of that name is made by systems and programs beside what people put there."""
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM_FILES


def picture_files(folder: Path) -> list[Path]:
    """Files of ``folder`` whose ending is a picture's, sorted by name; none that a system put there (`._1.jpg`).

    `picture_folders.find_pictures` also says what is left out.

    Raises:
        ConfigurationError: The folder can't be read.
    """
    known = picture_endings()
    try:
        return sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in known and not is_system_file(file.name) and file.is_file()
        )
    except OSError as error:
        raise ConfigurationError(
            str(folder), [f"can't be read ({error.strerror}); check the path and its permissions"]
        ) from error


def label_of_folder(name: str) -> str:
    """Label of the pictures in a folder: its name (`clean_name`), or ``others`` for what belongs to no type."""
    label = clean_name(name)
    return OTHERS if label.lower() in OTHER_FOLDERS else label


def _is_invisible(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) == "Cf"


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


def _decoded(
    picture: Image.Image, data: bytes, facts: Deep | None, bits: int | None
) -> tuple[Image.Image, Image.Transpose | None]:
    """The picture with 8 bits a sample, and how it must be turned."""
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise FrameError(_too_large())
    if pixels > KEPT_PIXELS:
        side = math.sqrt(KEPT_PIXELS / pixels)
        picture.draft(None, (math.ceil(picture.width * side), math.ceil(picture.height * side)))  # JPEG only
    picture.load()
    turn = _UPRIGHT.get(_orientation(picture))
    return picture if facts is None else eight_bit_picture(data, facts, picture, bits), turn


def _unpacked(data: bytes, facts: Deep) -> Image.Image:
    if facts.pixels > MAX_PIXELS:
        raise FrameError(_too_large())
    if not facts.whole:
        raise FrameError("is a broken picture (cut short); fetch it again or take it out of the folder")
    return eight_bit_picture(data, facts, None, None)


def _finished(picture: Image.Image, turn: Image.Transpose | None, transparent: bool) -> np.ndarray:
    if min(picture.size) < MIN_SIDE:
        raise FrameError(f"has {picture.width}×{picture.height} pixels; {MIN_SIDE}×{MIN_SIDE} is the least")
    factor = min(math.ceil(math.sqrt(picture.width * picture.height / KEPT_PIXELS)), min(picture.size) // MIN_SIDE)
    form = _rgba if transparent else _rgb
    made = form(picture) if factor <= 1 else _scaled_down(picture, factor, form)
    return np.array(made if turn is None else made.transpose(turn))


def _scaled_down(picture: Image.Image, factor: int, form: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """At a whole fraction of its size, strip by strip: conversions never hold a second copy of all pixels."""
    rows = max(1, _STRIP_PIXELS // (picture.width * factor)) * factor
    mode = "RGBA" if form is _rgba else "RGB"
    small = Image.new(mode, (math.ceil(picture.width / factor), math.ceil(picture.height / factor)))
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        small.paste(form(strip).reduce(factor), (0, top // factor))
    return small


def _rgba(picture: Image.Image) -> Image.Image:
    """8 bits of red, green, blue and opacity."""
    return (picture if picture.has_transparency_data else _rgb(picture)).convert("RGBA")


def _rgb(picture: Image.Image) -> Image.Image:
    """8 bits of red, green and blue, on white."""
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


def _why_not(data: bytes) -> str:
    """What bytes are that Pillow takes for no picture, and what to do."""
    kind = kind_of(data)
    if kind == "HEIC" and reads_heic():
        return "is a broken HEIC picture; fetch it again or take it out of the folder"
    if kind == "HEIC":
        return f"is a HEIC picture: {HEIC_REMEDY.replace('them', 'it')}"
    if kind:
        return f"is no picture that can be decoded, but {kind}; convert it to JPEG or PNG"
    return "is no picture that can be decoded; convert it to JPEG or PNG"


def begins_as_picture(head: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of a picture that may be read."""
    return head.startswith(_BEGINNINGS) or head[8:12] == b"WEBP" or head[4:8] == b"ftyp"


def kind_of(data: bytes) -> str:
    """What a file is that can't be read as a picture, by its first bytes, such as ``a PDF document``; or empty."""
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in _HEIC_BRANDS:
            return "HEIC"
        return {b"avif": "an AVIF picture", b"avis": "an AVIF picture", b"crx ": RAW}.get(brand, "a film")
    if data[:3] == b"\xff\xd8\xff":
        return "a JPEG of a kind that can't be read (12 bits, lossless, or broken)"
    if is_tiff(data):
        return "a TIFF picture of a kind that can't be read"
    return next((what for start, what in _KINDS if data.startswith(start)), "")


def _too_large() -> str:
    return f"claims more than {MAX_PIXELS // 1_000_000} million pixels; scale it down if it is genuine"


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture file and its label; ``bits`` as for `read_picture`, the same for all that are learned from."""

    path: Path
    label: str
    bits: int | None = None

    @property
    def name(self) -> str:
        """FOLDER/FILE, by which a picture is known wherever the data lie."""
        return picture_name(self.path)

    @property
    def depth(self) -> str:
        """What distinguishes two readings of the same file."""
        return f" {self.bits} bits" if self.bits else ""
