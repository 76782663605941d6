"""One process each for a line and a device, whoever has started it."""

# issue 14, point 3

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ownership import Claim, OwnedElsewhereError, claim, claim_run_folder
from battery_sorting.drivers.plc.modbus import ModbusPlc
from battery_sorting.drivers.tester.scpi import ScpiTester
from battery_sorting.line.claims import claims_of
from battery_sorting.lines import load_site
from battery_sorting.runtime.plan import assign_ports

HOLD = """
import sys, time
from pathlib import Path
from battery_sorting.core.ownership import Claim, claim, claim_run_folder
role, thing, label, folder = sys.argv[1:]
held = claim([Claim(role, thing)], label)
lock = claim_run_folder(Path(folder)) if folder else None
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def plc() -> Claim:
    """A claim that no other test has."""
    return Claim("conveyor", f"plc at tcp test-{os.getpid()}-{time.monotonic_ns()}:502")


def holder(one: Claim, label: str = "conveyor, run folder /data/runs/belt", folder: str = "") -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, one.role, one.thing, label, folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_second_process_is_told_who_has_it(plc):
    first = holder(plc)
    try:
        with pytest.raises(OwnedElsewhereError) as refused:
            claim([plc], "conveyor, run folder /elsewhere", patience_s=0.0)
        assert f"{plc} belongs to process {first.pid} (conveyor, run folder /data/runs/belt)" in str(refused.value)
        assert "End that one first" in str(refused.value)
    finally:
        end(first)


def test_frozen_process_keeps_it_and_the_message_says_how_to_end_it(plc):
    first = holder(plc)
    try:
        first.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(OwnedElsewhereError, match=rf"is stopped: .*'kill -KILL {first.pid}'"):
            claim([plc], "", patience_s=0.0)
    finally:
        end(first)


def test_killed_process_gives_it_up_at_once(plc):
    end(holder(plc))
    claim([plc], "", patience_s=0.0).release()


def test_successor_waits_for_a_predecessor_that_is_ending(plc):
    first, said = holder(plc), []

    def waiting(text: str) -> None:
        said.append(text)
        end(first)

    claim([plc], "", waiting, patience_s=5.0).release()
    assert len(said) == 1 and "waiting up to 5 s for it to end" in said[0]


def test_roles_share_a_device_and_no_role_is_there_twice(plc):
    ejector = Claim("ejector", plc.thing)
    with (
        claim([plc], ""),
        claim([ejector], ""),
        pytest.raises(OwnedElsewhereError, match=r"\(ejector\) belongs to"),
    ):
        claim([ejector], "", patience_s=0.0)


def test_who_does_not_get_all_gets_none(plc):
    other = Claim("camera", plc.thing)
    with claim([plc], ""):
        with pytest.raises(OwnedElsewhereError):
            claim([other, plc], "", patience_s=0.0)
        claim([other], "", patience_s=0.0).release()


LONG_LABEL = "line_controller, run folder /größe/" + "/".join(f"folder {n}" for n in range(30))


def test_long_names_do_not_run_into_each_other():
    thing = "ledger /" + "long/" * 40
    one, other = Claim("line_controller", f"{thing}a"), Claim("line_controller", f"{thing}b")
    with (
        claim([one], LONG_LABEL),
        claim([other], "", patience_s=0.0),
        pytest.raises(OwnedElsewhereError, match=re.escape(f"({LONG_LABEL})")),
    ):
        claim([one], "", patience_s=0.0)


def test_run_folder_is_locked_by_whoever_starts_a_cell_in_it(plc, tmp_path):
    first = holder(plc, folder=str(tmp_path))
    try:
        with pytest.raises(ConfigurationError, match=rf"started by process {first.pid}:.*--run-dir"):
            claim_run_folder(tmp_path)
    finally:
        end(first)
    claim_run_folder(tmp_path).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_one_plc_is_the_same_by_all_of_its_names(host):
    assert ModbusPlc.from_settings({"host": host, "port": 5020}).addresses == ("tcp localhost:5020",)


def test_host_that_nobody_knows_goes_by_its_name():
    assert ModbusPlc.from_settings({"host": "Plc.invalid"}).addresses == ("tcp plc.invalid:502",)


def test_tester_needs_both_of_its_instruments():
    apart = {"host": "192.0.2.1", "port": 5025, "meter_host": "192.0.2.2", "meter_port": 23}
    assert ScpiTester.from_settings(apart).addresses == ("tcp 192.0.2.1:5025", "tcp 192.0.2.2:23")
    together = {"host": "192.0.2.1", "port": 5025, "meter_port": 23}
    assert ScpiTester.from_settings(together).addresses == ("tcp 192.0.2.1:5025", "tcp 192.0.2.1:23")


@pytest.mark.parametrize(("site", "node"), [("sim", "conveyor"), ("sim", "ejector"), ("sim_ev", "robot")])
def test_two_sites_with_one_device_exclude_each_other_whatever_else_differs(site, node):
    first = assign_ports(load_site(site, []))
    second = first.model_copy(update={"name": "another", "line": "another"})
    mine = set(claims_of(node, first, Path("/one"), 1))
    assert mine & set(claims_of(node, second, Path("/two"), 2))


def test_controller_claims_every_device_its_line_and_its_ledger():
    site = assign_ports(load_site("sim_ev", []))
    things = " | ".join(one.thing for one in claims_of("line_controller", site, Path("/run"), 7))
    kinds = {kind for kind, _ in site.devices.values()}
    for part in (*kinds, "in ROS domain 7", "in ledger /run/ledger.sqlite"):
        assert part in things


def test_node_without_a_device_is_still_there_once_on_its_line():
    site = assign_ports(load_site("sim", []))
    assert claims_of("archivist", site, Path("/one"), 1) == claims_of("archivist", site, Path("/two"), 1)
    assert claims_of("archivist", site, Path("/one"), 1) != claims_of("archivist", site, Path("/one"), 2)
