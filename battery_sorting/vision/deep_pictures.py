"""Pictures of more than 8 bits a sample: how many of a file's bits are used, and 8 bits made of them.

Industrial cameras have 10, 12 or 14 bits, and files have 8 or 16. What lies in the lower bits of 16 looks black
when the upper eight are taken. A file may say how many bits it uses (`Deep.declared`); where it doesn't, the
largest value of all pictures that lie together tells (`camera_bits`). One picture alone would not do: a dark one
would be brightened.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from battery_sorting.core.errors import FrameError

log = logging.getLogger(__name__)

BITS = (8, 10, 12, 14, 16)
"""What cameras have; 8 in a file of 16 comes of programs that store numbers without scaling them."""
LOOKED_AT = 100
"""So many pictures of a camera, evenly spread, tell how many bits it uses."""
MAX_PIXELS = 150_000_000
"""A picture that claims more is refused before it is decoded: a few bytes can unpack to many gigabytes."""

_FULL = 1 << 14  # a value from here on needs all 16 bits
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*")
_PACKED = (10, 12, 14)
_HEAD = 1 << 16  # bytes that are read to learn whether a file is a deep one
_WIDTH, _HEIGHT, _SAMPLE_BITS, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 258, 262, 270
_OFFSETS, _SAMPLES, _COUNTS, _MAX_VALUE, _FORMAT, _SMAX_VALUE = 273, 277, 279, 281, 339, 341
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_DNG_VERSION, _COLOUR_FILTER = 50706, (32803, 34892)
_SIGNIFICANT = re.compile(r'SignificantBits\s*=\s*["\']?(\d{1,2})')  # OME-TIFF


@dataclass(frozen=True, slots=True)
class Deep:
    """What the head of a file with more than 8 bits a sample says.

    Attributes:
        declared: Bits that are used, by what the file says; None: it doesn't say.
        grey: One channel.
        packed: 10, 12 or 14 bits without gaps, which OpenCV alone unpacks (to full scale).
        inverted: White is 0.
        pixels: Width by height.
        whole: All its pixels are there, as far as the head tells.
        shifted: ``declared`` may also be of samples that were scaled up to 16 bits, as PNG wants it.
    """

    declared: int | None
    grey: bool
    packed: bool = False
    inverted: bool = False
    pixels: int = 0
    whole: bool = True
    shifted: bool = False


def deep_facts(data: bytes | _Slices) -> Deep | None:
    """What the bytes of a file say of its depth; None for a file of 8 bits a sample, or of none."""
    try:
        if data[:8] == _PNG:
            return _of_png(data)
        if data[:4] in _TIFF:
            return _of_tiff(data)
        if data[:2] in (b"P5", b"P6"):
            return _of_pnm(data[:_HEAD])
    except (struct.error, IndexError, ValueError):  # broken further on than its first bytes: the decoder says so
        return None
    return None


def is_tiff(data: bytes) -> bool:
    """Whether it begins as a TIFF file does, which cameras' raw files do as well."""
    return data[:4] in _TIFF


def is_raw(data: bytes) -> bool:
    """Whether a TIFF file is a camera's raw file, of which decoders take the thumbnail for the picture."""
    try:
        tags = tiff_tags(data)
    except (struct.error, IndexError, ValueError):
        return False
    return data[8:10] == b"CR" or _DNG_VERSION in tags or _first(tags, _PHOTOMETRIC, 1) in _COLOUR_FILTER


def eight_bit_picture(data: bytes, facts: Deep, shallow: Image.Image | None, bits: int | None) -> Image.Image:
    """A deep file as a picture of 8 bits a sample: the upper eight of those that are used.

    Args:
        data: Of the file.
        facts: `deep_facts` of it.
        shallow: It as Pillow has loaded it, so that it is known to be whole; None: Pillow can't (`Deep.packed`).
        bits: Used where the file doesn't say; None: as many as its own values need.

    Raises:
        FrameError: It can't be decoded.
    """
    if shallow is not None and not facts.grey and _has_full_scale(shallow, facts):
        return shallow  # Pillow takes the upper eight of sixteen
    samples = _samples(data, shallow)
    used = _used_bits(samples, facts, bits)
    eight = np.minimum(samples >> (used - 8), 255).astype(np.uint8)
    if facts.inverted:
        eight = 255 - eight
    if samples.ndim == 3 and samples.shape[2] == 4:
        opaque = samples[..., 3] >> ((used if int(samples[..., 3].max()) < 1 << used else 16) - 8)
        eight[..., 3] = np.minimum(opaque, 255)
    return Image.fromarray(eight)


def camera_bits(files: Iterable[Path]) -> int | None:
    """Bits that those of ``files`` use that have 16 and don't say how many: one number for one camera.

    Told by the largest value of all pictures of that kind in the folders of ``files`` (of `LOOKED_AT` at most), so
    that it is the same for one of them and for all. What was found is said once, as a warning.

    Returns:
        8, 10, 12, 14 or 16; None where no file is of that kind.
    """
    files = list(files)
    if not any(map(_is_undeclared, files)):
        return None
    folders = sorted({file.parent for file in files})
    return _bits_in(tuple((str(folder), _changed(folder)) for folder in folders))


def needed_bits(largest: int) -> int:
    """The least of `BITS` that hold ``largest``."""
    return next((bits for bits in BITS if largest < 1 << bits), 16)


@lru_cache(maxsize=256)
def _bits_in(folders: tuple[tuple[str, int], ...]) -> int | None:
    deep = sorted(file for folder, _ in folders for file in _undeclared(Path(folder)))
    if not deep:
        return None
    step = -(-len(deep) // LOOKED_AT)
    largest = 0
    needs: dict[Path, int] = {}
    for file in deep[::step]:
        value = _largest_value(file)
        largest = max(largest, value)
        needs[file] = needed_bits(value)
    bits = needed_bits(largest)
    where = folders[0][0] if len(folders) == 1 else f"{folders[0][0]} and {len(folders) - 1} more folders"
    if bits < 16:
        log.warning(
            "%s: %d pictures have 16 bits a sample and don't say how many are used; by their largest value, %d, "
            "they are read as %d bits",
            where,
            len(deep),
            largest,
            bits,
        )
    dark = [file for file, need in needs.items() if need <= bits - 4]
    if dark:
        log.warning(
            "%s: %d of the pictures of 16 bits use no more than %d (%s): they are dark beside the others; if "
            "another camera took them, save them with 8 bits",
            where,
            len(dark),
            bits - 4,
            ", ".join(file.name for file in dark[:3]) + (", …" if len(dark) > 3 else ""),
        )
    return bits


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _undeclared(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if not file.name.startswith(".") and _is_undeclared(file)]
    except OSError:
        return []


def _is_undeclared(file: Path) -> bool:
    facts = _head_of(file) if file.is_file() else None
    return facts is not None and facts.declared is None and not facts.packed and facts.pixels <= MAX_PIXELS


class _Slices:
    """A file, of which no more is read than is asked for: the directory of a TIFF may stand at its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _ = part.indices(self._size)
        self._stream.seek(begin)
        return self._stream.read(max(0, end - begin))


def _head_of(file: Path) -> Deep | None:
    try:
        with file.open("rb") as stream:
            return deep_facts(_Slices(stream))
    except OSError:
        return None


def _largest_value(file: Path) -> int:
    """0 for what can't be decoded: it is named when it is read."""
    try:
        data = file.read_bytes()
        facts = deep_facts(data)
        if facts is None:
            return 0
        samples = _decoded_by_opencv(data)
    except (OSError, FrameError):
        return 0
    return int((samples if samples.ndim == 2 else samples[..., :3]).max())


def _has_full_scale(shallow: Image.Image, facts: Deep) -> bool:
    if facts.declared is not None and facts.declared < 16:
        return False
    if facts.declared == 16:
        return True
    channels = 1 if shallow.mode == "LA" else 3
    return int(np.asarray(shallow)[..., :channels].max()) > _FULL >> 8


def _samples(data: bytes, shallow: Image.Image | None) -> np.ndarray:
    """uint16 (h, w) grey, or (h, w, 3 or 4) RGB(A), upright where the format is TIFF, else as it is stored."""
    if shallow is not None and shallow.mode.startswith("I"):
        return np.asarray(shallow).astype(np.uint16)  # the byte order of the file is not always the machine's
    samples = _decoded_by_opencv(data)
    if samples.ndim == 3:
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    if shallow is not None and samples.shape[:2] != (shallow.height, shallow.width):
        raise FrameError("has 16 bits a sample and is turned in a way that can't be read; convert it to 8 bits")
    return samples


def _decoded_by_opencv(data: bytes) -> np.ndarray:
    try:
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FrameError(f"is a broken picture ({error.err}); fetch it again or take it out") from error
    if samples is None or samples.dtype != np.uint16 or samples.ndim not in (2, 3):
        raise FrameError("has more than 8 bits a sample in a way that can't be decoded; convert it to 8 bits")
    return np.asarray(samples)


def _used_bits(samples: np.ndarray, facts: Deep, bits: int | None) -> int:
    colours = samples if samples.ndim == 2 else samples[..., :3]
    largest = int(colours.max())
    declared = 16 if facts.packed else facts.declared
    if declared is not None and facts.shifted and _is_scaled_up(colours, declared, largest):
        declared = 16
    if declared is not None:
        return max(8, declared, largest.bit_length())
    need = needed_bits(largest)
    if bits is not None and need > bits:
        log.warning("a picture holds values up to %d, more than the %d bits of its neighbours", largest, bits)
    return max(bits or need, need)


def _is_scaled_up(samples: np.ndarray, bits: int, largest: int) -> bool:
    """Whether samples of ``bits`` were shifted or replicated to the whole 16, as the PNG standard asks for."""
    if largest >= 1 << bits:
        return True
    if not largest or bits < 8:
        return False
    upper = samples >> (16 - bits)
    shifted = upper << (16 - bits)
    return bool(np.array_equal(samples, shifted) or np.array_equal(samples, shifted | upper >> (2 * bits - 16)))


def _of_png(data: bytes | _Slices) -> Deep | None:
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if depth != 16:
        return None
    declared = None
    place = 8
    while place + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"IDAT":
            break
        if kind == b"sBIT" and 1 <= size <= 4:
            colours = data[place + 8 : place + 8 + (1 if colour in (0, 4) else 3)]
            declared = max(colours) if colours and 0 < max(colours) <= 16 else None
        place += 12 + size
    return Deep(declared, grey=colour == 0, pixels=width * height, shifted=declared is not None)


def _of_pnm(data: bytes) -> Deep | None:
    fields = re.match(
        rb"P[56](?:\s+(?:#[^\n]*\n\s*)*)(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s", data
    )
    if fields is None:
        return None
    width, height, most = map(int, fields.groups())
    # What is declared below 65535 Pillow has scaled up.
    if most != 65535:
        return None if most < 256 else Deep(16, grey=data[1:2] == b"5", pixels=width * height)
    return Deep(None, grey=data[1:2] == b"5", pixels=width * height)


def _of_tiff(data: bytes | _Slices) -> Deep | None:
    tags = tiff_tags(data)
    depth = _first(tags, _SAMPLE_BITS, 1)
    if depth not in (*_PACKED, 16) or _first(tags, _FORMAT, 1) != 1:
        return None
    samples, photometric = _first(tags, _SAMPLES, 1), _first(tags, _PHOTOMETRIC, 1)
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        return None
    pixels = _first(tags, _WIDTH, 0) * _first(tags, _HEIGHT, 0)
    inverted = photometric == _WHITE_IS_ZERO
    if depth in _PACKED:
        offsets, counts = tags.get(_OFFSETS, ()), tags.get(_COUNTS, ())
        ends = [int(offset) + int(count) for offset, count in zip(offsets, counts, strict=False)]
        whole = max(ends, default=0) <= len(data)
        return Deep(depth, samples == 1, packed=True, inverted=inverted, pixels=pixels, whole=whole)
    return Deep(_declared_in_tiff(tags), samples == 1, inverted=inverted, pixels=pixels)


def _declared_in_tiff(tags: dict[int, tuple[int, ...] | bytes]) -> int | None:
    text = tags.get(_DESCRIPTION, b"")
    significant = _SIGNIFICANT.search(text.decode("latin-1")) if isinstance(text, bytes) else None
    if significant is not None and 8 <= int(significant[1]) <= 16:
        return int(significant[1])
    for tag in (_SMAX_VALUE, _MAX_VALUE):
        largest = _first(tags, tag, 0)
        # The largest value that occurs stands there as well; only that of a whole number of bits is the camera's.
        if largest >= 255 and largest & (largest + 1) == 0:
            return min(largest.bit_length(), 16)
    return None


def tiff_tags(data: bytes | _Slices) -> dict[int, tuple[int, ...] | bytes]:
    """The whole numbers and texts of a TIFF file's first directory, by tag; at most 4096 numbers of each."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack(f"{order}I", data[4:8])
    (count,) = struct.unpack(f"{order}H", data[place : place + 2])
    tags: dict[int, tuple[int, ...] | bytes] = {}
    for number in range(min(count, 512)):
        entry = data[place + 2 + 12 * number : place + 14 + 12 * number]
        tag, kind, values = struct.unpack(f"{order}HHI", entry[:8])
        letter, size = {1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4)}.get(kind, ("", 0))
        if not letter:
            continue
        values = min(values, 4096 if kind != 2 else 1 << 16)
        at = entry[8 : 8 + size * values] if size * values <= 4 else b""
        if not at:
            (offset,) = struct.unpack(f"{order}I", entry[8:12])
            at = data[offset : offset + size * values]
        tags[tag] = at if kind == 2 else struct.unpack(f"{order}{values}{letter}", at)
    return tags


def _first(tags: dict[int, tuple[int, ...] | bytes], tag: int, otherwise: int) -> int:
    values = tags.get(tag)
    return int(values[0]) if isinstance(values, tuple) and values else otherwise
