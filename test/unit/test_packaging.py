"""package.xml, requirements/ and docs/how-to/packaging.md name the same: all that is imported. issue 15, E16."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import battery_sorting

ROOT = Path(__file__).parents[2]
PACKAGE_XML = ROOT / "package.xml"

pytestmark = pytest.mark.skipif(not PACKAGE_XML.is_file(), reason="not run from a checkout")

OTHER_NAMES = {
    "pil": "pillow",
    "pydantic_core": "pydantic",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "statemachine": "python-statemachine",
    "yaml": "pyyaml",
    "zxingcpp": "zxing-cpp",
    "pyvisa_py": "pyvisa-py",
    "pillow_heif": "pillow-heif",
    "pi_heif": "pillow-heif",  # does the same
    "ament_index_python": "launch",  # which depends on it
}
"""Modules whose distribution is called otherwise."""


def required(name: str) -> set[str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    names = (re.match(r"[\w.-]+", line) for line in lines if not line.startswith("#"))
    return {match.group().lower().replace("_", "-") for match in names if match}


def table() -> dict[str, tuple[str, str]]:
    """Requirement to its rosdep key and where it comes from."""
    text = (ROOT / "docs" / "how-to" / "packaging.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| (\S+) \| [^|]+ \| (package\.xml|runtime\.txt) \|", text, re.MULTILINE)
    return {requirement: (key, source) for requirement, key, source in rows}


def depends(kind: str = "") -> set[str]:
    found = ElementTree.parse(PACKAGE_XML).getroot()
    return {str(one.text) for one in found if one.tag.endswith("depend") and one.tag.startswith(kind)}


def imported() -> set[str]:
    """Foreign top-level modules of all code that is installed, with those that are imported by name."""
    names: set[str] = set()
    for path in [*(ROOT / "battery_sorting").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module or "")
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
                names.update(arg.value for arg in node.args if isinstance(arg, ast.Constant))
    tops = {str(name).split(".")[0] for name in names}
    return tops - set(sys.stdlib_module_names) - {"battery_sorting", "__future__", ""}


def test_the_table_names_every_requirement_and_where_it_comes_from():
    rows = table()
    assert len(rows) > 15
    assert {name for name, (_, source) in rows.items() if source == "runtime.txt"} == required("runtime.txt")
    assert {name for name, (_, source) in rows.items() if source == "package.xml"} == required("wheels.txt")
    tools = {"colcon-common-extensions"}
    assert required("distribution.txt") - tools == required("wheels.txt")


def test_package_xml_names_the_keys_of_the_table_and_no_others():
    keys = {key for key, source in table().values() if source == "package.xml"}
    assert {key for key in depends("exec") if key.startswith("python3-")} == keys


def test_no_key_of_package_xml_bars_a_release():
    assert [key for key in depends() if key.endswith("-pip")] == []


def test_whatever_the_package_imports_is_named_by_package_xml_or_by_requirements():
    extras = required("train.txt") | required("openvino.txt") | required("heif.txt")
    known = required("runtime.txt") | required("wheels.txt") | extras | depends()
    missing = {
        name
        for name in imported()
        if not {OTHER_NAMES.get(name.lower(), name.lower()).replace("_", "-"), name} & known
    }
    assert missing == set()


def test_each_folder_of_tests_is_run_by_colcon_test():
    folders = {path.parent.relative_to(ROOT / "test").parts[0] for path in (ROOT / "test").rglob("test_*.py")}
    suites = re.findall(r"^ +add_suite\((\w+) (\w+) \d+\)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert {folder for _, folder in suites} == folders
    assert "ament_cmake_pytest" in depends("test")


# ---- what is installed beside the modules; issue 16, 8 and 10 ----


def data_files(package: Path) -> set[str]:
    """Files of the package that are no modules and no interfaces."""
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    found = {str(path.relative_to(package)) for path in files}
    return {name for name in found if name.endswith((".typed", ".j2", ".mako"))}


def test_pip_installs_type_marker_templates_and_migrations(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path)]
    subprocess.run([*command, "build_py", "--build-lib", str(tmp_path / "lib")], cwd=ROOT, check=True, timeout=120)
    installed = data_files(tmp_path / "lib" / "battery_sorting")
    assert "py.typed" in installed and "report/templates/belt_report.html.j2" in installed
    assert installed == data_files(ROOT / "battery_sorting")


@pytest.mark.ros
def test_colcon_installs_type_marker_templates_and_migrations():
    installed = [Path(folder) for folder in battery_sorting.__path__ if (Path(folder) / "msg").is_dir()]
    assert installed and "py.typed" in data_files(installed[0])
    assert data_files(installed[0]) == data_files(ROOT / "battery_sorting")
