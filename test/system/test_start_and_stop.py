"""The commands from outside: what stops the start, and that nothing is left after the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from harness import (
    MARK,
    ROOT,
    Process,
    listening_ports,
    marked_processes,
    run_cli,
    start_plant,
    wait_for,
    wait_for_ends,
)

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.plant_control import PlantControl
from battery_sorting.runtime.demo import BeltJob

pytestmark = pytest.mark.system

ANY_PORTS = [f"--set=plant.{kind}_port=0" for kind in ("modbus", "camera", "control")]
COMMANDS = {
    "up": ["up", "--site", "sim", *ANY_PORTS],
    "demo": ["demo", "--items", "100", "--rate", "4"],
}


def start(name: str, run_dir: Path) -> Process:
    command = [sys.executable, "-m", "battery_sorting.cli.main", *COMMANDS[name], "--run-dir", str(run_dir)]
    return Process(command, run_dir.with_suffix(".log"))


def batteries_seen(run_dir: Path) -> int:
    try:
        port = json.loads((run_dir / "plant.json").read_text())["control_port"]
        with PlantControl("127.0.0.1", port) as plant:
            return plant.summary()["triggers"]
    except (OSError, ValueError, BatterySortingError):
        return 0


@pytest.mark.parametrize(
    ("name", "number", "when"),
    [
        ("up", signal.SIGINT, "sorting"),
        ("demo", signal.SIGTERM, "sorting"),
        ("up", signal.SIGTERM, "starting"),
        ("demo", signal.SIGINT, "starting"),
    ],
)
def test_signal_ends_everything_within_five_seconds(tmp_path, domain, leaks, name, number, when):
    run_dir = tmp_path / "run"
    with start(name, run_dir) as command:
        if when == "sorting":
            wait_for(lambda: batteries_seen(run_dir) > 2 or command.exit_code is not None, "batteries come")
            assert len(listening_ports(set(marked_processes(os.environ[MARK])))) == 3, command.output
        wait_for(lambda: len(marked_processes(os.environ[MARK])) == 8, "all processes are there")
        leaks.note_segments()
        if name == "up" and when == "sorting":
            second = run_cli("up", "--site", "sim", *ANY_PORTS, "--run-dir", str(run_dir))
            assert second.returncode == 2
            assert "another cell runs in this folder" in second.stderr and "--run-dir" in second.stderr
        begin = time.monotonic()
        command.signal(number)
        code = command.wait()
        took_s = time.monotonic() - begin
    assert took_s < 5.0
    assert marked_processes(os.environ[MARK]) == {}
    assert code == (0 if name == "up" else 2), command.output


def test_nodes_whose_starter_was_killed_stop_the_belt_and_end(tmp_path, domain, leaks):
    plan = BeltJob(0, run_dir=tmp_path / "plant", overrides=("plant.items=0",), rate_per_s=4.0).make_plan()
    plan.write_run_files()
    document = yaml.safe_load((ROOT / "config" / "sites" / "sim.yaml").read_text())
    for device in ("plc", "camera"):
        document[device] = getattr(plan.site, device).model_dump()
    del document["plant"]
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(document))
    run_dir = tmp_path / "run"
    up = [sys.executable, "-m", "battery_sorting.cli.main", "up", "--site", str(site), "--run-dir", str(run_dir)]
    with (
        start_plant(plan) as plant,
        PlantControl("127.0.0.1", plan.site.plant["control_port"]) as control,
        Process(up, tmp_path / "up.log") as command,
    ):
        for name in ("reset", "start"):
            wait_for(lambda name=name: run_cli("command", name).returncode == 0, f"line takes {name}")
        wait_for(lambda: control.summary()["triggers"] > 2, "batteries come")
        assert control.state()["running"]
        leaks.note_segments()
        command.signal(signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL
        wait_for(lambda: not control.state()["running"], "belt stands", 4.0)
        # It takes 0.5 s, next to busy loops and a busy disk, too; once in CI it took over 3 s, and why isn't known.
        # A node's own limits add up to more: 0.5 s until it looks, 2 s for its thread, its device's time-out, and
        # 1 s for the middleware.
        wait_for_ends(os.environ[MARK], {plant.pid}, 10.0)
    leaks.clean_shared_memory()


def test_port_in_use_stops_the_start(tmp_path, domain):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = [*ANY_PORTS, f"--set=plant.modbus_port={port}"]
        answer = run_cli("up", "--site", "sim", *ports, "--run-dir", str(tmp_path / "run"))
    assert answer.returncode == 2
    assert f"plant.modbus_port: port {port} is in use" in answer.stderr


def test_empty_folder_of_pictures_stops_the_start(tmp_path, domain):
    (tmp_path / "images" / "Duracell_Alk").mkdir(parents=True)
    answer = run_cli("demo", "--images", str(tmp_path / "images"), "--run-dir", str(tmp_path / "run"))
    assert answer.returncode == 2
    assert str(tmp_path / "images") in answer.stderr
    assert "no sub-folder holds a readable picture" in answer.stderr


def test_corrupt_pictures_among_good_ones_are_left_out(tmp_path, domain):
    rng = np.random.default_rng(0)
    for label in ("Duracell_Alk", "Klarus"):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "good.png"), rng.integers(0, 255, (120, 400, 3), dtype=np.uint8))
        (folder / "empty.jpg").touch()
        (folder / "text.png").write_text("no picture")
        whole = (folder / "good.png").read_bytes()
        (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    figures = tmp_path / "out.json"
    arguments = ["--items", "12", "--rate", "4", "--images", str(tmp_path / "images"), "--json", str(figures)]
    answer = run_cli("demo", *arguments, "--run-dir", str(tmp_path / "run"), timeout_s=90)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    found = json.loads(figures.read_text())
    assert found["items"] == found["accounted"] == 12
    assert "empty.jpg: not a picture" in (tmp_path / "run" / "log" / "plant.log").read_text()


def test_command_without_a_line_says_where_it_has_looked(domain):
    answer = run_cli("command", "stop", "--line", "nowhere")
    assert answer.returncode == 2
    assert "no line 'nowhere' answers" in answer.stderr
    assert f"ROS domain {domain}" in answer.stderr and "ROS_DOMAIN_ID" in answer.stderr


def test_unknown_command_is_refused_at_once():
    answer = run_cli("command", "halt")
    assert answer.returncode == 2 and "is none of reset, start, stop" in answer.stderr
