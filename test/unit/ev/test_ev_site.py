"""Site and recipe of the EV line: what is refused, and what the plan makes of them."""

from __future__ import annotations

import pytest
from harness import run_cli

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.drivers.camera.frame_server import FrameServerCamera
from battery_sorting.ev.recipe import EvRecipe, problems_at
from battery_sorting.ev.site import EvSite
from battery_sorting.lines import load_recipe, load_site
from battery_sorting.runtime.plan import PlanOptions, load_site_and_recipe, make_plan, plant_settings
from battery_sorting.runtime.preflight import load_cell


def problems_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        EvSite.load("sim_ev", overrides)
    return error.value.problems


def recipe_problems(*overrides: str) -> list[str]:
    return problems_at(EvRecipe.load("lfp_prismatic", overrides), EvSite.load("sim_ev"))


def test_shipped_recipe_fits_the_shipped_site():
    assert recipe_problems() == []


def test_the_kind_in_the_file_says_which_line_it_is():
    assert isinstance(load_site("sim_ev"), EvSite)
    with pytest.raises(ConfigurationError, match="is for the ev line"):
        load_recipe("lfp_prismatic", load_site("sim"))


def test_unknown_kind_of_line_is_named(tmp_path):
    (tmp_path / "site.yaml").write_text("name: x\nkind: evv\n")
    with pytest.raises(ConfigurationError, match="did you mean 'ev'"):
        load_site(str(tmp_path / "site.yaml"))


def test_two_outlets_of_one_number_or_name_are_refused():
    assert "outlets[0]" in problems_of("outlets[1].number=1")[0]
    assert any("outlets[4]" in problem for problem in problems_of("outlets[4].name=review"))


@pytest.mark.parametrize("outlet", ["product", "quarantine", "hazardous"])
def test_an_outlet_that_safety_needs_must_be_there(outlet):
    index = ("product", "quarantine", "hazardous").index(outlet)
    assert f"an outlet '{outlet}' is needed" in problems_of(f"outlets[{index}].name=bin_a")[0]


def test_a_defective_or_doubtful_cell_is_never_routed_to_the_product():
    assert "defective cell is no product" in recipe_problems("views.case.defects.bulging=product")[0]
    assert "nobody is sure" in recipe_problems("unsure=product")[0]


def test_outlets_and_defects_that_do_not_exist_are_named_with_the_closest():
    assert "did you mean 'hazardous'" in recipe_problems("views.case.defects.leaking=hazardus")[0]
    assert "did you mean 'broken'" in recipe_problems("early_reject=[brokn]")[0]


def test_threshold_in_percent_is_refused():
    with pytest.raises(ConfigurationError, match="given in percent"):
        EvRecipe.load("lfp_prismatic", ["views.lug.threshold=80"])


def test_plan_of_the_ev_line_has_its_own_nodes_and_ports(tmp_path):
    keys = ("modbus", "lug_camera", "case_camera", "cycler", "meter", "robot", "control")
    zeros = tuple(f"plant.{key}_port=0" for key in keys)
    site, recipe = load_site_and_recipe("sim_ev", None, zeros)
    plan = make_plan(site, recipe, PlanOptions(tmp_path))
    assert [node.name for node in plan.nodes] == [
        "plant",
        "inspection",
        "line_controller",
        "robot",
        "tester",
        "grader",
    ]
    assert {node.namespace for node in plan.nodes} == {"ev"}
    ports = {path: device.settings["port"] for path, (_, device) in plan.site.devices.items()}
    settings = plant_settings(plan)
    assert settings["kind"] == "ev"
    assert settings["outlets"]["hazardous"] == 3
    assert ports == {
        "station_plc": settings["modbus_port"],
        "cameras.lug": settings["lug_camera_port"],
        "cameras.case": settings["case_camera_port"],
        "measuring.tester": settings["cycler_port"],
        "measuring.robot": settings["robot_port"],
    }
    assert plan.site.devices["measuring.tester"][1].settings["meter_port"] == settings["meter_port"]
    assert len({*ports.values(), settings["meter_port"], settings["control_port"], 0}) == 8


def test_a_line_without_a_tester_has_only_the_station(tmp_path):
    site, recipe = load_site_and_recipe("sim_ev", None, ("measuring=null",))
    plan = make_plan(site, recipe, PlanOptions(tmp_path))
    assert [node.name for node in plan.nodes] == ["plant", "inspection", "line_controller"]
    assert site.hand_over == ()


def test_trays_that_the_line_needs_must_be_there():
    assert "a tray 'leftover' is needed" in problems_of("measuring.trays[8].name=rest")[0]
    assert "also that of another tray" in problems_of("measuring.trays[1].name=tray_1")[0]


def test_a_site_with_a_tester_needs_a_recipe_that_measures():
    assert "has a tester" in recipe_problems("measuring=null")[0]


def test_site_check_says_whether_the_meter_is_exact_enough():
    cell = load_cell("sim_ev")
    assert any("of a cell of" in fact for fact in cell.facts)
    coarse = load_cell(
        "sim_ev", None, ("measuring.tester.settings.meter_rate=EXFAST", "recipe.measuring.spec=nmc-21ah")
    )
    texts = [*coarse.facts, *coarse.warnings]
    assert any("µΩ" in text and "needed" in text for text in texts)


def test_site_check_refuses_a_layout_that_is_none():
    with pytest.raises(ConfigurationError, match="8s"):
        load_cell("sim_ev", None, ("recipe.measuring.regroup.layout=8x",))


# ---- what the cameras send, issue 16, 6 ----


@pytest.mark.parametrize(
    "override",
    ["cameras.lug.settings={host: 127.0.0.1, port: 0}", "cameras.lug.settings.encoding=bayer_rggb8"],
)
def test_check_refuses_a_camera_whose_frames_the_station_can_not_use(override):
    """The driver's default is one of them."""
    done = run_cli("check", "--site", "sim_ev", "--set", override)
    assert done.returncode == 2
    assert "cameras.lug.settings" in done.stderr and "'bayer_rggb8' can't be used by the ev line" in done.stderr
    assert "no colour filter here: set the camera to rgb8, bgr8, mono8 or mono12" in done.stderr


def test_check_accepts_a_camera_whose_frames_the_station_can_use():
    done = run_cli("check", "--site", "sim_ev", "--set", "cameras.lug.settings.encoding=mono8")
    assert done.returncode == 0, done.stderr


class DeepCamera(FrameServerCamera):
    """Sends what doesn't say how many of its bits are used."""

    @property
    def encodings(self) -> tuple[str, ...]:
        return ("mono16",)


def test_check_refuses_a_camera_of_the_belt_that_does_not_say_its_bits():
    driver = f"camera.driver={__name__}:DeepCamera"
    with pytest.raises(ConfigurationError) as error:
        load_cell("sim", None, (driver,))
    assert any(
        "'mono16' can't be used by the belt line" in text and "mono12" in text for text in error.value.problems
    )
    assert load_cell("sim").site.name == "sim"
