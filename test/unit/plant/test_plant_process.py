"""The simulated plant as a process, and its record."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymodbus.client import ModbusTcpClient

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.plant_control import PlantControl, load_record
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.plant.base import LagMeter
from battery_sorting.plant.belt_process import make_config, with_labels
from battery_sorting.plant.process import main
from battery_sorting.plant.record import Recorder

pytestmark = pytest.mark.realtime

COMMAND = [sys.executable, "-c", "from battery_sorting.plant.process import main; main()"]
ROOT = Path(__file__).parents[3]


def start(folder: Path, *arguments: str, **settings) -> subprocess.Popen:
    file = folder / "plant.json"
    file.write_text(json.dumps(settings))
    return subprocess.Popen(
        [*COMMAND, "--config", str(file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def plant(tmp_path) -> Iterator[tuple[subprocess.Popen, dict]]:
    process = start(
        tmp_path,
        items=5,
        rate_per_s=10,
        speed_mps=1.0,
        real_time_factor=3,
        record=str(tmp_path / "run" / "plant.jsonl"),
    )
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_plant_runs_until_it_is_told_to_end_and_leaves_its_record(plant, tmp_path):
    process, ready = plant
    assert ready["ready"] is True
    master = ModbusTcpClient("127.0.0.1", port=ready["modbus_port"])
    assert master.connect()
    master.write_registers(rm.HR_RUN, [1, 1000])
    with PlantControl("127.0.0.1", ready["control_port"]) as control:
        end = time.monotonic() + 15
        while not control.summary()["finished"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        summary, told = control.summary(), control.record()
        assert control.state()["running"] is True
    master.close()
    assert summary["bins"] == {"others": 5}
    assert summary["real_time_factor"] == pytest.approx(3.0, abs=0.1)
    assert summary["tick_lag_ms"]["p50"] < 10

    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert time.monotonic() - sent < 1.0
    written = load_record(tmp_path / "run" / "plant.jsonl")
    assert written["boot_id"] == told["boot_id"] == ready["boot_id"]
    assert written["items"] == told["items"]
    assert [item["trigger_count"] for item in written["items"]] == [1, 2, 3, 4, 5]
    assert all(item["bin"] == "others" and item["t_s"] > item["trigger_t_s"] for item in written["items"])
    assert set(written["tick_lag_ms"]) == {"p50", "p99", "max"}


def test_interrupt_and_shutdown_end_the_plant(plant):
    process, ready = plant
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ready["modbus_port"])) != 0


def test_plant_that_is_ended_last_outlives_the_ctrl_c_of_its_nodes(tmp_path):
    """Issue 15, D13: a terminal sends SIGINT to all processes at once."""
    with start(tmp_path, "--only-terminate") as process:
        try:
            ready = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            with PlantControl("127.0.0.1", ready["control_port"]) as control:
                assert control.state()["t_s"] >= 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"kind": "ev"}, []),
        ({"speed": 1, "items": -1}, ["items: must be greater than or equal to 0, not '-1'", "speed: no such key"]),
        ({"kind": "tram"}, ["kind: 'tram' is none; there are belt and ev"]),
        ({"images": "/nowhere"}, ["images: no such folder"]),
        ({"host": "198.51.100.7"}, ["host: 198.51.100.7 is no address of this host"]),
    ],
)
def test_plant_tells_what_is_wrong_with_its_settings_and_opens_nothing(settings, told):
    """Issue 15, D13: so `check` finds it, and nothing is started in vain."""
    command = [*COMMAND[:-1], f"{COMMAND[-1].removesuffix('main()')}main(['--check'])"]
    ended = subprocess.run(
        command, input=json.dumps(settings), capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    problems = json.loads(ended.stdout)
    assert len(problems) == len(told)
    assert all(any(problem.startswith(one) for problem in problems) for one in told), problems


def test_port_in_use_is_named_and_nothing_is_overwritten(tmp_path):
    record = tmp_path / "plant.jsonl"
    record.write_text("the record of the plant that runs\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(tmp_path, record=str(record), control_port=port)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"control_port: port {port}" in errors
    assert "Traceback" not in errors
    assert record.read_text() == "the record of the plant that runs\n"


def test_wrong_settings_end_the_start_with_every_problem(tmp_path, capsys):
    file = tmp_path / "plant.json"
    file.write_text(json.dumps({"speed": 1, "items": -1, "modbus_port": 99999}))
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(file)])
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert all(key in errors for key in ("plant.json", "speed: no such key", "items:", "modbus_port:"))


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_unreadable_settings_end_the_start(tmp_path, capsys, content):
    file = tmp_path / "plant.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(file)])
    assert ended.value.code == 2
    assert str(file) in capsys.readouterr().err


def test_pictures_without_unknown_brands_bring_known_types_only():
    class Photographs:
        skipped: tuple[str, ...] = ()

        def types(self) -> list[str]:
            return ["A", "B"]

        def unknown(self) -> list[str]:
            return []

    config = with_labels(make_config({"items": 50}), Photographs())
    assert (config.types, config.unknown_fraction) == (["A", "B"], 0.0)


def test_plant_ends_with_its_parent(tmp_path):
    (tmp_path / "plant.json").write_text("{}")
    script = (
        "import subprocess, sys; "
        f"p = subprocess.Popen({[*COMMAND, '--config', str(tmp_path / 'plant.json'), '--exit-with-parent']!r}, "
        "stdout=subprocess.PIPE, text=True); print(p.stdout.readline(), end='', flush=True)"
    )
    parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=20)
    port = json.loads(parent.stdout)["control_port"]
    end = time.monotonic() + 5
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        assert time.monotonic() < end, "the plant outlived its parent"
        time.sleep(0.05)


def test_rate_gives_the_pitch():
    assert make_config({"rate_per_s": 12, "speed_mps": 1.2}).pitch_mm == pytest.approx(100)
    with pytest.raises(ConfigurationError, match="raise speed_mps"):
        make_config({"rate_per_s": 12, "speed_mps": 0.5})
    with pytest.raises(ConfigurationError, match="give one of them"):
        make_config({"rate_per_s": 5, "pitch_mm": 100})


def test_lag_meter_gives_quantiles():
    meter = LagMeter()
    for lag_ms in [0.5] * 99 + [250.0]:
        meter.add(lag_ms)
    assert meter.as_dict() == {"p50": 0.6, "p99": 0.6, "max": 250.0}


def test_record_of_a_killed_plant_is_read_up_to_its_last_whole_line(tmp_path):
    file = tmp_path / "plant.jsonl"
    recorder = Recorder()
    recorder.open(file)
    recorder({"event": "start", "boot_id": 1, "start_ns": 2, "t_s": 0.0})
    recorder({"event": "item", "index": 0, "label": "A", "known": True, "t_s": 1.0})
    recorder.close()
    with file.open("a") as stream:
        stream.write('{"event": "bin", "ind')
    record = load_record(file)
    assert record["items"][0]["bin"] is None
    assert record["real_time_factor"] is None


@pytest.mark.parametrize(
    "content", ["", "nonsense\n{}\n", '{"event": "bin", "index": 4, "bin": "A", "t_s": 1}\n{}\n']
)
def test_foreign_record_is_refused(tmp_path, content):
    file = tmp_path / "plant.jsonl"
    file.write_text(content)
    if content:
        with pytest.raises(ConfigurationError, match="line 1 is no event"):
            load_record(file)
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_record(tmp_path / "missing.jsonl")


def test_full_disk_stops_the_record_file_and_not_the_plant():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    recorder = Recorder()
    recorder.open("/dev/full")
    recorder({"event": "item", "index": 0, "label": "A", "known": True, "t_s": 1.0})
    recorder({"event": "bin", "index": 0, "bin": "A", "t_s": 2.0})
    recorder.close()
    assert "No space left" in recorder.write_error
    assert recorder.record.as_dict()["items"][0]["bin"] == "A"
