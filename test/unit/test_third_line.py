"""A third line is a folder and one entry in `lines.py`: what starts, checks and reports needs no change."""
# issue 16, 3

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from harness import ROOT, wait_for
from support import launch_standin, third_line
from support.third_line.kind import WEIGHING
from typer.testing import CliRunner

from battery_sorting.cli.command import send_command
from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.types import LineStateId
from battery_sorting.ledger import Shift
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.claims import claims_of
from battery_sorting.line.contract import QUALITIES
from battery_sorting.line.graph_watch import decision_topics
from battery_sorting.lines import LINES, kind_of
from battery_sorting.runtime.claims import check_beside, check_free
from battery_sorting.runtime.contract_page import policy
from battery_sorting.runtime.plan import Plan
from battery_sorting.runtime.start import LAUNCH_ARGUMENTS, StartOptions, prepare
from battery_sorting.runtime.supervisor import Supervisor

FOLDER = Path(third_line.__file__).parent
SITE, RECIPE = str(FOLDER / "site.yaml"), str(FOLDER / "recipe.yaml")
MODULES = {"scale": "scale", "weighing_controller": "controller"}
"""Executable → its module in the folder."""


@pytest.fixture(autouse=True)
def entered(monkeypatch, tmp_path) -> None:
    """The one entry in lines.py, and the node scripts that the build makes of it."""
    monkeypatch.setitem(LINES, WEIGHING.name, WEIGHING)
    scripts = tmp_path / "prefix" / "lib" / "battery_sorting"
    scripts.mkdir(parents=True)
    for executable, module in MODULES.items():
        script = (ROOT / "scripts" / "node.in").read_text()
        script = script.replace("battery_sorting.@module@", f"support.third_line.{module}")
        (scripts / executable).write_text(script)
        (scripts / executable).chmod(0o755)
    for variable, folders in (
        ("AMENT_PREFIX_PATH", (tmp_path / "prefix",)),
        ("PYTHONPATH", (ROOT, ROOT / "test")),
    ):
        given = [os.environ[variable]] if os.environ.get(variable) else []
        monkeypatch.setenv(variable, os.pathsep.join([*map(str, folders), *given]))


@pytest.fixture
def plan(tmp_path) -> Plan:
    return prepare(StartOptions(SITE, RECIPE, run_dir=tmp_path / "run"))[0]


def said_by(*arguments: str) -> str:
    """What a command of battery-sorting prints, in this process."""
    ended = CliRunner().invoke(make_app(arguments[0]), list(arguments))
    if ended.exception is not None:
        raise ended.exception
    return ended.output


# ---- check ----


def test_check_accepts_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = said_by("check", "--site", SITE, "--recipe", RECIPE)
    assert "recipe: heavy_enough, at least 700 g" in said
    assert "  /weighing/scale (device)\n" in said and "  /weighing/line_controller (decision)\n" in said
    assert "balance: sics" in said


def test_check_finds_what_is_wrong_with_it():
    with pytest.raises(ConfigurationError, match=r"least_g: 4000 is above the scale's 3000 g"):
        prepare(StartOptions(SITE, RECIPE, ("recipe.least_g=4000",)))
    with pytest.raises(ConfigurationError, match=r"balance\.settings\.prt: .*did you mean 'port'"):
        prepare(StartOptions(SITE, RECIPE, ("balance.settings.prt=1",)))


def test_it_is_not_known_without_its_entry(monkeypatch):
    monkeypatch.delitem(LINES, WEIGHING.name)
    with pytest.raises(ConfigurationError, match="there is no line of kind 'weighing'"):
        prepare(StartOptions(SITE, RECIPE))


def test_a_recipe_of_another_line_is_refused():
    with pytest.raises(ConfigurationError, match="is for the belt line"):
        prepare(StartOptions(SITE, "batsort"))


# ---- up and launch ----


def test_the_plan_has_its_two_nodes(plan, tmp_path):
    controller = [spec for spec in plan.nodes if spec.name == "line_controller"]
    assert [spec.name for spec in plan.nodes] == ["scale", "line_controller"]
    assert [spec.executable for spec in controller] == ["weighing_controller"]
    for spec in plan.nodes:
        assert "__ns:=/weighing" in spec.command_line()
        assert f'site_file:="{tmp_path}/run/site.json"' in spec.command_line()
    plan.write_run_files()
    assert WEIGHING.site.load_resolved(plan.site_file) == plan.site
    assert WEIGHING.recipe.load_resolved(plan.recipe_file) == plan.recipe
    assert not plan.plant_file.exists()


def test_a_second_one_on_the_same_scale_is_refused(plan, tmp_path):
    check_free(plan)
    assert "tcp localhost:15999" in str(claims_of("scale", plan.site, plan.run_dir, 0))
    other = prepare(StartOptions(SITE, RECIPE, run_dir=tmp_path / "other", namespace="left"))[0]
    with pytest.raises(BatterySortingError, match="balance:BALANCE at tcp localhost:15999"):
        check_beside(other, [plan], {})


def test_launch_accepts_it(tmp_path, monkeypatch):
    file = launch_standin.load(ROOT / "launch" / "cell.launch.py", monkeypatch)
    arguments = {name: default or "" for name, (default, _) in LAUNCH_ARGUMENTS.items()}
    arguments |= {"site": SITE, "recipe": RECIPE, "run_dir": str(tmp_path / "run")}
    actions = file.start_cell(launch_standin.context(dict(os.environ), **arguments))
    nodes = [action.named for action in actions if type(action).__name__ == "Node"]
    found = [(node["executable"], node["namespace"], node["name"]) for node in nodes]
    assert found == [("scale", "/weighing", "scale"), ("weighing_controller", "/weighing", "line_controller")]
    assert {type(action).__name__ for action in actions} == {"Node", "LogInfo", "RegisterEventHandler"}
    assert (tmp_path / "run" / "site.json").is_file()


def test_up_starts_its_processes(tmp_path):
    """With a script in place of each node: the nodes themselves are in the last test."""
    scripts = tmp_path / "prefix" / "lib" / "battery_sorting"
    script = f'#!/bin/sh\necho "$@" > {tmp_path}/$(basename $0)\n'
    (scripts / "scale").write_text(f"{script}exec sleep 60\n")
    wait = f"while [ ! -s {tmp_path}/scale ]; do sleep 0.02; done"
    (scripts / "weighing_controller").write_text(f"{script}{wait}\nkill -TERM $PPID\nexec sleep 60\n")
    said = said_by("up", "--site", SITE, "--recipe", RECIPE, "--run-dir", str(tmp_path / "run"))
    assert "cell 'weighing_room' is up" in said and said.endswith("stopped\n")
    assert "__node:=scale" in (tmp_path / "scale").read_text()
    assert "__node:=line_controller" in (tmp_path / "weighing_controller").read_text()


# issue 16, 4
def test_a_process_that_is_no_node_is_one_entry_of_its_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(type(WEIGHING), "companions", ("board",))
    scripts = tmp_path / "prefix" / "lib" / "battery_sorting"
    for name, script in (
        ("board", f'echo "$@" >> {tmp_path}/board; exit 7'),
        ("scale", "exec sleep 60"),
        ("weighing_controller", f"until [ $(wc -l < {tmp_path}/board) -ge 3 ]; do sleep 0.02; done\nkill $PPID"),
    ):
        (scripts / name).write_text(f"#!/bin/sh\n{script}\n")
        (scripts / name).chmod(0o755)
    (tmp_path / "board").touch()
    assert "  board (observer: the line runs without it)\n" in said_by("check", "--site", SITE, "--recipe", RECIPE)
    said = said_by("up", "--site", SITE, "--recipe", RECIPE, "--run-dir", str(tmp_path / "run"))
    assert "cell 'weighing_room' is up" in said and said.endswith("stopped\n")
    assert "board: ended with exit code 7; the line goes on without it; started again in 1 s" in said
    calls = (tmp_path / "board").read_text().splitlines()
    assert calls == [f"--run-dir {tmp_path}/run --exit-with-parent"] * 3
    with pytest.raises(ConfigurationError, match="did you mean 'board'"):
        prepare(StartOptions(SITE, RECIPE, run_dir=tmp_path / "run", without=("boards",)))
    assert "board" not in [
        spec.name
        for spec in prepare(StartOptions(SITE, RECIPE, run_dir=tmp_path / "run", without=("board",)))[0].nodes
    ]


# ---- contract ----


def test_its_contract_is_watched_as_those_of_the_others():
    topics = decision_topics(WEIGHING.contract, ("scale",))
    assert topics == {"heartbeat": ("scale",), "line_state": ("line_controller",), "weight": ("scale",)}
    assert {topic.quality for topic in WEIGHING.contract.topics} <= set(QUALITIES)
    rights = policy(WEIGHING.contract)
    assert '<enclave path="/weighing/scale">' in rights
    assert "<service>line_controller/command</service>" in rights


# ---- report ----


@pytest.fixture
def book(tmp_path) -> Path:
    """A ledger with a shift of the line."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        ledger.begin_shift("weighing", "weighing_room", 0.0, config={"site": {"kind": "weighing"}, "recipe": {}})
        with ledger.transaction() as transaction:
            for number, outlet in enumerate(("product", "light", "product")):
                cell = f"00000001-{number:06d}"
                transaction.record("detected", cell, float(number), trigger_count=number, encoder_count=0)
                transaction.record("disposed", cell, number + 0.5, bin=outlet, reason="sorted")
    return path


def test_report_accepts_it(book, tmp_path):
    page = tmp_path / "report.html"
    said = said_by("report", str(book), "--html", str(page))
    assert "Cells by weight" in said and "product" in said and "light" in said
    assert "True type" not in said and "Type as named" not in said, "the belt's tables"
    written = page.read_text()
    assert "<h2>Cells by weight</h2>" in written and "<td>product</td><td>2</td>" in written
    assert json.loads(said_by("report", str(book), "--json")) == {
        "cells": 3,
        "outlets": {"product": 2, "light": 1},
    }


def test_report_refuses_what_is_of_another_line(book, tmp_path):
    with pytest.raises(ConfigurationError, match="--data: is of the belt line only"):
        said_by("report", str(book), "--data", str(tmp_path))


def test_items_accepts_it(book):
    assert len(json.loads(said_by("items", str(book), "--json"))) == 3
    assert "on the scale at" in said_by("items", str(book), "--id", "00000001-000001")


def test_a_shift_without_a_kind_is_of_a_belt():
    def shift(config: dict) -> Shift:
        return Shift(1, "line", "site", 0.0, None, "", config)

    assert kind_of(shift({"site": {"kind": "weighing"}})) is WEIGHING
    assert [kind_of(shift(config)).name for config in ({}, {"site": {}}, {"site": {"kind": 7}})] == ["belt"] * 3


# ---- all of it ----


@pytest.mark.ros
@pytest.mark.realtime
def test_the_line_runs(plan, domain, tmp_path):
    ledger = plan.run_dir / "ledger.sqlite"

    def weighed() -> int:
        with contextlib.suppress(BatterySortingError), Ledger.open(ledger, read_only=True) as book:
            return len(book.batteries())
        return 0

    with Supervisor(plan, lambda *_: None):
        wait_for(lambda: _accepted("reset"), "the line is ready")
        wait_for(lambda: _accepted("start"), "the line starts")
        wait_for(lambda: weighed() >= 6, "cells are weighed")
        assert send_command("stop", "weighing") in {LineStateId.STOPPING, LineStateId.STOPPED}
    figures = json.loads(said_by("report", str(ledger), "--json"))
    assert figures["cells"] >= 6 and figures["outlets"]["product"] > figures["outlets"]["light"] > 0


def _accepted(command: str) -> bool:
    with contextlib.suppress(BatterySortingError):
        send_command(command, "weighing")
        return True
    return False
