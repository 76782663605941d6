"""The emergency stop of a device, from the moment it is pressed until a person has started the line again."""

from __future__ import annotations

from battery_sorting.core.types import LineStateId

_ABORTED = {LineStateId.ABORTING, LineStateId.ABORTED, LineStateId.CLEARING}
_STARTED = {LineStateId.STARTING, LineStateId.EXECUTE}


class EmergencyStop:
    """What the owner of a device makes of its emergency stop.

    A button that was pressed for the blink of an eye still aborts the line: it stands until the line is seen to be
    aborted. And a button that was released moves nothing: whatever was ordered before is forgotten, and the device
    waits until the line, after it was aborted, is seen to start. Only a person can bring that about.
    """

    def __init__(self) -> None:
        self._pressed = False
        self._standing = False
        self._blocked = False

    @property
    def standing(self) -> bool:
        """Whether the line must abort: the button is pressed, or the line does not know yet that it was."""
        return self._standing

    @property
    def may_move(self) -> bool:
        """Whether the device may move: the button was never pressed, or a person has started the line since."""
        return not self._blocked

    def see(self, pressed: bool) -> None:
        """The device says whether its emergency stop is pressed."""
        self._pressed = pressed
        if pressed:
            self._standing = self._blocked = True

    def line_is(self, state: LineStateId) -> None:
        """The line says in which state it is."""
        if self._standing:
            self._standing = self._pressed or state not in _ABORTED
        elif self._blocked:
            self._blocked = state not in _STARTED
