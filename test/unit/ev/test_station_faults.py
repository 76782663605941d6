"""Faults of the inspection station: each has one code, one meaning and one error, and stands in the docs."""
# issue 16, 5

from __future__ import annotations

import json
from pathlib import Path

import pytest

from battery_sorting.ev.faults import FAMILIES, InspectionError, StationFault
from battery_sorting.ev.fusion import CellVerdict
from battery_sorting.ev.inspection import CellResult
from battery_sorting.ev.report import NAMED_AS
from battery_sorting.ev.results import error_code

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "ev_line.md"


def ended(*faults: str, reason: str = "good", released: bool = True) -> CellResult:
    verdict = CellVerdict("product" if released else "nowhere", reason)
    return CellResult("b-1", verdict, {}, "", released, 0, faults)


@pytest.mark.parametrize("fault", StationFault)
def test_a_code_on_record_is_read_as_its_fault(fault):
    code = fault.with_detail("jam") if fault in FAMILIES else str(fault)
    assert StationFault.of(code) is fault


@pytest.mark.parametrize("code", ["", "good", "flipped", "loader", "empty", "cell_gone_again", "open_contact"])
def test_what_is_no_fault_of_the_station_is_none(code):
    assert StationFault.of(code) is None


def test_a_code_goes_on_record_as_plain_text():
    assert type(str(StationFault.NO_FRAME)) is str
    assert json.dumps([StationFault.NO_FRAME, StationFault.FLIP.with_detail("jam")]) == '["no_frame", "flip_jam"]'


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (ended(), InspectionError.NONE),
        (ended("flip_jam", "no_frame"), InspectionError.FLIPPER),
        (ended("bad_image_blank"), InspectionError.IMAGE),
        (ended("identity_mismatch"), InspectionError.IDENTITY),
        (ended("plc_restarted", reason="plc_restarted", released=False), InspectionError.PLC),
        (ended("cell_gone", reason="unaccounted", released=False), InspectionError.UNACCOUNTED),
        (ended("a_code_of_a_later_version"), InspectionError.OTHER),
        (ended(reason="empty", released=False), InspectionError.EMPTY),
        (ended(reason="unaccounted", released=False), InspectionError.UNACCOUNTED),
        (ended(reason="anything", released=False), InspectionError.OTHER),
    ],
)
def test_the_first_fault_is_the_error_of_the_action(result, error):
    assert error_code(result) is error


def test_the_names_of_the_plants_faults_are_faults_of_the_station():
    named = {code for codes in NAMED_AS.values() for code in codes}
    assert {code for code in named if StationFault.of(code) is None} == set()


def test_the_docs_list_every_fault():
    rows = [
        f"| `{fault.value}{'_…' if fault in FAMILIES else ''}` | {fault.meaning} | {fault.error.name} | "
        f"{'yes' if fault.mended_by_retry else 'no'} |"
        for fault in StationFault
    ]
    head = "| code | what has happened | error | mended by a retry |\n|---|---|---|---|\n"
    assert head + "\n".join(rows) + "\n" in PAGE.read_text("utf-8")
