"""The ejector on the simulated plant: orders that can't be carried out are told, and none fires twice."""

from __future__ import annotations

import time

import pytest
from battery_sorting.msg import Alarm, BatteryDetection, BeltState, EjectCommand, EjectResult
from battery_sorting.srv import SetBelt
from harness import wait_for

from battery_sorting.core.types import count_difference, make_battery_id

pytestmark = pytest.mark.ros


def outcomes(results, token: int) -> list[int]:
    return [result.outcome for result in results if result.token == token]


def test_orders_fire_once_and_those_that_cannot_be_carried_out_are_told(bench):
    peer = bench.set_up(plant=True)
    results = peer.listen(EjectResult, "eject_result", "BATTERY_EVENT")
    detections = peer.listen(BatteryDetection, "battery_detection", "BATTERY_EVENT")
    states = peer.listen(BeltState, "belt_state")
    alarms = peer.listen(Alarm, "alarm", "NOTICE")
    bench.bring_up("conveyor")
    bench.bring_up("ejector")
    peer.advertise(EjectCommand, "eject_command", "ORDER")
    assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=0.6).success
    wait_for(lambda: detections, "a battery")
    first = detections[0]

    def travelled_mm() -> float:
        return count_difference(states[-1].encoder_count, first.encoder_count) * states[-1].mm_per_count

    wait_for(lambda: travelled_mm() > 1000.0 and len(detections) >= 4, "the first battery is past the first valve")
    seen, other = detections[-1], detections[-2]
    boot_id = bench.plant.summary()["boot_id"]

    def order(token: int, bin_: str, encoder_count: int, boot_id: int = boot_id, end: str = "") -> None:
        battery_id = make_battery_id(boot_id, token) + end
        place = {"bin": bin_, "encoder_count": encoder_count, "mm_per_count": states[-1].mm_per_count}
        peer.publish("eject_command", EjectCommand(header=seen.header, battery_id=battery_id, token=token, **place))

    good, late = seen.trigger_count, first.trigger_count
    unknown, other_boot, never_seen, unreadable = 1001, 1002, 1003, 1004
    order(good, "klarus", seen.encoder_count)  # its valve is the last one
    order(late, "duracell_alk", first.encoder_count)
    order(unknown, "no_such_bin", seen.encoder_count)
    order(other_boot, "klarus", seen.encoder_count, boot_id - 1)
    order(good, "klarus", seen.encoder_count)
    assert alarms == []
    order(never_seen, "klarus", seen.encoder_count)
    order(other.trigger_count, "klarus", seen.encoder_count)
    order(unreadable, "klarus", seen.encoder_count, end="\x1b[2J")
    wait_for(lambda: EjectResult.FIRED in outcomes(results, good), "the order is carried out")
    order(good, "klarus", states[-1].encoder_count)
    wait_for(lambda: outcomes(results, good).count(EjectResult.FIRED) == 2, "its outcome is told again")
    tokens = {late, unknown, other_boot, never_seen, other.trigger_count, unreadable}
    wait_for(lambda: tokens <= {result.token for result in results}, "word on the others")

    def reason(token: int) -> str:
        return next(result.reason for result in results if result.token == token)

    assert outcomes(results, late) == [EjectResult.LATE]
    assert "needed" in reason(late)
    assert outcomes(results, unknown) == [EjectResult.REJECTED]
    assert "no_such_bin" in reason(unknown)
    assert outcomes(results, other_boot) == [EjectResult.CANCELLED]
    for token, why in (  # issue 14, point 17
        (never_seen, "has seen no battery 1003 lately: who orders that?"),
        (other.trigger_count, f"was at the photo-eye at count {other.encoder_count}"),
        (unreadable, "battery_id: holds characters that can't be printed"),
    ):
        assert outcomes(results, token) == [EjectResult.REJECTED] and why in reason(token)
    wait_for(lambda: alarms, "the alarm")
    assert [(alarm.code, alarm.raised) for alarm in alarms] == [("foreign_order", True)]
    scheduled = next(result for result in results if result.outcome == EjectResult.SCHEDULED)
    assert scheduled.token == good and 0 < scheduled.latency_s < 30
    time.sleep(0.5)  # whatever else is in the PLC would fire
    assert [(pulse["token"], pulse["bin"]) for pulse in bench.plant.record()["pulses"]] == [(good, "klarus")]


def test_orders_are_rejected_while_the_plc_is_away_and_not_made_up_for(bench):
    peer = bench.set_up(plant=True)
    results = peer.listen(EjectResult, "eject_result", "BATTERY_EVENT")
    states = peer.listen(BeltState, "belt_state")
    bench.bring_up("conveyor")
    bench.bring_up("ejector")
    peer.advertise(EjectCommand, "eject_command", "ORDER")
    assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=0.6).success
    wait_for(lambda: states and states[-1].running, "belt runs")
    bench.plant.set_faults(**{"plc.disconnect": True})
    bench.wait_for_heartbeat(lambda beat: beat.node == "ejector" and not beat.ok, "ejector tells it")
    count = states[-1].encoder_count
    peer.publish("eject_command", EjectCommand(battery_id="a", token=7, bin="klarus", encoder_count=count))
    wait_for(lambda: outcomes(results, 7) == [EjectResult.REJECTED], "the order is rejected")
    bench.plant.set_faults(**{"plc.disconnect": False})
    bench.wait_for_heartbeat(lambda beat: beat.node == "ejector" and beat.ok, "ejector is back")
    assert bench.plant.state()["queue_length"] == 0 and bench.plant.record()["pulses"] == []
