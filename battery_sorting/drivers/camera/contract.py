"""What the driver of a camera owes its line, as checks; docs/how-to/drivers.md is the prose of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from battery_sorting.core.errors import DeviceTimeoutError
from battery_sorting.core.types import count_difference
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.drivers.suite import (
    SLACK_S,
    WAIT_S,
    Checks,
    CheckSkipped,
    ContractViolation,
    DriverBench,
    Suite,
    connections,
    lasting,
    require,
)

CLOCK_TOLERANCE_S = 0.1
OLDEST_FRAME_S = 5.0
CHECKS = Checks()


def _calls(camera: TriggeredCamera) -> dict[str, Callable[[], Any]]:
    return {"read": lambda: camera.read(0.1)}


def _touch(_: TriggeredCamera) -> None:
    """It can't be asked: what it sends is up to its trigger."""


SUITE = Suite(CHECKS, calls=_calls, touch=_touch, wait=lambda camera: camera.read(WAIT_S))


@CHECKS.add(
    "waits in vain without harm", "raise DeviceTimeoutError when no frame comes, and stay connected", connections(3)
)
def _times_out(bench: DriverBench) -> str:
    camera: TriggeredCamera = bench.connect()
    for _ in range(5):
        begin = time.monotonic()
        try:
            camera.read(0.2)
        except DeviceTimeoutError:
            took_s = time.monotonic() - begin
            require(took_s <= 0.2 + SLACK_S, f"read(0.2) took {took_s:.2f} s")
            require(camera.connected, "is disconnected after waiting for a frame in vain")
            return ""
    raise CheckSkipped("frames keep coming: stop the belt to have this checked")


@CHECKS.add(
    "delivers frames",
    "run the belt or trigger the camera by hand while this runs; check trigger line and clock",
    lasting(lambda options: options.wait_s),
)
def _delivers_frames(bench: DriverBench) -> str:
    if bench.options.frames == 0:
        raise CheckSkipped("no frames are asked for")
    camera: TriggeredCamera = bench.connect()
    end = time.monotonic() + bench.options.wait_s
    frames: list[Frame] = []
    while len(frames) < bench.options.frames:
        left_s = end - time.monotonic()
        if left_s <= 0:
            raise ContractViolation(f"{len(frames)} of {bench.options.frames} frames in {bench.options.wait_s:g} s")
        try:
            frame = camera.read(left_s)
        except DeviceTimeoutError:
            if not camera.connected:
                raise
            continue
        _check_frame(camera, frame, frames[-1] if frames else None)
        frames.append(frame)
    last = frames[-1]
    return f"{len(frames)} frames of {last.width} x {last.height} {last.encoding}"


def _check_frame(camera: TriggeredCamera, frame: Frame, previous: Frame | None) -> None:
    name = f"frame {frame.frame_number}"
    age_s = time.monotonic() - frame.exposed_at
    oldest_s = getattr(camera.settings, "max_age_s", OLDEST_FRAME_S)
    encoding = getattr(camera.settings, "encoding", frame.encoding)
    require(
        -CLOCK_TOLERANCE_S <= age_s <= oldest_s + SLACK_S, f"{name} is {age_s:.2f} s old: wrong clock, or stale"
    )
    require(frame.width > 0 and frame.height > 0, f"{name} is empty")
    require(len(frame.data) == frame.step * frame.height, f"{name} has {len(frame.data)} bytes: not step x height")
    require(frame.encoding == encoding, f"{name} is {frame.encoding}, the settings say {encoding}")
    if previous is not None:
        require(frame.frame_number > previous.frame_number, f"{name} comes after {previous.frame_number}")
        require(
            frame.exposed_at > previous.exposed_at and frame.stamp != previous.stamp,
            f"{name} has the time of the frame before, or an earlier one",
        )
        if frame.trigger_count is not None and previous.trigger_count is not None:
            triggers = count_difference(frame.trigger_count, previous.trigger_count)
            require(
                triggers > 0, f"{name} has trigger {frame.trigger_count}, the one before {previous.trigger_count}"
            )
