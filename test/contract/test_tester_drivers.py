"""Drivers of testers: with the instruments of the simulated plant, and with some that misbehave."""

from __future__ import annotations

import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

import pytest
from impostor import impostor
from plant_line import accepts, wait_for
from support.tester_bench import Bench, run_test, running_tester

from battery_sorting.core.errors import (
    CellTestError,
    ConfigurationError,
    DeviceConnectionError,
    DeviceError,
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
    ImplausibleReadingError,
    NotMeasuredError,
    OpenContactError,
    OverloadError,
    ReadingError,
    ReversedPolarityError,
)
from battery_sorting.core.errors import TesterEmergencyStopError as EmergencyStopPressed
from battery_sorting.core.errors import TesterStoppedError as StoppedByItself
from battery_sorting.drivers.contract import check_driver
from battery_sorting.drivers.suite import CheckOptions, CheckOutcome
from battery_sorting.drivers.tester import link
from battery_sorting.drivers.tester.base import ChannelPhase, CyclerRun, Discharge, Limits, Pulse, Rest
from battery_sorting.drivers.tester.scpi import ScpiTester
from battery_sorting.ev.cell_test import Cancel, CellTest, CellTestOutcome, Phase, Rules
from battery_sorting.ev.measurement import Measure, Programme

LIMITS = Limits(voltage_min_v=2.45, voltage_max_v=3.7)
REST = CyclerRun((Rest(seconds=3e5),), LIMITS)
QUICK = Rules(poll_s=0.01, pause_s=0.01, silence_s=10.0, stall_s=10.0, safe_s=5.0)
SHORT = Programme(name="short", limits=LIMITS, steps=(Rest(seconds=60.0), Measure()))


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    with running_tester() as bench:
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    yield shared
    shared.set_faults(**{name: type(value)() for name, value in shared.instruments.faults.as_dict().items()})


@contextmanager
def connected(bench: Bench, **changes) -> Iterator[ScpiTester]:
    driver = ScpiTester.from_settings({**bench.settings, **changes})
    assert isinstance(driver, ScpiTester)
    driver.connect(2.0)
    try:
        yield driver
    finally:
        driver.disconnect()


@pytest.fixture
def tester(bench: Bench) -> Iterator[ScpiTester]:
    with connected(bench) as driver:
        yield driver
        if driver.connected:
            for channel in driver.channels:
                driver.safe(channel)


def test_contact_is_measured_and_the_cell_is_what_the_plant_says(bench, tester):
    reading = tester.check_contact(2)
    truth = bench.call(bench.cells.truth, 1)
    assert 0.05 < reading.contact_mohm < 2.0
    assert reading.voltage_v == pytest.approx(truth["rest_voltage_v"], abs=0.0015)
    assert reading.temperature_c == pytest.approx(truth["temperature_c"], abs=1.2)


def test_resistance_and_voltage_are_right_within_the_limits_of_error_of_the_meter(bench, tester):
    tester.check_contact(1)
    reading = tester.measure_resistance(1)
    truth = bench.call(bench.cells.truth, 0)
    assert reading.resistance_mohm == pytest.approx(
        truth["resistance_mohm"], abs=reading.resistance_uncertainty_mohm
    )
    assert reading.ocv_v == pytest.approx(truth["rest_voltage_v"], abs=reading.ocv_uncertainty_v)
    assert reading.resistance_uncertainty_mohm == pytest.approx(
        0.005 * reading.resistance_mohm + 0.0001 * (10 + 10), rel=1e-6
    )
    assert (reading.method, reading.instrument) == ("AC 1 kHz", "SIMULATED BT3562A")


def test_date_of_calibration_is_that_of_the_settings(bench):
    with connected(bench, meter_calibrated_on=date(2026, 3, 1)) as tester:
        tester.check_contact(1)
        assert tester.measure_resistance(1).calibrated_on == date(2026, 3, 1)
        tester.safe(1)


def test_cell_beyond_the_range_is_measured_in_the_next_one(bench, tester):
    r0_mohm = bench.cells.r0_mohm[0]
    bench.cells.r0_mohm[0] = 17.0
    try:
        tester.check_contact(1)
        reading = tester.measure_resistance(1)
    finally:
        bench.cells.r0_mohm[0] = r0_mohm
    assert reading.resistance_mohm == pytest.approx(17.0, rel=0.01)
    assert reading.resistance_uncertainty_mohm == pytest.approx(0.005 * reading.resistance_mohm + 0.001 * 7)
    assert tester.measure_resistance(1).resistance_mohm < 3.1, "it is back in the range of the settings"


def test_open_contact_is_an_error_of_its_own_and_leaves_the_contacts_open(bench, tester):
    bench.set_faults(tester__open_contact=[3])
    with pytest.raises(OpenContactError, match=r"channel 3 .*contact open.*seat the cell again"):
        tester.check_contact(3)
    assert bench.call(lambda: bench.instruments.cycler._channels[2].closed) is False
    with pytest.raises(OpenContactError, match="no contact"):
        tester.measure_resistance(3)
    with pytest.raises(OpenContactError, match="Contacts open"):
        tester.start(3, REST)
    assert tester.connected


def test_bad_contact_is_told_with_its_resistance(bench, tester):
    bench.set_faults(tester__bad_contact=1)
    with pytest.raises(OpenContactError, match=r"contact 80 mΩ, allowed are 5 mΩ"):
        tester.check_contact(1)
    assert tester.check_contact(1).contact_mohm < 5


def test_reversed_cell_is_told(bench, tester):
    bench.set_faults(tester__reversed=[1])
    with pytest.raises(ReversedPolarityError, match="wrong way round"):
        tester.check_contact(1)


def test_channels_run_at_the_same_time_and_do_not_disturb_each_other(bench, tester):
    for channel in (1, 2, 3):
        tester.check_contact(channel)
    steps = (Rest(seconds=3600.0), Discharge(current_a=5.0, voltage_v=2.5, max_s=6e5))
    tester.start(1, CyclerRun(steps, LIMITS))
    tester.start(2, REST)
    assert tester.measure_resistance(3).ocv_v > 3
    done = wait_for(lambda: (state := tester.read_progress(1)).state is ChannelPhase.DONE and state)
    assert done.charge_ah < -1
    assert tester.read_progress(2).state is ChannelPhase.RUNNING
    with pytest.raises(CellTestError, match=r"channel 2 .* runs: stop it"):
        tester.measure_resistance(2)
    tester.safe(1)
    assert tester.read_progress(2).state is ChannelPhase.RUNNING
    tester.stop(2)
    assert tester.read_progress(2).state is ChannelPhase.IDLE


def test_results_tell_what_each_step_did(bench, tester):
    tester.check_contact(2)
    tester.start(2, CyclerRun((Rest(seconds=10.0), Pulse(current_a=-10.0, seconds=10.0)), LIMITS))
    wait_for(lambda: tester.read_progress(2).state is ChannelPhase.DONE)
    rest, pulse = tester.read_results(2)
    assert (rest.kind, rest.charge_ah, pulse.kind) == ("rest", 0.0, "pulse")
    assert pulse.charge_ah == pytest.approx(-10 * 10 / 3600, rel=1e-4)
    r0_mohm = bench.cells.r0_mohm[1]
    assert r0_mohm < pulse.resistance_mohm < r0_mohm + bench.cells.r1_mohm[1]
    assert pulse.resistance_uncertainty_mohm < 0.05


def test_safe_switches_off_and_opens_while_current_flows(bench, tester):
    tester.check_contact(1)
    tester.start(1, CyclerRun((Discharge(current_a=0.01, voltage_v=2.5, max_s=6e5),), LIMITS))
    tester.safe(1)
    channel = bench.instruments.cycler._channels[0]
    assert bench.call(lambda: (channel.running, channel.closed, channel.current_a)) == (False, False, 0.0)


def test_what_the_cycler_cannot_do_is_refused_and_nothing_starts(tester):
    tester.check_contact(1)
    with pytest.raises(DeviceSettingsError, match=r"refused 'PROG:STEP .* -222"):
        tester.start(1, CyclerRun((Discharge(current_a=500.0, voltage_v=2.5, max_s=10.0),), LIMITS))
    with pytest.raises(DeviceSettingsError, match=r"refused 'LIM "):
        tester.start(1, replace(REST, limits=Limits(voltage_min_v=2.0, voltage_max_v=99.0)))
    assert tester.read_progress(1).state is ChannelPhase.IDLE
    assert tester.connected


def test_emergency_stop_stops_everything_until_a_person_releases_it(bench, tester):
    tester.check_contact(1)
    tester.start(1, REST)
    tester.emergency_stop()
    state = tester.read_progress(1)
    assert (state.state, state.fault) == (ChannelPhase.FAULT, "emergency_stop")
    assert tester.emergency_stop_stands()
    with pytest.raises(StoppedByItself, match="release the emergency stop"):
        tester.check_contact(1)
    tester.reset_emergency_stop()
    assert not tester.emergency_stop_stands()
    tester.check_contact(1)


def test_emergency_stop_that_is_pressed_can_not_be_reset_and_one_that_was_released_stands_until_it_is(
    bench, tester
):
    # issue 14, point 4
    bench.set_faults(tester__estop=True)
    wait_for(tester.emergency_stop_stands)
    with pytest.raises(EmergencyStopPressed, match="release the emergency stop"):
        tester.reset_emergency_stop()
    bench.set_faults(tester__estop=False)
    assert tester.emergency_stop_stands()
    tester.reset_emergency_stop()
    assert not tester.emergency_stop_stands()


def test_pressed_emergency_stop_ends_a_test_and_says_nothing_about_its_cell(bench, tester):
    # issue 14, point 4
    def before(test: CellTest) -> None:
        if test.phase is Phase.RUNNING:
            bench.set_faults(tester__estop=True)

    long_rest = SHORT.model_copy(update={"steps": (Rest(seconds=5e5), Measure())})
    result = run_test(tester, 1, CellTest(long_rest, QUICK), before)
    assert (result.outcome, result.error_code, result.safe) == (CellTestOutcome.FAILED, "emergency_stop", True)
    bench.set_faults(tester__estop=False)
    tester.reset_emergency_stop()


# ---- answers that nobody asked for (issue 14, point 16) ----


def test_repeated_answer_of_the_meter_is_never_the_next_cells_resistance(bench, tester):
    true = [bench.call(bench.cells.truth, cell)["resistance_25c_mohm"] for cell in (0, 1)]
    assert true[0] != pytest.approx(true[1], rel=0.03), "the cells can't be told apart"
    for channel in (1, 2):
        tester.check_contact(channel)
    for _ in range(8):
        bench.set_faults(meter__repeat=1)
        first = tester.measure_resistance(1)
        with pytest.raises(DeviceProtocolError, match="AC meter"):
            tester.measure_resistance(2)
        assert not tester.connected
        tester.connect()
        second = tester.measure_resistance(2)
        assert first.resistance_mohm == pytest.approx(true[0], rel=0.02)
        assert second.resistance_mohm == pytest.approx(true[1], rel=0.02)


@pytest.mark.parametrize("rate", ["EXFAST", "SLOW"])
def test_repeated_answer_of_the_meter_is_noticed_at_every_rate(bench, rate):
    with connected(bench, meter_rate=rate) as tester:
        tester.check_contact(1)
        bench.set_faults(meter__repeat=1)
        tester.measure_resistance(1)
        with pytest.raises(DeviceProtocolError):
            tester.measure_resistance(1)


def test_test_of_a_cell_outlives_a_repeated_answer_of_the_meter(bench, tester):
    tester.check_contact(1)
    bench.set_faults(meter__repeat=1)
    tester.measure_resistance(1)

    def before(test: CellTest) -> None:
        if not tester.connected:
            tester.connect()  # as the node does

    result = run_test(tester, 2, CellTest(SHORT, QUICK), before)
    assert (result.outcome, result.error_message) == (CellTestOutcome.MEASURED, "")
    true = bench.call(bench.cells.truth, 1)["resistance_25c_mohm"]
    assert result.measurement.resistance_mohm == pytest.approx(true, rel=0.02)


def test_repeated_answers_of_the_cycler_are_dropped_and_counted(bench, tester):
    for channel in (1, 3):
        tester.check_contact(channel)
    volts = [tester.read_progress(channel).voltage_v for channel in (1, 3)]
    assert abs(volts[0] - volts[1]) > 0.001, "the cells can't be told apart"
    for _ in range(8):
        bench.set_faults(cycler__repeat=1)
        assert tester.read_progress(1).voltage_v == pytest.approx(volts[0], abs=0.0005)
        assert tester.read_progress(3).voltage_v == pytest.approx(volts[1], abs=0.0005)
    assert tester.connected
    assert tester.answers_dropped == 8


def test_silent_host_trips_the_watchdog(bench):
    with connected(bench, watchdog_s=0.2) as tester:
        tester.check_contact(1)
        tester.start(1, REST)
        channel = bench.instruments.cycler._channels[0]
        wait_for(lambda: not channel.closed)
        state = tester.read_progress(1)
        assert (state.state, state.fault) == (ChannelPhase.FAULT, "tester_stopped")


def test_connecting_again_does_not_disturb_a_run(bench, tester):
    tester.check_contact(1)
    tester.start(1, REST)
    tester.disconnect()
    tester.connect()
    assert tester.read_progress(1).state is ChannelPhase.RUNNING


def test_limit_of_error_is_known_without_the_device():
    tester = ScpiTester.from_settings({"host": "192.0.2.1"})
    assert tester.resistance_uncertainty_mohm(1.5) == pytest.approx(0.0085)
    assert tester.resistance_uncertainty_mohm(15.0) == pytest.approx(0.08)
    coarse = ScpiTester.from_settings({"host": "192.0.2.1", "meter_range_mohm": 300, "meter_rate": "MEDIUM"})
    assert coarse.resistance_uncertainty_mohm(1.5) == pytest.approx(0.0075 + 0.07)


# ---- what is no reading (issue 15, A2) ----

OVER, UNDER, NAN_MARK = "9.9E+37", "-9.9E+37", "9.91E+37"
ALL_MARKS = (OVER, UNDER, NAN_MARK, "-1.00000E+9", "INF", "NAN", "OVLD", "********", "----")


@pytest.mark.parametrize("shown", [*ALL_MARKS, "-0.0003", "1E+12"])
def test_contact_whose_resistance_is_no_reading_is_a_bad_one(bench, tester, shown):
    bench.set_faults(cycler__shows={"contact": shown})
    with pytest.raises(
        OpenContactError, match=r"channel 1 .*contact .*allowed are 5 mΩ \('MEAS:CONT.*: seat the cell again"
    ):
        tester.check_contact(1)
    assert bench.call(lambda: bench.instruments.cycler._channels[0].closed) is False
    assert tester.connected


@pytest.mark.parametrize("name", ["voltage", "current", "temperature", "charge", "elapsed"])
@pytest.mark.parametrize("shown", ALL_MARKS)
def test_what_a_running_channel_does_not_measure_is_no_progress(bench, tester, name, shown):
    tester.check_contact(1)
    tester.start(1, REST)
    bench.set_faults(cycler__shows={name: shown})
    with pytest.raises(
        ReadingError, match=r"cycler at .* answers 'MEAS:CHAN\? \(@1\)' with 'RUN,.*': the .*: check|: restart"
    ):
        tester.read_progress(1)
    assert tester.connected, "the link is not to blame"
    bench.set_faults(cycler__shows={})
    assert tester.read_progress(1).state is ChannelPhase.RUNNING


@pytest.mark.parametrize(
    ("name", "shown", "code"),
    [
        ("temperature", NAN_MARK, "not_measured"),
        ("temperature", OVER, "overload"),
        ("temperature", UNDER, "overload"),
        ("temperature", "-242.0", "implausible"),
        ("temperature", "45.01", "over_temperature"),
        ("voltage", OVER, "overload"),
        ("current", NAN_MARK, "not_measured"),
    ],
)
def test_test_whose_channel_shows_no_reading_ends_with_the_current_off(bench, tester, name, shown, code):
    channel = bench.instruments.cycler._channels[0]

    def before(test: CellTest) -> None:
        if test.phase is Phase.RUNNING and bench.call(lambda: channel.running):
            bench.set_faults(cycler__shows={name: shown})

    long = SHORT.model_copy(update={"steps": (Discharge(current_a=0.01, voltage_v=2.5, max_s=6e5), Measure())})
    result = run_test(tester, 1, CellTest(long, QUICK), before)
    assert (result.outcome, result.error_code, result.safe) == (CellTestOutcome.FAILED, code, True)
    assert bench.call(lambda: (channel.running, channel.closed, channel.current_a)) == (False, False, 0.0)
    assert result.measurement.resistance_mohm != result.measurement.resistance_mohm, "nothing was measured"


@pytest.mark.parametrize("name", ["voltage", "temperature"])
@pytest.mark.parametrize(("shown", "code"), [(OVER, "overload"), (UNDER, "overload"), (NAN_MARK, "not_measured")])
def test_test_does_not_begin_where_the_channel_shows_no_reading(bench, tester, name, shown, code):
    bench.set_faults(cycler__shows={name: shown})
    begun = len(bench.events)
    result = run_test(tester, 2, CellTest(SHORT, QUICK))
    assert (result.outcome, result.error_code, result.safe) == (CellTestOutcome.FAILED, code, True)
    assert "tester_start" not in {event["event"] for event in bench.events[begun:]}


def test_open_contact_in_a_run_is_told_as_such_even_where_the_channel_then_shows_nothing(bench, tester):
    tester.check_contact(2)
    tester.start(2, REST)
    bench.set_faults(tester__open_contact=[2], cycler__shows={"voltage": NAN_MARK, "temperature": NAN_MARK})
    state = tester.read_progress(2)
    assert (state.state, state.fault) == (ChannelPhase.FAULT, "open_contact")
    assert state.voltage_v != state.voltage_v, "not measured"


def test_sensor_of_one_channel_says_nothing_of_the_others(bench, tester):
    bench.set_faults(cycler__shows={"temperature@2": NAN_MARK})
    assert tester.check_contact(1).temperature_c > 0
    with pytest.raises(NotMeasuredError):
        tester.check_contact(2)


def test_cell_that_is_too_hot_is_told_as_such_even_by_a_sensor_that_is_torn_off(bench, tester):
    tester.check_contact(2)
    tester.start(2, REST)
    bench.set_faults(tester__hot=[2], cycler__shows={"temperature": "850.0"})
    state = tester.read_progress(2)
    assert (state.state, state.fault) == (ChannelPhase.FAULT, "over_temperature")


@pytest.mark.parametrize(
    ("name", "shown", "code"),
    [
        ("resistance", " 10.0000E+8", "overload"),
        ("resistance", "-10.0000E+8", "overload"),
        ("resistance", NAN_MARK, "not_measured"),
        ("resistance", UNDER, "overload"),
        ("resistance", "-  1.5234E-3", "implausible"),
        ("resistance", "  0.0000E-3", "implausible"),
        ("resistance", "+10.0000E+9", "open_contact"),
        ("resistance", "OVLD", "overload"),
        ("voltage", "-1.00000E+9", "overload"),
        ("voltage", NAN_MARK, "not_measured"),
        ("voltage", "+1.00000E+10", "open_contact"),
        ("voltage", "-3.30000E+0", "reversed_polarity"),
    ],
)
def test_what_the_meter_shows_in_place_of_a_reading_is_never_measured(bench, tester, name, shown, code):
    bench.set_faults(meter__shows={name: shown})
    result = run_test(tester, 1, CellTest(SHORT, QUICK))
    assert (result.outcome, result.error_code) == (
        CellTestOutcome.BAD_CONTACT if code == "open_contact" else CellTestOutcome.FAILED,
        code,
    )
    assert result.safe
    assert result.measurement.resistance_mohm != result.measurement.resistance_mohm, "not measured"
    bench.set_faults(meter__shows={})
    tester.check_contact(1)
    assert tester.measure_resistance(1).resistance_mohm < 3.1, "it is back in the range of the settings"


@pytest.mark.parametrize(
    ("name", "shown", "code"),
    [
        ("step_charge", OVER, "overload"),
        ("step_seconds", NAN_MARK, "not_measured"),
        ("step_before", UNDER, "overload"),
        ("step_end", "OVLD", "overload"),
        ("step_current", "1E+6", "implausible"),
        ("step_temperature", NAN_MARK, "not_measured"),
        ("step_temperature", "80", "over_temperature"),
    ],
)
def test_result_that_is_no_reading_is_no_measurement(bench, tester, name, shown, code):
    bench.set_faults(cycler__shows={name: shown})
    result = run_test(tester, 2, CellTest(SHORT, QUICK))
    assert (result.outcome, result.error_code, result.safe) == (CellTestOutcome.FAILED, code, True)
    assert result.course == ()


def test_cycler_that_does_not_count_energy_is_good_enough(bench, tester):
    bench.set_faults(cycler__shows={"step_energy": NAN_MARK})
    result = run_test(tester, 2, CellTest(SHORT, QUICK))
    assert (result.outcome, result.error_message) == (CellTestOutcome.MEASURED, "")


@pytest.mark.parametrize("style", ["signed", "nr2", "nr3"])
def test_numbers_are_understood_as_any_firmware_writes_them(bench, style):
    bench.set_faults(meter__numbers=style, cycler__numbers=style)
    with connected(bench) as tester:
        result = run_test(tester, 2, CellTest(Programme.capacity_test(20.0, rest_s=600.0), QUICK))
        assert (result.outcome, result.safe, result.error_message) == (CellTestOutcome.MEASURED, True, "")
        assert result.measurement.capacity_ah == pytest.approx(bench.cells.capacity_ah[1], rel=0.005)
        assert not tester.emergency_stop_stands()
        tester.emergency_stop()
        assert tester.emergency_stop_stands()
        tester.reset_emergency_stop()


def test_units_behind_the_numbers_are_understood(bench, tester):
    shows = {"contact": "+3.0000E-04 OHM", "voltage": "3300.0 mV", "temperature": "25.1 CEL", "elapsed": "0 S"}
    bench.set_faults(cycler__shows=shows, meter__shows={"resistance": "1.5234E-3 OHM", "voltage": "3.3001 VDC"})
    contact = tester.check_contact(1)
    assert (contact.contact_mohm, contact.voltage_v, contact.temperature_c) == pytest.approx((0.3, 3.3, 25.1))
    reading = tester.measure_resistance(1)
    assert (reading.resistance_mohm, reading.ocv_v) == pytest.approx((1.5234, 3.3001))


@pytest.mark.parametrize("shown", ["", "3.3 Ohm", "3,3", "1_0", "0x10", "drei", "1.2.3"])
def test_rubbish_in_place_of_a_reading_names_instrument_query_answer_and_remedy(bench, tester, shown):
    bench.set_faults(cycler__shows={"voltage": shown})
    with pytest.raises(
        DeviceProtocolError,
        match=r"cycler at 127\.0\.0\.1:\d+ answers 'MEAS:CHAN\? \(@1\)' with 'IDLE,.*docs/reference/tester\.md",
    ):
        tester.read_progress(1)
    assert not tester.connected


# ---- links that fail ----


@pytest.mark.parametrize("device", ["cycler", "meter"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"silent": True}, DeviceTimeoutError),
        ({"delay_s": 0.4}, DeviceTimeoutError),
        ({"garbage": True}, (DeviceProtocolError, DeviceTimeoutError)),
        ({"disconnect": True}, DeviceConnectionError),
    ],
)
def test_faulty_link_is_a_typed_error_and_the_driver_connects_again(device, fault, error):
    with running_tester(1) as bench, connected(bench, timeout_s=0.15) as tester:
        tester.check_contact(1)
        bench.set_faults(**{f"{device}__{name}": value for name, value in fault.items()})
        port = bench.instruments.ports[f"{device}_port"]
        if "disconnect" in fault:
            wait_for(lambda: not accepts(port))
        begin = time.monotonic()
        with pytest.raises(error):
            tester.measure_resistance(1)
        assert time.monotonic() - begin < 1.0
        assert not tester.connected
        with pytest.raises(DeviceConnectionError):
            tester.read_progress(1)
        bench.set_faults(**{f"{device}__{name}": type(value)() for name, value in fault.items()})
        wait_for(lambda: accepts(port))
        tester.connect(2.0)
        tester.check_contact(1)
        assert tester.measure_resistance(1).resistance_mohm > 0
        tester.safe(1)


def answering(answers: dict[bytes, bytes]) -> Callable[[socket.socket], None]:
    """An instrument that answers each message that begins with a key; other messages aren't answered."""
    return answering_from(lambda: answers)


def answering_from(answers_now: Callable[[], dict[bytes, bytes]]) -> Callable[[socket.socket], None]:
    """The same, with answers that may change."""

    def handle(connection: socket.socket) -> None:
        number = b""
        with connection.makefile("rb") as stream:
            for line in stream:
                said = b""
                if numbered := re.match(rb"\*ESE (\d+);(\*ESE\?;)?", line):
                    number, line = numbered[1], line[numbered.end() :]
                    said = number + b";" if numbered[2] else b""
                if line.startswith(b"*ESE?"):
                    connection.sendall(number + b"\r\n")
                for begin, answer in answers_now().items():
                    if line.startswith(begin):
                        connection.sendall(said + answer)
                        break

    return handle


CYCLER = {
    b"*IDN?": b"ACME,CYC,1,1.0\n",
    b"SYST:CHAN?": b"8\n",
    b"OUTP:WATC": b"20\n",
    b"CAL:DATE?": b"2026,1,15\n",
}


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({b"*IDN?": b"SSH-2.0-OpenSSH\n"}, DeviceProtocolError, "answers \\*IDN"),
        ({b"SYST:CHAN?": b"2\n"}, DeviceSettingsError, "has 2 channels, the settings say 4"),
        ({b"SYST:CHAN?": b"many\n"}, DeviceProtocolError, "answers 'SYST:CHAN"),
        ({b"CAL:DATE?": b"2026,13,1\n"}, DeviceProtocolError, "answers 'CAL:DATE"),
        ({b"OUTP:WATC": b"0\n"}, DeviceSettingsError, "told a watchdog of 20 s, but holds 0"),
        ({b"*IDN?": b"ACME,CYC,1,1.0\nmore\n"}, DeviceProtocolError, "without the number of the query"),
        ({b"*IDN?": b"ACME,CYC,1,1.0\xff\n"}, DeviceProtocolError, "garbage"),
        ({b"*IDN?": b"ACME,CY"}, DeviceTimeoutError, "in the middle of its answer"),
        ({b"*IDN?": b"x" * 200_000}, DeviceProtocolError, "more than a line"),
        ({b"OUTP:WATC": b"9.91E+37\n"}, DeviceSettingsError, "but holds 9.91E"),
        ({b"SYST:CHAN?": b"9.9E+37\n"}, DeviceProtocolError, "not a whole number from 0 to 65535"),
    ],
)
def test_wrong_cycler_is_refused_when_connecting(bench, changes, error, complaint):
    with impostor(answering({**CYCLER, **changes})) as port:
        driver = ScpiTester.from_settings({**bench.settings, "port": port, "timeout_s": 0.2})
        with pytest.raises(error, match=complaint):
            driver.connect(0.4)
        assert not driver.connected


METER = {
    b"*IDN?": b"HIOKI,BT3563A,0,V2.10\r\n",
    b":FUNC?": b"RV\r\n",
    b":AUT?": b"OFF\r\n",
    b":VOLT:RANG?": b" 6.00000E+0\r\n",
    b":SAMP:RATE?": b"FAST\r\n",
    b":TRIG:SOUR?": b"IMMEDIATE\r\n",
    b":INIT:CONT?": b"OFF\r\n",
    b":RES:RANG?": b"  3.0000E-3\r\n",
    b"*ESR?": b"0\r\n",
    b":READ?": b"  1.5234E-3, 3.31234E+0\r\n",
}


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({b"*IDN?": b"KEITHLEY,2450,1,1.0\r\n"}, DeviceProtocolError, "is a KEITHLEY 2450, not one of the BT356x"),
        ({b":INIT:CONT?": b"ON\r\n"}, DeviceSettingsError, "told :INIT:CONT OFF, but holds 'ON'"),
        ({b":RES:RANG?": b" 30.000E-3\r\n"}, DeviceSettingsError, "told :RES:RANG 3E-03, but holds '30.000E-3'"),
        ({b"*ESR?": b"32\r\n"}, DeviceSettingsError, "didn't take its settings"),
    ],
)
def test_wrong_meter_is_refused_when_connecting(bench, changes, error, complaint):
    with impostor(answering({**METER, **changes})) as port:
        driver = ScpiTester.from_settings({**bench.settings, "meter_port": port})
        with pytest.raises(error, match=complaint):
            driver.connect(1.0)
        assert not driver.connected


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"+10.0000E+9,+1.00000E+10\r\n", OpenContactError),
        (b"  1.5234E-3,+1.00000E+10\r\n", OpenContactError),
        (b"  1.5234E-3,-3.31234E+0\r\n", ReversedPolarityError),
        (b"  1.5234E-3, 1.00000E+9\r\n", CellTestError),
        (b"  1.5234E-3,-1.00000E+9\r\n", OverloadError),
        (b"-10.0000E+8, 3.31234E+0\r\n", OverloadError),
        (b"  1.5234E-3, 9.91E+37\r\n", NotMeasuredError),
        (b"-  1.5234E-3, 3.31234E+0\r\n", ImplausibleReadingError),
        (b"  1.5234E-3\r\n", DeviceProtocolError),
        (b"abc,def\r\n", DeviceProtocolError),
        (b"\r\n", DeviceProtocolError),
    ],
)
def test_every_answer_of_a_meter_to_read_has_its_meaning(bench, answer, error):
    with (
        impostor(answering({**METER, b":READ?": answer})) as port,
        connected(bench, meter_port=port) as tester,
    ):
        tester.check_contact(1)
        with pytest.raises(error):
            tester.measure_resistance(1)


def test_meter_as_described_in_its_manual_is_understood(bench):
    with impostor(answering(METER)) as port, connected(bench, meter_port=port) as tester:
        tester.check_contact(1)
        reading = tester.measure_resistance(1)
        assert (reading.resistance_mohm, reading.ocv_v) == (pytest.approx(1.5234), pytest.approx(3.31234))
        assert reading.instrument == "HIOKI BT3563A"


def test_rubbish_bytes_of_either_instrument_are_a_typed_error_and_never_a_reading(bench):
    # issue 15, A2
    dice = random.Random(15)
    digits = b"0123456789+-.eE,; \tVNA#*"
    said = {b"MEAS:CHAN?": b"", b":READ?": b""}

    def rubbish(part: bytes) -> bytes:
        whole = bytes(dice.choice(digits) for _ in range(dice.randrange(40)))
        return dice.choice([whole, dice.randbytes(dice.randrange(60)), part[: dice.randrange(len(part))]])

    orders = dict.fromkeys((b"ROUT:SCAN", b"ROUT:OPEN"), b'+0,"No error"\n')
    state = b"IDLE,0,1,3.3,0,25,0,0,NONE"
    with (
        impostor(answering_from(lambda: {**CYCLER, **orders, b"MEAS:CHAN?": said[b"MEAS:CHAN?"] + b"\n"})) as port,
        impostor(answering_from(lambda: {**METER, b":READ?": said[b":READ?"] + b"\r\n"})) as meter_port,
    ):
        settings = {**bench.settings, "port": port, "meter_port": meter_port, "timeout_s": 0.5}
        tester = ScpiTester.from_settings(settings)
        taken = 0
        for case in range(120):
            tester.connect(1.0)
            said[b"MEAS:CHAN?"] = state if case % 2 else rubbish(state).replace(b"\n", b"?")
            said[b":READ?"] = rubbish(METER[b":READ?"].strip()).replace(b"\n", b"?")
            try:
                reading = tester.measure_resistance(1)
            except DeviceError:
                continue
            taken += 1
            assert 0 < reading.resistance_mohm < 1e5 and abs(reading.ocv_v) <= 100, said
        tester.disconnect()
        assert taken < 20, "hardly any rubbish looks like a reading"


def test_instrument_that_babbles_unasked_is_refused(bench):
    def babble(connection: socket.socket) -> None:
        answering({**CYCLER, b"SYST:CHAN?": b"8\n\n"})(connection)

    with impostor(babble) as port:
        driver = ScpiTester.from_settings({**bench.settings, "port": port})
        with pytest.raises(DeviceProtocolError):
            driver.connect(1.0)


def test_disconnecting_ends_a_query_in_another_thread(bench):
    bench_settings = {**bench.settings, "timeout_s": 5.0}
    driver = ScpiTester.from_settings(bench_settings)
    driver.connect()
    bench.set_faults(cycler__silent=True)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            driver.read_progress(1)
        except DeviceConnectionError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: driver._cycler._lock._is_owned() is False and asking.is_alive())
    driver.disconnect()
    asking.join(1.0)
    assert not asking.is_alive()
    assert errors


def test_missing_library_is_told_with_what_to_install(bench, monkeypatch):
    link._resource_manager.cache_clear()
    monkeypatch.setitem(sys.modules, "pyvisa_py", None)
    try:
        with pytest.raises(ConfigurationError, match="pip install 'pyvisa"):
            ScpiTester.from_settings(bench.settings).connect()
    finally:
        link._resource_manager.cache_clear()


# ---- whole tests of cells ----


def test_cell_is_measured_and_left_safe(bench, tester):
    result = run_test(tester, 1, CellTest(Programme.capacity_test(20.0, rest_s=600.0), QUICK))
    assert (result.outcome, result.safe, result.error_message) == (CellTestOutcome.MEASURED, True, "")
    measured = result.measurement
    assert measured.capacity_ah == pytest.approx(bench.cells.capacity_ah[0], rel=0.005)
    assert (measured.capacity_instrument, measured.capacity_calibrated_on) == (
        "SIMULATED CYCLER-4",
        date(2026, 1, 15),
    )
    assert measured.soc == pytest.approx(0.5, abs=0.002)
    truth = bench.call(bench.cells.truth, 0)
    assert measured.resistance_mohm == pytest.approx(truth["resistance_25c_mohm"], rel=0.02)
    assert measured.ocv_v == pytest.approx(truth["ocv_v"], abs=0.003)
    assert measured.dc_resistance_mohm > measured.resistance_mohm
    channel = bench.instruments.cycler._channels[0]
    assert bench.call(lambda: (channel.running, channel.closed)) == (False, False)


def test_bad_contact_is_retried_and_the_cell_is_measured(bench, tester):
    bench.set_faults(tester__bad_contact=2)
    result = run_test(tester, 2, CellTest(SHORT, QUICK))
    assert (result.outcome, result.retries) == (CellTestOutcome.MEASURED, 2)


def test_contact_that_stays_bad_is_never_called_a_bad_cell(bench, tester):
    bench.set_faults(tester__open_contact=[2])
    result = run_test(tester, 2, CellTest(SHORT, QUICK))
    assert (result.outcome, result.error_code, result.retries) == (CellTestOutcome.BAD_CONTACT, "open_contact", 2)
    assert result.safe


def test_contact_that_opens_during_the_run_begins_anew(bench, tester):
    programme = SHORT.model_copy(update={"steps": (Rest(seconds=4000.0), Measure())})
    opened = []

    def before(test: CellTest) -> None:
        if test.phase is Phase.RUNNING and not opened:
            opened.append(True)
            bench.set_faults(tester__open_contact=[2])
        elif test.phase is Phase.PAUSE:
            bench.set_faults(tester__open_contact=[])

    result = run_test(tester, 2, CellTest(programme, QUICK), before)
    assert (result.outcome, result.retries) == (CellTestOutcome.MEASURED, 1)
    assert len(result.course) == 2


@pytest.mark.parametrize(
    ("switch", "code"),
    [
        ("tester__hot", "over_temperature"),
        ("tester__flat", "voltage_window"),
        ("tester__reversed", "reversed_polarity"),
    ],
)
def test_cell_that_becomes_dangerous_ends_its_test(bench, switch, code):
    with running_tester(1) as own, connected(own, channels=4) as tester:
        switched = []

        def before(test: CellTest) -> None:
            if test.phase is Phase.RUNNING and not switched:
                switched.append(True)
                own.set_faults(**{switch: [1]})

        long_rest = SHORT.model_copy(update={"steps": (Rest(seconds=5e5), Measure())})
        result = run_test(tester, 1, CellTest(long_rest, QUICK), before)
        assert (result.outcome, result.error_code, result.safe) == (CellTestOutcome.FAILED, code, True)


def test_cancel_in_every_phase_leaves_the_cell_safe(bench, tester):
    channel = bench.instruments.cycler._channels[3]
    for phase in (Phase.CONTACT, Phase.STARTING, Phase.RUNNING, Phase.MEASURING):

        def before(test: CellTest, phase: Phase = phase) -> Cancel | None:
            return Cancel() if test.phase is phase else None

        result = run_test(tester, 4, CellTest(SHORT, QUICK), before)
        assert (result.outcome, result.safe) == (CellTestOutcome.CANCELLED, True), phase
        assert bench.call(lambda: (channel.running, channel.closed)) == (False, False)


def test_link_that_is_lost_for_good_ends_the_test_and_says_that_nothing_is_certain(bench):
    with connected(bench, timeout_s=0.1) as tester:

        def before(test: CellTest) -> None:
            if test.phase is Phase.RUNNING:
                bench.set_faults(cycler__silent=True)

        long_rest = SHORT.model_copy(update={"steps": (Rest(seconds=5e5), Measure())})
        rules = replace(QUICK, silence_s=0.3, safe_s=0.3)
        result = run_test(tester, 1, CellTest(long_rest, rules), before)
        assert (result.outcome, result.error_code, result.safe) == (CellTestOutcome.FAILED, "tester_timeout", False)
        bench.set_faults(cycler__silent=False)
        tester.connect()
        tester.safe(1)


# ---- the contract ----


@pytest.mark.parametrize("shown", ["9.91E+37", "9.9E+37", "-242"])
def test_check_of_a_driver_finds_a_sensor_that_measures_nothing(bench, shown):
    # issue 15, A2
    bench.set_faults(cycler__shows={"temperature": shown})
    options = CheckOptions(move=True, timeout_s=1.0, impostor_timeout_s=0.3)
    failed = [r for r in check_driver("tester", "scpi", bench.settings, options) if r.outcome is CheckOutcome.FAIL]
    assert "starts and stops" in {result.check for result in failed}
    assert any("temperature" in result.detail for result in failed)


def test_tester_keeps_the_contract_of_all_drivers(bench):
    options = CheckOptions(move=True, timeout_s=1.0, impostor_timeout_s=0.3)
    results = list(check_driver("tester", "scpi", bench.settings, options))
    assert [result for result in results if result.outcome is not CheckOutcome.PASS] == []
    assert len(results) >= 15
