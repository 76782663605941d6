"""Program of the simulated PLC, by its register map."""

from __future__ import annotations

import pytest

from battery_sorting.core.types import count_add
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import Ack, AckStatus, ValveCommand
from battery_sorting.drivers.plc.register_map import BeltStatusBits
from battery_sorting.drivers.registers import to_int
from battery_sorting.plant.plc import QUEUE_LENGTH, Plc
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.world import World, WorldConfig


class Bench:
    """A PLC with a master that can be told what to do."""

    def __init__(self, **settings) -> None:
        self.recorder = Recorder()
        self.world = World(WorldConfig(**{"slip_max": 0.0, **settings}), 3, self.recorder)
        self.plc = Plc(self.world, boot_id=0x1234_5678)

    def status(self) -> list[int]:
        return self.plc.read_input(rm.STATUS_ADDRESS, rm.STATUS_SIZE)

    def bits(self) -> BeltStatusBits:
        return BeltStatusBits(self.status()[rm.IR_STATUS])

    def count(self) -> int:
        return to_int(self.status(), rm.IR_ENCODER_COUNT)

    def run(self, seconds: float, *, refresh: bool = True) -> None:
        until = self.world.t_s + seconds
        while self.world.t_s < until:
            if refresh:
                self.plc.write_coil(rm.COIL_WATCHDOG, True)
            self.plc.advance(min(self.world.t_s + 0.02, until))

    def start(self, speed_mm_s: int = 500) -> None:
        self.plc.write_coil(rm.COIL_WATCHDOG, True)
        self.plc.write_holding(rm.HR_RUN, [1, speed_mm_s])
        self.run(1.0)

    def order(self, token: int, ahead: int, *, valve: int = 0, pulse_ms: int = 20, expiry: int = 50) -> None:
        target = count_add(self.count(), ahead)
        command = ValveCommand(token, valve, target, pulse_ms, count_add(target, expiry))
        self.plc.write_holding(rm.HR_COMMAND, rm.to_mailbox(command))

    def acks(self) -> list[Ack]:
        total = to_int(self.status(), rm.IR_ACK_TOTAL)
        ring = self.plc.read_input(rm.ACK_RING_ADDRESS, rm.RING_LENGTH * rm.ACK_SIZE)
        acks = []
        for number in range(max(1, total - rm.RING_LENGTH + 1), total + 1):
            slot = (number - 1) % rm.RING_LENGTH * rm.ACK_SIZE
            token, count = to_int(ring, slot), to_int(ring, slot + 4)
            acks.append(Ack(token, AckStatus(ring[slot + 2]), ring[slot + 3], count))
        return acks

    def answers(self, token: int) -> list[AckStatus]:
        return [ack.status for ack in self.acks() if ack.token == token]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_status_block_names_map_boot_and_set_point(bench):
    status = bench.status()
    assert status[rm.IR_MAP_VERSION] == rm.MAP_VERSION
    assert to_int(status, rm.IR_BOOT_ID) == 0x1234_5678
    assert status[rm.IR_SPEED_SETPOINT_MM_S] == 500
    assert bench.plc.read_holding(0, 2) == [0, 500]


def test_run_and_stop(bench):
    bench.start(800)
    assert bench.bits() == BeltStatusBits.RUNNING
    assert bench.status()[rm.IR_SPEED_MM_S] == pytest.approx(800, abs=4)
    bench.plc.write_holding(rm.HR_RUN, [0])
    bench.run(1.0)
    assert bench.bits() == BeltStatusBits(0)
    assert bench.status()[rm.IR_SPEED_MM_S] == 0


def test_edges_are_latched_in_rings_by_number(bench):
    bench.start(1000)
    bench.run(4.0)
    status = bench.status()
    total = to_int(status, rm.IR_EYE_TOTAL)
    assert total > rm.RING_LENGTH
    assert to_int(status, rm.IR_GATE_TOTAL) >= total
    ring = bench.plc.read_input(rm.EYE_RING_ADDRESS, rm.RING_LENGTH * rm.LATCH_SIZE)
    latches = {
        to_int(ring, slot): (to_int(ring, slot + 2), to_int(ring, slot + 4))
        for slot in range(0, len(ring), rm.LATCH_SIZE)
    }
    assert sorted(latches) == list(range(total - rm.RING_LENGTH + 1, total + 1))
    (count_a, time_a), (count_b, time_b) = latches[total - 1], latches[total]
    assert (count_b - count_a) * 0.1 == pytest.approx((time_b - time_a) * 1.0, abs=1.2)


@pytest.mark.parametrize("start", [0, 2**32 - 6000])
def test_command_fires_at_its_count(start):
    bench = Bench(encoder_start=start)
    bench.start()
    target = count_add(bench.count(), 2000)
    bench.order(7, 2000)
    assert bench.status()[rm.IR_QUEUE_LENGTH] == 1
    bench.run(1.0)
    assert [(ack.status, ack.encoder_count) for ack in bench.acks()] == [
        (AckStatus.QUEUED, target),
        (AckStatus.FIRED, target),
    ]
    assert bench.status()[rm.IR_QUEUE_LENGTH] == 0
    assert bench.recorder.counts["pulse"] == 1


def test_token_fires_once_only(bench):
    bench.start()
    bench.order(7, 1000)
    bench.order(7, 1500)
    bench.run(1.0)
    bench.order(7, 1000)
    bench.run(1.0)
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.DUPLICATE, AckStatus.FIRED, AckStatus.DUPLICATE]
    assert bench.recorder.counts["pulse"] == 1


@pytest.mark.parametrize("start", [0, 2**32 - 4200])
def test_count_that_has_passed_is_expired(start):
    bench = Bench(encoder_start=start)
    bench.start()
    bench.order(7, -10, expiry=1000)
    bench.order(8, 500, expiry=-600)
    bench.run(1.0)
    assert bench.answers(7) == [AckStatus.EXPIRED]
    assert bench.answers(8) == [AckStatus.EXPIRED]
    assert bench.recorder.counts["pulse"] == 0


@pytest.mark.parametrize("wrong", [{"valve": 9}, {"valve": 40}, {"pulse_ms": 0}, {"pulse_ms": 900}, {"token": 0}])
def test_impossible_command_is_rejected(bench, wrong):
    bench.start()
    bench.order(**({"token": 7, "ahead": 1000} | wrong))
    assert bench.answers(wrong.get("token", 7)) == [AckStatus.REJECTED]


def test_full_queue_rejects_and_the_token_may_be_sent_again(bench):
    bench.start()
    for token in range(1, QUEUE_LENGTH + 2):
        bench.order(token, 2000 + token)
    assert bench.answers(QUEUE_LENGTH + 1) == [AckStatus.REJECTED]
    bench.plc.write_coil(rm.COIL_CLEAR_QUEUE, True)
    bench.order(QUEUE_LENGTH + 1, 2000)
    assert bench.answers(QUEUE_LENGTH + 1)[-1] == AckStatus.QUEUED


def test_clear_queue_cancels_and_the_tokens_stay_used(bench):
    bench.start()
    bench.order(7, 2000)
    bench.plc.write_coil(rm.COIL_CLEAR_QUEUE, True)
    bench.order(7, 2000)
    bench.run(1.0)
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.CANCELLED, AckStatus.DUPLICATE]
    assert bench.recorder.counts["pulse"] == 0


def test_stop_is_a_pause_that_keeps_the_queue(bench):
    bench.start()
    bench.order(7, 4000)
    bench.plc.write_holding(rm.HR_RUN, [0])
    bench.run(2.0)
    assert bench.status()[rm.IR_QUEUE_LENGTH] == 1
    bench.plc.write_holding(rm.HR_RUN, [1])
    bench.run(2.0)
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.FIRED]


def test_stuck_valve_is_reported_until_it_opens_again(bench):
    bench.start()
    bench.world.faults.set({"valve.stick": 2})
    bench.order(7, 1000, valve=2)
    bench.run(1.0)
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.VALVE_FAULT]
    assert bench.status()[rm.IR_VALVE_FAULTS] == 1 << 2
    bench.world.faults.set({"valve.stick": []})
    bench.order(8, 1000, valve=2)
    bench.run(1.0)
    assert bench.status()[rm.IR_VALVE_FAULTS] == 0


def test_watchdog_stops_the_belt_and_cancels_until_reset(bench):
    bench.start()
    bench.order(7, 60_000)
    bench.plc.write_coil(rm.COIL_WATCHDOG, True)
    bench.run(0.49, refresh=False)
    assert bench.bits() == BeltStatusBits.RUNNING
    bench.run(0.02, refresh=False)
    assert bench.bits() == BeltStatusBits.WATCHDOG_TRIPPED
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.CANCELLED]
    bench.run(1.0)
    assert bench.world.speed_mps == 0.0
    bench.plc.write_holding(rm.HR_RUN, [1])
    assert bench.bits() == BeltStatusBits.WATCHDOG_TRIPPED, "a run command is refused"
    bench.order(8, 1000)
    assert bench.answers(8) == [AckStatus.CANCELLED]
    bench.plc.write_coil(rm.COIL_RESET, True)
    assert bench.bits() == BeltStatusBits(0), "the belt doesn't start by itself"
    bench.start()
    assert bench.bits() == BeltStatusBits.RUNNING
    assert bench.status()[rm.IR_WATCHDOG_TRIPS] == 1


def test_valve_that_is_shut_before_its_air_comes_has_not_fired(bench):
    bench.start()
    bench.order(7, 500)  # 0.1 s ahead; air takes 8 ms more
    bench.run(0.102)
    assert bench.answers(7) == [AckStatus.QUEUED]
    assert bench.status()[rm.IR_QUEUE_LENGTH] == 1
    bench.world.faults.set({"estop": True})
    bench.run(0.1)
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.CANCELLED]
    assert bench.status()[rm.IR_QUEUE_LENGTH] == 0
    assert bench.recorder.counts["pulse"] == 0


def test_valve_that_is_shut_while_it_blows_has_fired(bench):
    bench.start()
    bench.order(7, 500)
    bench.run(0.115)
    bench.world.faults.set({"estop": True})
    bench.run(0.1)
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.FIRED]
    assert bench.recorder.counts["pulse"] == 1


def test_watchdog_is_not_armed_before_its_first_refresh(bench):
    bench.plc.write_holding(rm.HR_RUN, [1])
    bench.run(2.0, refresh=False)
    assert bench.bits() == BeltStatusBits.RUNNING


def test_standing_belt_needs_no_watchdog(bench):
    bench.start()
    bench.plc.write_holding(rm.HR_RUN, [0])
    bench.run(2.0, refresh=False)
    bench.plc.write_holding(rm.HR_RUN, [1])
    bench.run(0.3, refresh=False)
    assert bench.bits() == BeltStatusBits.RUNNING
    bench.run(0.3, refresh=False)
    assert bench.bits() == BeltStatusBits.WATCHDOG_TRIPPED


def test_emergency_stop_needs_release_and_reset(bench):
    bench.start(1000)
    bench.order(7, 60_000)
    before = bench.world.belt_mm
    bench.world.faults.set({"estop": True})
    bench.run(1.0)
    assert bench.world.belt_mm - before == pytest.approx(1000**2 / (2 * 10_000), abs=1.0)
    assert bench.plc.read_discrete() == 1 << rm.DI_EMERGENCY_STOP
    assert bench.bits() == BeltStatusBits.EMERGENCY_STOP
    assert bench.answers(7) == [AckStatus.QUEUED, AckStatus.CANCELLED]
    bench.plc.write_coil(rm.COIL_RESET, True)
    assert bench.bits() == BeltStatusBits.EMERGENCY_STOP
    bench.world.faults.set({"estop": False})
    bench.plc.write_holding(rm.HR_RUN, [1])
    bench.run(0.2)
    assert bench.plc.read_discrete() == 0
    assert bench.bits() == BeltStatusBits.EMERGENCY_STOP, "released, but not acknowledged"
    bench.plc.write_coil(rm.COIL_RESET, True)
    bench.start()
    assert bench.bits() == BeltStatusBits.RUNNING


def test_frozen_encoder_fires_nothing_and_shows_no_speed(bench):
    bench.start()
    bench.order(7, 1000)
    bench.world.faults.set({"encoder.freeze": True})
    bench.run(1.0)
    assert bench.status()[rm.IR_SPEED_MM_S] == 0
    assert bench.answers(7) == [AckStatus.QUEUED]


@pytest.mark.parametrize("write", [(rm.HR_COMMAND, [0, 7]), (rm.HR_SPEED_MM_S, [2000])])
def test_half_a_command_or_an_impossible_speed_is_refused(bench, write):
    with pytest.raises(ValueError, match=r"mailbox|faster"):
        bench.plc.write_holding(*write)
    assert bench.plc.read_holding(0, 2) == [0, 500]
    assert bench.acks() == []
