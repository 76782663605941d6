"""How the package is cut, where import-linter has no rule for it: cycles, what is loaded by name, kinds of line."""
# issue 16, 1 to 3

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest
from support.command_line import all_commands

import battery_sorting
from battery_sorting.cli.main import COMMANDS
from battery_sorting.lines import LINES

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


# ---- which line is it? issue 16, 3 ----

KNOW_THEIR_LINE = {"belt", "ev", "plant", "lines.py"}
"""Folders of the lines themselves, of their simulated plants, and the list of them."""
MAY_ASK = {
    "runtime/demo/__init__.py": "the one table of demos: a third line has none until it is entered there",
    "report/layouts.py": "the one table of layouts: the report of a third line has the plain one",
    "grading/passport/_dossiers.py": "a passport is of a cell that the EV line has inspected and measured",
}
"""Modules that ask all the same which line they have, and why a third line needs no change there."""
OF_A_LINE = {kind.name for kind in LINES.values()}
CLASSES = {of.__name__ for kind in LINES.values() for of in (kind.site, kind.recipe, type(kind))}


def asks_which_line(source: str) -> bool:
    """Whether a module compares something with the name of a kind of line, or with a kind or class of one."""
    return any(_asks(node) for node in ast.walk(ast.parse(source)))


def _asks(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        return any(_names_a_line(part) for side in (node.left, *node.comparators) for part in ast.walk(side))
    if isinstance(node, ast.MatchValue | ast.MatchClass):
        return any(_names_a_line(part) for part in ast.walk(node))
    if isinstance(node, ast.Dict):  # a table by kind, which another line would have to be entered in
        return any(isinstance(key, ast.Constant) and _names_a_line(key) for key in node.keys)
    if isinstance(node, ast.Call):
        asked = ast.unparse(node.func).rpartition(".")[2]
        return asked == "is_ev" or (asked in {"isinstance", "issubclass"} and _names_a_line(node.args[1]))
    return False


def _names_a_line(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in OF_A_LINE
    if isinstance(node, ast.BinOp | ast.Tuple):
        return any(_names_a_line(part) for part in ast.iter_child_nodes(node))
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in CLASSES or name in {kind.upper() for kind in OF_A_LINE}


@pytest.mark.parametrize(
    ("source", "asks"),
    [
        ('site.kind == "ev"', True),
        ('if "belt" != kind: pass', True),
        ('kind in ("belt", "ev")', True),
        ("kind is EV", True),
        ("kind == BELT.name", True),
        ("isinstance(site, BeltSite)", True),
        ("isinstance(site, (int, site.EvSite))", True),
        ("isinstance(recipe, EvRecipe | None)", True),
        ('match kind:\n    case "ev":\n        pass', True),
        ('READERS = {"belt": 1}', True),
        ("report.is_ev(shift)", True),
        ('line = "belt"', False),
        ("isinstance(site, LineSite)", False),
        ('site.line == "left"', False),
        ("super().__init__(node, BELT)", False),
    ],
)
def test_asking_which_line_it_is_is_found(source, asks):
    assert asks_which_line(source) is asks


def test_nothing_asks_which_line_it_has_but_the_lines_themselves():
    modules = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
    modules["launch"] = Path(__file__).parents[2] / "launch" / "cell.launch.py"
    found = {
        name
        for name, path in modules.items()
        if Path(name).parts[0] not in KNOW_THEIR_LINE and asks_which_line(path.read_text("utf-8"))
    }
    assert found == set(MAY_ASK)


# ---- commands; issue 16, 8 ----


def test_folders_of_unit_tests_are_those_of_the_package():
    """What is tested in ``battery_sorting/belt`` stands in ``test/unit/belt``."""
    unit = Path(__file__).parent
    strange = {
        folder.relative_to(unit).as_posix()
        for folder in unit.rglob("*")
        if folder.is_dir() and folder.name != "__pycache__" and not (PACKAGE / folder.relative_to(unit)).is_dir()
    }
    assert strange == set()


def test_each_module_of_cli_is_a_command_or_private():
    """A command is a module's function or its application, by the name that the module is called by."""
    named = {words: "_".join(words).replace("-", "_") for words in all_commands()}
    modules = {path.stem for path in (PACKAGE / "cli").glob("*.py") if not path.stem.startswith("_")}
    assert modules - {"main"} <= {*named.values(), *(words[0] for words in named)}
    assert {module for module, _, _ in COMMANDS.values()} <= {f"battery_sorting.cli.{name}" for name in modules}


# ---- functions; issue 16, 8 ----

MOST_LINES, MOST_PARAMETERS = 50, 8


def too_large(source: str) -> list[str]:
    """Functions that have too many lines or parameters. The signatures of commands don't count."""
    return [
        node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and _is_large(node)
    ]


def _is_large(function: ast.FunctionDef) -> bool:
    if any(ast.unparse(decorator).startswith("compiled") for decorator in function.decorator_list):
        return False  # a kernel of numba is one loop
    given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    names = [argument.arg for argument in given if argument.arg not in {"self", "cls"}]
    if _is_command(function):
        return function.end_lineno - function.body[0].lineno >= MOST_LINES
    return len(names) > MOST_PARAMETERS or function.end_lineno - function.lineno >= MOST_LINES


def _is_command(function: ast.FunctionDef) -> bool:
    given = function.args.args + function.args.kwonlyargs
    kinds = [ast.unparse(argument.annotation) for argument in given if argument.annotation]
    return any("typer." in kind or kind.endswith(("Option", "Argument")) for kind in kinds)


def test_a_function_that_is_too_large_is_found():
    lines = "\n".join(["    x = 1"] * 49)
    assert too_large(f"def a():\n{lines}") == []
    assert too_large(f"def a():\n{lines}\n    y = 1") == ["a"]
    assert too_large("def a(b, c, d, e, f, g, h, i, *, j): ...") == ["a"]
    assert too_large("def a(self, b, c, d, e, f, g, h, i): ...") == []
    assert (
        too_large("def a(" + "".join(f"b{i}: Annotated[int, typer.Option()], " for i in range(9)) + "): ...") == []
    )


def test_no_function_is_too_large():
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if "migrations" not in path.parts
        for name in too_large(path.read_text("utf-8"))
    }
    assert found == set()


# ---- one decoder, one edge to rclpy's private parts; issue 16, 6 ----

DECODER = "vision/encodings.py"
PRIVATE_EDGE = "ros/rclpy_private.py"
READ_NO_FRAMES = {
    "vision/deep_pictures.py": "picture files",
    "vision/synthetic/renderer.py": "picture files",
}
"""Modules that make arrays of bytes which are no frames of a camera."""


def decodes(source: str) -> bool:
    """Whether a module makes pixels of bytes, or knows colour filters."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (node.attr == "frombuffer" or node.attr.startswith("COLOR_Bayer")):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("ndarray", "frombuffer")):
            return True
    return False


def reaches_into_rclpy(source: str) -> bool:
    """Whether a module imports or overrides what rclpy names as private."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute | ast.FunctionDef):
            name = node.attr if isinstance(node, ast.Attribute) else node.name
            if name in {"_state_machine", "_internal_callers", "_managed_entities"} or "NodeMixin__" in name:
                return True
        if any(name.startswith("rclpy") and ("._" in name or ".impl" in name) for name in names):
            return True
    return False


def modules_that(do: Callable[[str], bool]) -> set[str]:
    """Modules of the package, but for the simulated plant, of which ``do`` is true."""
    return {
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.is_relative_to(PACKAGE / "plant") and do(path.read_text("utf-8"))
    }


def test_frames_are_decoded_in_one_place():
    assert modules_that(decodes) == {DECODER, *READ_NO_FRAMES}


def test_private_parts_of_rclpy_are_touched_in_one_module():
    assert modules_that(reaches_into_rclpy) == {PRIVATE_EDGE}


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("numpy.frombuffer(frame.data, 'u1')", True),
        ("cv2.cvtColor(raw, cv2.COLOR_BayerBG2RGB)", True),
        ("np.ndarray(shape, np.uint8, buffer=image.data)", True),
        ("def f(pixels: np.ndarray) -> np.ndarray: ...", False),
    ],
)
def test_a_second_decoder_is_found(source, is_found):
    assert decodes(source) is is_found


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("from rclpy._rclpy_pybind11 import RCLError", True),
        ("from rclpy.impl import rcutils_logger", True),
        ("self._state_machine.current_state", True),
        ("class N:\n def _LifecycleNodeMixin__on_change_state(self): ...", True),
        ("from rclpy.lifecycle import LifecycleNode", False),
    ],
)
def test_a_reach_into_rclpy_is_found(source, is_found):
    assert reaches_into_rclpy(source) is is_found


CONTROLLERS = {"line_controller.py", "ev_controller.py"}
"""They keep decisions still."""
WIRING = [
    "ros/node.py",
    *(f"nodes/{path.name}" for path in sorted((PACKAGE / "nodes").glob("*.py")) if path.name not in CONTROLLERS),
]


@pytest.mark.parametrize("module", WIRING)
def test_nodes_wire_and_no_more(module):
    assert len((PACKAGE / module).read_text("utf-8").splitlines()) < 200
