"""The state machine of the line against the diagram of ISA-TR88.00.02, state by state and command by command."""

from __future__ import annotations

import itertools

import pytest

from battery_sorting.core.types import LineStateId
from battery_sorting.packml.machine import CommandNotAllowedError, LineCommandId, PackML

# state: (where commands lead, where the end of its own work leads)
DIAGRAM: dict[str, tuple[dict[str, str], str | None]] = {
    "STOPPED": ({"reset": "RESETTING", "abort": "ABORTING"}, None),
    "RESETTING": ({"stop": "STOPPING", "abort": "ABORTING"}, "IDLE"),
    "IDLE": ({"start": "STARTING", "stop": "STOPPING", "abort": "ABORTING"}, None),
    "STARTING": ({"hold": "HOLDING", "stop": "STOPPING", "abort": "ABORTING"}, "EXECUTE"),
    "EXECUTE": (
        {
            "hold": "HOLDING",
            "suspend": "SUSPENDING",
            "complete": "COMPLETING",
            "stop": "STOPPING",
            "abort": "ABORTING",
        },
        "COMPLETING",
    ),
    "HOLDING": ({"stop": "STOPPING", "abort": "ABORTING"}, "HELD"),
    "HELD": ({"unhold": "UNHOLDING", "complete": "COMPLETING", "stop": "STOPPING", "abort": "ABORTING"}, None),
    "UNHOLDING": ({"hold": "HOLDING", "stop": "STOPPING", "abort": "ABORTING"}, "EXECUTE"),
    "SUSPENDING": ({"hold": "HOLDING", "stop": "STOPPING", "abort": "ABORTING"}, "SUSPENDED"),
    "SUSPENDED": (
        {
            "unsuspend": "UNSUSPENDING",
            "hold": "HOLDING",
            "complete": "COMPLETING",
            "stop": "STOPPING",
            "abort": "ABORTING",
        },
        None,
    ),
    "UNSUSPENDING": ({"hold": "HOLDING", "stop": "STOPPING", "abort": "ABORTING"}, "EXECUTE"),
    "COMPLETING": ({"stop": "STOPPING", "abort": "ABORTING"}, "COMPLETE"),
    "COMPLETE": ({"reset": "RESETTING", "stop": "STOPPING", "abort": "ABORTING"}, None),
    "STOPPING": ({"abort": "ABORTING"}, "STOPPED"),
    "ABORTING": ({}, "ABORTED"),
    "ABORTED": ({"clear": "CLEARING"}, None),
    "CLEARING": ({"abort": "ABORTING"}, "STOPPED"),
}
COMMANDS = [
    str(command) for command in LineCommandId if command not in {LineCommandId.UNKNOWN, LineCommandId.EMPTIED}
]


def test_diagram_covers_all_states():
    assert {state.name for state in LineStateId if state} == set(DIAGRAM)
    assert len(DIAGRAM) == 17


@pytest.mark.parametrize("state", DIAGRAM)
@pytest.mark.parametrize("command", COMMANDS)
def test_command_leads_where_the_diagram_says_or_is_refused(state, command):
    line = PackML(LineStateId[state])
    targets, _ = DIAGRAM[state]
    assert {str(allowed) for allowed in line.allowed_commands()} == set(targets)
    if command in targets:
        assert line.command(command) is LineStateId[targets[command]] is line.state
    else:
        with pytest.raises(CommandNotAllowedError) as refused:
            line.command(command)
        assert line.state is LineStateId[state]
        assert {str(allowed) for allowed in refused.value.allowed} == set(targets)
        assert all(name in str(refused.value) for name in targets)


@pytest.mark.parametrize("state", DIAGRAM)
def test_end_of_work_leads_where_the_diagram_says_or_is_refused(state):
    line = PackML(LineStateId[state])
    _, target = DIAGRAM[state]
    assert line.acting == (target is not None and state != "EXECUTE")
    if target is None:
        with pytest.raises(CommandNotAllowedError, match="state_complete"):
            line.complete()
        assert line.state is LineStateId[state]
    else:
        assert line.complete() is LineStateId[target]


def test_a_shift_from_stopped_to_complete_and_back():
    seen = []
    line = PackML(on_change=lambda old, new: seen.append((old.name, new.name)))
    line.command("reset")
    line.complete()
    line.command(LineCommandId.START)
    line.complete()
    line.command("hold")
    line.complete()
    line.command("unhold")
    line.complete()
    line.command(int(LineCommandId.COMPLETE))
    line.complete()
    line.command("reset")
    assert [new for _, new in seen] == [
        *("RESETTING", "IDLE", "STARTING", "EXECUTE", "HOLDING", "HELD", "UNHOLDING", "EXECUTE"),
        *("COMPLETING", "COMPLETE", "RESETTING"),
    ]
    assert all(new == following for (_, new), (following, _) in itertools.pairwise(seen))


@pytest.mark.parametrize("nonsense", ["", "state_complete", "START", "fly", 0, 11, LineCommandId.UNKNOWN])
def test_what_is_no_command_is_refused_without_effect(nonsense):
    line = PackML(LineStateId.EXECUTE)
    with pytest.raises(CommandNotAllowedError, match="allowed are: stop, hold"):
        line.command(nonsense)
    assert line.state is LineStateId.EXECUTE


def test_unknown_is_no_state_to_begin_in():
    with pytest.raises(ValueError, match="STOPPED"):
        PackML(LineStateId.UNKNOWN)
