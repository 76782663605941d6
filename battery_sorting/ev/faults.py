"""What can go wrong with a cell in the inspection station: the one list of it."""

from __future__ import annotations

from enum import Enum, IntEnum


class InspectionError(IntEnum):
    """Error codes of InspectCell.action."""

    NONE = 0
    EMPTY = 100
    NOT_READY = 101
    CANCELLED = 102
    LOADER = 110
    IMAGE = 120
    FLIPPER = 130
    IDENTITY = 140
    PLC = 150
    UNACCOUNTED = 160
    OTHER = 199


class FlipError(IntEnum):
    """Error codes of FlipCell.action."""

    NONE = 0
    FLIPPER = 130
    BUSY = 180
    NOT_READY = 181
    OTHER = 199


class StationFault(str, Enum):
    """A fault of a cell's inspection.

    The value is its code on record. `LOAD`, `CAPTURE`, `FLIP` and `BAD_IMAGE` are families: a detail follows them,
    see `with_detail`.

    Attributes:
        meaning: What has happened, for a person.
        error: What the action says of a cell whose first fault it is.
        mended_by_retry: A retry that succeeds leaves nothing in doubt about the cell.
    """

    meaning: str
    error: InspectionError
    mended_by_retry: bool

    LOAD = "load", "the loader has failed, is too slow or has brought nothing", InspectionError.LOADER, True
    LOADED_TWICE = "loaded_twice", "the loader has brought another cell", InspectionError.LOADER
    NOT_UPRIGHT = "not_upright", "the flipper is not upright after loading", InspectionError.FLIPPER
    CAPTURE = "capture", "the PLC has not fired the camera", InspectionError.IMAGE, True
    NO_FRAME = "no_frame", "the camera has delivered no frame", InspectionError.IMAGE, True
    FRAME_TWICE = "frame_twice", "the camera has delivered two frames for one order", InspectionError.IMAGE
    BAD_IMAGE = "bad_image", "the picture can't be judged; why follows", InspectionError.IMAGE, True
    NO_VERDICT = "no_verdict", "the inspector has not answered", InspectionError.IMAGE
    CODE_UNREAD = "code_unread", "no code can be read, and the recipe requires one", InspectionError.IDENTITY, True
    IDENTITY = "identity_mismatch", "the two pictures show two cells", InspectionError.IDENTITY
    WRONG_FACE = "wrong_face", "the picture shows the other side of a cell", InspectionError.IDENTITY
    FLIP = "flip", "the flipper has jammed, failed or is too slow", InspectionError.FLIPPER, True
    HALF_FLIP = "half_flip", "the flip is over and the cell is not inverted", InspectionError.FLIPPER, True
    WRONG_POSITION = "wrong_position", "the flipper was not where the picture needs it", InspectionError.FLIPPER
    ANSWERED_TWICE = "answered_twice", "the PLC has ended an action that was over", InspectionError.FLIPPER
    RELEASE_FAILED = "release_failed", "the PLC has not released the cell", InspectionError.OTHER
    RELEASE_TIMEOUT = "release_timeout", "the outlet has not answered", InspectionError.OTHER
    NOT_RELEASED = "not_released", "the cell is still there after its release", InspectionError.OTHER
    CELL_GONE = "cell_gone", "the cell has left without an order", InspectionError.UNACCOUNTED
    PLC_RESTARTED = "plc_restarted", "the station's PLC has restarted", InspectionError.PLC
    WATCHDOG = "watchdog", "the PLC's watchdog has tripped", InspectionError.PLC
    EMERGENCY_STOP = "emergency_stop", "the station's emergency stop was pressed", InspectionError.PLC
    CANCELLED = "cancelled", "the inspection was cancelled", InspectionError.CANCELLED
    INTERRUPTED = "interrupted", "the inspection was cut off, or a cell lay there before", InspectionError.OTHER
    STUCK = "stuck", "the station stands as it is", InspectionError.OTHER

    def __new__(
        cls, code: str, meaning: str, error: InspectionError, mended_by_retry: bool = False
    ) -> StationFault:
        """Makes a member."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning, member.error, member.mended_by_retry = meaning, error, mended_by_retry
        return member

    def __str__(self) -> str:
        """The code, as a plain string for the record."""
        return str(self.value)

    def with_detail(self, detail: str) -> str:
        """Code of a member of a family, such as ``flip_jam``."""
        return f"{self.value}_{detail}"

    @classmethod
    def of(cls, code: str) -> StationFault | None:
        """The fault, or its family, that a code on record stands for; None: it is no fault of the station."""
        exact = next((fault for fault in cls if fault.value == code), None)
        return exact or next((fault for fault in FAMILIES if code.startswith(f"{fault.value}_")), None)


FAMILIES = (StationFault.LOAD, StationFault.CAPTURE, StationFault.FLIP, StationFault.BAD_IMAGE)
