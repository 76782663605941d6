"""The SCPI tester: with the simulated plant's instruments, and with instruments that misbehave."""

from __future__ import annotations

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
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
    OpenContactError,
    ReversedPolarityError,
)
from battery_sorting.core.errors import TesterStoppedError as StoppedByItself
from battery_sorting.core.ev.cell_test import Cancel, CellTest, Outcome, Phase, Rules
from battery_sorting.core.ev.measurement import (
    ChannelPhase,
    CyclerRun,
    Discharge,
    Limits,
    Measure,
    Programme,
    Pulse,
    Rest,
)
from battery_sorting.drivers.contract import Options, check_driver
from battery_sorting.drivers.contract import Outcome as CheckOutcome
from battery_sorting.drivers.tester import link
from battery_sorting.drivers.tester.scpi import ScpiTester

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
    assert (state.state, state.fault) == (ChannelPhase.FAULT, "tester_stopped")
    with pytest.raises(StoppedByItself, match="release the emergency stop"):
        tester.check_contact(1)
    bench.call(bench.instruments.cycler.execute, "OUTP:EST:RES")
    tester.check_contact(1)


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

    def handle(connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            for line in stream:
                for begin, answer in answers.items():
                    if line.startswith(begin):
                        connection.sendall(answer)
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
        ({b"*IDN?": b"ACME,CYC,1,1.0\nmore\n"}, DeviceProtocolError, "more than a line"),
        ({b"*IDN?": b"ACME,CYC,1,1.0\xff\n"}, DeviceProtocolError, "garbage"),
        ({b"*IDN?": b"ACME,CY"}, DeviceTimeoutError, "in the middle of its answer"),
        ({b"*IDN?": b"x" * 200_000}, DeviceProtocolError, "more than a line"),
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
    assert (result.outcome, result.safe, result.error_message) == (Outcome.MEASURED, True, "")
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
    assert (result.outcome, result.retries) == (Outcome.MEASURED, 2)


def test_contact_that_stays_bad_is_never_called_a_bad_cell(bench, tester):
    bench.set_faults(tester__open_contact=[2])
    result = run_test(tester, 2, CellTest(SHORT, QUICK))
    assert (result.outcome, result.error_code, result.retries) == (Outcome.BAD_CONTACT, "open_contact", 2)
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
    assert (result.outcome, result.retries) == (Outcome.MEASURED, 1)
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
        assert (result.outcome, result.error_code, result.safe) == (Outcome.FAILED, code, True)


def test_cancel_in_every_phase_leaves_the_cell_safe(bench, tester):
    channel = bench.instruments.cycler._channels[3]
    for phase in (Phase.CONTACT, Phase.STARTING, Phase.RUNNING, Phase.MEASURING):

        def before(test: CellTest, phase: Phase = phase) -> Cancel | None:
            return Cancel() if test.phase is phase else None

        result = run_test(tester, 4, CellTest(SHORT, QUICK), before)
        assert (result.outcome, result.safe) == (Outcome.CANCELLED, True), phase
        assert bench.call(lambda: (channel.running, channel.closed)) == (False, False)


def test_link_that_is_lost_for_good_ends_the_test_and_says_that_nothing_is_certain(bench):
    with connected(bench, timeout_s=0.1) as tester:

        def before(test: CellTest) -> None:
            if test.phase is Phase.RUNNING:
                bench.set_faults(cycler__silent=True)

        long_rest = SHORT.model_copy(update={"steps": (Rest(seconds=5e5), Measure())})
        rules = replace(QUICK, silence_s=0.3, safe_s=0.3)
        result = run_test(tester, 1, CellTest(long_rest, rules), before)
        assert (result.outcome, result.error_code, result.safe) == (Outcome.FAILED, "tester_timeout", False)
        bench.set_faults(cycler__silent=False)
        tester.connect()
        tester.safe(1)


# ---- the contract ----


def test_tester_keeps_the_contract_of_all_drivers(bench):
    options = Options(move=True, timeout_s=1.0, impostor_timeout_s=0.3)
    results = list(check_driver("tester", "scpi", bench.settings, options))
    assert [result for result in results if result.outcome is not CheckOutcome.PASS] == []
    assert len(results) >= 15
