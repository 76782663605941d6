"""The plan of a cell: its processes, what they are given, and the files they read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.line.contract import NODES
from battery_sorting.line.graph_watch import LEASE_S
from battery_sorting.runtime.plan import (
    NodeSpec,
    PlanOptions,
    Ready,
    assign_ports,
    discovery_warning,
    environment,
    find_executable,
    load_site_and_recipe,
    make_plan,
    plant_settings,
)

REPOSITORY = Path(__file__).parents[3]


def plan_of(site_name: str, run_dir: Path, *overrides: str, **options):
    site, recipe = load_site_and_recipe(site_name, None, overrides)
    return make_plan(site, recipe, PlanOptions(run_dir, **options))


def test_plant_is_started_first_and_only_where_the_site_has_one(tmp_path):
    assert [spec.name for spec in plan_of("sim", tmp_path).nodes] == ["plant", *NODES]
    assert [spec.name for spec in plan_of("modbus_example", tmp_path).nodes] == list(NODES)


# issue 16, 4
@pytest.mark.parametrize(
    ("site", "roles"),
    [
        ("sim", "plant device device decision device decision observer"),
        ("sim_ev", "plant device decision device device decision"),
    ],
)
def test_every_process_says_its_role_and_when_it_is_ready(site, roles, tmp_path):
    plan = plan_of(site, tmp_path)
    assert [str(spec.role) for spec in plan.nodes] == roles.split()
    assert [spec.name for spec in plan.nodes if not spec.required] == ["archivist"] * ("observer" in roles)
    assert [spec.ready_when for spec in plan.nodes] == [Ready.SAYS_SO, *[Ready.ACTIVE] * (len(plan.nodes) - 1)]


@pytest.mark.parametrize("site", ["sim", "sim_ev"])
def test_every_executable_of_the_plan_is_installed_with_the_package(site, tmp_path):
    """CMakeLists.txt makes one of each module in nodes/, and that of the plant."""
    for spec in plan_of(site, tmp_path).nodes:
        module = f"nodes/{spec.executable}.py" if spec.is_node else "plant/process.py"
        assert "\ndef main(" in (REPOSITORY / "battery_sorting" / module).read_text()


def test_nodes_live_in_the_namespace_of_the_line_and_read_the_run_folder(tmp_path):
    plan = plan_of("sim", tmp_path, "line=left")
    [run_id] = {spec.parameters["run_id"] for spec in plan.nodes[1:]}
    assert run_id and run_id != plan_of("sim", tmp_path).nodes[1].parameters["run_id"], "each start has its own"
    for spec in plan.nodes[1:]:
        assert spec.is_node
        assert spec.respawn
        assert spec.namespace == "left"
        assert spec.parameters == {
            "site_file": str(tmp_path / "site.json"),
            "recipe_file": str(tmp_path / "recipe.json"),
            "run_dir": str(tmp_path),
            "run_id": run_id,
            "exit_with_parent": True,
        }


def test_lines_share_a_classifier_where_their_sites_say_so(tmp_path):
    host = plan_of("sim", tmp_path, "serves=[runs/right, /elsewhere/far]")
    given = {spec.name: spec.arguments for spec in host.nodes if spec.is_node and spec.arguments}
    assert given == {"classifier": (str(Path("runs/right").absolute()), "/elsewhere/far")}
    guest = plan_of("sim", tmp_path, "line=right", "own_classifier=false")
    assert [spec.name for spec in guest.nodes] == ["plant", *(name for name in NODES if name != "classifier")]
    with pytest.raises(ConfigurationError, match="own_classifier is false: remove one"):
        plan_of("sim", tmp_path, "serves=[runs/right]", "own_classifier=false")


def test_command_line_carries_parameters_as_yaml_with_their_types():
    spec = NodeSpec(
        "camera",
        "camera",
        "belt",
        {"run_dir": "/data/a b: c", "exit_with_parent": True, "depth": 3, "name": "12"},
        remappings=(("image", "left/image"),),
    )
    words = spec.command_line()
    assert words[:7] == ["--ros-args", "-r", "__node:=camera", "-r", "__ns:=/belt", "-r", "image:=left/image"]
    values = dict(word.split(":=", 1) for word in words[words.index("-p") :] if ":=" in word)
    assert {key: yaml.safe_load(value) for key, value in values.items()} == spec.parameters


def test_plant_takes_its_own_arguments_only(tmp_path):
    plant = plan_of("sim", tmp_path).nodes[0]
    assert plant.command_line() == ["--config", str(tmp_path / "plant.json"), "--exit-with-parent"]
    assert not plant.respawn
    assert plan_of("sim", tmp_path, exit_with_parent=False).nodes[0].command_line() == plant.command_line()[:2]


def test_processes_read_back_what_was_checked(tmp_path):
    plan = plan_of("sim", tmp_path / "new" / "run", "recipe.threshold=0.9", "images.keep=none", "plant.items=3")
    plan.write_run_files()
    assert BeltSite.load_resolved(plan.site_file) == plan.site
    assert plan.site.images.keep == "none"
    assert BeltRecipe.load_resolved(plan.recipe_file).threshold == 0.9
    assert json.loads(plan.plant_file.read_text())["items"] == 3
    assert (plan.run_dir / "log").is_dir()


def test_plant_stands_where_the_site_says_unless_told_otherwise(tmp_path):
    settings = plant_settings(plan_of("sim", tmp_path, "recipe.speed_mps=0.8", "ejectors[0].offset_mm=610"))
    assert settings["valves"][0] == {"valve": 0, "offset_mm": 610, "bin": "duracell_alk"}
    assert settings["speed_mps"] == 0.8
    assert settings["record"] == str(tmp_path / "plant.jsonl")
    assert plant_settings(plan_of("sim", tmp_path, "plant.speed_mps=0.3"))["speed_mps"] == 0.3


def test_run_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--run-dir"):
        plan_of("sim", tmp_path / "file" / "run").write_run_files()


def test_drivers_get_the_ports_of_the_plant():
    site, _ = load_site_and_recipe("sim")
    ready = assign_ports(site)
    assert ready.plc.settings["port"] == 15020
    assert ready.camera.settings["port"] == 15021


def test_port_zero_of_the_plant_is_a_free_one_and_all_differ():
    zeros = tuple(f"plant.{kind}_port=0" for kind in ("modbus", "camera", "control"))
    site, _ = load_site_and_recipe("sim", None, zeros)
    ready = assign_ports(site)
    assert ready.plant is not None
    ports = [ready.plant[f"{kind}_port"] for kind in ("modbus", "camera", "control")]
    assert len({*ports, 0}) == 4
    assert [ready.plc.settings["port"], ready.camera.settings["port"]] == ports[:2]


def test_port_that_a_driver_names_itself_is_kept():
    site, _ = load_site_and_recipe("sim", None, ("plc.settings.port=1502",))
    assert assign_ports(site).plc.settings["port"] == 1502
    example, _ = load_site_and_recipe("modbus_example")
    assert assign_ports(example) is example


# issue 14, point 17
@pytest.mark.parametrize("site", ["sim", "modbus_example", "sim_ev"])
def test_a_cell_hears_nothing_outside_of_its_host_unless_its_site_says_so(site):
    site, _ = load_site_and_recipe(site)
    found = environment(site, Path("run"), {})
    assert found["RMW_IMPLEMENTATION"] == "rmw_fastrtps_cpp"
    assert found["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("config/fastdds.xml")
    # With LOCALHOST the middleware would add sockets of its own, which are open to all.
    assert found["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
    assert environment(site, Path("run"), {"ROS_LOCALHOST_ONLY": "1"})["ROS_LOCALHOST_ONLY"] == "0"
    assert discovery_warning(site, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}) == ""


def test_an_integrator_opens_a_cell_to_its_network_and_is_told_what_that_means():
    site, _ = load_site_and_recipe("modbus_example", None, ("network.discovery=subnet",))
    found = environment(site, Path("run"), {})
    assert found["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"
    assert found["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("config/fastdds_subnet.xml")
    assert "every host of the network can command this line" in discovery_warning(site, {})
    with pytest.raises(ConfigurationError, match=r"network.discovery.*'localhost' or 'subnet'"):
        load_site_and_recipe("modbus_example", None, ("network.discovery=world",))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
            "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp is not",
        ),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "/etc/own.xml"}, "the profile /etc/own.xml of the environment"),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "/etc/own.xml"}, "the profile /etc/own.xml of the environment"),
    ],
)
def test_a_middleware_or_profile_of_the_users_own_stays_and_the_start_says_what_that_means(given, why):
    site, _ = load_site_and_recipe("sim")
    found = {**given, **environment(site, Path("run"), given)}
    assert given.items() <= found.items()
    assert found["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert not found.get("FASTRTPS_DEFAULT_PROFILES_FILE", "").endswith("fastdds.xml")
    assert why in discovery_warning(site, given)


def test_a_cell_that_is_started_from_a_cells_environment_has_no_profile_of_its_own():
    site, _ = load_site_and_recipe("sim")
    first = environment(site, Path("run"), {})
    assert environment(site, Path("run"), first) == first
    assert discovery_warning(site, first) == ""


def test_profiles_differ_by_whom_they_listen_to_alone():
    own = ("interfaceWhiteList", "metatrafficUnicastLocatorList", "initialPeersList")

    def rest(name: str) -> tuple[str, set[str]]:
        root = ElementTree.parse(REPOSITORY / "config" / name).getroot()
        left_out = set()
        for parent in list(root.iter()):
            for child in list(parent):
                if (tag := child.tag.partition("}")[2]) in own:
                    left_out.add(tag)
                    parent.remove(child)
        words = "".join(ElementTree.tostring(root, encoding="unicode").split())
        return words, left_out

    (local, of_local), (subnet, of_subnet) = rest("fastdds.xml"), rest("fastdds_subnet.xml")
    assert local == subnet
    assert of_local == set(own) and of_subnet == set()
    assert f"<sec>{LEASE_S:g}</sec>" in (REPOSITORY / "config" / "fastdds.xml").read_text()


def test_another_recipe_can_be_given(tmp_path):
    text = (REPOSITORY / "config" / "recipes" / "batsort.yaml").read_text()
    (tmp_path / "quick.yaml").write_text(text.replace("speed_mps: 0.5", "speed_mps: 0.9"))
    _, recipe = load_site_and_recipe("sim", str(tmp_path / "quick.yaml"))
    assert recipe.speed_mps == 0.9


def test_executable_is_found_in_the_install_space_only_if_it_can_run(tmp_path, monkeypatch):
    folder = tmp_path / "lib" / "battery_sorting"
    folder.mkdir(parents=True)
    (folder / "camera").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere{os.pathsep}{tmp_path}")
    with pytest.raises(ConfigurationError, match="make build"):
        find_executable("camera")
    (folder / "camera").chmod(0o755)
    assert find_executable("camera") == folder / "camera"
