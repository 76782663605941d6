"""The mechanics of the inspection station: where cells go, what the sensors say, and every fault in its turn."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.types import View
from battery_sorting.drivers.station_plc.base import ActionResult, FlipperPosition, StationAction
from battery_sorting.ev.plant_record import BY_HAND, EvPlantRecord
from battery_sorting.plant.ev_station import FAULTS, FRAME_FAULTS, EvWorld, EvWorldConfig

DONE, JAM, EMPTY = ActionResult.DONE, ActionResult.JAM, ActionResult.EMPTY


class Station:
    """A world, and what it has said."""

    def __init__(self, seed: int = 0, **config) -> None:
        self.events = []
        self.record = EvPlantRecord()
        self.world = EvWorld(EvWorldConfig(**config), seed, self.tell)
        self.answers = []
        self.exposures = []
        self.world.answer_listeners.append(lambda tag, result: self.answers.append((tag, result)))
        self.world.exposure_listeners.append(self.exposures.append)

    def tell(self, event) -> None:
        self.events.append(event)
        self.record.apply(event)

    def do(self, action: StationAction, argument: int = 0, tag: int = 1) -> ActionResult | None:
        """What the mechanics answer within 3 s, None for nothing."""
        said = len(self.answers)
        self.world.start(action, argument, tag)
        self.world.advance(self.world.t_s + 3.0)
        return self.answers[said][1] if len(self.answers) > said else None

    def order(self, **faults: int) -> None:
        self.world.faults.set({name.replace("__", "."): count for name, count in faults.items()})

    def cell(self, index: int) -> dict:
        return next(cell for cell in self.record.as_dict()["cells"] if cell["index"] == index)


def test_cell_is_looked_at_from_both_sides_and_lies_at_its_outlet():
    station = Station()
    world = station.world
    assert station.do(StationAction.LOAD) is DONE
    assert station.do(StationAction.CAPTURE_LUG) is DONE
    assert station.do(StationAction.FLIP) is DONE
    assert world.flipper is FlipperPosition.INVERTED
    assert station.do(StationAction.CAPTURE_CASE) is DONE
    assert station.do(StationAction.RELEASE, 1) is DONE
    assert [(e.scene.view, e.scene.turn_deg) for e in station.exposures] == [
        (View.LUG, (0.0,)),
        (View.CASE, (180.0,)),
    ]
    assert (world.part_present, world.flipper) == (False, FlipperPosition.UPRIGHT)
    taken = world.take("product")
    assert (taken.index, taken.place) == (0, "taken")
    assert world.take("product") is None
    truth = station.cell(0)
    assert (truth["serial"], truth["outlet"], truth["faults"]) == (taken.look.serial, "product", [])
    assert truth["lug"] == taken.look.kind(View.LUG)
    assert set(truth["severities"]) == {defect.kind for defect in taken.look.defects}


def test_same_seed_brings_the_same_cells_however_often_the_world_is_asked():
    def cells(step_s: float, seed: int):
        station = Station(seed, fault_rates={"flipper.jam": 0.5})
        for _ in range(4):
            station.world.start(StationAction.LOAD)
            until = station.world.t_s + 3.0
            while station.world.t_s < until - 1e-9:
                station.world.advance(min(until, station.world.t_s + step_s))
            station.do(StationAction.RELEASE, 2)
        return [(c["serial"], c["planned_faults"], c["severities"]) for c in station.record.as_dict()["cells"]]

    assert cells(0.01, 5) == cells(3.0, 5) != cells(3.0, 6)


def test_one_thing_moves_at_a_time():
    station = Station()
    station.world.start(StationAction.LOAD)
    with pytest.raises(RuntimeError, match="LOAD is still running"):
        station.world.start(StationAction.FLIP)


def test_flipper_leaves_one_switch_and_reaches_the_other():
    station = Station(flip_s=2.0)
    station.world.start(StationAction.FLIP)
    seen = []
    for step in range(21):
        station.world.advance(step * 0.1)
        seen.append(station.world.flipper)
    changes = [now for before, now in zip([None, *seen], seen, strict=False) if now is not before]
    assert changes == [FlipperPosition.UPRIGHT, FlipperPosition.BETWEEN, FlipperPosition.INVERTED]


def test_time_factor_speeds_up_the_mechanics_only():
    station = Station(time_factor=10.0, late_answer_s=4.0)
    station.world.start(StationAction.LOAD)
    station.world.advance(0.13)
    assert station.answers == [(0, DONE)]
    station.order(flipper__late=1)
    station.world.start(StationAction.FLIP)
    station.world.advance(4.0)
    assert len(station.answers) == 1
    station.world.advance(4.2)
    assert len(station.answers) == 2


def test_empty_magazine_says_so():
    station = Station(items=1)
    assert station.do(StationAction.LOAD) is DONE
    station.do(StationAction.RELEASE, 1)
    assert station.do(StationAction.LOAD) is EMPTY
    assert station.world.empty


def test_loading_that_is_aborted_leaves_the_cell_in_the_magazine():
    station = Station(items=1)
    station.world.start(StationAction.LOAD)
    station.world.advance(0.5)
    station.world.abort()
    assert not station.world.part_present
    assert not station.world.empty
    assert station.do(StationAction.LOAD) is DONE
    assert [cell.index for cell in station.world.in_station] == [0]


def test_loader_waits_until_the_pictures_are_there():
    station = Station()
    station.world.may_arrive = lambda _: station.world.t_s > 5.0
    station.world.start(StationAction.LOAD)
    station.world.advance(4.9)
    assert not station.world.part_present
    station.world.advance(5.1)
    assert station.answers == [(0, DONE)]


# ---- faults ----


def test_jam_of_the_loader_brings_nothing_and_the_cell_comes_next():
    station = Station()
    station.order(loader__jam=1)
    assert station.do(StationAction.LOAD) is JAM
    assert (station.world.jam, station.world.part_present) == (True, False)
    station.world.home()
    station.world.advance(station.world.t_s + 0.1)
    assert not station.world.jam
    assert station.do(StationAction.LOAD) is DONE
    assert station.cell(0)["faults"] == []


def test_part_sensor_may_see_a_cell_that_is_not_there():
    station = Station()
    station.order(loader__no_cell=1)
    assert station.do(StationAction.LOAD) is DONE
    assert station.world.part_present
    assert not station.world.in_station
    station.do(StationAction.CAPTURE_LUG)
    assert station.exposures[0].scene.cells == ()
    station.do(StationAction.RELEASE, 2)
    assert not station.world.part_present
    assert not station.world.outlets["quarantine"]


def test_two_cells_go_the_same_way_and_both_bear_the_fault():
    station = Station()
    station.order(loader__two_cells=1)
    station.do(StationAction.LOAD)
    station.do(StationAction.CAPTURE_LUG)
    assert len(station.exposures[0].scene.cells) == 2
    station.do(StationAction.RELEASE, 2)
    assert [station.cell(index)["outlet"] for index in (0, 1)] == ["quarantine", "quarantine"]
    assert [station.cell(index)["faults"] for index in (0, 1)] == [["loader.two_cells"]] * 2


def test_cell_upside_down_shows_its_bottom_first():
    station = Station()
    station.order(loader__upside_down=1)
    station.do(StationAction.LOAD)
    station.do(StationAction.CAPTURE_LUG)
    station.do(StationAction.FLIP)
    station.do(StationAction.CAPTURE_CASE)
    assert [exposure.scene.turn_deg for exposure in station.exposures] == [(180.0,), (0.0,)]


def test_jammed_flipper_stands_between_until_it_is_homed():
    station = Station()
    station.do(StationAction.LOAD)
    station.order(flipper__jam=1)
    assert station.do(StationAction.FLIP) is JAM
    assert (station.world.jam, station.world.flipper) == (True, FlipperPosition.BETWEEN)
    station.world.home()
    station.world.advance(station.world.t_s + 3)
    assert (station.world.jam, station.world.flipper) == (False, FlipperPosition.UPRIGHT)
    assert station.cell(0)["faults"] == ["flipper.jam"]


def test_half_flip_is_reported_as_done():
    station = Station()
    station.order(flipper__half=1)
    assert station.do(StationAction.FLIP) is DONE
    assert station.world.flipper is FlipperPosition.BETWEEN


def test_silent_flipper_never_answers():
    station = Station()
    station.order(flipper__silent=1)
    assert station.do(StationAction.FLIP) is None
    assert station.world.moving
    station.world.abort()
    assert not station.world.moving
    assert station.do(StationAction.FLIP) is DONE


def test_flipper_that_answers_twice_bears_the_same_tag():
    station = Station()
    station.order(flipper__twice=1)
    station.do(StationAction.FLIP, tag=9)
    assert station.answers == [(9, DONE), (9, DONE)]


def test_late_answer_comes_even_after_the_action_was_given_up():
    station = Station(late_answer_s=6.0)
    station.order(flipper__late=1)
    assert station.do(StationAction.FLIP, tag=4) is None
    assert station.world.flipper is FlipperPosition.INVERTED
    station.world.abort()
    station.world.advance(5.9)
    assert station.answers == []
    station.world.advance(6.1)
    assert station.answers == [(4, DONE)]


def test_swapped_cell_is_another_one_in_the_second_picture():
    station = Station()
    station.do(StationAction.LOAD)
    station.do(StationAction.CAPTURE_LUG)
    station.order(station__swap=1)
    station.do(StationAction.FLIP)
    station.do(StationAction.CAPTURE_CASE)
    first, second = (exposure.scene.cells[0].serial for exposure in station.exposures)
    assert first != second
    assert station.cell(0)["outlet"] == BY_HAND
    station.do(StationAction.RELEASE, 2)
    assert (station.cell(1)["outlet"], station.cell(1)["faults"]) == ("quarantine", ["station.swap"])


def test_last_cell_can_not_be_swapped_and_nobody_says_it_was():
    station = Station(items=1)
    station.do(StationAction.LOAD)
    station.order(station__swap=1)
    station.do(StationAction.FLIP)
    assert [cell.index for cell in station.world.in_station] == [0]
    assert station.record.as_dict()["injected"] == []


def test_restart_of_the_plc_comes_in_the_middle_of_the_flip():
    station = Station()
    station.world.restart_listeners.append(station.world.abort)
    station.order(plc__restart=1)
    assert station.do(StationAction.FLIP) is None
    assert station.world.flipper is FlipperPosition.BETWEEN


@pytest.mark.parametrize("fault", FRAME_FAULTS)
def test_frame_faults_befall_the_picture_of_their_view(fault):
    station = Station()
    station.world.faults.set({f"case.{fault}": 1})
    station.do(StationAction.LOAD)
    for action in (StationAction.CAPTURE_LUG, StationAction.CAPTURE_CASE, StationAction.CAPTURE_CASE):
        station.do(action)
    assert [exposure.faults for exposure in station.exposures] == [set(), {fault}, set()]
    assert station.cell(0)["faults"] == [f"case.{fault}"]


def test_rates_strike_as_often_as_they_say_and_every_stroke_is_on_record():
    rates = {"flipper.half": 0.2, "lug.blank": 0.1, "station.swap": 0.05}
    station = Station(3, fault_rates=rates, flip_s=0.1, load_s=0.1, release_s=0.1, capture_s=0.1)
    for _ in range(400):
        for action in (StationAction.LOAD, StationAction.CAPTURE_LUG, StationAction.FLIP):
            station.do(action)
        station.do(StationAction.RELEASE, 2)
    record = station.record.as_dict()
    struck = [entry["name"] for entry in record["injected"]]
    for name, rate in rates.items():
        assert abs(struck.count(name) / 400 - rate) < 0.06, name
    assert len(struck) == sum(event["event"] == "injected" for event in station.events)
    planned = {cell["index"]: set(cell["planned_faults"]) for cell in record["cells"]}
    for cell in record["cells"]:
        assert set(cell["faults"]) <= planned[cell["index"]] | {"station.swap"}


# ---- settings ----


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"fault_rates": {"flipper.jamm": 0.1}}, "no such fault: flipper.jamm; there are"),
        ({"fault_rates": {"flipper.jam": 5}}, "within 0 and 1"),
        ({"kinds": {"stain": 1}}, "no such defect: stain; there are stained"),
        ({"kinds": {}}, "needs numbers from 0 up"),
        ({"severity": (0.8, 0.2)}, r"is \[lowest, highest\]"),
        ({"outlets": {"product": 1, "review": 1}}, "a number of its own"),
        ({"flip_time": 1}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused_with_the_remedy(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        EvWorldConfig(**settings)


def test_switches_are_set_all_or_none():
    world = Station().world
    with pytest.raises(ConfigurationError) as error:
        world.faults.set({"flipper.jam": 2, "flipper.jump": 1, "estop": "maybe"})
    assert len(error.value.problems) == 2
    assert not any(world.faults.as_dict().values())
    assert set(FAULTS) < set(world.faults.as_dict())
