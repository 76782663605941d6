"""Drivers of robots: each job once, and where the cell is whatever goes wrong."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from plant_line import wait_for

from battery_sorting.core.errors import (
    DeviceConnectionError,
    DeviceError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from battery_sorting.drivers.robot.base import MoveJob, MoveResult
from battery_sorting.drivers.robot.line_socket import PROTOCOL, LineSocketRobot


@pytest.fixture
def robot(line) -> Iterator[LineSocketRobot]:
    driver = LineSocketRobot.from_settings({"host": "127.0.0.1", "port": line.robot_port.port, "timeout_s": 0.5})
    driver.connect()
    yield driver
    driver.disconnect()


def done(robot: LineSocketRobot, token: int) -> MoveResult:
    wait_for(lambda: robot.read_state().done_token == token)
    return robot.read_state().result


def test_a_job_is_done_once_however_often_it_is_sent(line, robot):
    job = MoveJob(5, "here", "there")
    robot.send(job)
    robot.send(job)
    assert done(robot, 5) is MoveResult.DONE
    assert line.robot.places["there"].cell() == "cell"
    robot.send(job)
    robot.send(MoveJob(4, "there", "here"))
    assert robot.read_state().active_token == 0
    assert line.robot.places["there"].cell() == "cell"


def test_what_became_of_a_job_is_told(line, robot):
    robot.send(MoveJob(1, "there", "here"))
    assert done(robot, 1) is MoveResult.EMPTY
    line.robot.places["there"].put("another")
    robot.send(MoveJob(2, "here", "there"))
    assert done(robot, 2) is MoveResult.OCCUPIED
    assert line.robot.places["here"].cell() == "cell", "it is back where it was taken from"
    line.robot.faults.drop = 1
    robot.send(MoveJob(3, "here", "there"))
    assert done(robot, 3) is MoveResult.DROPPED
    assert line.robot.floor == ["cell"]


def test_a_stopped_robot_waits_for_its_reset_and_puts_the_cell_back(line, robot):
    line.robot.faults.stall = True
    robot.send(MoveJob(1, "here", "there"))
    wait_for(lambda: robot.read_state().fault)
    assert robot.read_state().holding
    with pytest.raises(DeviceError, match="collision"):
        robot.send(MoveJob(2, "here", "there"))
    robot.reset()
    assert done(robot, 1) is MoveResult.STOPPED
    assert line.robot.places["here"].cell() == "cell"


def test_a_busy_robot_takes_no_second_job(robot):
    robot.send(MoveJob(1, "here", "there"))
    with pytest.raises(DeviceError, match="busy"):
        robot.send(MoveJob(2, "here", "there"))


def test_a_program_that_does_not_answer_is_given_up_in_time(line, robot):
    line.robot.faults.mute = True
    with pytest.raises(DeviceTimeoutError, match=r"0\.5 s"):
        robot.read_state()
    assert not robot.connected, "a late answer would be taken for that of the next request"


# ---- answers that nobody asked for (issue 14, point 5) ----


def test_answers_that_come_twice_are_dropped_and_told_and_the_driver_does_not_fall_behind(line, robot):
    line.robot.faults.twice = 3
    for _ in range(3):
        robot.read_state()
    robot.send(MoveJob(1, "here", "there"))
    assert robot.read_state().active_token == 1, "the state of before the order"
    assert done(robot, 1) is MoveResult.DONE
    assert robot.connected
    told = robot.take_oddities()
    assert len(told) == 3 and "dropped" in told[0]
    assert robot.take_oddities() == []


def test_an_answer_to_another_request_is_named_and_never_taken(line, robot):
    line.robot.faults.other = 1
    with pytest.raises(DeviceProtocolError, match=r"robot answered to \d+, not to \d+, within 0\.5 s"):
        robot.read_state()
    assert not robot.connected
    robot.connect()
    assert robot.read_state().active_token == 0


def test_a_late_answer_is_a_timeout_and_the_order_that_it_was_of_is_found_in_the_state(line, robot):
    line.robot.faults.late_s = 0.7
    line.robot.faults.late = 1
    with pytest.raises(DeviceTimeoutError):
        robot.send(MoveJob(1, "here", "there"))
    robot.connect()
    assert done(robot, 1) is MoveResult.DONE, "it was carried all the same"
    robot.send(MoveJob(1, "here", "there"))
    assert robot.read_state().active_token == 0, "and is not carried twice"


def test_of_two_answers_the_one_with_the_number_of_the_request_counts():
    with answering(HELLO, state_of(1, number=1) + state_of(9, number=2)) as port:
        driver = LineSocketRobot.from_settings({"host": "127.0.0.1", "port": port, "timeout_s": 2.0})
        driver.connect()
        assert driver.read_state().done_token == 9
        driver.disconnect()


def test_a_flood_of_other_answers_ends_in_time():
    flood = state_of(1, number=77) * 200
    with answering(HELLO, flood, b"") as port:
        driver = LineSocketRobot.from_settings({"host": "127.0.0.1", "port": port, "timeout_s": 0.3})
        driver.connect()
        with pytest.raises(DeviceProtocolError, match="to 77, not to 2"):
            driver.read_state()
        assert not driver.connected


def test_a_program_of_the_old_protocol_is_told_what_it_lacks():
    with answering(b'{"ok": true, "id": 1, "protocol": "battery-sorting-robot/1"}\n') as port:
        driver = LineSocketRobot.from_settings({"host": "127.0.0.1", "port": port})
        with pytest.raises(DeviceProtocolError, match=r"robot/1', .*robot/2' is needed: docs/reference/robot.md"):
            driver.connect()


# ---- emergency stop (issue 14, point 4) ----


def test_a_released_emergency_stop_moves_nothing_until_a_reset(line, robot):
    robot.send(MoveJob(1, "here", "there"))
    line.robot.faults.estop = True
    wait_for(lambda: robot.read_state().emergency_stop)
    with pytest.raises(DeviceError, match="emergency stop"):
        robot.reset()
    line.robot.faults.estop = False
    wait_for(lambda: not robot.read_state().emergency_stop)
    state = robot.read_state()
    assert (state.active_token, state.ready, state.fault, state.emergency_stops) == (1, False, "emergency stop", 1)
    robot.reset()
    assert done(robot, 1) is MoveResult.STOPPED
    assert line.robot.places["here"].cell() == "cell"


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """Port of a program that gives these answers, one to each request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5.0)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for answer in answers:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5.0)


HELLO = json.dumps({"ok": True, "id": 1, "protocol": PROTOCOL}).encode() + b"\n"


def state_of(done_token: float, number: int) -> bytes:
    """The answer to a question for the state that had this number."""
    state = {"boot_id": 1, "ready": True, "emergency_stop": False, "active_token": 0, "done_token": done_token}
    return json.dumps({"ok": True, "id": number, **state, "result": "done", "holding": False}).encode() + b"\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"hello?\n", DeviceProtocolError),
        (b"[]\n", DeviceProtocolError),
        (b'{"ok": true}\n', DeviceProtocolError),
        (b'{"ok": true, "id": 2}\n', DeviceProtocolError),
        (b'{"ok": true, "id": 2, "boot_id": "x"}\n', DeviceProtocolError),
        (b'{"id": 2}\n', DeviceProtocolError),
        (state_of(done_token=-1, number=2), DeviceProtocolError),  # issue 15, A2
        (state_of(done_token=10**30, number=2), DeviceProtocolError),
        (state_of(done_token=math.nan, number=2), DeviceProtocolError),
        (state_of(done_token=math.inf, number=2), DeviceProtocolError),
        (state_of(done_token=1.5, number=2), DeviceProtocolError),
        (b"\xff\xfe\n", DeviceProtocolError),
        (b"", DeviceConnectionError),
        (b"x" * 100_000, DeviceProtocolError),
    ],
)
def test_nonsense_is_told_from_a_state(answer, error):
    with answering(HELLO, answer) as port:
        driver = LineSocketRobot.from_settings({"host": "127.0.0.1", "port": port})
        driver.connect()
        with pytest.raises(error):
            driver.read_state()
        assert not driver.connected
        driver.disconnect()


def test_another_protocol_is_named():
    with answering(b'{"ok": true, "id": 1, "protocol": "vacuum-cleaner/2"}\n') as port:
        driver = LineSocketRobot.from_settings({"host": "127.0.0.1", "port": port})
        with pytest.raises(DeviceProtocolError, match="vacuum-cleaner/2"):
            driver.connect()
