"""The one decoder of camera frames: how the bytes of a pixel lie, how many bits of them are used, who takes what.

ROS knows ``mono16`` and ``bayer_rggb16``, which say nothing of a camera of 10 or 12 bits that puts them into the
lower bits of 16: taken as 16, such a frame is black. So a driver says ``mono12`` (in the same two bytes, the low
one first), or what GenICam calls it (``Mono12``, ``BayerRG12``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from battery_sorting.core.errors import FrameError

DEPTHS = (8, 10, 12, 14, 16)
BAYER = {"rggb": "RG", "bggr": "BG", "gbrg": "GB", "grbg": "GR"}
"""Orders of a colour filter to what GenICam calls them."""
LEAST_SIDE = 8
COMMON = ("rgb8", "bgr8", "mono8", "bayer_rggb8", "mono12", "bayer_rggb12")
"""What a message suggests, of those that can be used; they all say their bits."""

Pixels: TypeAlias = "bytes | bytearray | memoryview | np.ndarray"


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


@dataclass(frozen=True, slots=True)
class FrameUse:
    """What a place takes of the encodings, and what it makes of them.

    Attributes:
        order: Of the channels: ``rgb`` or ``bgr``.
        filters: Frames behind a colour filter are taken, and binned 2×2.
        open_depth: Those of 16 bits are taken, and kept: nobody knows how many are used (`framing.CameraDepth`).
        flat_grey: Grey frames have no axis of channels; else they have three alike.
    """

    order: str
    filters: bool
    open_depth: bool
    flat_grey: bool

    def problem(self, name: str) -> str:
        """Why frames in the encoding of that name can't be used here; empty if they can."""
        kind = ENCODINGS.get(name)
        if kind is None:
            if name.endswith(("p", "Packed")):
                return "packed pixels are not read: set the camera's pixel format to Mono12, BayerRG8 or the like"
            return f"set the camera to {self.suggestion()}"
        if not self._takes_layout(kind):
            return f"no colour filter here: set the camera to {self.suggestion()}"
        if not self._takes_depth(kind):
            return (
                "it doesn't say how many of its 16 bits are used; set the camera to 8 bits or let its driver say "
                f"{name.replace('16', '12')} or the like"
            )
        return ""

    def suggestion(self) -> str:
        """Some encodings that can be used here."""
        usable = [name for name in COMMON if self._takes_layout(ENCODINGS[name])]
        return f"{', '.join(usable[:-1])} or {usable[-1]}"

    def _takes_layout(self, kind: Encoding) -> bool:
        return self.filters or kind.layout not in BAYER

    def _takes_depth(self, kind: Encoding) -> bool:
        return self.open_depth or kind.bits != 16


BELT = FrameUse("rgb", filters=True, open_depth=False, flat_grey=False)
"""The belt's classifier: uint8 RGB; a colour filter's 2×2 pixels are sharper than any network here needs."""
FILED = FrameUse("bgr", filters=True, open_depth=False, flat_grey=False)
"""Pictures that are filed: as `BELT`, in the order in which OpenCV writes them."""
STATION = FrameUse("bgr", filters=False, open_depth=True, flat_grey=True)
"""The inspection station: every pixel counts, so no colour filter."""


def decode(data: Pixels, encoding: str, height: int, width: int, step: int, use: FrameUse = BELT) -> np.ndarray:
    """Pixels of a raw camera frame.

    Args:
        data: Pixels, ``height`` rows of ``step`` bytes.
        encoding: One of `ENCODINGS`. Of 10, 12 or 14 bits the upper eight count.
        height: Rows.
        width: Columns.
        step: Bytes per row.
        use: Who takes it, and how.

    Returns:
        uint8 (height, width, 3), half of that on each side for a Bayer frame; (height, width) for a grey one where
        ``use`` wants that; uint16 for one of 16 bits. Without a copy where the bytes lie so already.

    Raises:
        FrameError: The encoding can't be used, or the data don't fit the sizes.
    """
    if problem := use.problem(encoding):
        raise FrameError(f"encoding: {encoding!r} can't be used; {problem}")
    kind = ENCODINGS[encoding]
    row = width * kind.bytes
    pixels = np.frombuffer(data, np.uint8)
    if min(height, width) < LEAST_SIDE or step < row or pixels.size != height * step:
        raise FrameError(
            f"frame of {width}×{height} {encoding}, {step} bytes a row, is not whole: it has {pixels.size} bytes; "
            "check the camera's link and its width, height and encoding"
        )
    rows = pixels.reshape(height, step)[:, :row]
    samples = kind.samples(rows) if kind.bits == 16 else kind.eight_bits(rows)
    if kind.layout == "mono":
        return samples if use.flat_grey else np.repeat(samples[..., None], 3, axis=2)
    if kind.channels == 1:
        return _bin_bayer(samples, kind.layout, use.order)
    picture = samples.reshape(height, width, 3)
    return picture if kind.layout == use.order else cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_BGR2RGB)


def raw_pixels(data: Pixels, height: int, width: int, channels: int) -> np.ndarray:
    """Bytes of a frame without padding as uint8 (height, width, 3), or (height, width) for one channel; no copy."""
    return np.frombuffer(data, np.uint8).reshape((height, width, 3) if channels == 3 else (height, width))


def _bin_bayer(raw: np.ndarray, layout: str, order: str) -> np.ndarray:
    """Colour of 2×2 pixels each, which lie as ``layout`` says: ``rggb`` is red and green over green and blue."""
    rows, columns = raw.shape[0] // 2 * 2, raw.shape[1] // 2 * 2
    raw = raw[:rows, :columns]
    above = cv2.split(raw[0::2].reshape(rows // 2, columns // 2, 2))
    below = cv2.split(raw[1::2].reshape(rows // 2, columns // 2, 2))
    of = dict(zip("ABCD", (*above, *below), strict=True))
    first, last = (of["ABCD"[layout.index(order[end])]] for end in (0, -1))
    green, green_below = (of["ABCD"[place]] for place in range(4) if layout[place] == "g")
    return cv2.merge([first, cv2.addWeighted(green, 0.5, green_below, 0.5, 0.0), last])
