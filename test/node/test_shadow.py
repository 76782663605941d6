"""A shadow model's verdict is on record, and nothing is done because of it."""

from __future__ import annotations

import signal

import pytest
from battery_sorting.msg import Alarm, BatteryDetection, BatteryType, BeltState, EjectCommand, ModelChange
from harness import wait_for
from support.tiny_cell import with_model, write_family

from battery_sorting.core.types import make_battery_id
from battery_sorting.ledger import EventData
from battery_sorting.ledger.events import AlarmCleared, AlarmRaised, Decided, ModelChanged, ShadowTyped, Typed
from battery_sorting.ledger.store import Ledger
from battery_sorting.packml.fleet import Lifecycle

pytestmark = pytest.mark.ros


@pytest.fixture
def family(tmp_path):
    return write_family(tmp_path / "models" / "tiny", "1")


def test_line_controller_never_acts_on_a_shadow_verdict(bench, family):
    peer = bench.set_up(*with_model(family), "alarms.disk_free_mb=0")
    orders = peer.listen(EjectCommand, "eject_command", "ORDER")
    bench.bring_up("archivist")
    line = bench.hand_over()
    for type_, topic, profile in (
        (BeltState, "belt_state", "STREAM"),
        (BatteryDetection, "battery_detection", "BATTERY_EVENT"),
        (BatteryType, "battery_type", "BATTERY_EVENT"),
        (BatteryType, "shadow_type", "SHADOW"),
    ):
        peer.advertise(type_, topic, profile)

    def verdict(battery_id: str, label: str, model: str) -> BatteryType:
        return BatteryType(
            header=now,
            battery_id=battery_id,
            label=label,
            confidence=0.99,
            accepted=True,
            labels=[label],
            scores=[0.99],
            model=model,
        )

    def events(kind: type[EventData]) -> list:
        with Ledger.open(bench.plan.run_dir / "ledger.sqlite", read_only=True) as ledger:
            return ledger.events(kinds=[kind])

    def battery(battery_id: str):
        with Ledger.open(bench.plan.run_dir / "ledger.sqlite", read_only=True) as ledger:
            return ledger.battery(battery_id)

    now = bench.now()
    a, b = make_battery_id(10, 1), make_battery_id(10, 2)
    peer.repeat(
        "belt_state", BeltState(header=now, connected=True, encoder_ok=True, boot_id=10, mm_per_count=0.1), 0.02
    )
    for number, name in enumerate((a, b), start=1):
        peer.publish(
            "battery_detection", BatteryDetection(header=now, battery_id=name, trigger_count=number, gate_seen=True)
        )
    peer.publish("shadow_type", verdict(a, "Klarus", "battery_type/2"))
    peer.publish("battery_type", verdict(b, "Duracell_Alk", "battery_type/1"))
    peer.publish("shadow_type", verdict(b, "Klarus", "battery_type/2"))
    wait_for(lambda: len(events(ShadowTyped)) == 2, "the shadow's verdicts are on record")
    wait_for(lambda: events(Decided), "the line has decided on b")
    first, second = events(ShadowTyped)
    assert (first.battery_id, first.data.label, first.data.model) == (a, "Klarus", "battery_type/2")
    assert second.data.scores == {"Klarus": 0.99}
    assert [event.battery_id for event in events(Typed)] == [b]
    assert [event.battery_id for event in events(Decided)] == [b]
    assert (battery(a).label, battery(a).decided_bin, battery(a).token) == (None, None, None)
    assert battery(b).label == "Duracell_Alk"
    assert orders == [] and line.exit_code is None


def test_model_changes_and_drift_alarms_are_on_record_once_though_the_archivist_comes_back(bench, family):
    peer = bench.set_up(*with_model(family), "alarms.disk_free_mb=0", "images.keep=none")
    archivist = bench.bring_up("archivist")
    bench.hand_over()
    peer.advertise(ModelChange, "model_change", "NOTICE")
    peer.advertise(Alarm, "alarm", "NOTICE")
    now = bench.now()

    def story() -> list[tuple[str, str]]:
        kinds = (ModelChanged, AlarmRaised, AlarmCleared)
        with Ledger.open(bench.plan.run_dir / "ledger.sqlite", read_only=True) as ledger:
            events = ledger.events(kinds=kinds)
        payloads = [(str(event.kind), event.payload) for event in events]
        return [
            (kind, payload.get("code") or payload["model"])
            for kind, payload in payloads
            if payload.get("code", "drift_mix") == "drift_mix"
        ]

    peer.publish("model_change", ModelChange(header=now, model="battery_type/2", previous="battery_type/1"))
    peer.publish("alarm", Alarm(header=now, code="drift_mix", text="moved", raised=True))
    expected = [("model_changed", "battery_type/2"), ("alarm_raised", "drift_mix")]
    wait_for(lambda: story() == expected, "both are on record")
    archivist.signal(signal.SIGINT)
    archivist.wait()
    wait_for(lambda: not peer.listeners("alarm"), "the archivist is known to be gone")
    bench.start("archivist")  # the line controller configures it
    bench.wait_for_heartbeat(
        lambda beat: beat.node == "archivist" and beat.lifecycle_state == Lifecycle.INACTIVE, "it is configured"
    )
    peer.publish("alarm", Alarm(header=now, code="drift_mix", text="back", raised=False))
    wait_for(lambda: len(story()) > 2, "the end of the alarm is on record")
    assert story() == [*expected, ("alarm_cleared", "drift_mix")]
