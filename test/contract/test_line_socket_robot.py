"""The robot over its socket: each job once, and where the cell is whatever goes wrong."""

from __future__ import annotations

import json
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


HELLO = json.dumps({"ok": True, "protocol": PROTOCOL}).encode() + b"\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"hello?\n", DeviceProtocolError),
        (b"[]\n", DeviceProtocolError),
        (b'{"ok": true}\n', DeviceProtocolError),
        (b'{"ok": true, "boot_id": "x"}\n', DeviceProtocolError),
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
    with answering(b'{"ok": true, "protocol": "vacuum-cleaner/2"}\n') as port:
        driver = LineSocketRobot.from_settings({"host": "127.0.0.1", "port": port})
        with pytest.raises(DeviceProtocolError, match="vacuum-cleaner/2"):
            driver.connect()
