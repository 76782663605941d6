"""Issue 15, B8 and C11: names are names, and no file from outside holds its reader up."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.tiny_model import write_model
from typer.testing import CliRunner

from battery_sorting.belt.site import BeltSite
from battery_sorting.cli.models import app
from battery_sorting.core.active_model import versions
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.names import file_stem, is_name, name_problem
from battery_sorting.core.settings import find_config, find_shared, read_document
from battery_sorting.vision.arrays import read_arrays
from battery_sorting.vision.card import read_card
from battery_sorting.vision.classifier import load_model
from battery_sorting.vision.model_store import checked_card, stored_models

NO_NAMES = [
    "",
    ".",
    "..",
    "../../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x1b[31m",
    "a:b",
    "ends.",
    "ends ",
    " begins",
    ".hidden",
    "_unsure",
    "-",
    "x" * 5000,
    "電" * 90,
    "a\u202eb",
    "\ud800",
]
NAMES = [
    "AA",
    "Energizer Max",
    "GP-Greencell",
    "Bleiakku 12 V",
    "Größe_D",
    "電池",
    "1",
    "1-int8",
    "v1.2",
    "(old)",
    "R6+",
]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_leads_elsewhere_or_can_t_be_a_file_is_no_name(text):
    assert name_problem(text)
    assert is_name(file_stem(text)), "and its file gets a name of its own"


@pytest.mark.parametrize("text", NAMES)
def test_names_in_any_script_are_names(text):
    assert name_problem(text) == ""
    assert file_stem(text) == text


def test_two_texts_that_are_no_names_get_two_files():
    stems = {file_stem(text) for text in NO_NAMES}
    assert len(stems) == len(NO_NAMES)


# ---- cards ----


def change_card(folder: Path, **changes) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


@pytest.mark.parametrize("text", NO_NAMES)
@pytest.mark.parametrize("key", ["name", "version", "labels", "files"])
def test_card_with_what_is_no_name_is_refused(tmp_path, key, text):
    folder = write_model(tmp_path / "tiny" / "1")
    value = {"labels": ["Red", "Green", text], "files": {text: "0" * 64}}.get(key, text)
    change_card(folder, **{key: value})
    with pytest.raises(ModelError, match=key):
        read_card(folder)


@pytest.mark.parametrize("twin", ["RED", "Red", "Other", "others"])
def test_labels_that_are_one_folder_are_refused(tmp_path, twin):
    folder = write_model(tmp_path / "tiny" / "1")
    change_card(folder, labels=["Red", "Green", twin])
    with pytest.raises(ModelError, match="labels"):
        read_card(folder)


def test_file_of_a_card_that_leads_out_of_its_folder_is_refused(tmp_path):
    folder = write_model(tmp_path / "tiny" / "1")
    outside = tmp_path / "secret"
    outside.write_bytes((folder / "model.onnx").read_bytes())
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(outside)
    with pytest.raises(ModelError, match=r"model\.onnx.*leads out of the model's folder"):
        load_model(folder)


def test_links_to_a_model_or_to_each_file_of_it_are_followed(tmp_path):
    folder = write_model(tmp_path / "tiny" / "1")
    (tmp_path / "link").symlink_to(folder)
    assert load_model(tmp_path / "link").name == "tiny/1"
    installed = tmp_path / "install" / "tiny" / "1"  # as colcon build --symlink-install does it
    installed.mkdir(parents=True)
    for file in folder.iterdir():
        (installed / file.name).symlink_to(file)
    assert load_model(installed).name == "tiny/1"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["card.json", "model.onnx", "further.npz"])
@pytest.mark.parametrize("what", ["pipe", "device", "circle", "folder", "huge"])
def test_what_is_no_plain_file_is_named_and_holds_nobody_up(tmp_path, name, what):
    folder = write_model(tmp_path / "tiny" / "1", files={"further.npz": "0" * 64})
    path = folder / name
    path.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "circle":
        path.symlink_to(path)
    elif what == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(3 << 30)  # takes no room on disk
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        checked_card(folder)
    without_card = name == "card.json" and what != "huge"
    assert CliRunner().invoke(app, ["list", str(tmp_path)]).exit_code == (1 if without_card else 0)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"kind": "defects", "metrics": ' + DEEP + "}",
        '{"metrics": ' + '{"a":' * 60 + "1" + "}" * 60 + "}",
        '{"threshold": NaN}',
        '{"metrics": {"a": Infinity}}',
        '{"metrics": {"a": 1e999}}',
        '{"metrics": {"a": ' + "9" * 5000 + "}}",
        "[]",
        "",
        "null",
        '"kind"',
    ],
)
def test_odd_card_is_a_problem_of_its_model_alone(tmp_path, text):
    good = write_model(tmp_path / "tiny" / "1")
    odd = write_model(tmp_path / "tiny" / "2", version="2")
    (odd / "card.json").write_text(text)
    listed = {model.name: model for model in stored_models(tmp_path)}
    assert "card.json" in listed["tiny/2"].problem
    with pytest.raises(ModelError, match=r"card\.json"):
        load_model(odd)
    result = CliRunner().invoke(app, ["list", str(tmp_path), "--json"])
    assert result.exit_code == 0
    assert len(json.loads(result.output, parse_constant=pytest.fail)) == 2
    assert load_model(good).name == "tiny/1"


def test_card_may_begin_with_a_byte_order_mark_but_is_in_utf8(tmp_path):
    folder = write_model(tmp_path / "tiny" / "1")
    text = (folder / "card.json").read_text()
    (folder / "card.json").write_text(text, encoding="utf-8-sig")
    assert read_card(folder).name == "tiny"
    for encoding in ("utf-16", "utf-32"):
        (folder / "card.json").write_text(text, encoding=encoding)
        with pytest.raises(ModelError, match=r"card\.json: is no text in UTF-8"):
            read_card(folder)


def test_what_a_card_says_is_shown_and_neither_obeyed_nor_stumbled_over(tmp_path):
    folder = write_model(tmp_path / "tiny" / "1")
    change_card(folder, data={"trained": "[/red]\x1b[2J"}, metrics={"[/bold]\x1b]0;x": 0.5})
    for command in (["list", str(tmp_path)], ["compare", str(folder), str(folder)]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.exception
        assert "[/" in result.output
        assert "\x1b" not in result.output


def test_model_that_is_being_written_is_no_version(tmp_path):
    write_model(tmp_path / "tiny" / "1")
    write_model(tmp_path / "tiny" / ".2.unfinished")
    write_model(tmp_path / "tiny" / "²", version="²")
    assert versions(tmp_path / "tiny") == ["²", "1"]


@pytest.mark.timeout(60)
def test_active_file_that_never_ends_is_named(tmp_path):
    write_model(tmp_path / "tiny" / "1")
    os.mkfifo(tmp_path / "tiny" / "active")
    (model,) = stored_models(tmp_path)
    assert "active: can't be read" in model.problem
    result = CliRunner().invoke(app, ["activate", str(tmp_path / "tiny" / "1"), "--offline"])
    assert isinstance(result.exception, ModelError)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "models/" + "y" * 300])
def test_name_that_no_file_can_have_is_not_found_and_no_crash(name):
    assert find_shared(name) is None
    with pytest.raises(ConfigurationError):
        find_config("sites", name)


# ---- arrays ----


def test_archive_that_claims_more_than_there_may_be_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(1 << 20))
    monkeypatch.setattr("battery_sorting.vision.arrays.LARGEST", 1 << 20)
    with pytest.raises(ValueError, match="unpacks to 8 MB"):
        read_arrays(tmp_path / "bomb.npz")


def test_array_that_claims_a_shape_beyond_all_memory_is_refused(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("a.npy", head.getvalue() + b"\0" * 64)
    with pytest.raises(ValueError, match=r"damaged|data"):
        read_arrays(tmp_path / "lie.npz")


# ---- settings ----

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "more than 50000 values"),
        (MERGES, "more than 50000 values"),
        ("plant:\n" + "".join(f"  {line}\n" for line in LAUGHS.splitlines()), "more than 50000 values"),
        ("plant: &x {a: *x}\n", "an alias stands within"),
        ("a: " + "[" * 60 + "]" * 60, "deep"),
        ("a: " + "[" * 50_000 + "]" * 50_000, "deep"),
        ("{a: " * 20_000, "deep|not valid"),
        ("a: " + "x" * (2 << 20), "larger than the 1 MB"),
    ],
)
def test_settings_file_without_end_is_refused_at_once(tmp_path, text, expected):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigurationError, match=expected):
        BeltSite.load(str(path))
    assert time.process_time() - began < 10


@pytest.mark.timeout(30)
def test_settings_file_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "site.yaml")
    with pytest.raises(ConfigurationError, match="is a pipe and no plain file"):
        BeltSite.load(str(tmp_path / "site.yaml"))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("value", ["&x {a: *x}", "[" * 3000, LAUGHS, "2026-13-45"])
def test_override_without_end_is_refused(value):
    with pytest.raises(ConfigurationError, match="--set plant="):
        BeltSite.load("sim", [f"plant={value}"])


def test_aliases_and_merges_of_an_honest_file_are_read(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("base: &b {x: 1}\nlist: [*b, *b]\nmore: {<<: *b, y: 2}\n", encoding="utf-8-sig")
    document = read_document(path)
    assert document.data["more"] == {"x": 1, "y": 2}
    assert document.problems == []
