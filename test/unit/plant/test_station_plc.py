"""The program of the simulated station PLC, its cameras, and the plant of an EV line as a process."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.types import View
from battery_sorting.drivers.registers import to_int
from battery_sorting.drivers.station_plc import register_map as rm
from battery_sorting.drivers.station_plc.base import ActionResult, StationAction
from battery_sorting.ev.plant_record import load_ev_record
from battery_sorting.plant.ev_process import EvPlant, make_ev_config
from battery_sorting.plant.ev_station import EvWorld, EvWorldConfig, Exposure, StationScene
from battery_sorting.plant.process import make_plant
from battery_sorting.plant.station_camera import SceneRenderer, spoilt
from battery_sorting.plant.station_plc import RESTART_S, StationPlcProgram
from battery_sorting.vision.synthetic.prismatic import PrismaticRenderer, sample_cell


class Bench:
    """A program, and a host that refreshes the watchdog unless it is told not to."""

    def __init__(self, **config) -> None:
        self.world = EvWorld(EvWorldConfig(**config))
        self.plc = StationPlcProgram(self.world, boot_id=100)
        self.alive = True

    def run(self, seconds: float) -> None:
        until = self.world.t_s + seconds
        while self.world.t_s < until:
            if self.alive:
                self.plc.write_coil(rm.COIL_WATCHDOG, True)
            self.plc.advance(min(until, self.world.t_s + 0.05))

    def send(self, token: int, action: int, argument: int = 0, left_ms: int = 1000) -> None:
        now_ms = self.value(rm.IR_TIME_MS)
        mailbox = rm.Mailbox(token, int(action), argument, (now_ms + left_ms) % 2**32)
        self.plc.write_holding(rm.HR_COMMAND, mailbox.to_registers())

    def value(self, address: int) -> int:
        return to_int(self.plc.read_input(address, 2), 0)

    def word(self, address: int) -> int:
        return self.plc.read_input(address, 1)[0]

    @property
    def result(self) -> ActionResult:
        return ActionResult(self.word(rm.IR_DONE_RESULT))

    @property
    def bits(self) -> rm.StationStatusBits:
        return rm.StationStatusBits(self.word(rm.IR_STATUS))


def test_action_is_active_until_it_ends_and_counts_once():
    bench = Bench()
    bench.send(1, StationAction.LOAD)
    assert (bench.value(rm.IR_ACTIVE_TOKEN), bench.word(rm.IR_ACTIVE_ACTION)) == (1, StationAction.LOAD)
    bench.run(1.5)
    assert (bench.value(rm.IR_ACTIVE_TOKEN), bench.value(rm.IR_DONE_TOKEN)) == (0, 1)
    assert (bench.word(rm.IR_DONE_COUNT), bench.value(rm.IR_LOADED_TOTAL)) == (1, 1)
    bench.send(1, StationAction.FLIP)
    assert bench.value(rm.IR_ACTIVE_TOKEN) == 0


def test_another_action_is_refused_while_one_runs_and_does_not_disturb_it():
    bench = Bench()
    bench.send(1, StationAction.LOAD)
    bench.send(2, StationAction.FLIP)
    assert (bench.value(rm.IR_DONE_TOKEN), bench.result) == (2, ActionResult.REFUSED)
    bench.run(1.5)
    assert (bench.value(rm.IR_DONE_TOKEN), bench.result) == (1, ActionResult.DONE)
    assert bench.word(rm.IR_DONE_COUNT) == 2


@pytest.mark.parametrize(
    ("address", "values"),
    [
        (rm.HR_COMMAND, [0, 1, 1]),
        (rm.HR_COMMAND + 1, [0, 1, 1, 0, 0, 0]),
        (rm.HR_COMMAND, [0, 0, 1, 0, 0, 900]),
        (rm.HR_COMMAND, [0, 1, 77, 0, 0, 900]),
    ],
    ids=["part", "shifted", "no token", "no such action"],
)
def test_impossible_commands_are_not_taken(address, values):
    bench = Bench()
    with pytest.raises(ValueError, match=r"mailbox|token|StationAction"):
        bench.plc.write_holding(address, values)
    assert (bench.value(rm.IR_DONE_TOKEN), bench.value(rm.IR_ACTIVE_TOKEN)) == (0, 0)


def test_jam_refuses_everything_until_it_is_reset():
    bench = Bench()
    bench.world.faults.set({"flipper.jam": 1})
    bench.send(1, StationAction.FLIP)
    bench.run(2)
    assert (bench.result, rm.StationStatusBits.JAM in bench.bits) == (ActionResult.JAM, True)
    bench.send(2, StationAction.CAPTURE_LUG)
    assert bench.result is ActionResult.REFUSED
    bench.plc.write_coil(rm.COIL_RESET, True)
    assert bench.value(rm.IR_ACTIVE_TOKEN) == 2, "the last token again"
    bench.send(3, StationAction.CAPTURE_LUG)
    assert bench.result is ActionResult.REFUSED, "the flipper is on its way home"
    bench.run(2)
    assert bench.bits == rm.StationStatusBits.UPRIGHT
    bench.send(4, StationAction.CAPTURE_LUG)
    bench.run(1)
    assert bench.result is ActionResult.DONE
    assert bench.value(rm.IR_LUG_TRIGGERS) == 1


def test_watchdog_trips_only_while_something_moves():
    bench = Bench(flip_s=2.0)
    bench.alive = False
    bench.run(5)
    assert rm.StationStatusBits.WATCHDOG_TRIPPED not in bench.bits
    bench.send(1, StationAction.FLIP)
    bench.run(0.4)
    assert bench.value(rm.IR_ACTIVE_TOKEN) == 1
    bench.run(0.2)
    assert rm.StationStatusBits.WATCHDOG_TRIPPED in bench.bits
    assert (bench.result, bench.word(rm.IR_WATCHDOG_TRIPS)) == (ActionResult.CANCELLED, 1)
    assert not {rm.StationStatusBits.UPRIGHT, rm.StationStatusBits.INVERTED} & set(bench.bits)


def test_emergency_stop_freezes_the_flipper_where_it_is():
    bench = Bench(flip_s=2.0)
    bench.send(1, StationAction.FLIP)
    bench.run(1.0)
    bench.world.faults.set({"estop": True})
    bench.run(0.05)
    angle = bench.world.flipper_deg
    bench.run(3)
    assert bench.world.flipper_deg == angle
    assert bench.result is ActionResult.CANCELLED
    bench.plc.write_coil(rm.COIL_RESET, True)
    bench.run(1)
    assert bench.world.flipper_deg == angle, "while it is pressed, nothing is homed"


def test_answer_of_a_given_up_action_comes_under_its_old_token():
    bench = Bench(late_answer_s=3.0)
    bench.world.faults.set({"flipper.late": 1})
    bench.send(1, StationAction.FLIP)
    bench.run(2)
    bench.plc.write_coil(rm.COIL_RESET, True)
    bench.run(0.5)
    assert (bench.result, bench.word(rm.IR_DONE_COUNT)) == (ActionResult.CANCELLED, 1)
    bench.run(1)
    assert (bench.value(rm.IR_DONE_TOKEN), bench.result, bench.word(rm.IR_DONE_COUNT)) == (1, ActionResult.DONE, 2)


def test_restart_forgets_all_and_drops_the_line_for_a_while():
    bench = Bench()
    bench.send(5, StationAction.LOAD)
    bench.run(1.5)
    bench.plc.restart()
    assert bench.plc.link_faults.plc_disconnect
    assert (bench.value(rm.IR_BOOT_ID), bench.value(rm.IR_TIME_MS), bench.value(rm.IR_DONE_TOKEN)) == (101, 0, 0)
    assert rm.StationStatusBits.PART_PRESENT in bench.bits, "the cell is still there"
    bench.run(RESTART_S + 0.1)
    assert not bench.plc.link_faults.plc_disconnect
    bench.send(1, StationAction.FLIP)
    assert bench.value(rm.IR_ACTIVE_TOKEN) == 1, "its tokens start over"


def test_count_of_answers_wraps():
    bench = Bench()
    bench.plc._done_count = 0xFFFF
    bench.send(1, StationAction.NONE)
    assert bench.word(rm.IR_DONE_COUNT) == 0


# ---- cameras ----


def test_scene_is_rendered_once_and_ahead():
    look = sample_cell(np.random.default_rng(1))
    scene = StationScene(View.LUG, (look,), (0.0,))
    darkroom = SceneRenderer(PrismaticRenderer(0, width=160))
    try:
        first = darkroom.picture(scene)
        assert darkroom.picture(StationScene(View.LUG, (look,), (0.0,))) is first
        assert first.result(10).shape == (128, 160, 3)
        assert darkroom.has([scene])
        for empty_or_two in (
            StationScene(View.CASE, (), ()),
            StationScene(View.CASE, (look, look), (180.0, 180.0)),
        ):
            assert darkroom.picture(empty_or_two).result(10).shape == (128, 160, 3)
    finally:
        darkroom.close()


def test_no_two_frames_of_one_scene_are_the_same():
    """A camera driver takes the same pixels twice for a frozen camera."""
    scene = StationScene(View.LUG, (), ())
    darkroom = SceneRenderer(PrismaticRenderer(0, width=160))
    try:
        picture = darkroom.picture(scene).result(10)
        exposures = [Exposure(number, 0.0, scene, (), frozenset()) for number in (1, 2)]
        [first], [second] = (darkroom.develop(picture, shot, {"rgb8"}).result(10) for shot in exposures)
    finally:
        darkroom.close()
    assert first.crc != second.crc
    difference = np.frombuffer(first.pixels, np.uint8).astype(int) - np.frombuffer(second.pixels, np.uint8)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize(
    ("fault", "shows"),
    [
        ("wrong_size", lambda _, now: now.shape == (64, 80, 3)),
        ("blank", lambda _, now: not now.any()),
        ("saturated", lambda _, now: (now == 255).all()),
        ("blurred", lambda was, now: now.std() < 0.5 * was.std()),
        ("gray", lambda _, now: (now == now[..., :1]).all()),
        ("drop", lambda was, now: now is was),
    ],
)
def test_disturbed_camera_spoils_the_picture(fault, shows):
    picture = np.random.default_rng(0).integers(0, 255, (128, 160, 3), np.uint8)
    assert shows(picture, spoilt(picture, frozenset({fault})))


# ---- the process ----


def test_settings_file_says_which_line_the_plant_is(tmp_path):
    file = tmp_path / "plant.json"
    file.write_text(json.dumps({"kind": "ev", "items": 3}))

    async def made() -> object:
        plant = make_plant(str(file))
        assert isinstance(plant, EvPlant)
        await plant.close()
        return plant

    asyncio.run(made())


def test_line_of_no_known_kind_is_refused(tmp_path):
    file = tmp_path / "plant.json"
    file.write_text('{"kind": "eu"}')
    with pytest.raises(ConfigurationError, match="kind: 'eu' is none; there are belt and ev"):
        make_plant(str(file))


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigurationError) as error:
        make_ev_config({"modbus_port": -1, "flip_s": 0, "spedd": 1})
    assert len(error.value.problems) == 3


def test_plant_records_what_it_did(tmp_path):
    record = tmp_path / "plant.jsonl"

    async def session() -> dict:
        plant = EvPlant(make_ev_config({"record": str(record), "time_factor": 50.0, "seed": 4}))
        ready = await plant.open()
        plant.world.may_arrive = lambda _: True
        run = asyncio.ensure_future(plant.run())
        plant.plc.write_holding(rm.HR_COMMAND, rm.Mailbox(1, StationAction.LOAD, 0, 10_000).to_registers())
        while not plant.world.in_station:
            await asyncio.sleep(0.005)
        plant._set_faults({"lug.drop": 1})
        plant.stop()
        await run
        return ready

    ready = asyncio.run(asyncio.wait_for(session(), 20))
    ports = {"modbus_port", "lug_camera_port", "case_camera_port", "control_port"}
    assert all(ready[port] > 0 for port in ports)
    truth = load_ev_record(record)
    assert [cell["index"] for cell in truth["cells"]] == [0]
    assert truth["actions"][0]["action"] == "load"
    assert truth["summary"]["items"] == 1
