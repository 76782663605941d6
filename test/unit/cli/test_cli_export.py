"""The command battery-sorting export passport: what it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json

import pytest
from support.measured_ledger import REAL, LineOnRecord, config
from typer.testing import CliRunner

from battery_sorting.cli import export
from battery_sorting.cli.export import NotIssuedError, app
from battery_sorting.core.errors import BatterySortingError, ConfigurationError, LedgerError
from battery_sorting.grading.passport import PassportFormError, validator
from battery_sorting.ledger.events import Detected, ModelChanged


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A pack of eight cells, a rejected one, and one that is still in the line."""
    path = tmp_path_factory.mktemp("real") / "ledger.sqlite"
    line = LineOnRecord.begin(path)
    line.pack()
    rejected = line.arrive()
    line.look(rejected, "lug", verdict="defective", kind="broken", reason="broken")
    line.dispose(rejected, "reject", "broken")
    line.arrive()
    line.ledger.close()
    return path


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "ledger.sqlite"
    line = LineOnRecord.begin(path, config(site=()))
    line.pack(8)
    line.ledger.close()
    return path


def run(*arguments):
    result = CliRunner().invoke(app, ["passport", *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_writes_a_file_for_each_cell_and_pack(ledger, tmp_path):
    out = tmp_path / "out"
    said = json.loads(run(ledger, "--output", out, "--json").stdout)
    assert (len(said["cells"]), said["packs"], said["status"]) == (9, ["packs/ev-1-1-pack_1.json"], "issued")
    assert said["skipped"] == {"0000abcd-00000010": "still in the line"}
    assert files(out) == sorted([*said["cells"], *said["packs"]])
    of_cells, of_packs = validator("cell"), validator("pack")
    assert all(of_cells.is_valid(read(out / name)) for name in said["cells"])
    assert of_packs.is_valid(read(out / "packs/ev-1-1-pack_1.json"))


def test_pack_names_the_files_of_its_cells_with_their_sums(ledger, tmp_path):
    run(ledger, "--output", tmp_path / "out")
    pack = read(tmp_path / "out/packs/ev-1-1-pack_1.json")
    for cell in pack["cells"]:
        content = (tmp_path / "out/cells" / cell["passport"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == cell["passport_sha256"]


def test_the_same_ledger_gives_the_same_files(ledger, tmp_path):
    for name in ("a", "b"):
        run(ledger, "--output", tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_one_cell_alone(ledger, tmp_path):
    run(ledger, "--output", tmp_path / "out", "--id", "0000abcd-00000003")
    assert files(tmp_path / "out") == ["cells/0000abcd-00000003.json"]
    document = read(tmp_path / "out/cells/0000abcd-00000003.json")
    assert document["group"]["pack"]["value"] == "ev-1-1-pack_1"


def test_one_pack_comes_with_its_cells(ledger, tmp_path):
    run(ledger, "--output", tmp_path / "out", "--pack", "ev-1-1-pack_1")
    assert len(files(tmp_path / "out")) == 9


def test_human_output_counts_what_was_left_out(ledger, tmp_path):
    said = run(ledger, "--output", tmp_path / "out").stdout
    assert "passports of 9 cells and 1 packs" in said
    assert "still in the line" in said


def test_what_there_is_no_passport_of_is_named_with_the_reason(ledger, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(LedgerError, match="0000abcd-00000010 gets no passport: still in the line"):
        run(ledger, "--output", out, "--id", "0000abcd-00000010")
    with pytest.raises(LedgerError, match="there is no nobody; there are 9, such as 0000abcd-00000001"):
        run(ledger, "--output", out, "--id", "nobody")
    with pytest.raises(LedgerError, match="did you mean 'ev-1-1-pack_1'"):
        run(ledger, "--output", out, "--pack", "ev-1-1-pack_2")
    with pytest.raises(ConfigurationError, match="one of the two"):
        run(ledger, "--output", out, "--id", "a", "--pack", "b")
    assert not out.exists()


def test_a_ledger_without_cells_is_refused(tmp_path):
    path = tmp_path / "empty.sqlite"
    LineOnRecord.begin(path).ledger.close()
    with pytest.raises(LedgerError, match="no cell to write a passport of: none came in"):
        run(path, "--output", tmp_path / "out")


def test_no_ledger_no_passport(tmp_path):
    with pytest.raises(LedgerError, match="no such ledger"):
        run(tmp_path / "missing.sqlite", "--output", tmp_path / "out")
    assert not (tmp_path / "missing.sqlite").exists()


# ---- files that are there ----


def test_nothing_is_overwritten_unless_it_is_asked_for(ledger, tmp_path):
    out = tmp_path / "out"
    run(ledger, "--output", out, "--id", "0000abcd-00000001")
    mine = out / "cells/0000abcd-00000001.json"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="--force"):
        run(ledger, "--output", out)
    assert (mine.read_text(encoding="utf-8"), files(out)) == ("mine", ["cells/0000abcd-00000001.json"])
    run(ledger, "--output", out, "--force")
    assert read(mine)["status"] == "issued"


def test_an_output_that_is_a_file_is_refused(ledger, tmp_path):
    (tmp_path / "out").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="name another folder"):
        run(ledger, "--output", tmp_path / "out")


def test_a_record_that_makes_no_passport_leaves_nothing_behind(tmp_path):
    path, out = tmp_path / "bad.sqlite", tmp_path / "out"
    line = LineOnRecord.begin(path)
    line.dispose(line.good_cell(), "tray_1")
    line.dispose(line.good_cell(calibrated_on="last spring"), "tray_1")
    line.ledger.close()
    with pytest.raises(PassportFormError, match="0000abcd-00000002"):
        run(path, "--output", out)
    assert list(out.iterdir()) == []


def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path):
    path, out = tmp_path / "evil.sqlite", tmp_path / "out"
    line = LineOnRecord.begin(path)
    line.record(Detected(trigger_count=1, encoder_count=0), "../../evil")
    line.dispose("../../evil", "tray_1")
    line.ledger.close()
    with pytest.raises(LedgerError, match="can't be the name of a file"):
        run(path, "--output", out)
    assert not (tmp_path / "evil.json").exists()


# ---- simulated results ----


def test_simulated_results_are_refused_with_reason_and_remedy(simulated, tmp_path):
    with pytest.raises(NotIssuedError) as error:
        run(simulated, "--output", tmp_path / "out")
    text = str(error.value)
    assert "8 of 8 cells came from simulated devices" in text
    assert "shift 1 ran on the simulated plant (site 'sim_ev', key plant): 8 of them" in text
    assert "--draft" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--force"], ["--id", "0000abcd-00000001"], ["--pack", "ev-1-1-pack_1"]])
def test_no_option_issues_simulated_results(simulated, tmp_path, option):
    with pytest.raises(NotIssuedError):
        run(simulated, "--output", tmp_path / "out", *option)
    assert not (tmp_path / "out").exists()


def test_one_simulated_cell_keeps_all_from_being_issued(tmp_path):
    path = tmp_path / "mixed.sqlite"
    line = LineOnRecord.begin(path)
    real = line.good_cell()
    line.dispose(real, "tray_1")
    line.dispose(line.good_cell(instrument="SIMULATED BT3562A"), "tray_1")
    line.ledger.close()
    with pytest.raises(NotIssuedError, match="1 of 2 cells"):
        run(path, "--output", tmp_path / "out")
    run(path, "--output", tmp_path / "out", "--id", real)
    assert files(tmp_path / "out") == [f"cells/{real}.json"]


def test_a_pack_with_a_simulated_cell_is_not_issued(tmp_path):
    path = tmp_path / "pack.sqlite"
    line = LineOnRecord.begin(path, config(site=REAL, recipe=["measuring.regroup.layout=2s"]))
    ids = [line.good_cell(), line.good_cell(capacity_instrument="Simulated, CYCLER-8")]
    line.group(dict.fromkeys(ids, "pack_1"))
    for cell in ids:
        line.dispose(cell, "tray_1")
    line.ledger.close()
    with pytest.raises(NotIssuedError, match="simulated instrument"):
        run(path, "--output", tmp_path / "out", "--pack", "ev-1-1-pack_1")


def test_results_of_unknown_origin_are_refused(tmp_path):
    path = tmp_path / "bare.sqlite"
    line = LineOnRecord.begin(path, {})
    line.dispose(line.good_cell(), "tray_1")
    line.ledger.close()
    with pytest.raises(NotIssuedError, match="can't be shown to come from real devices"):
        run(path, "--output", tmp_path / "out")


def test_drafts_say_that_they_are_and_pass_no_schema(simulated, tmp_path):
    out = tmp_path / "out"
    said = json.loads(run(simulated, "--output", out, "--draft", "--json").stdout)
    assert said["status"] == "draft"
    assert all(name.endswith(".draft.json") for name in files(out))
    of_kind = {"cells": validator("cell"), "packs": validator("pack")}
    for name in files(out):
        document = read(out / name)
        assert (document["status"], document["simulated"]) == ("draft", True)
        assert document["draft_because"] == ["shift 1 ran on the simulated plant (site 'sim_ev', key plant)"]
        assert not of_kind[name.partition("/")[0]].is_valid(document)
        without = {key: value for key, value in document.items() if key != "draft_because"}
        assert not of_kind[name.partition("/")[0]].is_valid(without | {"simulated": False})


def test_a_draft_of_real_results_is_not_called_simulated(ledger, tmp_path):
    run(ledger, "--output", tmp_path / "out", "--draft", "--id", "0000abcd-00000001")
    document = read(tmp_path / "out/cells/0000abcd-00000001.draft.json")
    assert (document["simulated"], document["draft_because"]) == (False, ["a draft was asked for"])


def test_drafts_and_passports_don_t_overwrite_each_other(ledger, tmp_path):
    out = tmp_path / "out"
    for more in ([], ["--draft"]):
        run(ledger, "--output", out, "--id", "0000abcd-00000001", *more)
    assert files(out) == ["cells/0000abcd-00000001.draft.json", "cells/0000abcd-00000001.json"]


# ---- what the ledger doesn't hold ----


def test_where_the_specification_was_read_is_told(ledger, tmp_path):
    run(ledger, "--output", tmp_path / "out", "--id", "0000abcd-00000001")
    said = read(tmp_path / "out/cells/0000abcd-00000001.json")["configuration"]
    assert said["cell_specification_from"]["value"] == "file 'lfp-20ah', read at the export"


def test_a_specification_that_is_not_that_of_the_grades_is_refused(ledger, tmp_path):
    with pytest.raises(ConfigurationError, match="was changed since"):
        run(ledger, "--output", tmp_path / "out", "--spec", "lfp-35ah")


def test_a_specification_changed_since_leaves_nulls_and_a_note(tmp_path):
    path = tmp_path / "old.sqlite"
    line = LineOnRecord.begin(path)
    cell = line.arrive()
    line.measure(cell)
    line.grade(cell, relation_degree=0.5, grade="C")  # as another specification would have graded it
    line.dispose(cell, "tray_1")
    line.ledger.close()
    said = run(path, "--output", tmp_path / "out").stdout
    document = read(tmp_path / f"out/cells/{cell}.json")
    assert "note: the cell specification 'lfp-20ah' was changed since" in said
    assert document["performance"]["state_of_health"]["value"] is None
    assert document["performance"]["capacity"]["value"] == 19


def test_sum_of_a_model_comes_from_the_ledger_where_it_has_it(tmp_path):
    path = tmp_path / "models.sqlite"
    line = LineOnRecord.begin(path)
    with line.ledger.transaction() as transaction:
        transaction.record(ModelChanged(model="lug/1", sha256="c" * 64), None, line.now)
    line.dispose(line.good_cell(), "tray_1")
    line.ledger.close()
    run(path, "--output", tmp_path / "out")
    lug = read(tmp_path / "out/cells/0000abcd-00000001.json")["appearance"]["lug"]
    assert (lug["model_sha256"]["value"], lug["model_sha256_from"]["value"]) == ("c" * 64, "ledger")


def test_sum_of_a_model_of_another_name_is_not_taken(ledger, tmp_path, monkeypatch):
    card = type("Card", (), {"name": "lug", "version": "2", "sha256": "d" * 64})
    monkeypatch.setattr("battery_sorting.core.active_model.find_model", lambda _: tmp_path)
    monkeypatch.setattr("battery_sorting.vision.defect_card.read_defect_card", lambda _: card)
    assert export._sum_in("models/lug/1", "lug/1") == ""
    assert export._sum_in("models/lug/1", "lug/2") == "d" * 64


def test_command_is_known():
    from battery_sorting.cli.main import make_app

    result = CliRunner().invoke(make_app("export"), ["export", "passport", "--help"])
    assert result.exit_code == 0
    assert "--draft" in result.stdout


def test_errors_have_codes_of_their_own():
    assert issubclass(NotIssuedError, BatterySortingError)
    assert len({NotIssuedError.code, PassportFormError.code, BatterySortingError.code}) == 3


# issue 15, C11
def test_a_code_on_two_cells_is_remarked(tmp_path):
    line = LineOnRecord.begin(tmp_path / "ledger.sqlite")
    for battery_id in line.pack()[:2]:
        for view in ("lug", "case"):
            line.look(battery_id, view, code="LFP-TWIN")
    line.ledger.close()
    said = json.loads(run(tmp_path / "ledger.sqlite", "--output", tmp_path / "out", "--json").stdout)
    [note] = [note for note in said["notes"] if "LFP-TWIN" in note]
    assert "was read on 2 cells" in note and "0000abcd-00000001" in note and "0000abcd-00000002" in note
    text = run(tmp_path / "ledger.sqlite", "--output", tmp_path / "again").output
    assert "LFP-TWIN was read on 2 cells" in text
