"""What the inspection hears of a cell: its frames, and what the inspector says of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from battery_sorting.core.types import View


@dataclass(frozen=True, slots=True)
class FrameSeen:
    """A camera has delivered a frame. ``stamp`` is the end of its exposure (s), ``number`` the camera's count."""

    view: View
    stamp: float
    number: int


@dataclass(frozen=True, slots=True)
class ViewResult:
    """What the inspector says of one frame.

    Attributes:
        number: The frame that it looked at.
        verdict: ``good``, ``defective``, ``unsure`` or ``bad_image``.
        reason: Why it is not good: the kind of defect, or what is wrong with the image.
        probability: That the cell is defective, calibrated, 0..1; NaN when the image can't be judged.
        code: Text of the printed code; empty if none was read.
        face: ``lug`` or ``case`` as seen in the image; empty if that can't be told.
    """

    view: View
    number: int
    stamp: float
    verdict: str
    reason: str = ""
    kind: str = ""
    probability: float = float("nan")
    kinds: dict[str, float] = field(default_factory=dict)
    novelty: float = float("nan")
    code: str = ""
    face: str = ""
    model: str = ""
    seconds: float = float("nan")
