"""Passports of cells and packs: what stands in them, what is null and why, and what is never issued."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from support.measured_ledger import REAL, LineOnRecord, config

from battery_sorting.core.errors import ConfigurationError, LedgerError
from battery_sorting.grading import CellSpec
from battery_sorting.grading.passport import (
    PassportFormError,
    Sources,
    Specification,
    as_draft,
    cell_passport,
    check_form,
    collect,
    field_paths,
    file_name,
    load_mapping,
    load_schema,
    pack_passport,
    render,
    specification_from_file,
    specification_in,
    validator,
)
from battery_sorting.grading.passport._documents import sha256_of
from battery_sorting.ledger.events import StationFaulted

TABLE = load_mapping()
OF = {kind: validator(kind) for kind in ("cell", "pack")}
SPEC = CellSpec.load("lfp-20ah")
SOURCES = Sources(
    {number: Specification(SPEC, "a file", values=SPEC.model_dump(mode="json")) for number in (1, 2)},
    {"lug/1": ("a" * 64, "ledger"), "case/1": ("b" * 64, "ledger")},
)


@pytest.fixture
def line(tmp_path):
    line = LineOnRecord.begin(tmp_path / "ledger.sqlite")
    yield line
    line.ledger.close()


def begin(tmp_path, **settings):
    return LineOnRecord.begin(tmp_path / "other.sqlite", config(**settings))


def only_cell(line, sources=SOURCES):
    [dossier] = collect(line.ledger).cells
    document = cell_passport(dossier, sources)
    check_form(document, OF["cell"])
    return document


def pack_of(line, sources=SOURCES):
    [pack] = collect(line.ledger).packs
    document = pack_passport(pack, [cell_passport(cell, sources, pack.pack_id) for cell in pack.cells], sources)
    check_form(document, OF["pack"])
    return document


def nulls(node, path=""):
    """Path → reason of every value that is null."""
    if isinstance(node, dict) and "value" in node and node["value"] is None:
        yield path, node["reason"]
    elif isinstance(node, dict):
        for key, child in node.items():
            yield from nulls(child, f"{path}.{key}".lstrip("."))


# ---- a cell ----


def test_a_cell_that_went_all_the_way_has_everything(line):
    cell = line.good_cell()
    line.group({cell: "pack_1"})
    line.dispose(cell, "tray_1")
    document = only_cell(line)
    assert document["identity"]["printed_code"]["value"] == "LFP-0001"
    assert document["performance"]["capacity"] == {"value": 19.0, "unit": "Ah", "uncertainty": 0.02, "reason": None}
    assert document["performance"]["state_of_health"]["value"] == 0.95
    assert document["performance"]["state_of_health"]["uncertainty"] == 0.001
    assert document["performance"]["resistance_method"]["value"] == "AC 1 kHz"
    assert document["test"]["resistance_instrument"]["name"]["value"] == "HIOKI BT3562A"
    assert document["test"]["resistance_instrument"]["calibrated_on"]["value"] == "2026-01-15"
    assert document["test"]["temperature"]["value"] == 24.5
    assert document["test"]["rest"]["value"] == 1800
    assert [step["kind"] for step in document["test"]["steps"]["value"]][-2:] == ["measure", "pulse"]
    assert document["grade"]["grade"]["value"] == "A"
    assert math.isclose(sum(document["grade"]["probabilities"]["value"].values()), 1)
    assert document["appearance"]["case"]["verdict"]["value"] == "good"
    assert document["appearance"]["lug"]["model_sha256"]["value"] == "a" * 64
    assert document["disposition"]["place"] == "tray_1"
    assert document["specification"]["chemistry"]["value"] == "LFP"


def test_settings_are_hashed_as_the_shift_has_them_on_record(line):
    line.dispose(line.good_cell(), "tray_1")
    [shift] = line.ledger.shifts()
    said = only_cell(line)["configuration"]
    assert said["site_sha256"]["value"] == sha256_of(shift.config["site"])
    assert said["recipe_sha256"]["value"] == sha256_of(shift.config["recipe"])
    assert said["cell_specification_sha256"]["value"] == sha256_of(SPEC.model_dump(mode="json"))


def test_hash_does_not_depend_on_the_order_of_the_keys():
    assert sha256_of({"a": 1, "b": {"c": 2, "d": 3}}) == sha256_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert sha256_of({"a": 1}) != sha256_of({"a": 2})


def test_a_cell_that_was_never_measured_says_so_in_every_place(line):
    cell = line.arrive()
    line.look(cell, "lug", verdict="defective", kind="broken", reason="broken", probability=0.98)
    line.dispose(cell, "reject", "broken")
    document = only_cell(line)
    missing = dict(nulls(document))
    assert missing["performance.capacity"] == "the cell was not measured: it went to reject (broken)"
    assert missing["grade.grade"] == "the cell was not measured: it went to reject (broken)"
    assert missing["appearance.case.verdict"] == "this view was not looked at"
    assert document["appearance"]["lug"]["defect"]["value"] == "broken"
    assert document["appearance"]["lug"]["reason"]["value"] == "broken"
    assert document["specification"]["nominal_capacity"]["value"] == 20


def test_every_null_has_a_reason(line):
    cell = line.arrive()
    line.look(cell, "lug", code="", novelty=None, probability=None, model="")
    line.measure(cell, resistance_mohm=None, temperature_c=None, capacity_instrument="", capacity_ah=None)
    line.dispose(cell, "quarantine", "invalid_measurement")
    missing = dict(nulls(only_cell(line, Sources())))
    assert missing["performance.resistance"] == "the test did not measure it"
    assert missing["grade.grade"] == "the last measurement was not graded"
    assert missing["specification.chemistry"] == "the shift's recipe names no cell specification"
    assert missing["group.pack"] == "the cell was put into no group"
    assert all(missing.values())


def test_the_last_measurement_counts_and_an_older_grade_does_not(line):
    cell = line.good_cell()
    line.measure(cell, capacity_ah=15.0)
    line.dispose(cell, "quarantine", "tester_lost")
    document = only_cell(line)
    assert document["performance"]["capacity"]["value"] == 15
    assert document["test"]["measurements"] == 2
    assert document["grade"]["grade"] == {"value": None, "reason": "the last measurement was not graded"}


def test_a_measurement_without_grade_says_why_it_is_invalid(line):
    cell = line.arrive()
    line.measure(cell, capacity_ah=29000.0)
    line.grade(cell)
    line.dispose(cell, "quarantine", "invalid_measurement")
    document = only_cell(line)
    assert document["grade"]["grade"]["value"] is None
    assert "mAh" in document["grade"]["grade"]["reason"]
    assert document["grade"]["relation_degree"]["value"] is None


def test_a_good_view_has_no_defect_although_the_inspector_names_the_most_probable_one(line):
    line.dispose(line.good_cell(), "tray_1")
    lug = only_cell(line)["appearance"]["lug"]
    assert lug["defect"] == {"value": None, "reason": "the view is good"}
    assert lug["defect_probability"]["value"] == 0.01


def test_a_bad_picture_says_what_is_wrong_with_it_and_tells_no_defect(line):
    cell = line.arrive()
    line.look(cell, "lug", verdict="bad_image", kind="", reason="blurred", probability=None, novelty=None, code="")
    line.dispose(cell, "quarantine", "bad_image_blurred")
    lug = only_cell(line)["appearance"]["lug"]
    assert (lug["verdict"]["value"], lug["reason"]["value"]) == ("bad_image", "blurred")
    assert lug["defect"] == {"value": None, "reason": "the picture could not be judged"}


def test_views_that_read_different_codes_give_no_code(line):
    cell = line.arrive()
    line.look(cell, "lug", code="A1")
    line.look(cell, "case", code="B2")
    line.dispose(cell, "quarantine", "identity")
    code = only_cell(line)["identity"]["printed_code"]
    assert code == {"value": None, "reason": "the two views read different codes: A1 and B2"}


# issue 15, C11
def test_a_code_that_two_cells_have_names_neither_and_says_whose_it_is(line):
    ids = line.pack(8)
    for battery_id in ids[:2]:
        for view in ("lug", "case"):
            line.look(battery_id, view, code="LFP-TWIN")
    selection = collect(line.ledger)
    sources = Sources()
    for cell, other in ((selection.cells[0], ids[1]), (selection.cells[1], ids[0])):
        code = cell_passport(cell, sources)["identity"]["printed_code"]
        assert code["value"] is None and "LFP-TWIN" in code["reason"] and other in code["reason"]
    assert cell_passport(selection.cells[2], sources)["identity"]["printed_code"]["value"] == f"LFP-{ids[2][-4:]}"


def test_the_last_look_counts(line):
    cell = line.arrive()
    line.look(cell, "lug", verdict="unsure")
    line.look(cell, "lug", verdict="good")
    line.dispose(cell, "quarantine", "flip_jam")
    lug = only_cell(line)["appearance"]["lug"]
    assert (lug["verdict"]["value"], lug["looks"]) == ("good", 2)


def test_state_of_health_may_be_above_one(line):
    line.dispose(line.good_cell(capacity_ah=20.4), "tray_1")
    assert only_cell(line)["performance"]["state_of_health"]["value"] == 1.02


def test_faults_on_the_way_are_told(line):
    cell = line.good_cell()
    line.record(StationFaulted(code="open_contact", text="seated again", step="test"), cell)
    line.dispose(cell, "tray_1")
    assert only_cell(line)["disposition"]["faults"] == ["open_contact"]


def test_same_ledger_gives_the_same_bytes(line):
    line.pack()
    selection = collect(line.ledger)
    once = [render(cell_passport(cell, SOURCES)) for cell in selection.cells]
    assert once == [render(cell_passport(cell, SOURCES)) for cell in collect(line.ledger).cells]
    assert list(json.loads(once[0])) == sorted(json.loads(once[0]))


def test_a_file_is_never_named_by_what_leads_elsewhere():
    for name in ("../up", "a/b", "", ".hidden", "a\nb", "x" * 200):
        with pytest.raises(LedgerError):
            file_name(name, "issued")
    assert file_name("0000abcd-00000001.2", "issued") == "0000abcd-00000001.2.json"
    assert file_name("0000abcd-00000001", "draft") == "0000abcd-00000001.draft.json"


# ---- a pack ----


def test_a_pack_in_series_is_as_good_as_its_weakest_cell(line):
    ids = line.pack()
    document = pack_of(line)
    assert document["identity"]["pack_id"] == "ev-1-1-pack_1"
    assert document["performance"]["capacity"]["value"] == 19.0
    assert document["performance"]["capacity"]["uncertainty"] == 0.02
    assert document["performance"]["resistance"]["value"] == pytest.approx(8 * 1.6)
    assert document["performance"]["resistance"]["uncertainty"] == pytest.approx(8 * 0.013)
    assert document["performance"]["open_circuit_voltage"]["value"] == pytest.approx(8 * 3.199)
    assert document["performance"]["state_of_health"]["value"] == 0.95
    assert document["spread"]["capacity"]["value"] == 0.7
    assert document["spread"]["state_of_health"]["value"] == 0.035
    assert [cell["battery_id"] for cell in document["cells"]] == ids
    assert document["grades"] == {"A": 8}


def test_pack_with_cells_side_by_side_tells_no_capacity_that_nobody_knows(tmp_path):
    line = begin(tmp_path, recipe=["measuring.regroup.layout=2s2p"])
    line.pack(4)
    document = pack_of(line)
    line.ledger.close()
    assert document["performance"]["capacity"]["value"] is None
    assert "side by side" in document["performance"]["capacity"]["reason"]
    assert document["specification"]["nominal_capacity"]["value"] == 40
    assert document["spread"]["capacity"]["value"] == pytest.approx(0.3)


def test_packs_of_two_batches_of_one_name_are_two_packs(line):
    first, second = line.pack(tray="tray_1"), line.pack(tray="tray_2")
    packs = collect(line.ledger).packs
    assert [pack.pack_id for pack in packs] == ["ev-1-1-pack_1", "ev-1-2-pack_1"]
    assert [[cell.battery_id for cell in pack.cells] for pack in packs] == [first, second]


def test_a_pack_is_left_out_until_all_its_cells_lie_in_its_tray(line):
    ids = [line.good_cell() for _ in range(8)]
    line.group(dict.fromkeys(ids, "pack_1"))
    for cell in ids[:7]:
        line.dispose(cell, "tray_1")
    selection = collect(line.ledger)
    assert selection.packs == []
    assert selection.skipped == {"ev-1-1-pack_1": f"not in its tray yet: {ids[7]}", ids[7]: "still in the line"}
    line.dispose(ids[7], "tray_2")
    assert "different places" in collect(line.ledger).skipped["ev-1-1-pack_1"]


def test_a_pack_that_lost_a_cell_is_left_out(line):
    ids = [line.good_cell() for _ in range(8)]
    line.group(dict.fromkeys(ids, "pack_1"))
    for cell in ids:
        line.dispose(cell, "" if cell == ids[0] else "tray_1", "unaccounted" if cell == ids[0] else "grouped")
    selection = collect(line.ledger)
    assert selection.packs == []
    assert selection.skipped[ids[0]] == "unaccounted for"


def test_a_pack_of_the_wrong_size_is_left_out(line):
    line.pack(7)
    assert collect(line.ledger).skipped["ev-1-1-pack_1"] == "has 7 cells, and 8s takes 8"


def test_groups_by_clustering_are_no_packs(tmp_path):
    line = begin(tmp_path, recipe=["measuring.regroup.method=dbscan-gmm"])
    line.pack()
    selection = collect(line.ledger)
    document = cell_passport(selection.cells[0], SOURCES)
    line.ledger.close()
    assert (selection.packs, len(selection.cells)) == ([], 8)
    assert document["group"]["pack"] == {"value": None, "reason": "its group is no pack"}
    assert document["group"]["method"]["value"] == "dbscan-gmm"


def test_a_cell_left_over_says_why(line):
    cell = line.good_cell()
    line.group({}, {cell: "too few cells of grade A"})
    line.dispose(cell, "leftover", "leftover_too few cells of grade A")
    assert only_cell(line)["group"]["pack"]["reason"] == "too few cells of grade A"


# ---- which shifts ----


def test_one_shift_can_be_chosen(line):
    line.pack()
    line.begin_shift()
    line.dispose(line.good_cell(), "tray_3")
    assert len(collect(line.ledger).cells) == 9
    assert [len(collect(line.ledger, number).cells) for number in (1, 2)] == [8, 1]
    assert [len(collect(line.ledger, number).packs) for number in (1, 2)] == [1, 0]
    with pytest.raises(LedgerError, match="has no shift 3; its last shifts are 1, 2"):
        collect(line.ledger, 3)


def test_a_pack_brings_its_cells_of_an_earlier_shift(line):
    ids = [line.good_cell() for _ in range(8)]
    line.begin_shift()
    line.group(dict.fromkeys(ids, "pack_1"))
    for cell in ids:
        line.dispose(cell, "tray_1")
    chosen = collect(line.ledger, 2)
    assert [pack.pack_id for pack in chosen.packs] == ["ev-2-1-pack_1"]
    assert len(chosen.cells) == 8


@pytest.mark.parametrize("settings", [{"site": {"name": "sim", "plant": None}}, {}])
def test_batteries_of_a_belt_line_get_no_passport(tmp_path, settings):
    line = LineOnRecord.begin(tmp_path / "belt.sqlite", settings)
    line.dispose(line.arrive(), "bin_1", "sorted")
    if settings:
        with pytest.raises(LedgerError, match="EV line"):
            collect(line.ledger)
    else:
        assert collect(line.ledger).cells == []
    line.ledger.close()


# ---- simulated results ----


def test_a_shift_on_the_simulated_plant_shows(tmp_path):
    line = begin(tmp_path, site=())
    line.dispose(line.good_cell(), "tray_1")
    [cell] = collect(line.ledger).cells
    line.ledger.close()
    assert any("simulated plant" in reason for reason in cell.simulated_by())


@pytest.mark.parametrize("key", ["instrument", "capacity_instrument"])
def test_a_simulated_instrument_shows_whatever_the_site_says(line, key):
    cell = line.good_cell(**{key: "SIMULATED BT3562A"})
    line.measure(cell)  # measured again by a real one: the cell had been in a simulated tester all the same
    line.dispose(cell, "tray_1")
    [dossier] = collect(line.ledger).cells
    assert dossier.simulated_by() == ["it was measured by the simulated instrument 'SIMULATED BT3562A'"]


def test_instruments_of_the_plant_say_that_they_are_simulated():
    from battery_sorting.grading.passport._dossiers import NOT_REAL
    from battery_sorting.plant import cycler, meter

    for module in (meter, cycler):
        source = module.__loader__.get_source(module.__name__)
        [identity] = [row for row in source.splitlines() if '"*IDN"' in row]
        assert NOT_REAL.search(identity.partition('"*IDN"')[2])


def test_a_driver_of_the_plant_shows(tmp_path):
    line = begin(tmp_path, site=[*REAL, "measuring.tester.driver=battery_sorting.plant.instruments:Fake"])
    line.dispose(line.good_cell(), "tray_1")
    [cell] = collect(line.ledger).cells
    line.ledger.close()
    assert any("simulated driver" in reason for reason in cell.simulated_by())


def test_a_real_shift_shows_nothing_simulated(line):
    line.dispose(line.good_cell(), "tray_1")
    [cell] = collect(line.ledger).cells
    assert (cell.simulated_by(), cell.untraceable()) == ([], [])


def test_a_cell_that_was_once_in_a_simulated_shift_stays_simulated(tmp_path):
    line = begin(tmp_path, site=())
    cell = line.good_cell()
    line.begin_shift()
    line.measure(cell)
    line.grade(cell)
    line.dispose(cell, "tray_1")
    [dossier] = collect(line.ledger).cells
    line.ledger.close()
    assert any("shift 1 ran on the simulated plant" in reason for reason in dossier.simulated_by())


@pytest.mark.parametrize("settings", [{}, {"site": {"kind": "ev"}}])
def test_a_shift_without_its_configuration_is_not_shown_to_be_real(tmp_path, settings):
    line = LineOnRecord.begin(tmp_path / "bare.sqlite", settings)
    line.dispose(line.good_cell(), "tray_1")
    [cell] = collect(line.ledger).cells
    line.ledger.close()
    assert any("no configuration" in reason for reason in cell.untraceable())


def test_a_value_without_an_instrument_is_not_shown_to_be_real(line):
    line.dispose(line.good_cell(capacity_instrument=""), "tray_1")
    [cell] = collect(line.ledger).cells
    assert cell.untraceable() == ["no instrument is on record for capacity_ah"]


def test_a_draft_never_passes_for_a_passport(line):
    line.dispose(line.good_cell(), "tray_1")
    [dossier] = collect(line.ledger).cells
    draft = as_draft(cell_passport(dossier, SOURCES), ["shift 1 ran on the simulated plant"], True)
    of_cells = OF["cell"]
    check_form(draft, of_cells)
    assert (draft["status"], draft["simulated"]) == ("draft", True)
    for change in ({"status": "issued"}, {"simulated": False}, {"status": "issued", "simulated": False}):
        assert not of_cells.is_valid(draft | change)


# ---- the cell specification ----


def test_the_specification_on_record_goes_before_any_file(tmp_path):
    values = SPEC.model_dump(mode="json") | {"nominal_capacity_ah": 40.0}
    line = LineOnRecord.begin(tmp_path / "held.sqlite", config(cell=values))
    line.dispose(line.good_cell(), "tray_1")
    [shift] = line.ledger.shifts()
    held = specification_in(shift)
    document = only_cell(line, Sources({1: held}))
    line.ledger.close()
    assert document["performance"]["state_of_health"]["value"] == 0.475
    assert document["configuration"]["cell_specification_from"]["value"] == "configuration of the shift"


def test_a_shift_that_only_names_its_specification_holds_none(line):
    [shift] = line.ledger.shifts()
    assert specification_in(shift) is None


def test_a_specification_that_was_changed_since_is_not_used(line, tmp_path):
    line.dispose(line.good_cell(), "tray_1")
    changed = tmp_path / "changed.yaml"
    values = SPEC.model_dump(mode="json") | {"rho": 0.7}
    changed.write_text(json.dumps(values), encoding="utf-8")
    cells = collect(line.ledger).cells
    assert specification_from_file("lfp-20ah", cells).spec is not None
    found = specification_from_file(str(changed), cells)
    assert found.spec is None
    assert "was changed since: cell 0000abcd-00000001 was graded A" in found.problem
    document = only_cell(line, Sources({1: found}))
    assert document["performance"]["state_of_health"] == {
        "value": None,
        "unit": "1",
        "uncertainty": None,
        "reason": found.problem,
    }


def test_a_specification_that_is_gone_leaves_its_values_null(line):
    line.dispose(line.good_cell(), "tray_1")
    found = specification_from_file("no-such-cell", collect(line.ledger).cells)
    document = only_cell(line, Sources({1: found}))
    assert document["specification"]["chemistry"]["value"] is None
    assert "no-such-cell" in document["specification"]["chemistry"]["reason"]


# ---- schema and mapping ----


def test_a_record_that_makes_no_passport_is_refused_with_the_place(line):
    line.dispose(line.good_cell(calibrated_on="last spring"), "tray_1")
    with pytest.raises(PassportFormError, match=r"0000abcd-00000001.*resistance_instrument\.calibrated_on"):
        only_cell(line)


@pytest.mark.parametrize("kind", ["cell", "pack"])
def test_shipped_schema_is_one_itself(kind):
    OF[kind].check_schema(load_schema(kind))


@pytest.mark.parametrize("kind", ["cell", "pack"])
def test_schema_takes_no_field_that_it_does_not_name(line, kind):
    line.pack()
    document = pack_of(line) if kind == "pack" else cell_passport(collect(line.ledger).cells[0], SOURCES)
    with pytest.raises(PassportFormError):
        check_form(document | {"remark": "good as new"}, OF[kind])
    with pytest.raises(PassportFormError):
        check_form({key: value for key, value in document.items() if key != "configuration"}, OF[kind])


def test_schema_wants_a_reason_beside_every_null(line):
    line.dispose(line.good_cell(), "tray_1")
    document = only_cell(line)
    document["performance"]["capacity"]["value"] = None
    with pytest.raises(PassportFormError, match="capacity"):
        check_form(document, OF["cell"])


@pytest.mark.parametrize(
    ("value", "uncertainty", "reason", "fits"),
    [
        (1.0, 0.1, None, True),
        (1.0, None, "why", True),
        (None, None, "why", True),
        (1.0, 0.1, "why", False),
        (1.0, None, None, False),
        (1.0, None, "", False),
        (None, None, None, False),
        (None, None, "", False),
        (None, 0.1, "why", False),
        (1.0, -0.1, None, False),
        ("1", 0.1, None, False),
    ],
)
def test_a_number_has_a_limit_of_error_or_a_reason_and_not_both(line, value, uncertainty, reason, fits):
    line.dispose(line.good_cell(), "tray_1")
    document = only_cell(line)
    capacity = {"value": value, "unit": "Ah", "uncertainty": uncertainty, "reason": reason}
    assert OF["cell"].is_valid(document | {"performance": document["performance"] | {"capacity": capacity}}) == fits


def test_schema_holds_to_the_units(line):
    line.dispose(line.good_cell(), "tray_1")
    document = only_cell(line)
    document["performance"]["resistance"]["unit"] = "Ω"
    with pytest.raises(PassportFormError, match="resistance"):
        check_form(document, OF["cell"])


def test_every_field_is_mapped_or_says_why_not():
    ours = {f"{kind}.{path}" for kind in ("cell", "pack") for path in field_paths(load_schema(kind))}
    mapped = TABLE.mapped()
    assert ours - mapped == set(), "fields without a place in the table"
    assert mapped - ours == set(), "fields in the table that no schema has"


def test_every_field_has_one_place_in_the_table():
    mapping = TABLE
    fields = [name for entry in (*mapping.attributes, *mapping.not_asked_for) for name in entry.fields]
    assert sorted(fields) == sorted(set(fields))


def test_table_has_every_attribute_once_in_order():
    clauses = [tuple(map(int, entry.clause.split("."))) for entry in TABLE.attributes]
    assert clauses == sorted(set(clauses))
    assert len(clauses) == 93


def test_a_mapping_that_contradicts_itself_is_refused(tmp_path):
    path = tmp_path / "mapping.yaml"
    entry = {
        "clause": "6.7.2.3",
        "name": "Remaining capacity",
        "required": dict.fromkeys(("ev", "lmt", "industrial", "stationary"), "mandatory"),
        "coverage": "yes",
        "note": "x",
    }
    path.write_text(json.dumps({"sources": ["x"], "attributes": [entry], "not_asked_for": []}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="coverage"):
        load_mapping(path)


def test_units_and_clauses_of_what_we_tell_are_those_of_the_spec():
    told = {entry.name.strip(): entry for entry in TABLE.attributes if entry.coverage != "no"}
    assert (told["Remaining capacity"].clause, told["Remaining capacity"].unit) == ("6.7.2.3", "Ah")
    assert (told["Rated capacity"].clause, told["Rated capacity"].unit) == ("6.7.2.2", "Ah")
    assert (told["Capacity fade"].clause, told["Capacity fade"].unit) == ("6.7.2.4", "%")
    assert told["Remaining capacity"].required.stationary == "mandatory"
    assert told["Remaining capacity"].required.ev == "voluntary"


# ---- the documentation ----

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "passport.md"


def row_of(entry):
    """Row of an attribute in the tables of docs/reference/passport.md."""
    demands = [{"mandatory": "m", "voluntary": "v", "none": "–"}[demand] for _, demand in entry.required]
    ours = ["<br>".join(f"`{name}`" for name in entry.fields)] if entry.fields else []
    columns = [entry.clause, entry.name, entry.unit, entry.regulation, *demands, *ours, entry.note]
    return f"| {' | '.join(columns)} |"


def test_documentation_shows_the_table_as_it_is():
    text = DOCS.read_text(encoding="utf-8")
    assert [entry.clause for entry in TABLE.attributes if row_of(entry) not in text] == []


def test_documentation_names_what_no_attribute_asks_for():
    text = DOCS.read_text(encoding="utf-8")
    missing = [name for entry in TABLE.not_asked_for for name in entry.fields if f"`{name}`" not in text]
    assert missing == []
