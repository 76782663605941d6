"""Messages, results and feedback of the EV line's stations, made of what their work says."""

from __future__ import annotations

import time

from battery_sorting.action import FlipCell, InspectCell, MoveCell, TestCell
from battery_sorting.core.errors import (
    OpenContactError,
    OverTemperatureError,
    ReversedPolarityError,
    TesterEmergencyStopError,
    TesterTimeoutError,
    VoltageWindowError,
)
from battery_sorting.drivers.station_plc.base import StationStatus
from battery_sorting.ev.cell_test import LINK_CODES, CellTest, CellTestOutcome
from battery_sorting.ev.inspection import CellResult, FlipEnded
from battery_sorting.ev.results import error_code, error_text
from battery_sorting.ev.stations.carrying import MoveEnd
from battery_sorting.msg import StationState
from battery_sorting.ros import convert

_TestResult = TestCell.Result
_TEST_CODES = {
    OpenContactError.code: _TestResult.BAD_CONTACT,
    ReversedPolarityError.code: _TestResult.REVERSED,
    OverTemperatureError.code: _TestResult.OVER_TEMPERATURE,
    VoltageWindowError.code: _TestResult.VOLTAGE,
    TesterTimeoutError.code: _TestResult.TIMEOUT,
    TesterEmergencyStopError.code: _TestResult.EMERGENCY_STOP,
    **dict.fromkeys(LINK_CODES, _TestResult.TESTER_LOST),
}


# ---- inspection ----


def station_state(
    status: StationStatus | None, plc_error: str, emergency_stop: bool, step: str, battery_id: str
) -> StationState:
    """StationState.msg.

    Args:
        status: What the PLC said last; None: nothing yet.
        plc_error: Why it is not heard now, empty if it is.
        emergency_stop: Whether the line must abort for it.
        step: Of the inspection.
        battery_id: The cell in the station, empty for none.
    """
    message = StationState(
        header=convert.header(time.time(), "station"),
        connected=not plc_error,
        step=step,
        battery_id=battery_id,
        error=plc_error,
    )
    if status is not None:
        message.emergency_stop = emergency_stop
        message.watchdog_tripped = status.watchdog_tripped
        message.jam = status.jam
        message.part_present = status.part_present
        message.flipper = status.flipper.name.lower()
        message.boot_id = status.boot_id
        message.loaded_total = status.loaded_total
    return message


def inspection_result(result: CellResult) -> InspectCell.Result:
    """Result of InspectCell.action."""
    return InspectCell.Result(
        success=result.released and not result.faults,
        error_code=error_code(result),
        error_msg=error_text(result),
        num_retries=result.retries,
        battery_id=result.battery_id,
        code=result.code,
        outlet=result.verdict.outlet,
        reason=result.verdict.reason,
        released=result.released,
        faults=list(result.faults),
        views=[convert.appearance_message(result.battery_id, view) for view in result.views.values()],
    )


def flip_result(ended: FlipEnded, status: StationStatus | None) -> FlipCell.Result:
    """Result of FlipCell.action; ``status`` is what the PLC said last."""
    return FlipCell.Result(
        success=not ended.error,
        error_code=ended.error,
        error_msg=ended.text,
        position="" if status is None else status.flipper.name.lower(),
    )


# ---- robot and tester ----


def move_result(end: MoveEnd) -> MoveCell.Result:
    """Result of MoveCell.action."""
    return MoveCell.Result(success=not end.error, error_code=end.error, error_msg=end.text, place=end.place)


def cell_test_result(battery_id: str, test: CellTest, programme: str) -> TestCell.Result:
    """Result of TestCell.action, of a test that has ended."""
    outcome = test.outcome or CellTestOutcome.FAILED
    code = _TEST_CODES.get(test.error_code, _TestResult.OTHER if test.error_code else _TestResult.NONE)
    if outcome is CellTestOutcome.CANCELLED:
        code = _TestResult.CANCELLED
    elif outcome is CellTestOutcome.BAD_CONTACT and code == _TestResult.OTHER:
        code = _TestResult.BAD_CONTACT
    if not test.safe:
        code = _TestResult.NOT_SAFE
    return _TestResult(
        success=outcome is CellTestOutcome.MEASURED and test.safe,
        error_code=code,
        error_msg=test.error_message,
        num_retries=test.retries,
        outcome=outcome.value,
        code=test.error_code if outcome is not CellTestOutcome.MEASURED else "",
        measurement=convert.measurement_message(battery_id, test.measurement, programme, time.time()),
    )


def cell_test_feedback(test: CellTest) -> TestCell.Feedback | None:
    """Feedback of TestCell.action; None: nothing has been read yet."""
    last = test.last
    if last is None:
        return None
    return TestCell.Feedback(
        step=last.step,
        steps=last.steps,
        voltage_v=last.voltage_v,
        current_a=last.current_a,
        temperature_c=last.temperature_c,
        progress=test.progress,
    )
