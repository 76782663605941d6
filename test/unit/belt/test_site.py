"""Site files: what is read, and how each mistake is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import format_location, parse_location
from battery_sorting.core.types import OTHERS
from battery_sorting.lines import load_site

REPOSITORY = Path(__file__).parents[3]
SIM = (REPOSITORY / "config" / "sites" / "sim.yaml").read_text()


@pytest.fixture
def write(tmp_path):
    def write_file(text: str) -> str:
        path = tmp_path / "site.yaml"
        path.write_text(text)
        return str(path)

    return write_file


def problems_of(path: str, *overrides: str, **arguments) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        BeltSite.load(path, overrides, **arguments)
    assert error.value.source == path
    return error.value.problems


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "config" / "sites").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_sites_are_valid(path):
    site = load_site(str(path))
    assert site.name == path.stem
    if isinstance(site, BeltSite):
        assert len(site.ejectors) == 9
        assert site.bin_names[-1] == OTHERS


def test_site_is_found_by_name_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert BeltSite.load("sim").simulated
    assert not BeltSite.load("modbus_example").simulated


def test_ejectors_of_a_bin_come_in_the_order_in_which_a_battery_meets_them(write):
    second = "  - {valve: 9, offset_mm: 560, bin: duracell_alk}\nbins:\n"
    site = BeltSite.load(write(SIM.replace("bins:\n", second)))
    assert [e.offset_mm for e in site.ejectors_of("duracell_alk")] == [560, 600]


def test_all_faults_of_a_file_are_reported_at_once_with_path_line_and_remedy(write):
    text = (
        SIM.replace("offset_mm: 750", "offset_m: 0.75")
        .replace("offset_mm: 900", "offset_mm: 0.9")
        .replace("valve: 5", "valve: 4")
        .replace("keep: all", "keep: al")
        .replace("bin: klarus", "bin: klaru")
        .replace("recipe: batsort", "recipee: batsort")
    )
    problems = problems_of(write(text))
    expected = [
        ("recipe: ", "this key is missing"),
        ("recipee: ", "did you mean 'recipe'?"),
        ("ejectors[1].offset_m: ", "did you mean 'offset_mm', in millimetres?"),
        ("ejectors[1].offset_mm: ", "this key is missing"),
        ("ejectors[2].offset_mm: ", "0.9 is smaller than 1 mm: given in metres? Write 900"),
        ("ejectors[5].valve: ", "also that of ejectors[4]"),
        ("ejectors[8].bin: ", "did you mean 'klarus'?"),
        ("images.keep: ", "must be 'all', 'rejected' or 'none', not 'al'; did you mean 'all'?"),
    ]
    for place, remedy in expected:
        assert any(place in problem and remedy in problem for problem in problems), (place, remedy, problems)
    assert len(problems) == len(expected)
    line = text.splitlines().index("  - {valve: 2, offset_mm: 0.9, bin: energizer_ind}") + 1
    assert any(problem.startswith(f"line {line}: ejectors[2].offset_mm") for problem in problems)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("ejectors[1].offset_mm=610", "offset_mm (set by --set ejectors[1].offset_mm=610): 10 mm from ejectors[0]"),
        ("ejectors[0].offset_mm=2100", "not before the exit eye at 2100 mm"),
        ("ejectors[0].offset_mm=-5", "must be greater than 0"),
        ("ejectors[0].offset_mm=.nan", "must be greater than 0, not nan"),
        ("belt.exit_offset_mm=.inf", "must be a finite number"),
        ("ejectors[0].offset_mm=far", "must be a valid number, not 'far'"),
        ("ejectors[0].valve=16", "must be less than 16"),
        ("ejectors[0].valve=true", "must be a valid integer"),
        ("ejectors[0].bin=others", "stands at the belt's end"),
        ("ejectors[0].delay_ms=0.008", "smaller than 1 ms: given in seconds? Write 8"),
        ("ejectors[0].pulse_ms=0.012", "smaller than 1 ms: given in seconds? Write 12"),
        ("bins[0].name=klarus", "also the name of bins[0]"),
        ("bins[0].name=spare", "no ejector blows into bin 'spare'"),
        ("bins=[]", "bins"),
        ("ejectors=5", "ejectors"),
        ("belt.min_speed_mps=1.3", "above max_speed_mps 1.2: swap them"),
        ("belt.exit_offset=2100", "did you mean 'exit_offset_mm'"),
        ("belt.gate_offset_mm=250", "must be less than 0"),
        ("line=my line", "letters, digits and _"),
        ("plc=modbus", "must be a valid dictionary or instance of Device"),
        ("timeouts.heartbeat=1", "did you mean 'heartbeat_s'"),
        ("name", "write it as key.key=value"),
        ("name.x=1", "name is a value and has no keys"),
        ("ejectors[40].valve=1", "ejectors is a list of 9"),
        ("plant={a: [", "not valid YAML"),
        ("belt.slip.max=1", "unknown key"),
    ],
)  # fmt: skip
def test_mistake_is_named_with_its_place(write, override, expected):
    problems = problems_of(write(SIM), override)
    assert any(expected in problem for problem in problems), problems
    assert any(override in problem for problem in problems) or "bins" in override, (
        "it doesn't say where it came from"
    )


def test_repeated_key_is_an_error(write):
    assert problems_of(write(SIM + "\nline: other\n"))[0].endswith(
        "line: the key stands twice (first in line 3): remove one"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "must be a mapping"),
        ("- a\n- b\n", "must be a mapping"),
        ("a: [1, 2\nb: 3\n", "is not valid YAML: line 2"),
        ("a: &x [*x]\n", "unknown key"),
        ("a: 2026-13-45\n", "is not valid YAML"),
        ("? [a, b]\n: 1\n", "is not valid YAML"),
        ("1: 2\n", "Keys should be strings"),
    ],
)
def test_file_that_is_no_site_is_refused(write, content, expected):
    assert any(expected in problem for problem in problems_of(write(content)))


def test_unreadable_files_are_named(tmp_path, write):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    assert "can't be read" in problems_of(str(binary))[0]
    assert "no such file" in problems_of(str(tmp_path / "missing.yaml"))[0]
    with pytest.raises(ConfigurationError, match="did you mean 'sim'"):
        BeltSite.load("simm")


def test_overrides_are_yaml_and_reach_free_sections(write):
    site = BeltSite.load(
        write(SIM), ["plant.items=200", "plc.settings.port=1502", "ejectors.0.pulse_ms=25", "images.keep=none"]
    )
    assert site.plant is not None
    assert (site.plant["items"], site.plc.settings["port"], site.ejectors[0].pulse_ms) == (200, 1502, 25)


def test_problems_of_drivers_are_reported_with_the_others(write):
    problems = problems_of(
        write(SIM + "\nline: other\n"), check_drivers=lambda site: [f"plc.driver: bad {site.plc.driver}"]
    )
    assert len(problems) == 2
    assert problems[1] == "plc.driver: bad modbus"


def test_model_that_is_missing_is_named(write):
    with pytest.raises(ConfigurationError, match="no folder 'models/none/9'"):
        BeltSite.load(write(SIM), ["model=models/none/9"]).model_directory()


def test_resolved_site_is_the_same_site(tmp_path):
    site = BeltSite.load("sim", ["belt.exit_offset_mm=2200", "plant.items=7"])
    site.save_resolved(tmp_path / "site.json")
    assert BeltSite.load_resolved(tmp_path / "site.json") == site


def test_resolved_site_that_was_damaged_is_refused(tmp_path):
    (tmp_path / "site.json").write_text('{"name": "sim"')
    with pytest.raises(ConfigurationError, match=r"site\.json"):
        BeltSite.load_resolved(tmp_path / "site.json")


@given(st.lists(st.one_of(st.integers(0, 99), st.from_regex(r"[a-z_]{1,8}", fullmatch=True)), min_size=1))
def test_location_survives_its_text_form(parts):
    assert parse_location(format_location(tuple(parts))) == tuple(parts)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(key=st.sampled_from(sorted(BeltSite.model_fields)), value=YAML_VALUES)
def test_whatever_stands_under_a_key_is_taken_or_explained(tmp_path_factory, key, value):
    data = {**yaml.safe_load(SIM), key: value}
    path = tmp_path_factory.getbasetemp() / "any_site.yaml"
    path.write_text(yaml.safe_dump(data))
    try:
        BeltSite.load(str(path))
    except ConfigurationError as error:
        assert any(key in problem or "bins" in problem or "ejectors" in problem for problem in error.problems)
