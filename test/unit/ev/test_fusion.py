"""From two views and what went wrong to one outlet."""

from __future__ import annotations

import itertools

import pytest

from battery_sorting.core.types import View
from battery_sorting.ev.fusion import Finding, fuse
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.types import ViewResult

JAM = Finding("flip_jam", "the PLC answered jam")
DROPPED = Finding("no_frame", "no frame of the case camera")
SWAPPED = Finding("identity_mismatch", "another code")


def recipe(*overrides: str) -> EvRecipe:
    return EvRecipe.load("lfp_prismatic", overrides)


def seen(view: View, verdict: str = "good", kind: str = "") -> ViewResult:
    return ViewResult(view, 1, 0.0, verdict, kind, kind)


GOOD = (seen(View.LUG), seen(View.CASE))


def outlet(views=GOOD, faults=(), *overrides: str) -> str:
    return fuse(recipe(*overrides), views, faults).outlet


def test_only_a_cell_with_two_good_views_and_no_fault_is_a_product():
    assert fuse(recipe(), GOOD, ()).reason == "good"
    verdicts = ("good", "defective", "unsure", "bad_image", None)
    for lug, case, faults in itertools.product(verdicts, verdicts, ((), (JAM,), (DROPPED,), (SWAPPED,))):
        views = [
            seen(view, verdict, "stained" if view is View.LUG else "dented")
            for view, verdict in ((View.LUG, lug), (View.CASE, case))
            if verdict is not None
        ]
        is_product = fuse(recipe(), views, faults).outlet == "product"
        assert is_product == (lug == case == "good" and not faults)


@pytest.mark.parametrize(
    ("view", "kind", "expected"),
    [
        (View.LUG, "stained", "reject"),
        (View.LUG, "broken", "reject"),
        (View.CASE, "dented", "reject"),
        (View.CASE, "deformed", "reject"),
        (View.CASE, "bulging", "hazardous"),
        (View.CASE, "leaking", "hazardous"),
    ],
)
def test_each_defect_has_the_outlet_of_the_recipe(view, kind, expected):
    other = View.CASE if view is View.LUG else View.LUG
    assert outlet((seen(other), seen(view, "defective", kind))) == expected


def test_a_hazard_outweighs_every_other_finding():
    views = (seen(View.LUG, "defective", "stained"), seen(View.CASE, "defective", "leaking"))
    assert outlet(views, (JAM,)) == "hazardous"
    assert outlet((seen(View.CASE, "defective", "bulging"),), (DROPPED,)) == "hazardous"


def test_a_defect_outweighs_a_doubt():
    assert outlet((seen(View.LUG, "unsure"), seen(View.CASE, "defective", "dented"))) == "reject"
    assert outlet((seen(View.LUG, "unsure"), seen(View.CASE))) == "review"


def test_a_defect_of_an_unknown_kind_goes_to_quarantine():
    verdict = fuse(recipe(), (seen(View.LUG), seen(View.CASE, "defective", "rust")), ())
    assert (verdict.outlet, verdict.reason) == ("quarantine", "unknown_defect")


def test_a_missing_view_goes_to_quarantine_even_without_a_fault():
    assert fuse(recipe(), (seen(View.LUG),), ()).reason == "missing_view"
    assert outlet((seen(View.LUG), seen(View.CASE, "bad_image"))) == "quarantine"


def test_an_early_rejected_cell_needs_no_case_view():
    assert outlet((seen(View.LUG, "defective", "broken"),)) == "reject"
    assert outlet((seen(View.LUG, "defective", "stained"),)) == "quarantine"


def test_a_recipe_may_let_cells_pass_that_were_mended_by_a_retry_and_no_others():
    allow = "faulty_may_pass=true"
    assert outlet(GOOD, (JAM,), allow) == "product"
    assert outlet(GOOD, (JAM, DROPPED), allow) == "product"
    assert outlet(GOOD, (JAM, SWAPPED), allow) == "quarantine"
    assert outlet((seen(View.LUG),), (JAM,), allow) == "quarantine"
