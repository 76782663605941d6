"""Wire format of the frame server: a triggered camera that pushes frames over TCP.

On connection the server sends nothing until a client writes one line of JSON settings, e.g.
``{"encoding": "bayer_rggb8", "exposure_us": 400}\\n``. It answers one line of JSON with the settings that it really
uses (the client compares) plus ``width``, ``height`` and ``time_ns`` (its clock now). From then on it pushes one
frame per trigger: a header (`HEADER`) and the pixels.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

MAGIC = b"BSF1"
HEADER = struct.Struct("!4sIIQHH16sII")
# magic, frame number, trigger count, end of exposure (ns since 1970 on the camera's clock), width, height,
# encoding (ASCII, padded with zeros), bytes of pixels, CRC-32 of the pixels
MAX_PIXEL_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Header of one frame on the wire."""

    frame_number: int
    trigger_count: int
    exposure_end_ns: int
    width: int
    height: int
    encoding: str
    size: int
    crc32: int

    def pack(self) -> bytes:
        """Bytes on the wire."""
        return HEADER.pack(
            MAGIC,
            self.frame_number,
            self.trigger_count,
            self.exposure_end_ns,
            self.width,
            self.height,
            self.encoding.encode("ascii"),
            self.size,
            self.crc32,
        )

    @classmethod
    def unpack(cls, data: bytes) -> FrameHeader:
        """Inverse of `pack`.

        Raises:
            ValueError: The bytes are no header.
        """
        magic, number, trigger, stamp, width, height, encoding, size, crc = HEADER.unpack(data)
        if magic != MAGIC:
            raise ValueError(f"bad magic {magic!r}, expected {MAGIC!r}")
        if size > MAX_PIXEL_BYTES:
            raise ValueError(f"frame of {size} bytes exceeds the limit of {MAX_PIXEL_BYTES}")
        return cls(number, trigger, stamp, width, height, encoding.rstrip(b"\0").decode("ascii"), size, crc)


def checksum(pixels: bytes | memoryview) -> int:
    """CRC-32 as carried in the header."""
    return zlib.crc32(pixels)
