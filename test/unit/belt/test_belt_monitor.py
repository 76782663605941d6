"""Patterns over several batteries."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from battery_sorting.belt.monitor import BeltMonitor
from battery_sorting.core.types import NOWHERE, OTHERS, Placement, Reason


def placement(reason: Reason, bin_: str = OTHERS) -> Placement:
    return Placement("b", bin_, reason, 0.0)


SORTED = placement(Reason.SORTED, "a")
MISSED = placement(Reason.MISSED)
NO_IMAGE = placement(Reason.NO_IMAGE)
LOW = placement(Reason.LOW_CONFIDENCE)
SILENT = placement(Reason.NO_DECISION)
GONE = placement(Reason.UNACCOUNTED, NOWHERE)
NUMBERS = count()


def later(placement: Placement) -> Placement:
    """One that comes onto the belt later."""
    return replace(placement, battery_id=f"later {next(NUMBERS)}")


def make(**settings) -> BeltMonitor:
    return BeltMonitor(**({"missed_limit": 3, "no_image_limit": 2, "no_verdict_limit": 3} | settings))


def codes(vigilance: BeltMonitor, placements: list[Placement]) -> list[str | None]:
    return [fault[0] if (fault := vigilance.take(each)) else None for each in placements]


@pytest.mark.parametrize(
    ("placements", "last"),
    [
        ([MISSED, MISSED], None),
        ([MISSED, MISSED, MISSED], "missed_in_a_row"),
        ([MISSED, LOW, MISSED, LOW, MISSED], "missed_in_a_row"),  # others say nothing of the air
        ([MISSED, MISSED, SORTED, MISSED, MISSED], None),
        ([NO_IMAGE], None),
        ([NO_IMAGE, NO_IMAGE], "no_image_in_a_row"),
        ([NO_IMAGE, LOW, NO_IMAGE], None),
        ([NO_IMAGE, MISSED, NO_IMAGE], None),
        # issue 14, point 9
        ([SILENT, SILENT], None),
        ([SILENT, SILENT, SILENT], "no_verdict_in_a_row"),
        ([SILENT, GONE, SILENT, placement(Reason.FALSE_TRIGGER, NOWHERE), SILENT], "no_verdict_in_a_row"),
        ([SILENT, SILENT, LOW, SILENT], None),
        ([SILENT, SILENT, SORTED, SILENT], None),
        ([NO_IMAGE, SILENT, NO_IMAGE], "no_image_in_a_row"),  # a mixture of both is no way out
        ([SILENT, SILENT, NO_IMAGE, SILENT], "no_verdict_in_a_row"),
    ],
)
def test_series_of_failures(placements, last):
    found = codes(make(), placements)
    assert found[-1] == last
    assert set(found[:-1]) == {None} or not found[:-1]


def test_series_starts_over_when_a_person_has_seen_to_it():
    vigilance = make()
    codes(vigilance, [MISSED] * 3 + [NO_IMAGE])
    vigilance.failures_were_seen_to(["b"])
    assert codes(vigilance, [later(MISSED), later(MISSED), later(NO_IMAGE)]) == [None, None, None]
    assert codes(vigilance, [later(MISSED)]) == ["missed_in_a_row"]


def test_what_was_on_the_belt_when_a_person_came_is_no_new_series():
    vigilance = make()
    vigilance.failures_were_seen_to(["a", "b"])
    assert codes(vigilance, [NO_IMAGE] * 5 + [later(NO_IMAGE)]) == [None] * 6
    assert codes(vigilance, [later(NO_IMAGE)]) == ["no_image_in_a_row"]


def test_bin_is_full_at_its_capacity_until_it_is_emptied():
    vigilance = make(capacities={"a": 2, OTHERS: 3})
    codes(vigilance, [SORTED, LOW, placement(Reason.UNACCOUNTED, NOWHERE)])
    assert vigilance.full_bins() == []
    codes(vigilance, [SORTED])
    assert vigilance.full_bins() == ["a"]
    vigilance.bin_was_emptied("a")
    assert vigilance.full_bins() == []
    codes(vigilance, [LOW, LOW])
    assert vigilance.full_bins() == [OTHERS], "a bin that was not full is not taken for emptied"


def test_a_bin_can_be_emptied_before_it_is_full_and_keeps_what_it_held_over_a_restart():
    # issue 14, point 10
    vigilance = make(capacities={"a": 3})
    vigilance.restore({"a": 2, OTHERS: 7})
    assert vigilance.contents == {"a": 2, OTHERS: 7} and vigilance.full_bins() == []
    vigilance.bin_was_emptied("a")
    codes(vigilance, [SORTED, SORTED])
    assert vigilance.full_bins() == []
    again = make(capacities={"a": 3})
    again.restore(vigilance.contents)
    codes(again, [SORTED])
    assert again.full_bins() == ["a"]
