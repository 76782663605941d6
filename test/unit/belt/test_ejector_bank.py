"""Orders to the valves: what is sent, what is not, and what is said of it."""

from __future__ import annotations

import dataclasses

import pytest
from support.plc_in_process import PlcInProcess

from battery_sorting.belt.ejector_bank import EjectorBank
from battery_sorting.belt.site import Ejector
from battery_sorting.core.errors import DeviceConnectionError
from battery_sorting.core.types import Detection, EjectOrder, EjectOutcome, EjectReport, count_add, make_battery_id
from battery_sorting.drivers.plc.base import EVENTS_KEPT, AckStatus, Eye, Latch, PlcStatus, ValveCommand

BOOT = 0x6000_0001
EJECTORS = [
    Ejector(valve=0, offset_mm=600.0, bin="a"),
    Ejector(valve=1, offset_mm=1200.0, bin="b"),
    Ejector(valve=2, offset_mm=900.0, bin="b"),
]


class PlcWithBatteries(PlcInProcess):
    """Its photo-eye has seen what the test says."""

    def __init__(self, **config) -> None:
        self.passed: list[Latch] = []
        super().__init__(**config)

    def read_status(self) -> PlcStatus:
        return dataclasses.replace(super().read_status(), eye_total=len(self.passed))

    def read_latches(self, eye: Eye, since: int, total: int) -> list[Latch]:
        assert eye is Eye.CAMERA
        self._may_fail("read_latches")
        return self.passed[max(since, total - EVENTS_KEPT) : total]

    def reboot(self, boot_id: int) -> None:
        super().reboot(boot_id)
        self.passed.clear()


class Bench:
    """A running belt without slip, and a bank that is polled."""

    def __init__(self, **config) -> None:
        self.plc = PlcWithBatteries(boot_id=BOOT, slip_max=0.0, **config)
        self.start()
        self.renew()

    def start(self) -> None:
        self.plc.refresh_watchdog()
        self.plc.set_belt(True, 0.5)
        self.wait(1.0)

    def renew(self) -> None:
        """The process is started again."""
        self.bank = EjectorBank(self.plc, EJECTORS, 0.04, lambda: self.plc.now, speed_mps=0.5)

    def wait(self, seconds: float) -> None:
        until = self.plc.world.t_s + seconds
        while self.plc.world.t_s < until - 1e-9:
            self.plc.refresh_watchdog()
            self.plc.wait(min(0.02, until - self.plc.world.t_s))

    def run(self, seconds: float) -> list[EjectReport]:
        reports = []
        for _ in range(round(seconds / 0.02)):
            self.wait(0.02)
            reports += self.bank.poll()
        return reports

    def an_order(self, token: int, bin_: str = "a", travelled_mm: float = 0.0, boot_id: int = BOOT) -> EjectOrder:
        """An order for a battery that has passed the photo-eye: the one of this number, or one that does now."""
        at = count_add(self.plc.read_status().encoder_count, -round(travelled_mm * 10))
        passed = {latch.number: latch for latch in self.plc.passed}
        if token not in passed:
            self.plc.passed.append(Latch(token, at, 0))
        at = passed[token].encoder_count if token in passed else at
        return EjectOrder(make_battery_id(boot_id, token), token, bin_, at, 0.1, self.plc.now - 0.05)

    def order(self, token: int, bin_: str = "a", travelled_mm: float = 0.0) -> list[EjectReport]:
        return self.bank.order(self.an_order(token, bin_, travelled_mm))

    def send_by_another(self, token: int) -> None:
        """A command that the bank does not know of."""
        target = count_add(self.plc.read_status().encoder_count, 12_000)
        self.plc.send(ValveCommand(token, 1, target, 30, count_add(target, 80)))

    def pulses(self) -> list[tuple[int, int]]:
        """Token and valve of every pulse."""
        return [(pulse["token"], pulse["valve"]) for pulse in self.plc.recorder.record.as_dict()["pulses"]]

    def acks(self) -> list[AckStatus]:
        total = self.plc.read_status().ack_total
        return [ack.status for ack in self.plc.read_acks(0, total)]


def said(reports: list[EjectReport]) -> list[tuple[int, EjectOutcome]]:
    return [(report.token, report.outcome) for report in reports]


@pytest.fixture
def bench() -> Bench:
    return Bench(encoder_start=2**32 - 6000)


def test_order_is_scheduled_with_its_latency_and_fires(bench):
    (scheduled,) = bench.order(7)
    assert scheduled.outcome is EjectOutcome.SCHEDULED
    assert scheduled.bin == "a"
    assert scheduled.latency_s == pytest.approx(0.05, abs=0.001)
    (fired,) = bench.run(1.5)
    assert (fired.outcome, fired.fire_count) == (EjectOutcome.FIRED, scheduled.fire_count)
    assert fired.battery_id == make_battery_id(BOOT, 7)
    assert bench.pulses() == [(7, 0)]


def test_first_of_two_ejectors_of_a_bin_is_used(bench):
    bench.order(7, "b")
    bench.run(3.0)
    assert bench.pulses() == [(7, 2)]


@pytest.mark.parametrize("travelled_mm", [575.0, 600.0, 5000.0])
def test_order_that_is_late_is_not_sent(bench, travelled_mm):
    (report,) = bench.order(7, travelled_mm=travelled_mm)
    assert report.outcome is EjectOutcome.LATE
    assert "40 are needed" in report.reason
    assert bench.acks() == []
    assert said(bench.order(7)) == [(7, EjectOutcome.LATE)], "its first outcome holds"


def test_order_just_in_time_fires(bench):
    assert said(bench.order(7, travelled_mm=560.0)) == [(7, EjectOutcome.SCHEDULED)]
    assert said(bench.run(0.5)) == [(7, EjectOutcome.FIRED)]


def test_order_while_the_belt_stands_waits_for_it(bench):
    bench.plc.set_belt(False, 0.5)
    bench.wait(1.0)
    assert said(bench.order(7)) == [(7, EjectOutcome.SCHEDULED)]
    assert bench.run(1.0) == []
    bench.plc.set_belt(True, 0.5)
    assert said(bench.run(2.0)) == [(7, EjectOutcome.FIRED)]


def test_bin_without_an_ejector_is_refused(bench):
    (report,) = bench.order(7, "nowhere")
    assert (report.outcome, report.reason) == (EjectOutcome.REJECTED, "no ejector serves bin nowhere")


def test_order_that_is_repeated_fires_once(bench):
    order = bench.an_order(7)
    for _ in range(3):
        assert said(bench.bank.order(order)) == [(7, EjectOutcome.SCHEDULED)]
    bench.run(1.5)
    assert said(bench.bank.order(order)) == [(7, EjectOutcome.FIRED)]
    bench.run(1.0)
    assert bench.pulses() == [(7, 0)]
    assert AckStatus.DUPLICATE not in bench.acks()


@pytest.mark.parametrize("before_s", [0.2, 1.5])
def test_process_that_is_started_again_learns_from_the_plc_and_fires_nothing_twice(bench, before_s):
    order = bench.an_order(7)
    bench.bank.order(order)
    bench.wait(before_s)
    bench.renew()
    reports = bench.bank.order(order)
    assert {report.battery_id for report in reports} == {order.battery_id}
    reports += bench.run(2.0)
    assert said(reports)[-1] == (7, EjectOutcome.FIRED)
    assert bench.pulses() == [(7, 0)]


def test_token_whose_acknowledgements_have_left_the_ring_still_fires_once(bench):
    order = bench.an_order(7, "b")
    bench.bank.order(order)
    for token in range(100, 100 + EVENTS_KEPT):
        bench.order(token, "b", travelled_mm=10.0)
    bench.renew()
    assert said(bench.bank.order(order))[-1] == (7, EjectOutcome.REJECTED), "it has left that ring, too"
    bench.bank.heard(Detection(order.battery_id, 7, order.encoder_count, 0.0))
    bench.bank.order(order)
    assert AckStatus.DUPLICATE in bench.acks()
    assert (7, EjectOutcome.FIRED) in said(bench.run(3.0))
    assert [token for token, _ in bench.pulses()].count(7) == 1


@pytest.mark.parametrize(("cut", "fires"), [("send", False), ("answer to send", True)])
def test_order_that_is_cut_off_is_not_sent_again(bench, cut, fires):
    order = bench.an_order(7)
    bench.plc.fail = [cut]
    with pytest.raises(DeviceConnectionError):
        bench.bank.order(order)
    assert said(bench.bank.order(order)) == [(7, EjectOutcome.SCHEDULED if fires else EjectOutcome.UNKNOWN)]
    bench.run(2.0)
    assert bench.pulses() == ([(7, 0)] if fires else [])


def test_reports_that_were_read_before_a_cut_are_handed_out_after_it(bench):
    bench.order(7)
    bench.wait(1.5)
    bench.plc.fail = ["send"]
    with pytest.raises(DeviceConnectionError):
        bench.order(8)
    assert (7, EjectOutcome.FIRED) in said(bench.bank.poll())


@pytest.mark.parametrize("cut", ["read_status", "read_acks"])
def test_acknowledgements_are_read_again_after_a_cut(bench, cut):
    bench.order(7)
    bench.wait(1.5)
    bench.plc.fail = [cut]
    with pytest.raises(DeviceConnectionError):
        bench.bank.poll()
    assert said(bench.bank.poll()) == [(7, EjectOutcome.FIRED)]


def test_every_acknowledgement_is_reported_with_its_number(bench):
    # issue 14, point 11: who listens knows by it whether all was heard
    order = bench.an_order(7, "b")
    bench.bank.order(order)
    for token in range(100, 100 + EVENTS_KEPT):
        bench.order(token, "b", travelled_mm=10.0)
    bench.renew()
    bench.bank.heard(Detection(order.battery_id, 7, order.encoder_count, 0.0))
    reports = bench.bank.order(order)  # a token of which only the PLC knows: DUPLICATE
    assert reports[-1].ack_total == bench.plc.read_status().ack_total
    (late,) = bench.order(500, travelled_mm=600.0)
    assert late.outcome is EjectOutcome.LATE and late.ack_total == bench.plc.read_status().ack_total
    numbers = [report.ack_total for report in [*reports, *bench.run(3.0)]]
    assert numbers == list(range(numbers[0], bench.plc.read_status().ack_total + 1))


def test_reports_that_wait_are_not_counted_as_told(bench):
    bench.order(7)
    bench.wait(1.5)
    bench.plc.fail = ["send"]
    with pytest.raises(DeviceConnectionError):
        bench.order(8)
    (refused,) = bench.bank.order(bench.an_order(9, "nowhere"))
    assert refused.ack_total == 0
    assert bench.bank.poll()[0].ack_total == 2


def test_clear_cancels_what_waits(bench):
    bench.order(7)
    bench.order(8, "b")
    assert said(bench.bank.clear()) == [(7, EjectOutcome.CANCELLED), (8, EjectOutcome.CANCELLED)]
    assert said(bench.order(7)) == [(7, EjectOutcome.CANCELLED)]
    bench.run(3.0)
    assert bench.pulses() == []


def test_cancelled_tokens_are_told_even_if_the_ring_is_too_short_for_them(bench):
    tokens = range(1, EVENTS_KEPT + 9)
    for token in tokens:
        bench.order(token, "b")
    reports = bench.bank.clear()
    assert sorted(said(reports)) == [(token, EjectOutcome.CANCELLED) for token in tokens]
    assert "acknowledgement is lost" in {report.token: report.reason for report in reports}[1]


def test_acknowledgements_that_are_lost_do_not_cancel_what_still_waits(bench):
    bench.order(7, "b")
    for token in range(100, 105 + EVENTS_KEPT):
        bench.send_by_another(token)
    assert EjectOutcome.CANCELLED not in {outcome for _, outcome in said(bench.bank.poll())}
    assert (7, EjectOutcome.FIRED) in said(bench.run(3.0))


@pytest.mark.parametrize("fault", ["watchdog", "estop"])
def test_plc_that_makes_itself_safe_cancels(bench, fault):
    bench.order(7, "b")
    if fault == "watchdog":
        bench.plc.wait(0.6)
    else:
        bench.plc.world.faults.estop = True
        bench.wait(0.1)
    assert said(bench.bank.poll()) == [(7, EjectOutcome.CANCELLED)]
    assert said(bench.order(8)) == [(8, EjectOutcome.CANCELLED)]


def test_valve_that_does_not_open_is_told(bench):
    bench.plc.world.faults.valve_stick = (0,)
    bench.order(7)
    (report,) = bench.run(1.5)
    assert (report.outcome, report.reason) == (EjectOutcome.VALVE_FAULT, "valve_fault")


def test_restart_of_the_plc_cancels_what_waited_there_and_frees_the_tokens(bench):
    bench.order(7, "b")
    bench.order(8)
    bench.run(1.5)
    bench.plc.reboot(BOOT + 5)
    assert said(bench.bank.poll()) == [(7, EjectOutcome.CANCELLED)]
    bench.start()
    order = bench.an_order(8, boot_id=BOOT + 5)
    assert said(bench.bank.order(order)) == [(8, EjectOutcome.SCHEDULED)]
    (fired,) = bench.run(2.0)
    assert (fired.battery_id, fired.outcome) == (order.battery_id, EjectOutcome.FIRED)


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("restarted_too", [True, False])
def test_order_for_a_plc_that_has_restarted_since_never_fires(bench, noticed, restarted_too):
    bench.order(7)
    bench.run(1.5)
    old = bench.an_order(8, "b")
    bench.plc.reboot(BOOT + 5)
    bench.start()
    if restarted_too:
        bench.renew()
    if noticed:
        bench.bank.poll()
    ahead = EjectOrder(old.battery_id, 8, "b", bench.plc.read_status().encoder_count, 0.1, old.stamp)
    assert said(bench.bank.order(ahead))[-1] == (8, EjectOutcome.CANCELLED)
    own = bench.an_order(8, boot_id=BOOT + 5)
    assert said(bench.bank.order(own)) == [(8, EjectOutcome.SCHEDULED)], "the token belongs to another battery now"
    bench.run(2.0)
    assert [pulse for pulse in bench.pulses() if pulse[0] == 8] == [(8, 0)]


def test_frozen_encoder_fires_nothing(bench):
    bench.order(7)
    bench.plc.world.faults.encoder_freeze = True
    assert bench.run(2.0) == []
    assert said(bench.bank.clear()) == [(7, EjectOutcome.CANCELLED)]
    bench.plc.world.faults.encoder_freeze = False
    bench.run(2.0)
    assert bench.pulses() == []


# issue 14, point 17
def test_orders_for_batteries_that_never_passed_are_refused_and_counted(bench):
    bench.order(7)
    at = bench.plc.read_status().encoder_count
    for token, count in ((8, at), (7000, at), (7, count_add(at, 500)), (7, count_add(at, -500))):
        bench.bank._reports.clear()  # a process that is new knows none either
        forged = EjectOrder(make_battery_id(BOOT, token), token, "b", count, 0.1, bench.plc.now)
        report = bench.bank.order(forged)[-1]
        assert (report.token, report.outcome) == (token, EjectOutcome.REJECTED)
        assert "who orders that?" in report.reason or "was at the photo-eye at count" in report.reason
    assert bench.bank.refused == 4
    bench.run(3.0)
    assert bench.pulses() == [(7, 0)]


def test_a_battery_that_only_others_have_seen_is_none_unless_it_can_have_left_the_ring(bench):
    order = bench.an_order(7)
    bench.bank.heard(Detection(make_battery_id(BOOT, 9), 9, order.encoder_count, 0.0))
    forged = dataclasses.replace(order, battery_id=make_battery_id(BOOT, 9), token=9)
    assert said(bench.bank.order(forged)) == [(9, EjectOutcome.REJECTED)]
    assert said(bench.bank.order(order)) == [(7, EjectOutcome.SCHEDULED)]


def test_memory_of_reports_is_bounded(bench):
    for token in range(1, 600):
        bench.order(token, travelled_mm=5000.0)
    assert len(bench.bank._reports) <= 200


@pytest.mark.parametrize("mm_per_count", [0.0, -0.1, float("nan")])
def test_order_without_a_scale_is_rejected(mm_per_count):
    bench = Bench()
    order = dataclasses.replace(bench.an_order(1, "b"), mm_per_count=mm_per_count)
    assert said(bench.bank.order(order)) == [(1, EjectOutcome.REJECTED)]
