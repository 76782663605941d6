"""From a frame to what the defect network sees: one class for training and inspection alike.

Pictures are BGR here, as cameras and OpenCV give them.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from battery_sorting.core.errors import FrameError

TWELVE_BITS = 4096
LEAST_SIDE = 8


class Framing(BaseModel):
    """Cut-out, size and scale of the picture that the network sees.

    Liu et al. 2023 (Sustainability 15, 15523, section 2.3) remove the background, crop so that the cell fills the
    picture, and scale it to 224 × 224; here the size is the cell's own proportions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: Literal["none", "cell"] = Field(default="none", description="the whole picture, or the cell in it")
    width: int = Field(ge=32, le=2048, multiple_of=16, description="pixels")
    height: int = Field(ge=32, le=2048, multiple_of=16, description="pixels")
    margin: float = Field(default=0.02, ge=0, le=0.5, description="around the cell, as a share of its long side")
    ends: float = Field(
        default=0.0, ge=0, le=0.5, description="share of the cell's length at either end that is kept; 0: all of it"
    )
    contrast: Literal["as_is", "own"] = Field(
        default="as_is", description="own: grey levels are scaled by the picture's own mean and spread"
    )
    grey: bool = Field(default=False, description="colour is thrown away")
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def cut(self, bgr: np.ndarray, box: np.ndarray | None = None) -> np.ndarray:
        """The cell, or the whole picture, in the network's size.

        Args:
            bgr: uint8 (h, w, 3).
            box: Corners (4, 2) of the cell in the picture's pixels: top left, top right, bottom right, bottom left.

        Returns:
            uint8 (height, width, 3), BGR; with ``ends`` the left end and, turned by 180°, the right end beside it,
            so that both look alike.
        """
        if box is None:
            whole = np.asarray(cv2.resize(bgr, (self.full_width, self.height), interpolation=cv2.INTER_AREA))
        else:
            whole = straightened(bgr, widened(box, self.margin), (self.full_width, self.height))
        if not self.ends:
            return whole
        half = self.width // 2
        return np.concatenate([whole[:, :half], whole[::-1, -half:][:, ::-1]], axis=1)

    @property
    def full_width(self) -> int:
        """Width of the whole cell at the network's scale, pixels."""
        return round(self.width / (2 * self.ends)) if self.ends else self.width

    def unfolded(self, heat: np.ndarray) -> np.ndarray:
        """A map (h, w) of the cut-out as one of the whole cell; what the network doesn't see is 0."""
        if not self.ends:
            return heat
        half = heat.shape[1] // 2
        whole = np.zeros((heat.shape[0], max(round(heat.shape[1] / (2 * self.ends)), 2 * half)), heat.dtype)
        whole[:, :half] = heat[:, :half]
        whole[:, -half:] = heat[::-1, half : 2 * half][:, ::-1]
        return whole

    def normalise(self, cutout: np.ndarray) -> np.ndarray:
        """float32 (3, height, width), RGB, of a cut-out."""
        if self.grey:
            cutout = np.repeat(cv2.cvtColor(cutout, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
        rgb = cutout[..., ::-1].transpose(2, 0, 1).astype(np.float32)
        if self.contrast == "own":
            rgb = 0.5 + 0.25 * (rgb - rgb.mean()) / (rgb.std() + 0.3)
        else:
            rgb /= 255.0
        mean, std = (np.array(value, np.float32)[:, None, None] for value in (self.mean, self.std))
        return np.asarray((rgb - mean) / std, np.float32)


def to_bgr(image: np.ndarray) -> np.ndarray:
    """Any frame as uint8 (h, w, 3) BGR: grey ones get three channels, deeper ones lose their lower bits.

    Frames of 16-bit numbers that all lie below 4096 are taken for 12-bit ones, as industrial cameras send them. A
    camera of 10 or 14 bits better says so (`encodings`): then nothing is guessed.

    Raises:
        FrameError: It is no picture.
    """
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        kind = getattr(image, "dtype", type(image).__name__)
        raise FrameError(f"frame of {kind}: give 8 or 16 bits per pixel")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise FrameError(f"frame of shape {image.shape}: give (height, width) or (height, width, 3)")
    if min(image.shape[:2]) < LEAST_SIDE:
        raise FrameError(f"frame of {image.shape[1]}×{image.shape[0]} pixels is too small")
    image = CameraDepth().eight_bits(image)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    return np.ascontiguousarray(image[..., :3])


class CameraDepth:
    """How many bits a camera uses that sends 16 a sample and doesn't say: 12, until a value shows that it has 16.

    So its frames are scaled alike, but for those before the first bright one.

    Attributes:
        bits: 12 or 16; None: no such frame has come.
    """

    def __init__(self) -> None:
        self.bits: int | None = None

    def eight_bits(self, image: np.ndarray) -> np.ndarray:
        """uint8 of a frame of uint8 or uint16."""
        if image.dtype == np.uint8:
            return image
        if self.bits != 16:
            self.bits = 12 if int(image.max()) < TWELVE_BITS else 16
        return np.asarray((image >> (self.bits - 8)).astype(np.uint8))


def straightened(bgr: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the box (4, 2) shows, upright: uint8 (height, width, 3) where ``size`` is (width, height)."""
    across, down = np.linalg.norm(box[1] - box[0]), np.linalg.norm(box[3] - box[0])
    shrink = min(across / size[0], down / size[1])
    if shrink > 2:
        left, top = np.maximum(np.floor(box.min(axis=0)).astype(int) - 2, 0)
        right, bottom = np.ceil(box.max(axis=0)).astype(int) + 3
        part = bgr[top:bottom, left:right]
        if part.size == 0:
            return np.zeros((size[1], size[0], 3), np.uint8)
        scale = 1.5 / shrink
        smaller = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        bgr = np.asarray(cv2.resize(part, smaller, interpolation=cv2.INTER_AREA))
        box = (box - (left, top)) * scale
    corners = np.array([(0, 0), (size[0], 0), (size[0], size[1])], np.float32) - 0.5
    matrix = cv2.getAffineTransform(box[:3].astype(np.float32), corners)
    return np.asarray(cv2.warpAffine(bgr, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def widened(box: np.ndarray, margin: float) -> np.ndarray:
    """The box with ``margin`` × its long side added on all sides."""
    across, down = box[1] - box[0], box[3] - box[0]
    width, height = np.linalg.norm(across), np.linalg.norm(down)
    more = margin * max(width, height)
    x, y = across / max(width, 1e-6) * more, down / max(height, 1e-6) * more
    return np.asarray(box + np.array([-x - y, x - y, x + y, -x + y]))


def sharpness(cutout: np.ndarray) -> float:
    """How much of the contrast lies in fine detail, 0 to about 2: blur takes it away, brightness does not."""
    grey = cv2.cvtColor(cutout, cv2.COLOR_BGR2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)  # noise is fine detail that a blurred picture has, too
    fine = cv2.Laplacian(smooth, cv2.CV_32F)
    return float(np.sqrt(np.mean(np.sort(np.abs(fine), axis=None)[-fine.size // 50 :] ** 2)) / (grey.std() + 2.0))
