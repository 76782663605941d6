"""Encodings of camera frames: how the bytes of a pixel lie, and how many bits of them are used.

ROS knows ``mono16`` and ``bayer_rggb16``, which say nothing of a camera of 10 or 12 bits that puts them into the
lower bits of 16: taken as 16, such a frame is black. So a driver says ``mono12`` (in the same two bytes, the low
one first), or what GenICam calls it (``Mono12``, ``BayerRG12``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from battery_sorting.core.errors import FrameError

DEPTHS = (8, 10, 12, 14, 16)
BAYER = {"rggb": "RG", "bggr": "BG", "gbrg": "GB", "grbg": "GR"}
"""Orders of a colour filter to what GenICam calls them."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a frame's bytes lie.

    Attributes:
        layout: ``mono``, ``rgb``, ``bgr``, or the order of a colour filter, such as ``rggb``.
        bits: Used of a sample; more than 8 lie in the lower bits of two bytes.
    """

    layout: str
    bits: int

    @property
    def channels(self) -> int:
        """Samples of a pixel."""
        return 3 if self.layout in ("rgb", "bgr") else 1

    @property
    def bytes(self) -> int:
        """Bytes of a pixel."""
        return self.channels * (1 if self.bits == 8 else 2)

    def samples(self, rows: np.ndarray) -> np.ndarray:
        """Samples, (height, width · channels), uint8 or uint16, of rows of bytes, (height, width · `bytes`)."""
        return np.asarray(rows if self.bits == 8 else np.ascontiguousarray(rows).view("<u2"))

    def eight_bits(self, rows: np.ndarray) -> np.ndarray:
        """The upper eight of the bits that are used, uint8; arguments as of `samples`."""
        if self.bits == 8:
            return rows
        return np.asarray(np.minimum(self.samples(rows) >> (self.bits - 8), 255).astype(np.uint8))


def _known() -> dict[str, Encoding]:
    found: dict[str, Encoding] = {}
    for bits in DEPTHS:
        found[f"mono{bits}"] = found[f"Mono{bits}"] = Encoding("mono", bits)
        for layout in ("rgb", "bgr"):
            found[f"{layout}{bits}"] = found[f"{layout.upper()}{bits}"] = Encoding(layout, bits)
        for layout, name in BAYER.items():
            found[f"bayer_{layout}{bits}"] = found[f"Bayer{name}{bits}"] = Encoding(layout, bits)
    return found


ENCODINGS = _known()
"""By name, as ROS writes it and as GenICam does."""


def find_encoding(name: str) -> Encoding:
    """The encoding of that name.

    Raises:
        FrameError: It is unknown.
    """
    try:
        return ENCODINGS[name]
    except KeyError:
        pass
    remedy = "set the camera to rgb8, bgr8, mono8, bayer_rggb8 or one of 10, 12 or 14 bits, such as mono12"
    if name.endswith(("p", "Packed")):
        remedy = "packed pixels are not read: set the camera's pixel format to Mono12, BayerRG8 or the like"
    raise FrameError(f"encoding: {name!r} can't be used; {remedy}")


def bgr_or_grey(data: bytes, encoding: str, height: int, width: int, step: int) -> np.ndarray:
    """Pixels of a camera frame without a colour filter: (height, width, 3) BGR or (height, width).

    Returns:
        uint8; uint16 for one of 16 bits, of which it is not known how many are used (`framing.CameraDepth`).

    Raises:
        FrameError: The encoding is unknown, or the data don't fit the sizes.
    """
    kind = find_encoding(encoding)
    if kind.layout not in ("mono", "rgb", "bgr"):
        raise FrameError(f"encoding {encoding!r} can't be used here: set the camera to bgr8, rgb8 or mono8")
    row = width * kind.bytes
    if step < row or len(data) != step * height:
        raise FrameError(f"frame of {width}×{height} {encoding} has {len(data)} bytes")
    rows = np.frombuffer(data, np.uint8).reshape(height, step)[:, :row]
    samples = kind.samples(rows) if kind.bits == 16 else kind.eight_bits(rows)
    pixels = samples.reshape(height, width, kind.channels)
    if kind.layout == "rgb":
        pixels = pixels[..., ::-1]
    return pixels[..., 0] if kind.channels == 1 else np.ascontiguousarray(pixels)
