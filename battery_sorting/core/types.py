"""The things of the domain, as plain immutable data. No ROS, no hardware.

Times are seconds since the Unix epoch on the host's clock. Encoder counts are those of the PLC: unsigned, 32 bits,
wrapping; compare them with `count_difference` only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

OTHERS = "others"
"""Bin at the belt's end: takes whatever no ejector took."""

NOWHERE = ""
"""Bin of what was no battery, or of a battery that can't be accounted for."""


class Reason(str, Enum):
    """Why a battery went where it went.

    Attributes:
        meaning: What that says, for a person.
        has_type: Whether the type that the classifier said is taken for the battery's; if not, reports count it as
            *unknown*.
    """

    meaning: str
    has_type: bool

    SORTED = "sorted", "it is in the bin of its type"
    LOW_CONFIDENCE = "low_confidence", "the classifier is less sure than the recipe asks for", False
    UNKNOWN_TYPE = "unknown_type", "it looks like none of the types that the classifier knows", False
    NO_SINGLE_BATTERY = "no_single_battery", "the picture does not show one single battery", False
    NOT_IN_RECIPE = "not_in_recipe", "the recipe has no bin for its type"
    BAD_IMAGE = "bad_image", "the picture can't be judged: it is black, white or flat, or shows no battery", False
    NO_IMAGE = "no_image", "the camera has delivered no frame of it", False
    NO_DECISION = "no_decision", "it was at the belt's end before there was a verdict", False
    LATE = "late", "the order to eject it came too late"
    TOO_CLOSE = "too_close", "another battery is closer than the recipe's `min_gap_mm`"
    UNCONFIRMED = "unconfirmed", "the gate eye had not announced it"
    MISSED = "missed", "it was ejected, and seen at the belt's end all the same"
    EJECT_REJECTED = "eject_rejected", "the PLC has refused the order to eject it"
    EJECT_CANCELLED = "eject_cancelled", "the order to eject it was revoked"
    VALVE_FAULT = "valve_fault", "the valve of its bin did not open"
    LINE_FAULT = "line_fault", "the line could not eject just then, or the order did not reach the ejector"
    LOST_POSITION = "lost_position", "nobody knows any more where on the belt it was"
    UNACCOUNTED = "unaccounted", "it was neither ejected nor seen at the belt's end"
    FALSE_TRIGGER = "false_trigger", "it was no battery: neither the gate eye nor the camera has seen one"

    def __new__(cls, code: str, meaning: str, has_type: bool = True) -> Reason:
        """Makes a member."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning, member.has_type = meaning, has_type
        return member

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def of(cls, code: str | None) -> Reason | None:
        """The reason of a code on record; None: of none, or of another version of this software."""
        return next((reason for reason in cls if reason.value == code), None)


class LookVerdict(str, Enum):
    """What an inspector says of one view of a cell."""

    GOOD = "good"
    DEFECTIVE = "defective"
    UNSURE = "unsure"
    BAD_IMAGE = "bad_image"

    def __str__(self) -> str:
        return str(self.value)


class EjectOutcome(IntEnum):
    """What became of an eject command. The values are those of EjectResult.msg."""

    UNKNOWN = 0
    SCHEDULED = 1
    FIRED = 2
    LATE = 3
    REJECTED = 4
    CANCELLED = 5
    VALVE_FAULT = 6


@dataclass(frozen=True, slots=True)
class BeltState:
    """What the PLC says of the belt. ``mm_per_count`` includes the estimated slip.

    ``exit_total`` and ``ack_total`` count the edges of the exit eye and the acknowledgements of ejections since the
    PLC's start: whoever has not heard of so many does not know yet what has become of the batteries up to here.
    """

    stamp: float
    connected: bool = False
    running: bool = False
    emergency_stop: bool = False
    watchdog_tripped: bool = False
    encoder_ok: bool = True
    boot_id: int = 0
    encoder_count: int = 0
    speed_mps: float = 0.0
    speed_setpoint_mps: float = 0.0
    mm_per_count: float = 0.1
    slip: float = 0.0
    error: str = ""
    exit_total: int = 0
    ack_total: int = 0


@dataclass(frozen=True, slots=True)
class Detection:
    """A battery at the photo-eye of the camera. ``seen_at`` is ``stamp`` on the host's monotonic clock.

    ``gap_ahead_mm`` is the distance to the battery before it, ``gap_behind_mm`` to the one after it; NaN when there
    is none in sight. ``gate_seen`` tells whether the gate eye had announced it.
    """

    battery_id: str
    trigger_count: int
    encoder_count: int
    stamp: float
    gap_ahead_mm: float = float("nan")
    gap_behind_mm: float = float("nan")
    gate_seen: bool = True
    seen_at: float = field(default=0.0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ExitDetection:
    """Something has passed the photo-eye at the belt's end.

    ``detection_total`` counts the edges of the camera's photo-eye that the PLC had seen by then (0: not known).
    """

    exit_count: int
    encoder_count: int
    stamp: float
    boot_id: int = 0
    detection_total: int = 0


@dataclass(frozen=True, slots=True)
class TypeResult:
    """Verdict of the classifier. ``scores`` maps label to probability (0..1); ``reason`` is empty when accepted.

    ``novelty`` tells how unlike any known type the battery looks (NaN: the model has no rule for that), ``views``
    how many views of its picture the model has looked at.
    """

    battery_id: str
    stamp: float
    label: str
    confidence: float
    accepted: bool
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    model: str = ""
    inference_s: float = float("nan")
    novelty: float = float("nan")
    views: int = 0


@dataclass(frozen=True, slots=True)
class ModelChange:
    """The classifier decides with another model from now on, or compares with another one in its shadow.

    ``model`` and ``previous`` are ``name/version``, empty for none; ``folder`` is where ``model`` was read.
    """

    stamp: float
    model: str
    previous: str = ""
    folder: str = ""
    sha256: str = ""
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should look at has begun (``raised``) or is over. The line goes on."""

    stamp: float
    code: str
    text: str
    raised: bool


@dataclass(frozen=True, slots=True)
class EjectOrder:
    """Order to blow one battery into a bin. A token fires at most once.

    ``encoder_count`` is that at the photo-eye, ``mm_per_count`` the belt travel per count (mm), slip included.
    """

    battery_id: str
    token: int
    bin: str
    encoder_count: int
    mm_per_count: float
    stamp: float


@dataclass(frozen=True, slots=True)
class EjectReport:
    """What became of an `EjectOrder`.

    ``ack_total`` counts the acknowledgements that the PLC of this battery had given and that are reported by now,
    this report included (0: not known).
    """

    battery_id: str
    token: int
    outcome: EjectOutcome
    bin: str
    fire_count: int
    stamp: float
    reason: str = ""
    latency_s: float = float("nan")
    ack_total: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """The last word on a battery: where it went and why."""

    battery_id: str
    bin: str
    reason: Reason
    stamp: float
    label: str = ""
    confidence: float = float("nan")


def count_difference(later: int, earlier: int) -> int:
    """Encoder counts from ``earlier`` to ``later`` (negative if it is the other way round), across the wrap."""
    return (later - earlier + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000


def count_add(count: int, difference: int) -> int:
    """Encoder count ``difference`` counts after ``count``, wrapped to 32 bits."""
    return (count + difference) % 0x1_0000_0000


def make_battery_id(boot_id: int, trigger_count: int) -> str:
    """The id of the battery that made photo-eye edge ``trigger_count`` of the PLC run ``boot_id``.

    It follows from what the PLC holds, so a node that comes back after a crash gives the same battery the same id.
    """
    return f"{boot_id:08x}-{trigger_count:06d}"


def boot_of(battery_id: str) -> int:
    """The PLC run that a battery was detected in; 0 if the id tells none. Inverse of `make_battery_id`."""
    try:
        return int(battery_id.partition("-")[0], 16)
    except ValueError:
        return 0


def number_of(battery_id: str) -> int:
    """The number of its edge at the photo-eye within that run; 0 if the id tells none."""
    number = battery_id.partition("-")[2]
    return int(number) if number.isdecimal() else 0


class LineStateId(IntEnum):
    """States of the line. The values are those of LineState.msg."""

    UNKNOWN = 0
    CLEARING = 1
    STOPPED = 2
    STARTING = 3
    IDLE = 4
    SUSPENDED = 5
    EXECUTE = 6
    STOPPING = 7
    ABORTING = 8
    ABORTED = 9
    HOLDING = 10
    HELD = 11
    UNHOLDING = 12
    SUSPENDING = 13
    UNSUSPENDING = 14
    RESETTING = 15
    COMPLETING = 16
    COMPLETE = 17

    def __str__(self) -> str:
        return self.name.capitalize()


class View(str, Enum):
    """The two looks at a cell: at its lugs from above, and at its lower case after the flip."""

    LUG = "lug"
    CASE = "case"
