"""Numbers of the interface files: those that the package repeats as an enumeration are the same in both."""
# issue 16, 5

from __future__ import annotations

import re
from pathlib import Path

import pytest

from battery_sorting.core.types import EjectOutcome, LineStateId
from battery_sorting.ev.faults import FlipError, InspectionError
from battery_sorting.ev.stations.carrying import MoveError
from battery_sorting.packml.machine import LineCommandId

ROOT = Path(__file__).parents[2]
REPEATED = {
    "msg/EjectResult.msg": EjectOutcome,
    "msg/LineState.msg": LineStateId,
    "srv/LineCommand.srv": LineCommandId,
    "action/FlipCell.action": FlipError,
    "action/InspectCell.action": InspectionError,
    "action/MoveCell.action": MoveError,
}
IN_THE_INTERFACE_ALONE = {
    "action/RegroupCells.action",
    "action/TestCell.action",
}
"""The nodes take these from the generated classes, so there is nothing that could differ."""


def constants(file: str) -> dict[str, int]:
    """Names and values of the constants of an interface file."""
    found = re.findall(r"^u?int\d+ ([A-Z][A-Z_0-9]*) *= *(\d+)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    return {name: int(value) for name, value in found}


@pytest.mark.parametrize("file", sorted(REPEATED))
def test_the_values_of_an_enumeration_are_those_of_its_interface(file):
    assert constants(file) == {member.name: int(member) for member in REPEATED[file]}


def test_every_interface_with_constants_is_compared_or_named_as_the_only_place():
    files = {
        str(path.relative_to(ROOT))
        for folder in ("msg", "srv", "action")
        for path in (ROOT / folder).iterdir()
        if constants(str(path.relative_to(ROOT)))
    }
    assert files == {*REPEATED, *IN_THE_INTERFACE_ALONE}
