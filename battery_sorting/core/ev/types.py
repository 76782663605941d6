"""What the inspection station of the EV line and its PLC say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum


class View(str, Enum):
    """The two looks at a cell: at its lugs from above, and at its lower case after the flip."""

    LUG = "lug"
    CASE = "case"


class StationAction(IntEnum):
    """What the station PLC can be told to do."""

    NONE = 0
    LOAD = 1
    CAPTURE_LUG = 2
    CAPTURE_CASE = 3
    FLIP = 4
    RELEASE = 5


class ActionResult(IntEnum):
    """What became of an action."""

    NONE = 0
    DONE = 1
    REFUSED = 2
    JAM = 3
    EMPTY = 4
    EXPIRED = 5
    CANCELLED = 6


class FlipperPosition(IntEnum):
    """What the two end switches of the flipper say. ``BETWEEN`` is neither of the two."""

    BETWEEN = 0
    UPRIGHT = 1
    INVERTED = 2


@dataclass(frozen=True, slots=True)
class StationCommand:
    """One action for the PLC.

    Attributes:
        token: Above every token before it; the PLC does each once.
        argument: Number of the outlet for ``RELEASE``, else 0.
        expiry_ms: Milliseconds after which the PLC must not begin it any more.
    """

    token: int
    action: StationAction
    argument: int = 0
    expiry_ms: int = 1000


@dataclass(frozen=True, slots=True)
class StationStatus:
    """The PLC's status block, read with ``host_time`` (s, host's monotonic clock) as the middle of the request.

    Attributes:
        loaded_total: Cells that the loader has brought since the PLC's boot; with ``boot_id`` it identifies a cell.
        active_token: Token of the action that runs, 0 for none.
        done_token: Token of the last action that ended, 0 for none since boot.
        done_count: How often any action was reported as ended, so that a second answer to one token shows.
    """

    host_time: float
    round_trip_s: float
    boot_id: int
    time_ms: int
    emergency_stop: bool
    watchdog_tripped: bool
    jam: bool
    part_present: bool
    flipper: FlipperPosition
    loaded_total: int
    active_token: int
    done_token: int
    done_result: ActionResult
    done_count: int


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
