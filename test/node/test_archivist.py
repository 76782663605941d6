"""The archivist: pictures as files named by their content, linked to their battery; a disk that refuses is told."""

from __future__ import annotations

import array
import hashlib
import resource
import sqlite3

import cv2
import numpy as np
import pytest
from battery_sorting.msg import BatteryImage
from harness import wait_for
from sensor_msgs.msg import Image

from battery_sorting.ledger.store import Ledger

pytestmark = pytest.mark.ros


def image(battery_id: str, now, seed: int, **changes) -> BatteryImage:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    fields = {"encoding": "rgb8", "height": 64, "width": 96, "step": 96 * 3} | changes
    return BatteryImage(
        header=now, battery_id=battery_id, image=Image(data=array.array("B", pixels.tobytes()), **fields)
    )


def filed(bench) -> dict[str, str]:
    with sqlite3.connect(bench.plan.run_dir / "ledger.sqlite") as connection:
        rows = connection.execute("SELECT battery_id, sha256 FROM battery_images").fetchall()
    connection.close()
    return dict(rows)


def test_pictures_are_filed_by_content_and_linked_to_their_battery(bench):
    peer = bench.set_up("alarms.disk_free_mb=0")
    bench.bring_up("archivist")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")
    now = bench.now()
    peer.publish("battery_image", image("a", now, 1))
    peer.publish("battery_image", BatteryImage(header=now, battery_id="none", error="no_image"))
    peer.publish("battery_image", image("broken", now, 2, height=99))
    peer.publish("battery_image", image("b", now, 3))
    peer.publish("battery_image", image("same as a", now, 1))
    wait_for(lambda: "same as a" in filed(bench), "pictures are filed")
    links = filed(bench)
    assert links.keys() == {"a", "b", "same as a"}
    assert links["a"] == links["same as a"] != links["b"]
    with Ledger.open(bench.plan.run_dir / "ledger.sqlite", read_only=True) as ledger:
        (picture,) = ledger.images("a")
    file = bench.plan.run_dir / "images" / picture.path
    assert hashlib.sha256(file.read_bytes()).hexdigest() == picture.sha256 == links["a"]
    assert cv2.imread(str(file)).shape == (64, 96, 3) and (picture.width, picture.height) == (96, 64)
    assert len([path for path in (bench.plan.run_dir / "images").rglob("*") if path.is_file()]) == 2
    assert all(beat.ok for beat in bench.heartbeats[-3:])


def test_full_disk_is_told_and_gone_when_there_is_room(bench):
    peer = bench.set_up("alarms.disk_free_mb=0")
    node = bench.bring_up("archivist")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")
    now = bench.now()
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    peer.publish("battery_image", image("a", now, 1))
    beat = bench.wait_for_heartbeat(lambda beat: not beat.ok, "heartbeat tells it")
    assert str(bench.plan.run_dir / "images") in beat.detail and "file size limit" in beat.detail
    # It tries again and again, so one may be there for a moment.
    wait_for(lambda: not list((bench.plan.run_dir / "images").rglob("*.part")), "no part of a picture is left")
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    peer.publish("battery_image", image("b", now, 2))
    wait_for(lambda: "b" in filed(bench), "the next picture is filed")
    bench.wait_for_heartbeat(lambda beat: beat.ok, "all is well")


def test_disk_with_too_little_room_is_told_before_it_is_full(bench):
    bench.set_up("alarms.disk_free_mb=1000000000")
    bench.start("archivist")
    for transition in ("configure", "activate"):
        assert bench.change("archivist", transition)
    beat = bench.wait_for_heartbeat(lambda beat: not beat.ok, "heartbeat tells it")
    assert "MB free" in beat.detail and "alarms.disk_free_mb" in beat.detail and "make room" in beat.detail


def test_folder_of_pictures_that_was_taken_away_is_told_and_all_is_well_when_it_is_back(bench):
    bench.set_up("alarms.disk_free_mb=0")
    bench.bring_up("archivist")
    folder = bench.plan.run_dir / "images"
    away = folder.rename(folder.with_name("away"))
    beat = bench.wait_for_heartbeat(lambda beat: not beat.ok, "heartbeat tells it")
    assert str(folder) in beat.detail and "No such file" in beat.detail and "put the folder" in beat.detail
    away.rename(folder)
    bench.wait_for_heartbeat(lambda beat: beat.ok, "all is well")
