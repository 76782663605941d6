"""The camera on the simulated plant: each frame with the id of its battery, or the news that there is none."""

from __future__ import annotations

import signal
import time

import pytest
from battery_sorting.msg import BatteryDetection, BatteryImage
from battery_sorting.srv import SetBelt
from harness import wait_for
from std_msgs.msg import Header
from support.links import Links, Trouble

pytestmark = pytest.mark.ros


def test_frames_go_to_the_batteries_that_they_show(bench):
    peer = bench.set_up("timeouts.frame_s=2.0", plant=True)
    detections = peer.listen(BatteryDetection, "battery_detection", "BATTERY_EVENT")
    images = peer.listen(BatteryImage, "battery_image", "BATTERY_IMAGE")
    bench.bring_up("conveyor")
    bench.bring_up("camera")
    assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=0.6).success
    wait_for(lambda: len(images) >= 4, "frames")
    first = len(detections)
    bench.plant.set_faults(**{"camera.drop": 1})
    wait_for(lambda: bench.plant.faults()["camera.drop"] == 0, "a frame is dropped")
    bench.plant.set_faults(**{"camera.corrupt": 1})
    wait_for(lambda: bench.plant.faults()["camera.corrupt"] == 0, "a frame is corrupt")
    wait_for(lambda: len(detections) >= first + 6, "more batteries")
    assert peer.call(SetBelt, "conveyor/set_belt", run=False).success
    ids = {detection.battery_id for detection in detections}
    wait_for(lambda: {image.battery_id for image in images} >= ids, "word on every battery")

    assert len(images) == len({image.battery_id for image in images})
    failed = [image for image in images if image.error]
    assert [image.error for image in failed] == ["no_image", "no_image"]
    assert all(not image.image.data for image in failed)
    by_id = {detection.battery_id: detection for detection in detections}
    for image in images:
        if image.error:
            continue
        assert (image.image.width, image.image.height) == (1280, 1024)
        assert image.image.encoding == "bayer_rggb8" and len(image.image.data) == 1280 * 1024
        edge = by_id[image.battery_id].header.stamp
        delay_s = image.header.stamp.sec - edge.sec + (image.header.stamp.nanosec - edge.nanosec) * 1e-9
        assert abs(delay_s) < 0.02
    # Where every battery has its own picture, so has every picture its battery: no two are alike.
    numbers = [image.frame_number for image in images if not image.error]
    assert numbers == sorted(set(numbers))


def test_camera_whose_connection_died_without_a_word_is_connected_anew(bench):
    with Links(["camera"]) as links:
        through = f"camera.settings.port={links.ports['camera']}"
        peer = bench.set_up("timeouts.frame_s=0.5", through, rate_per_s=4.0, plant=True)
        links.start({"camera": bench.plan.site.plant["camera_port"]})
        images = peer.listen(BatteryImage, "battery_image", "BATTERY_IMAGE")
        bench.bring_up("conveyor")
        bench.bring_up("camera")
        assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=0.6).success
        wait_for(lambda: any(not image.error for image in images), "frames")
        links.set("camera", Trouble.HALF_OPEN)
        wait_for(lambda: images[-1].error, "no more frames")
        links.set("camera", Trouble.NONE)
        seen = len(images)
        wait_for(lambda: any(not image.error for image in images[seen:]), "frames again")
        bench.running["camera"].signal(signal.SIGINT)  # before its link is closed
        bench.running["camera"].wait()


def test_camera_that_is_connected_and_silent_is_connected_anew(bench):
    peer = bench.set_up("timeouts.frame_s=0.5", rate_per_s=4.0, plant=True)
    images = peer.listen(BatteryImage, "battery_image", "BATTERY_IMAGE")
    bench.bring_up("conveyor")
    bench.bring_up("camera")
    # More than pass until three have been waited for and the reader, which looks every 0.2 s, has seen that.
    bench.plant.set_faults(**{"camera.miss": 12})
    assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=0.6).success
    wait_for(lambda: any(not image.error for image in images), "frames")
    assert [bool(image.error) for image in images[:6]] == [True] * 6
    assert "no frame of 3 batteries: the camera is connected anew" in bench.running["camera"].log.read_text()


def test_camera_that_cannot_be_reached_stays_unconfigured_and_says_why(bench):
    bench.set_up()
    bench.start("camera")
    assert not bench.change("camera", "configure")
    beat = bench.wait_for_heartbeat(lambda beat: not beat.ok, "heartbeat tells it")
    assert "camera at 127.0.0.1" in beat.detail and "can't be reached" in beat.detail


def test_detection_of_long_ago_gets_no_word(bench):
    peer = bench.set_up(plant=True)
    images = peer.listen(BatteryImage, "battery_image", "BATTERY_IMAGE")
    bench.bring_up("camera")
    peer.advertise(BatteryDetection, "battery_detection", "BATTERY_EVENT")
    now = bench.now()
    peer.publish("battery_detection", BatteryDetection(battery_id="old", header=Header()))
    peer.publish("battery_detection", BatteryDetection(battery_id="new", header=now))
    wait_for(lambda: images, "word on the new battery")
    assert [(image.battery_id, image.error) for image in images] == [("new", "no_image")]


# issue 14, point 7: the host's clock was set between the edge and now
def test_detection_is_old_or_new_by_the_monotonic_clock_alone(bench):
    peer = bench.set_up(plant=True)
    images = peer.listen(BatteryImage, "battery_image", "BATTERY_IMAGE")
    bench.bring_up("camera")
    peer.advertise(BatteryDetection, "battery_detection", "BATTERY_EVENT")
    now = time.monotonic()
    peer.publish("battery_detection", BatteryDetection(battery_id="old", header=bench.now(), seen_at=now - 60.0))
    peer.publish("battery_detection", BatteryDetection(battery_id="new", header=Header(), seen_at=time.monotonic()))
    wait_for(lambda: images, "word on the new battery")
    assert [(image.battery_id, image.error) for image in images] == [("new", "no_image")]
