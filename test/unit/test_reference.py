"""The generated pages of the docs: up to date, and complete in what they are generated from."""
# issue 16, 10

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from pydantic import Field

from battery_sorting.core.settings import Settings
from battery_sorting.lines import LINES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "reference.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="not run from a checkout")


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reference"]


def test_the_generated_files_are_what_the_code_says(reference):
    written = reference.files(ROOT).items()
    stale = [str(name) for name, text in written if (ROOT / name).read_text(encoding="utf-8") != text]
    assert not stale, f"{', '.join(stale)}: run 'make reference'"


def test_every_interface_file_and_every_field_is_on_the_page(reference):
    page = "\n".join(reference.messages(ROOT))
    files = [path for kind in reference.TITLES for path in (ROOT / kind).iterdir()]
    assert page.count("\n### ") == len(files) > 20
    for path in files:
        for part in reference.parse_interface(path.read_text(), path.suffix[1:])[1].values():
            assert all(f"| `{name}` | `{type_}` |" in page for type_, name, _ in part.fields)


def test_an_interface_is_read_in_its_parts(reference):
    text = "# What it is\n# about.\nuint8 A=1  # one\nstring x   # of it\n---\nbool ok\n---\n"
    about, parts = reference.parse_interface(text, "action")
    assert about == "What it is about."
    assert parts["Goal"].constants == [("A", "1", "one")]
    assert parts["Goal"].fields == [("string", "x", "of it")]
    assert parts["Result"].fields == [("bool", "ok", "")]
    assert parts["Feedback"].fields == []


class Inner(Settings):
    length_mm: float = Field(gt=0, description="how long")


class Outer(Settings):
    one: Inner = Field(default=Inner(length_mm=3), description="a part")
    many: tuple[Inner, ...] = Field(min_length=2, description="parts")


def test_a_table_of_settings_has_the_keys_of_all_parts(reference):
    rows = reference.settings_table(Outer).splitlines()
    assert "| `one.length_mm` | number > 0 | `3` | millimetres | how long |" in rows
    assert "| `many` | list of section, items ≥ 2 | required |  | parts |" in rows
    assert "| `many[n].length_mm` | number > 0 | required | millimetres | how long |" in rows


def test_a_setting_without_description_is_refused(reference):
    class Silent(Settings):
        speed: float = 1.0

    with pytest.raises(reference.UndocumentedError, match=r"Silent\.speed has no description"):
        reference.settings_table(Silent)


def test_the_drawing_of_the_lines_has_their_nodes_and_names_of_their_contracts():
    drawing = (ROOT / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", drawing))))
    contracts = [kind.contract for kind in LINES.values()]
    nodes = {name for contract in contracts for name in contract.names}
    assert nodes - words == set()
    names = {one.name for contract in contracts for one in (*contract.topics, *contract.services)}
    assert {word for word in words if "_" in word} - nodes - names == set()
