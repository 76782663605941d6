"""Patterns over several batteries that a person must look into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from battery_sorting.core.types import NOWHERE, Placement, Reason

_OF_NO_PICTURE = frozenset(
    {Reason.NO_DECISION, Reason.UNACCOUNTED, Reason.FALSE_TRIGGER, Reason.LOST_POSITION, Reason.NO_IMAGE}
)
"""Last words that do not tell whether the battery's picture was taken and looked at."""


@dataclass
class BeltMonitor:
    """Watches where batteries go: series of failures, and bins that fill up.

    Attributes:
        missed_limit: So many missed ejections one after the other hold the line.
        no_image_limit: So many batteries without a frame one after the other hold the line.
        no_verdict_limit: So many batteries of which nobody has said what they are hold the line. More must be
            allowed than pass while a classifier is started anew, which needs no person.
        capacities: Bin → number of batteries it holds; bins that are not named are never full.
    """

    missed_limit: int
    no_image_limit: int
    no_verdict_limit: int = 20
    capacities: Mapping[str, int] = field(default_factory=dict)
    _missed: int = 0
    _no_image: int = 0
    _no_verdict: int = 0
    _filled: Counter[str] = field(default_factory=Counter)
    _seen_to: frozenset[str] = frozenset()

    def take(self, placement: Placement) -> tuple[str, str] | None:
        """Takes one battery; returns code and text of the fault that it completes."""
        self._filled[placement.bin] += 1
        if placement.battery_id in self._seen_to:
            return None
        if placement.reason is Reason.MISSED:
            self._missed += 1
        elif placement.reason is Reason.SORTED:
            self._missed = 0
        self._no_image += placement.reason is Reason.NO_IMAGE
        self._no_verdict += placement.reason is Reason.NO_DECISION
        if placement.reason not in _OF_NO_PICTURE:
            self._no_image = self._no_verdict = 0
        if self._missed >= self.missed_limit:
            return "missed_in_a_row", f"{self._missed} ejections missed one after the other: check air and nozzles"
        if self._no_image >= self.no_image_limit:
            return "no_image_in_a_row", f"{self._no_image} batteries without a frame: check camera and trigger"
        if self._no_verdict >= self.no_verdict_limit:
            return (
                "no_verdict_in_a_row",
                f"{self._no_verdict} batteries without a verdict: check that the classifier gets the pictures "
                "(topic battery_image, its QoS) and how long it needs",
            )
        return None

    def full_bins(self) -> list[str]:
        """Bins that hold as much as they can."""
        return [bin_ for bin_, capacity in self.capacities.items() if self._filled[bin_] >= capacity]

    @property
    def contents(self) -> dict[str, int]:
        """Bin → batteries that are in it."""
        return {bin_: number for bin_, number in sorted(self._filled.items()) if bin_ != NOWHERE}

    def restore(self, contents: Mapping[str, int]) -> None:
        """Takes up what was in the bins before."""
        self._filled = Counter(contents)

    def bin_was_emptied(self, bin_: str) -> None:
        """A person has emptied a bin, full or not."""
        self._filled[bin_] = 0

    def failures_were_seen_to(self, on_belt: Iterable[str]) -> None:
        """A person has seen to the failures: the batteries that are ``on_belt`` by then tell nothing new."""
        self._missed = self._no_image = self._no_verdict = 0
        self._seen_to = frozenset(on_belt)
