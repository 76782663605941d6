"""How the package is cut, where import-linter has no rule for it: cycles, and modules that are loaded by name."""
# issue 16, 1 and 2

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import battery_sorting

PACKAGE = Path(battery_sorting.__file__).parent
MAY_LOAD_BY_NAME = {
    "cli/main.py": "commands: what one needs is imported when it is called",
    "drivers/registry.py": "drivers, of other packages, too",
    "grading/__init__.py": "estimators: scikit-learn is imported when one is used",
    "runtime/ask.py": "services: ROS is imported when a line is asked",
}
"""Modules that load others of the package by a string, which no import contract sees, and what for."""


def find_cycle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in a circle; none: an empty list."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def loads_by_name(source: str) -> bool:
    """Whether a module loads one of this package, or one whose name is not written there, by a string."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith(("import_module", "__import__")):
            continue
        name = node.args[0] if node.args else None
        if not isinstance(name, ast.Constant) or str(name.value).startswith("battery_sorting"):
            return True
    return False


def test_no_module_imports_itself_by_way_of_others():
    graph = grimp.build_graph("battery_sorting")
    assert len(graph.modules) > 300
    assert find_cycle({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}) == []


def test_a_cycle_is_found():
    assert set(find_cycle({"a": ["b"], "b": ["c"], "c": ["a"], "d": []})) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("source", "loads"),
    [
        ("import importlib\nimportlib.import_module('battery_sorting.plant.world')", True),
        ("from importlib import import_module as load\nimport_module(NAME)", True),
        ("__import__(f'{a}.b')", True),
        ("import importlib\nimportlib.import_module('torch')", False),
        ("import battery_sorting.plant", False),
    ],
)
def test_what_is_loaded_by_name_is_found(source, loads):
    assert loads_by_name(source) is loads


def test_only_those_load_modules_by_name_that_must():
    found = {
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if loads_by_name(path.read_text("utf-8"))
    }
    others = {"vision/engine.py", "vision/pictures.py", "vision/training/backbone.py"}
    """They load what is no part of the package: engines, picture formats, weights."""
    assert found == {*MAY_LOAD_BY_NAME, *others}


@pytest.mark.parametrize("node", ["camera", "classifier", "conveyor", "ejector", "grader", "robot", "tester"])
def test_a_node_that_keeps_no_ledger_starts_without_the_database(node):
    """SQLAlchemy takes half a second of every node's start that loads it."""
    seen = f"import battery_sorting.nodes.{node}, sys; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", seen], check=False, timeout=60).returncode == 0


def test_no_two_public_classes_have_one_name():
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert len(places) > 500
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
