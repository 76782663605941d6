"""The plant's cycler and AC meter: language, programmes, faults. Mostly on a clock of the test's."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from support.tester_bench import Clock, running_tester

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.drivers.tester import bt356x
from battery_sorting.plant.cells import Cells
from battery_sorting.plant.cycler import Cycler
from battery_sorting.plant.instruments import TesterFaults as Faults
from battery_sorting.plant.meter import AcMeter, Probe

pytestmark = pytest.mark.realtime


class Station:
    """A cycler of two channels with a cell in the first, on clocks that the test sets."""

    def __init__(self, seed: int = 4) -> None:
        self.clock, self.host = Clock(), Clock()
        self.faults = Faults()
        self.events: list[dict[str, Any]] = []
        self.cells = Cells(3, seed=seed)
        self.cycler = Cycler(2, self.cells, self.clock, self.host, self.faults, self.events.append, seed=seed)
        self.cycler.insert(1, 0)

    def ask(self, message: str) -> str:
        return self.cycler.execute(message)[0]

    def order(self, *messages: str) -> None:
        for message in messages:
            assert self.ask(f"{message};:SYST:ERR?") == '0,"No error"', message

    def after(self, seconds: float) -> list[str]:
        self.clock.s += seconds
        return self.ask("MEAS:CHAN? (@1)").split(",")

    def run(self, *steps: str) -> None:
        self.order("OUTP:STOP (@1)", "ROUT:CLOS (@1)", "PROG:CLE (@1)", "LIM (@1),2.45,3.7,45")
        self.order(*(f"PROG:STEP (@1),{index},{step}" for index, step in enumerate(steps, start=1)))
        self.order("OUTP:STAR (@1)")

    def kinds(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["event"] == event]


@pytest.fixture
def station() -> Station:
    return Station()


# ---- programmes ----


def test_charge_discharge_measures_the_capacity(station):
    station.run("CHARGE,10,3.65,1,20000,0", "REST,1800", "DISCHARGE,10,2.5,20000", "REST,600")
    state = station.after(40_000)
    assert (state[0], state[-1]) == ("DONE", "NONE")
    results = [station.ask(f"FETC:STEP? (@1),{index}").split(",") for index in (1, 2, 3, 4)]
    assert [result[:2] for result in results] == [
        ["CHARGE", "DONE"],
        ["REST", "DONE"],
        ["DISCHARGE", "DONE"],
        ["REST", "DONE"],
    ]
    assert -float(results[2][3]) == pytest.approx(station.cells.capacity_ah[0], rel=0.005)
    assert float(results[2][6]) == pytest.approx(2.5, abs=0.002)
    assert float(results[1][2]) == pytest.approx(1800, abs=1e-3)


def test_steps_of_the_model_do_not_depend_on_how_often_it_is_looked_at():
    once, often = Station(), Station()
    for station in (once, often):
        station.run("CHARGE,10,3.65,1,20000,0", "DISCHARGE,10,2.5,20000")
    once.after(30_000)
    for _ in range(300):
        often.after(100)
    capacities = [float(station.ask("FETC:STEP? (@1),2").split(",")[3]) for station in (once, often)]
    assert capacities[0] == pytest.approx(capacities[1], rel=2e-4)


def test_charge_ends_at_its_charge_limit(station):
    station.run("CHARGE,10,3.65,1,20000,2.5")
    state = station.after(5000)
    assert state[0] == "DONE"
    assert float(state[6]) == pytest.approx(2.5, rel=1e-6)
    assert station.cells.soc[0] > 0.25


def test_step_that_takes_too_long_ends_the_run_and_says_so(station):
    station.run("DISCHARGE,1,2.5,60", "REST,10")
    assert station.after(100)[0] == "DONE"
    assert station.ask("FETC:COUN? (@1)") == "1"
    assert station.ask("FETC:STEP? (@1),1").startswith("DISCHARGE,TIME,60,")


def test_cell_that_is_full_already_ends_its_charge_at_once(station):
    station.cells.soc[0] = 1.0
    station.run("CHARGE,10,3.65,1,20000,0")
    assert station.after(1)[0] == "DONE"
    assert float(station.ask("FETC:STEP? (@1),1").split(",")[3]) == pytest.approx(0.0, abs=0.01)


def test_record_holds_every_step_with_the_true_state_of_charge(station):
    station.run("REST,5", "PULSE,-10,10")
    station.after(20)
    steps = station.kinds("tester_step")
    assert [(entry["channel"], entry["cell"], entry["kind"], entry["number"]) for entry in steps] == [
        (1, 0, "REST", 1),
        (1, 0, "PULSE", 2),
    ]
    assert steps[1]["soc"] == pytest.approx(station.cells.soc[0], abs=1e-6)
    assert steps[1]["tester_s"] == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("switch", "fault"),
    [
        ({"tester.open_contact": [1]}, "OPEN"),
        ({"tester.reversed": [1]}, "POLARITY"),
        ({"tester.hot": [1]}, "TEMPERATURE"),
        ({"tester.flat": [1]}, "VOLTAGE"),
    ],
)
def test_fault_in_a_channel_switches_its_current_off_at_once(station, switch, fault):
    station.run("DISCHARGE,5,2.5,20000")
    station.after(10)
    station.faults.set(switch)
    state = station.after(60)
    assert (state[0], float(state[4]), state[-1]) == ("FAULT", 0.0, fault)
    assert station.kinds("tester_fault")[0]["fault"] == fault


def test_emergency_stop_opens_all_contacts_and_holds_until_it_is_reset(station):
    station.run("DISCHARGE,5,2.5,20000")
    station.faults.set({"tester.estop": True})
    station.cycler.watch()
    assert station.after(1)[0] == "FAULT"
    assert station.ask("ROUT:CLOS? (@1)") == "0"
    assert station.ask("ROUT:CLOS (@1);:SYST:ERR?").startswith("101")
    assert station.ask("OUTP:EST:RES;:SYST:ERR?").startswith("101")
    station.faults.set({"tester.estop": False})
    station.order("OUTP:EST:RES", "ROUT:CLOS (@1)")


def test_watchdog_acts_in_real_time_and_only_on_a_silent_host(station):
    station.order("OUTP:WATC 20")
    station.run("DISCHARGE,1,2.5,200000")
    station.after(3600.0)  # cells may live faster than the host
    station.host.s += 19.0
    station.cycler.watch()
    assert station.after(1)[0] == "RUN"
    station.host.s += 20.5
    station.cycler.watch()
    assert station.after(1)[0] == "FAULT"
    assert station.kinds("tester_fault")[0]["fault"] == "WATCHDOG"


# ---- cells come and go ----


def test_cells_are_put_in_and_taken_out_with_their_true_values_on_record(station):
    station.cycler.insert(2, 1)
    assert station.cycler.cell_in(2) == 1
    assert station.cycler.remove(2) == 1
    assert station.cycler.remove(2) is None
    [inserted] = [entry for entry in station.kinds("tester_insert") if entry["channel"] == 2]
    [removed] = station.kinds("tester_remove")
    for entry in (inserted, removed):
        assert entry["capacity_ah"] == pytest.approx(station.cells.capacity_ah[1], abs=1e-6)
        assert {"resistance_mohm", "ocv_v", "soc", "temperature_c"} <= entry.keys()


@pytest.mark.parametrize(
    ("channel", "cell", "complaint"),
    [
        (1, 1, "already holds cell 0"),
        (2, 0, "already lies in a channel"),
        (3, 1, "no channel 3"),
        (2, 9, "no cell 9"),
    ],
)
def test_impossible_placement_is_refused(station, channel, cell, complaint):
    with pytest.raises(ValueError, match=complaint):
        station.cycler.insert(channel, cell)


def test_cell_that_is_torn_out_of_closed_contacts_is_on_record(station):
    station.run("REST,100")
    station.cycler.remove(1)
    assert len(station.kinds("tester_torn")) == 1
    assert station.after(1)[0] == "FAULT"


def test_cell_relaxes_while_it_lies_outside(station):
    station.run("DISCHARGE,20,2.5,300")
    station.after(300)
    station.order("OUTP:STOP (@1)", "ROUT:OPEN (@1)")
    assert station.cells.v1_v[0] < -0.005
    station.cycler.remove(1)
    station.clock.s += 3600.0
    station.cycler.insert(1, 0)
    assert station.cells.v1_v[0] == pytest.approx(0.0, abs=1e-6)


# ---- the language ----


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("FROBNICATE", -113),
        ("MEAS:CHAN?", -109),
        ("MEAS:CHAN? 1", -170),
        ("MEAS:CHAN? (@9)", -222),
        ("MEAS:CHAN? (@one)", -170),
        ("PROG:STEP (@1),1,DANCE,3", -224),
        ("PROG:STEP (@1),1,REST", -109),
        ("PROG:STEP (@1),1,REST,nan", -222),
        ("PROG:STEP (@1),1,REST,long", -120),
        ("PROG:STEP (@1),1,REST,1,2", -108),
        ("PROG:STEP (@1),7,REST,1", -222),
        ("FETC:STEP? (@1),1", -222),
        ("OUTP:STAR (@1)", -221),
        ("OUTP:WATC -1", -222),
        ("\x00\xff", -113),
    ],
)
def test_rubbish_ends_up_in_the_error_queue(station, message, error):
    assert station.ask(message) == ""
    assert station.ask("SYST:ERR?").startswith(f"{error},")
    assert station.ask("SYST:ERR?") == '0,"No error"'


def test_commands_are_understood_in_long_and_short_and_together(station):
    assert station.ask("system:channels?") == "2"
    assert station.ask(":SYSTEM:CHAN?;CHANnels?;:OUTPut:WATChdog 7;WATC?;*OPC?") == "2;2;7;1"


def test_error_queue_overflows_once(station):
    for _ in range(50):
        station.ask("NONSENSE")
    errors = [station.ask("SYST:ERR?") for _ in range(21)]
    assert errors[18].startswith("-113")
    assert errors[19].startswith("-350")
    assert errors[20].startswith("0")


def test_running_channel_refuses_another_programme_and_keeps_its_contacts(station):
    station.run("REST,1000")
    for command in (
        "PROG:CLE (@1)",
        "PROG:STEP (@1),1,REST,1",
        "LIM (@1),2,3,40",
        "OUTP:STAR (@1)",
        "ROUT:OPEN (@1)",
    ):
        assert station.ask(f"{command};:SYST:ERR?").startswith("103,"), command
    assert station.after(1)[0] == "RUN"


def test_reset_makes_everything_safe(station):
    station.run("REST,1000")
    station.order("ROUT:SCAN (@1)", "*RST")
    assert station.after(1)[0] == "IDLE"
    assert (station.ask("ROUT:CLOS? (@1)"), station.ask("ROUT:SCAN?"), station.ask("PROG:COUN? (@1)")) == ("0",) * 3


# ---- the meter ----


def meter(**probe: Any) -> AcMeter:
    return AcMeter(
        lambda: Probe(**{"connected": True, "resistance_ohm": 1.5e-3, "voltage_v": 3.3, **probe}), seed=3
    )


def read(device: AcMeter, *settings: str) -> str:
    device.execute(":INIT:CONT OFF;:TRIG:SOUR IMM")
    for setting in settings:
        device.execute(setting)
    return device.execute(":READ?")[0]


def test_meter_answers_as_its_manual_says():
    text = read(meter())
    assert len(text) == len(" 1.5234E-3") + 1 + len(" 3.31234E+0") + 1
    ohms, volts = bt356x.parse_reading(text)
    assert ohms == pytest.approx(1.5e-3, rel=0.01)
    assert volts == pytest.approx(3.3, rel=2e-4)


def test_meter_says_over_range_and_contact_fault():
    assert read(meter(resistance_ohm=5e-3), ":RES:RANG 3E-3").startswith(" 10.0000E+8,")
    assert read(meter(resistance_ohm=5e-3), ":AUT ON").startswith("   4.9")
    assert read(meter(connected=False), ":RES:RANG 3E-3") == "+10.0000E+9,+1.00000E+10"
    assert read(meter(voltage_v=-3.3)).split(",")[1].startswith("-3.3")


def test_free_running_meter_is_not_triggered_and_tells_it_by_its_register():
    device = meter()
    device.execute("*CLS;:INIT:CONT ON")
    assert device.execute(":READ?")[0] == ""
    assert int(device.execute("*ESR?")[0]) == bt356x.EXECUTION_ERROR
    device.execute("SYST:ERR?")
    assert int(device.execute("*ESR?")[0]) == bt356x.COMMAND_ERROR
    assert device.execute("*ESR?")[0] == "0"


@pytest.mark.parametrize("rate", bt356x.RATES)
def test_scatter_of_the_meter_stays_within_its_limits_of_error(rate):
    device = meter(resistance_ohm=2e-3)
    device.execute(f":SAMP:RATE {rate};:RES:RANG 3E-3")
    readings = np.array([bt356x.parse_reading(read(device)) for _ in range(300)])
    limit_mohm = bt356x.resistance_error_mohm(2.0, bt356x.RESISTANCE_RANGES[0], rate)
    assert np.abs(readings[:, 0] * 1000 - 2.0).max() <= limit_mohm
    assert np.abs(readings[:, 1] - 3.3).max() <= bt356x.voltage_error_v(3.3, bt356x.VOLTAGE_RANGES[0], rate)
    assert readings[:, 0].std() > 0
    assert device.execute("*OPC?;:READ?")[1] == pytest.approx(bt356x.SECONDS[rate] + bt356x.RESPONSE_S)


# ---- faults and sockets ----


def test_unknown_switches_are_refused_and_none_is_set():
    faults = Faults()
    with pytest.raises(ConfigurationError, match=r"tester\.hott"):
        faults.set({"tester.hot": [1], "tester.hott": [1]})
    with pytest.raises(ConfigurationError, match=r"meter\.delay_s"):
        faults.set({"meter.delay_s": -1})
    assert faults.as_dict()["tester.hot"] == []


@contextmanager
def connected(port: int) -> Iterator[Any]:
    with socket.create_connection(("127.0.0.1", port), 3) as raw, raw.makefile("rwb") as stream:
        yield stream


def ask(stream: Any, message: bytes) -> bytes:
    stream.write(message)
    stream.flush()
    return stream.readline()


def test_instruments_listen_on_tcp_and_survive_rubbish():
    with running_tester(1) as bench:
        for key, end in (("cycler_port", b"\n"), ("meter_port", b"\r\n")):
            with connected(bench.instruments.ports[key]) as stream:
                assert ask(stream, b"*IDN?\r\n").startswith(b"SIMULATED,")
                stream.write(b"\x00\xff\xfe\n" + b"x" * 100_000 + b"\n;;;\n")
                assert ask(stream, b"*OPC?\n") == b"1" + end
                assert key == "meter_port" or ask(stream, b"SYST:ERR?\n").startswith(b"-113,")


def test_switches_disturb_the_link_and_are_on_record():
    with running_tester(1) as bench:
        bench.set_faults(meter__delay_s=0.2)
        with connected(bench.instruments.ports["meter_port"]) as stream:
            begin = time.monotonic()
            ask(stream, b"*IDN?\n")
            assert time.monotonic() - begin >= 0.2
            bench.set_faults(meter__delay_s=0.0, meter__garbage=True)
            assert not ask(stream, b"*IDN?\n").startswith(b"SIMULATED")
            bench.set_faults(meter__disconnect=True)
            assert stream.readline() == b""
        names = [entry["name"] for entry in bench.events if entry["event"] == "fault"]
        assert names == ["meter.delay_s", "meter.delay_s", "meter.garbage", "meter.disconnect"]


def test_true_values_of_cells_and_meter_are_on_record():
    with running_tester(3) as bench:
        kinds = [entry["event"] for entry in bench.events]
    assert kinds.count("cell") == 3
    assert kinds.count("meter") == 1
    assert kinds.count("tester_insert") == 3
