"""What is settled before a cell starts is the same for `up` and launch, in the words of each."""

# issue 15, D13

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from harness import ROOT
from support import launch_standin

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.front_end import FrontEnd, option, spoken_to_by
from battery_sorting.core.ownership import EXIT_CODE, OwnedElsewhereError, claim_run_folder
from battery_sorting.line.claims import claims_of
from battery_sorting.line.contract import NODES
from battery_sorting.runtime.claims import check_beside, check_free
from battery_sorting.runtime.plan import PROFILE_VARIABLE, check_ports
from battery_sorting.runtime.respawn import MAX_RESPAWNS, describe_exit
from battery_sorting.runtime.start import LAUNCH_ARGUMENTS, StartOptions, options_of_launch, prepare
from battery_sorting.runtime.supervisor import CellError, process_environment

FREE_PORTS = tuple(f"plant.{kind}_port=0" for kind in ("modbus", "camera", "control"))


def of_launch(outer: str = "", **arguments: str) -> StartOptions:
    defaults = {name: default or "" for name, (default, _) in LAUNCH_ARGUMENTS.items()}
    return options_of_launch({**defaults, "site": "sim", **arguments}, outer)


def why_refused(options: StartOptions) -> str:
    with pytest.raises(ConfigurationError) as refused:
        prepare(options, {})
    return str(refused.value)


# ---- words ----


def test_remedies_are_given_in_the_words_of_the_front_end():
    assert option("run-dir") == "--run-dir"
    assert option("set", "plant.camera_port=0") == "--set plant.camera_port=0"
    with spoken_to_by(FrontEnd.LAUNCH):
        assert option("run-dir") == "run_dir:="
        assert option("set", "plant.camera_port=0") == "set:=plant.camera_port=0"
    assert option("run-dir") == "--run-dir"


@pytest.mark.parametrize(
    ("front_end", "words"), [(FrontEnd.COMMAND_LINE, "--run-dir"), (FrontEnd.LAUNCH, "run_dir:=")]
)
def test_a_run_folder_that_is_in_use_is_told_in_the_words_that_were_used(tmp_path, front_end, words):
    with claim_run_folder(tmp_path), spoken_to_by(front_end), pytest.raises(ConfigurationError) as refused:
        claim_run_folder(tmp_path)
    assert f"give another folder with {words}" in str(refused.value)
    other = ({"--run-dir", "run_dir:="} - {words}).pop()
    assert other not in str(refused.value)


@pytest.mark.parametrize(
    ("front_end", "words"),
    [(FrontEnd.COMMAND_LINE, "--set belt.foo=1"), (FrontEnd.LAUNCH, "set:=belt.foo=1")],
)
def test_an_override_that_is_wrong_is_named_as_it_was_given(front_end, words):
    with spoken_to_by(front_end):
        assert f"belt.foo (set by {words}): unknown key" in why_refused(
            StartOptions("sim", overrides=("belt.foo=1",))
        )


# ---- arguments of launch ----


def test_arguments_of_launch_are_the_options_of_up():
    options = of_launch(
        recipe="batsort",
        set=" a.b=1; c=2 ;",
        run_dir="/data/run",
        log_level="WARN",
        namespace="left",
        use_sim_time="True",
        without="camera, classifier",
    )
    assert options == StartOptions(
        "sim",
        "batsort",
        ("a.b=1", "c=2"),
        Path("/data/run"),
        "warn",
        "left",
        use_sim_time=True,
        without=("camera", "classifier"),
    )
    assert of_launch() == StartOptions("sim")


@pytest.mark.parametrize(
    ("outer", "given", "namespace"),
    [("", "", ""), ("/", "left", "left"), ("/plant_2", "", "/plant_2"), ("/plant_2", "left", "/plant_2/left")],
)
def test_a_namespace_follows_that_of_the_including_launch_file(outer, given, namespace):
    assert of_launch(outer, namespace=given).namespace == namespace


def test_an_absolute_namespace_stands_alone_as_everywhere_in_ros():
    assert of_launch("/plant_2", namespace="/left").namespace == "/left"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"log_level": "debugg"}, "log_level:=debugg: there is no such level; did you mean 'debug'?"),
        ({"namespace": "1a/b"}, "namespace:=1a/b: is no ROS namespace"),
        ({"namespace": "a//b"}, "namespace:=a//b: is no ROS namespace"),
        ({"without": "camra"}, "without:=camra: site 'sim' starts no such process; did you mean 'camera'?"),
        ({"use_sim_time": "yes"}, "use_sim_time:=yes: must be true or false"),
        ({"set": "plant.itmes=3"}, "plant.itmes (set by set:=plant.itmes=3): no such key"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name_and_what_to_write(arguments, told):
    with spoken_to_by(FrontEnd.LAUNCH), pytest.raises(ConfigurationError) as refused:
        prepare(of_launch(**arguments), {})
    assert told in str(refused.value)


# ---- what they do ----


def test_nodes_get_level_namespace_and_clock(tmp_path):
    plan, _ = prepare(
        StartOptions("sim", None, FREE_PORTS, tmp_path, "debug", "/plant_2/left/", use_sim_time=True), {}
    )
    for spec in plan.nodes:
        if not spec.is_node:
            assert "use_sim_time" not in " ".join(spec.command_line()), "the plant's time is real"
            continue
        words = spec.command_line()
        assert "__ns:=/plant_2/left/belt" in words
        assert words[words.index("--log-level") + 1] == "debug"
        assert "use_sim_time:=true" in words
        assert words[words.index("--enclave") + 1] == f"/plant_2/left/belt/{spec.name}"


def test_records_of_a_line_in_a_namespace_have_a_folder_of_their_own():
    assert prepare(StartOptions("sim"), {})[0].run_dir == Path("runs/sim").absolute()
    assert prepare(StartOptions("sim", namespace="/left/"), {})[0].run_dir == Path("runs/left/sim").absolute()


def test_without_leaves_out_what_somebody_else_brings(tmp_path):
    plan, _ = prepare(StartOptions("sim", None, FREE_PORTS, tmp_path, without=("camera", "plant")), {})
    assert [spec.name for spec in plan.nodes] == [name for name in NODES if name != "camera"]


def test_two_lines_of_one_name_in_two_namespaces_are_two(tmp_path):
    site = prepare(StartOptions("sim", None, FREE_PORTS, tmp_path), {})[0].site
    left, right = (
        set(claims_of("archivist", site, tmp_path, 1, namespace)) for namespace in ("/left/belt", "/right/belt")
    )
    assert not left & right
    assert claims_of("archivist", site, tmp_path, 1, "/belt") == claims_of("archivist", site, tmp_path, 1)


# ---- deaths, in the hands of launch (its real start is tested in test/launch) ----


# issue 16, 4
def test_launch_goes_on_without_an_observer_and_ends_with_a_node_that_the_line_needs(tmp_path, monkeypatch):
    file = launch_standin.load(ROOT / "launch" / "cell.launch.py", monkeypatch)
    plan, _ = prepare(StartOptions("sim", None, FREE_PORTS, tmp_path), {})
    cell = file.RunningCell(plan, {spec.name: Path("/bin/true") for spec in plan.nodes}, {}, None)
    context = SimpleNamespace(is_shutdown=False)

    def die(action: Any, code: int) -> list[Any]:
        return cell.exited(SimpleNamespace(action=action, returncode=code, cmd=[], cwd="", env={}), context)

    action = cell.first_life(next(spec for spec in plan.nodes if spec.name == "archivist"))
    for code in (-9, *[EXIT_CODE] * 10):
        told, timer = die(action, code)
        assert told.named["msg"].startswith(f"archivist {describe_exit(code)}; the line goes on without it; ")
        [action] = timer.named["actions"]
    action = cell.first_life(next(spec for spec in plan.nodes if spec.name == "camera"))
    for _ in range(MAX_RESPAWNS):
        told, timer = die(action, -9)
        assert "the line goes on" not in told.named["msg"]
        [action] = timer.named["actions"]
    with pytest.raises(CellError, match="camera died 6 times"):
        die(action, -9)
    with pytest.raises(OwnedElsewhereError, match="ejector can't have"):
        die(cell.first_life(next(spec for spec in plan.nodes if spec.name == "ejector")), EXIT_CODE)


def test_launch_leaves_an_observer_out_that_has_no_executable_and_says_so(tmp_path, monkeypatch):
    file = launch_standin.load(ROOT / "launch" / "cell.launch.py", monkeypatch)
    bin_ = tmp_path / "prefix" / "lib" / "battery_sorting"
    bin_.mkdir(parents=True)
    for name in {"plant", *NODES} - {"archivist"}:
        (bin_ / name).touch(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    arguments = {name: default or "" for name, (default, _) in LAUNCH_ARGUMENTS.items()}
    arguments |= {"site": "sim", "set": ";".join(FREE_PORTS), "run_dir": str(tmp_path / "run")}
    actions = file.start_cell(launch_standin.context(dict(os.environ), **arguments))
    told = [action.named["msg"] for action in actions if type(action).__name__ == "LogInfo"]
    nodes = [action.named["name"] for action in actions if type(action).__name__ == "Node"]
    assert nodes == [name for name in NODES if name != "archivist"]
    assert any("executable archivist" in text and text.endswith("the line goes on without it") for text in told)
    (bin_ / "camera").unlink()
    with pytest.raises(ConfigurationError, match="executable camera"):
        file.start_cell(
            launch_standin.context(dict(os.environ), **arguments | {"run_dir": str(tmp_path / "other")})
        )


# ---- the environment that a launch file has made, not only this process's ----


def test_middleware_and_profile_of_the_user_stand(tmp_path):
    given = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp", "FASTDDS_DEFAULT_PROFILES_FILE": "/etc/mine.xml", "A": "b"}
    plan, warnings = prepare(StartOptions("sim", None, FREE_PORTS, tmp_path), given)
    environment = process_environment(plan, given)
    assert given.items() <= environment.items()
    assert PROFILE_VARIABLE not in environment
    assert "rmw_cyclonedds_cpp is not the middleware that the package limits" in " ".join(warnings)


@pytest.mark.parametrize("variable", ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"])
def test_a_profile_that_is_not_there_is_told(tmp_path, variable):
    _, warnings = prepare(StartOptions("sim", None, FREE_PORTS, tmp_path), {variable: "/nowhere/mine.xml"})
    assert "the profile /nowhere/mine.xml of the environment, which can't be read," in " ".join(warnings)


@pytest.mark.parametrize("domain", ["abc", "-1", "233", "1.5"])
def test_a_ros_domain_that_is_none_is_told(tmp_path, domain):
    plan, _ = prepare(StartOptions("sim", None, FREE_PORTS, tmp_path), {})
    with pytest.raises(ConfigurationError, match="is no ROS domain: give a number from 0 to 232"):
        check_free(plan, given={"ROS_DOMAIN_ID": domain})


# ---- settings of the plant ----


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("plant.itmes=3", "plant.itmes (set by --set plant.itmes=3): no such key"),
        ("plant.items=many", "plant.items (set by --set plant.items=many): must be a valid integer"),
        ("plant.items=2026-12-02", "plant.items (set by --set plant.items=2026-12-02): must be a valid integer"),
        ("plant.slip_time_s=.inf", "must be a finite number"),
        ("plant.slip_time_s=.nan", "plant.slip_time_s (set by"),
        ("plant.images=/nowhere", "plant.images (set by --set plant.images=/nowhere): no such folder"),
        ("plant.rate_per_s=100", "plant.rate_per_s (set by --set plant.rate_per_s=100): 100 at 0.5 m/s is a pitch"),
        ("plant.modbus_port=99999", "modbus_port: 99999 is no port: give a number up to 65535, or 0"),
        ("plant.modbus_port=true", "modbus_port: True is no port"),
        ("plant.host=300.1.1.1", "plant.host (set by --set plant.host=300.1.1.1): 300.1.1.1 is no address"),
        ("plant.record=/tmp", "plant.record (set by --set plant.record=/tmp): /tmp is a folder"),
        ("plant.kind=ev", "plant.kind (set by --set plant.kind=ev): is that of the line, belt: remove the key"),
        ("plant.valves=[{valve: 1}]", "plant.valves[0].offset_mm"),
    ],
)
def test_a_wrong_setting_of_the_plant_is_found_before_anything_starts(override, told):
    """Before, `check` said that the site is ready, and the plant ended after the start."""
    assert told in why_refused(StartOptions("sim", overrides=(override,)))


def test_a_wrong_setting_of_the_ev_lines_plant_is_found_before_anything_starts():
    told = why_refused(StartOptions("sim_ev", overrides=("plant.cells.foo=3", "plant.move_s=-1")))
    assert "plant.cells.foo" in told and "plant.move_s" in told


def test_a_wrong_setting_of_the_plant_is_told_with_its_line(tmp_path):
    site = yaml.safe_load((Path(__file__).parents[3] / "config" / "sites" / "sim.yaml").read_text())
    site["plant"]["itmes"] = 3
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(site, sort_keys=False))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "itmes" in text)
    assert f"{file}: 1 problem\n  - line {line}: plant.itmes: no such key" in why_refused(StartOptions(str(file)))


def test_two_ports_of_the_plant_that_are_one_are_told():
    overrides = (*FREE_PORTS, "plant.camera_port=45001", "plant.control_port=45001")
    plan, _ = prepare(StartOptions("sim", overrides=overrides), {})
    with pytest.raises(ConfigurationError, match=r"plant\.control_port: port 45001 is plant\.camera_port, too"):
        check_ports(plan)


def test_ports_of_a_plant_that_somebody_else_has_started_are_not_looked_at():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        overrides = (*FREE_PORTS, f"plant.control_port={taken.getsockname()[1]}")
        check_ports(prepare(StartOptions("sim", overrides=overrides, without=("plant",)), dict(os.environ))[0])
        with pytest.raises(ConfigurationError, match="is in use"):
            check_ports(prepare(StartOptions("sim", overrides=overrides), dict(os.environ))[0])


# ---- two cells of one launch ----


def test_two_cells_of_one_launch_that_want_the_same_are_told_before_either_is_disturbed(tmp_path):
    def cell(folder: str, *overrides: str, **options: str):
        return prepare(StartOptions("sim", None, overrides, tmp_path / folder, **options), {})[0]

    first = cell("first", *FREE_PORTS)
    check_beside(cell("second", *FREE_PORTS, namespace="left"), [first], {})
    with pytest.raises(
        OwnedElsewhereError, match=rf"line belt in ROS domain 0 .* run folder {tmp_path / 'first'}:"
    ):
        check_beside(cell("second", *FREE_PORTS), [first], {})
    with pytest.raises(OwnedElsewhereError, match="tcp localhost:15021"):
        check_beside(cell("second", namespace="left"), [cell("first")], {})
