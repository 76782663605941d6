"""Patterns over several batteries that a person must look into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from battery_sorting.core.types import Placement, Reason


@dataclass
class Vigilance:
    """Watches where batteries go: series of failures, and bins that fill up.

    Attributes:
        missed_limit: So many missed ejections one after the other hold the line.
        no_image_limit: So many batteries without a frame one after the other hold the line.
        capacities: Bin → number of batteries it holds; bins that are not named are never full.
    """

    missed_limit: int
    no_image_limit: int
    capacities: Mapping[str, int] = field(default_factory=dict)
    _missed: int = 0
    _no_image: int = 0
    _filled: Counter[str] = field(default_factory=Counter)
    _seen_to_at: float = float("-inf")

    def take(self, placement: Placement) -> tuple[str, str] | None:
        """Takes one battery; returns code and text of the fault that it completes."""
        self._filled[placement.bin] += 1
        if placement.stamp <= self._seen_to_at:
            return None
        if placement.reason is Reason.MISSED:
            self._missed += 1
        elif placement.reason is Reason.SORTED:
            self._missed = 0
        self._no_image = self._no_image + 1 if placement.reason is Reason.NO_IMAGE else 0
        if self._missed >= self.missed_limit:
            return "missed_in_a_row", f"{self._missed} ejections missed one after the other: check air and nozzles"
        if self._no_image >= self.no_image_limit:
            return "no_image_in_a_row", f"{self._no_image} batteries without a frame: check camera and trigger"
        return None

    def full_bins(self) -> list[str]:
        """Bins that hold as much as they can."""
        return [bin_ for bin_, capacity in self.capacities.items() if self._filled[bin_] >= capacity]

    def bins_were_emptied(self) -> None:
        """A person has seen to the full bins."""
        for bin_ in self.full_bins():
            self._filled[bin_] = 0

    def failures_were_seen_to(self, now: float) -> None:
        """A person has seen to the failures at ``now`` (s): what is on the belt by then tells nothing new."""
        self._missed = self._no_image = 0
        self._seen_to_at = now
