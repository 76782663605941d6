"""Physics of the simulated plant."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from pydantic import ValidationError

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.world import MIN_SPACING_MM, Edge, PhotoEye, World, WorldConfig

VALVES = [{"valve": 0, "offset_mm": 600.0, "bin": "A"}, {"valve": 1, "offset_mm": 750.0, "bin": "B"}]


def make_world(record=None, seed: int = 3, **settings) -> World:
    settings = {"slip_max": 0.0, "eye_jitter_mm": 0.0, "valve_delay_sd_ms": 0.0, "valves": VALVES} | settings
    return World(WorldConfig(**settings), seed, record)


def edges_of(world: World, eye: PhotoEye) -> list[Edge]:
    edges: list[Edge] = []
    world.edge_listeners.append(lambda edge: edges.append(edge) if edge.eye is eye else None)
    return edges


def run_until(world: World, condition, step_s: float = 0.005, limit_s: float = 60.0) -> None:
    while not condition():
        assert world.t_s < limit_s, "nothing happened"
        world.advance(world.t_s + step_s)


def test_belt_ramps_up_and_stops_in_the_distance_of_its_ramp():
    world = make_world()
    world.set_drive(0.9, 1.5)
    world.advance(2.0)
    assert world.belt_mm == pytest.approx(900 * 2.0 - 900**2 / (2 * 1500))
    before = world.belt_mm
    world.set_drive(0.0, 1.5)
    world.advance(5.0)
    assert world.belt_mm - before == pytest.approx(900**2 / (2 * 1500))
    assert world.speed_mps == 0.0


def test_motion_does_not_depend_on_how_often_the_world_is_read():
    coarse, fine = make_world(slip_max=0.02), make_world(slip_max=0.02)
    for world in (coarse, fine):
        world.set_drive(0.7, 1.5)
    coarse.advance(3.0)
    for number in range(1, 1001):
        fine.advance(number * 0.003)
    assert fine.belt_mm == pytest.approx(coarse.belt_mm, abs=1e-6)


def test_eye_is_crossed_at_the_exact_time_and_count():
    world = make_world(items=1, pitch_jitter=0.0)
    edges = edges_of(world, PhotoEye.CAMERA)
    world.set_drive(0.5, 1.5)
    world.advance(3.0)
    travel_mm = 600 + 100  # from where it appears, and one pitch before that
    assert edges[0].t_s == pytest.approx(0.5 / 1.5 + (travel_mm - 500**2 / 3000) / 500)
    assert edges[0].encoder_count == 7000
    assert edges[0].item.trigger_count == 1


def test_encoder_wraps_at_32_bits():
    world = make_world(encoder_start=2**32 - 100)
    world.set_drive(0.5, 1.5)
    world.advance(1.0)
    assert world.encoder_count == int(world.encoder_mm / 0.1) - 100


def test_slip_stays_within_its_limit_and_moves_the_belt():
    world = make_world(slip_max=0.02)
    world.set_drive(1.0, 1.5)
    slips = []
    for second in range(1, 200):
        world.advance(second)
        slips.append(world.slip)
    assert max(slips) - min(slips) > 0.005
    assert max(map(abs, slips)) <= 0.02
    assert world.belt_mm / world.encoder_mm - 1 == pytest.approx(sum(slips) / len(slips), abs=0.003)


def test_batteries_keep_their_distance_and_all_end_at_the_belts_end():
    recorder = Recorder()
    world = make_world(recorder, items=40)
    edges = edges_of(world, PhotoEye.EXIT)
    world.set_drive(1.0, 1.5)
    world.advance(20.0)
    places = [edge.item.belt_mm for edge in edges]
    assert min(b - a for a, b in pairwise(places)) >= MIN_SPACING_MM
    assert len(edges) == 40
    assert world.finished
    assert recorder.bins == {"others": 40}


def test_same_seed_gives_the_same_batteries():
    def batteries(seed: int) -> list[tuple]:
        world = make_world(seed=seed, items=20)
        world.set_drive(1.0, 1.5)
        world.advance(3.0)
        return [(item.label, item.belt_mm, item.seed) for item in world.on_belt]

    assert batteries(5) == batteries(5)
    assert batteries(5) != batteries(6)


def blow_at(world: World, error_mm: float, pulse_ms: float = 20.0) -> None:
    """Open valve 0 so that the first battery is ``error_mm`` behind the nozzle at mid-pulse."""
    run_until(world, lambda: world.on_belt and world.speed_mps == 0.5)
    item = world.on_belt[0]
    arrival_s = world.t_s + (item.belt_mm + 600.0 + error_mm - world.belt_mm) / 500.0
    at_s = arrival_s - 0.008 - pulse_ms / 2000
    world.advance(at_s)
    assert world.open_valve(0, at_s, pulse_ms, token=9)


@pytest.mark.parametrize(
    ("error_mm", "bin_name"), [(0.0, "A"), (12.0, "A"), (-12.0, "A"), (24.0, None), (-24.0, None)]
)
def test_pulse_must_meet_the_battery(error_mm, bin_name):
    recorder = Recorder()
    world = make_world(recorder, items=1)
    world.set_drive(0.5, 1.5)
    blow_at(world, error_mm)
    world.advance(world.t_s + 0.1)
    record = recorder.record.as_dict()
    assert record["items"][0]["bin"] == bin_name
    assert record["pulses"][0]["hit"] == ([0] if bin_name else [])
    assert record["pulses"][0]["empty"] == (bin_name is None)
    assert record["pulses"][0]["position_error_mm"] == pytest.approx(error_mm, abs=0.01)


def test_short_pulse_moves_nothing():
    recorder = Recorder()
    world = make_world(recorder, items=1)
    world.set_drive(0.5, 1.5)
    blow_at(world, 0.0, pulse_ms=6.0)
    world.advance(world.t_s + 0.1)
    assert recorder.record.as_dict()["pulses"][0]["empty"]


def test_closed_valves_cut_a_pulse_that_has_begun():
    recorder = Recorder()
    world = make_world(recorder, items=1)
    world.set_drive(0.5, 1.5)
    blow_at(world, 0.0)
    world.advance(world.t_s + 0.012)
    assert world.close_valves() == []
    world.advance(world.t_s + 0.1)
    assert recorder.record.as_dict()["items"][0]["bin"] is None
    assert recorder.record.as_dict()["pulses"][0]["empty"]


def test_valve_delay_fault_shifts_the_pulse():
    recorder = Recorder()
    world = make_world(recorder, items=1)
    world.faults.set({"valve.delay_ms": 20})
    world.set_drive(0.5, 1.5)
    blow_at(world, 0.0)
    world.advance(world.t_s + 0.1)
    assert recorder.record.as_dict()["pulses"][0]["position_error_mm"] == pytest.approx(10.0, abs=0.01)


def test_stuck_valve_gives_no_feedback_and_no_air():
    recorder = Recorder()
    world = make_world(recorder)
    world.faults.set({"valve.stick": 1})
    assert not world.open_valve(1, 0.0, 20, token=1)
    assert world.open_valve(0, 0.0, 20, token=2)
    world.advance(0.1)
    assert [pulse["token"] for pulse in recorder.record.as_dict()["pulses"]] == [2]


def test_encoder_freezes_while_the_belt_goes_on():
    world = make_world()
    world.set_drive(0.5, 1.5)
    world.advance(1.0)
    count, belt_mm = world.encoder_count, world.belt_mm
    world.faults.set({"encoder.freeze": True})
    world.advance(2.0)
    assert world.encoder_count == count
    assert world.belt_mm == pytest.approx(belt_mm + 500)


def test_empty_feeder_lets_the_belt_run_dry_and_goes_on_when_it_is_filled():
    recorder = Recorder()
    world = make_world(recorder, items=0, seed=1)
    world.set_drive(1.0, 1.5)
    world.advance(4.0)
    world.faults.set({"feeder.empty": True})
    assert not world.finished
    world.advance(10.0)
    assert world.finished
    come = len(recorder.record.as_dict()["items"])
    world.advance(20.0)
    assert len(recorder.record.as_dict()["items"]) == come
    world.faults.set({"feeder.empty": False})
    world.advance(22.0)
    more = len(recorder.record.as_dict()["items"]) - come
    assert 0 < more < 2.0 * 1000 / world.config.pitch_mm * 1.5, "no heap of those that were held back"


def test_tight_pair_makes_one_edge_of_two_batteries():
    recorder = Recorder()
    world = make_world(recorder, items=30, seed=1)
    world.set_drive(1.0, 1.5)
    world.advance(0.5)
    world.faults.set({"feeder.tight_pair": 4})
    edges = edges_of(world, PhotoEye.CAMERA)
    world.advance(8.0)
    items = recorder.record.as_dict()["items"]
    unseen = [item for item in items if item["trigger_count"] is None]
    assert unseen
    assert len(edges) + len(unseen) == len(items) == 30
    assert world.faults.feeder_tight_pair == 0


def test_missed_and_ghost_edges_are_told_apart_in_the_record():
    recorder = Recorder()
    world = make_world(recorder, items=10)
    world.faults.set({"eye.miss": 2, "eye.ghost": 3})
    world.set_drive(1.0, 1.5)
    world.advance(5.0)
    record = recorder.record.as_dict()
    assert [item["trigger_count"] for item in record["items"][:2]] == [None, None]
    assert len(record["false_triggers"]) == 3
    assert recorder.counts["trigger"] == 8 + 3
    seen = [item["trigger_count"] for item in record["items"][2:]]
    assert sorted(seen + record["false_triggers"]) == list(range(1, 12))


def test_faults_are_set_all_or_none_and_every_problem_is_named():
    world = make_world()
    with pytest.raises(ConfigurationError) as caught:
        world.faults.set({"camera.drop": 3, "camera.drp": 1, "estop": "yes", "eye.miss": 1.5, "valve.stick": [-3]})
    text = str(caught.value)
    assert all(name in text for name in ("camera.drp", "estop", "eye.miss", "valve.stick"))
    assert world.faults.camera_drop == 0


def test_faults_round_trip_by_name():
    world = make_world()
    world.faults.set({"valve.stick": [1, 2], "camera.delay_s": 0.5, "plc.silent": True})
    assert world.faults.as_dict()["valve.stick"] == [1, 2]
    world.faults.set({"valve.stick": -1})
    assert world.faults.as_dict()["valve.stick"] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"valves": [*VALVES, VALVES[0]]},
        {"valves": [{"valve": 0, "offset_mm": 2200.0, "bin": "A"}]},
        {"spawn_offset_mm": -260.0},
        {"pitch": 100},
    ],
)
def test_impossible_builds_are_refused(settings):
    with pytest.raises(ValidationError):
        WorldConfig(**settings)


def test_half_extent_follows_the_orientation():
    world = make_world(items=1)
    world.set_drive(0.5, 1.5)
    run_until(world, lambda: bool(world.on_belt))
    item = world.on_belt[0]
    item.angle_rad = 0.0
    assert item.half_extent_mm == item.length_mm / 2
    item.angle_rad = math.pi / 2
    assert item.half_extent_mm == pytest.approx(item.diameter_mm / 2)
