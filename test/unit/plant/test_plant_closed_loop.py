"""The plant under a controller that knows every type and speaks to the PLC by its register map alone."""

from __future__ import annotations

from collections import deque

import pytest

from battery_sorting.core.types import OTHERS, count_add, count_difference
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import ValveCommand
from battery_sorting.drivers.registers import to_int
from battery_sorting.plant.plc import Plc
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.world import Edge, PhotoEye, World, WorldConfig

POLL_S = 0.02
PULSE_MS = 25
GATE_TO_EYE_MM = 250.0
VALVE_DELAY_S = 0.008


class Oracle:
    """Blows every battery into the bin of its true type; measures slip between the gate eye and the photo-eye."""

    def __init__(self, plc: Plc, speed_mm_s: int, *, compensate: bool) -> None:
        self.plc = plc
        self.speed_mm_s = speed_mm_s
        self.compensate = compensate
        self.valves = {valve.bin: valve for valve in plc.world.config.valves}
        self.seen = {rm.IR_GATE_TOTAL: 0, rm.IR_EYE_TOTAL: 0}
        self.gate_counts: dict[int, int] = {}
        self.travels: deque[int] = deque(maxlen=8)
        self.labels: dict[int, str] = {}
        plc.world.edge_listeners.append(self.learn_label)
        plc.write_holding(rm.HR_RUN, [1, speed_mm_s])

    def learn_label(self, edge: Edge) -> None:
        if edge.eye is PhotoEye.CAMERA:
            self.labels[edge.number] = edge.item.label

    def poll(self) -> None:
        self.plc.write_coil(rm.COIL_WATCHDOG, True)
        status = self.plc.read_input(rm.STATUS_ADDRESS, rm.STATUS_SIZE)
        for number, count in self.new_edges(status, rm.IR_GATE_TOTAL, rm.GATE_RING_ADDRESS):
            self.gate_counts[number] = count
        for number, count in self.new_edges(status, rm.IR_EYE_TOTAL, rm.EYE_RING_ADDRESS):
            self.travels.append(count_difference(count, self.gate_counts.pop(number)))
            self.order(number, count)

    def new_edges(self, status: list[int], total_address: int, ring_address: int) -> list[tuple[int, int]]:
        total = to_int(status, total_address)
        ring = self.plc.read_input(ring_address, rm.RING_LENGTH * rm.LATCH_SIZE)
        numbers = range(self.seen[total_address] + 1, total + 1)
        self.seen[total_address] = total
        slots = [(number - 1) % rm.RING_LENGTH * rm.LATCH_SIZE for number in numbers]
        return [(to_int(ring, slot), to_int(ring, slot + 2)) for slot in slots]

    def order(self, number: int, eye_count: int) -> None:
        label = self.labels.pop(number)
        if label not in self.valves:
            return
        mm_per_count = GATE_TO_EYE_MM / (sum(self.travels) / len(self.travels)) if self.compensate else 0.1
        lead_mm = (VALVE_DELAY_S + PULSE_MS / 2000) * self.speed_mm_s
        ahead = round((self.valves[label].offset_mm - lead_mm) / mm_per_count)
        target = count_add(eye_count, ahead)
        command = ValveCommand(number, self.valves[label].valve, target, PULSE_MS, count_add(target, 50))
        self.plc.write_holding(rm.HR_COMMAND, rm.to_mailbox(command))


def run_line(speed_mps: float, items: int, *, compensate: bool = True, seed: int = 1) -> dict:
    recorder = Recorder()
    config = WorldConfig(items=items, speed_mps=speed_mps, encoder_start=2**32 - 100_000)
    world = World(config, seed, recorder)
    plc = Plc(world, boot_id=1)
    oracle = Oracle(plc, round(speed_mps * 1000), compensate=compensate)
    t_s = 0.0
    while not world.finished:
        t_s += POLL_S
        plc.advance(t_s)
        oracle.poll()
    return recorder.record.as_dict()


def misplaced(record: dict) -> list[dict]:
    return [item for item in record["items"] if item["bin"] != (item["label"] if item["known"] else OTHERS)]


@pytest.mark.parametrize("speed_mps", [0.5, 0.8, 1.2])
def test_every_battery_lands_in_its_bin_when_slip_is_measured(speed_mps):
    record = run_line(speed_mps, 2000)
    assert len(record["items"]) == 2000
    assert misplaced(record) == []
    assert all(len(pulse["hit"]) == 1 for pulse in record["pulses"])
    assert max(abs(pulse["position_error_mm"]) for pulse in record["pulses"]) < 16.0


def test_ignoring_slip_misses_batteries():
    assert misplaced(run_line(0.8, 300, seed=7)) == []
    record = run_line(0.8, 300, compensate=False, seed=7)
    assert len(misplaced(record)) > 5
    assert any(not pulse["hit"] for pulse in record["pulses"])
