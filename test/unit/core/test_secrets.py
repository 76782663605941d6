"""Passwords: one place turns an address into text; nothing of a cell prints, records or leaves one to others."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from battery_sorting.belt.site import BeltSite
from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import BatterySortingError, ConfigurationError, LedgerError
from battery_sorting.core.private_files import write_private
from battery_sorting.core.secrets import (
    LEDGER_VARIABLE,
    LedgerUrl,
    settings_without_passwords,
    without_passwords,
)
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.plan import PlanOptions, load_site_and_recipe, make_plan
from battery_sorting.runtime.preflight import load_cell

SECRET = "hunter2"


# issue 15, B7
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://user:p@ss:word@host/db", "postgresql+psycopg://user:***@host/db"),
        ("postgresql://u:p%40ss@h:5432/d?sslmode=off", "postgresql://u:***@h:5432/d?sslmode=off"),
        ("postgres://u@h/d?password=hunter2&x=1", "postgres://u@h/d?password=***&x=1"),
        ("postgresql://h/d?pass%77ord=hunter2", "postgresql://h/d?pass%77ord=***"),
        ("postgresql://h/d?sslpassword=hunter2;x=1", "postgresql://h/d?sslpassword=***;x=1"),
        ("postgresql://u:hun/ter?2#@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:12345@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:hunter2@h/d", "postgresql://:***@h/d"),
        ("at postgresql://u:my hunter2 word@h/d now", "at postgresql://u:***@h/d now"),
        ("cut off: postgresql://user:hunte...", "cut off: postgresql://user:***"),
        ("postgresql:/u:hunter2@h/d", "postgresql:/u:***@h/d"),
        ("postgres:u:hunter2@h/d", "postgres:u:***@h/d"),
        ("a://b:c@d and e://f:g@h", "a://b:***@d and e://f:***@h"),
        ("{'url': 'postgresql://u:hunter2@h/d'}", "{'url': 'postgresql://u:***@h/d'}"),
        ("{'password': 'hunter2', 'port': 1}", "{'password': '***', 'port': 1}"),
        ('{"db_passwd": "hun\\"ter2"}', '{"db_passwd": "***"}'),
        ("host=h password=hunter2 dbname=d", "host=h password=*** dbname=d"),
        ("host=h password='hunter2 word' dbname=d", "host=h password='***' dbname=d"),
        ("rtsp://admin:hunter2@10.0.0.7/stream", "rtsp://admin:***@10.0.0.7/stream"),
    ],
)
def test_every_form_of_a_password_in_a_text_is_hidden(text, shown):
    assert without_passwords(text) == shown
    assert without_passwords(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "connection to server at 127.0.0.1, port 5432 failed: Connection refused",
        "http://127.0.0.1:8080/x, http://[::1]:80/ and tcp://10.0.0.1:502: refused",
        "sqlite:////home/me/ledger.sqlite, /etc/passwd: is not a ledger, C:/x",
        "package.module:Class, 12:30:05, token 5: late, user@host",
        "password authentication failed for user 'line'",
        "postgresql://user@host:5432/db",
        "",
    ],
)
def test_what_is_no_password_stays_as_it_is(text):
    assert without_passwords(text) == text


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=30))
def test_no_password_of_whatever_characters_is_shown(password):
    # What goes into an address and comes back as text: neither the password nor what stands for it.
    secret = f"QZ{password}ZQ"
    for written in (secret, quote(secret, safe="")):
        for text in (
            f"postgresql://user:{written}@host/db",
            f"x postgresql://h/d?password={quote(secret, safe='')} y",
        ):
            shown = str(LedgerUrl(text))
            assert "QZ" not in shown and "ZQ" not in shown


def test_a_long_text_is_cleaned_in_bounded_time():
    begin = os.times().user
    for text in ("a" * 200_000 + "://", "://" + "a:" * 100_000, "x://" * 20_000, "password" * 30_000 + "="):
        without_passwords(text)
    assert os.times().user - begin < 10


@pytest.mark.parametrize(
    "override",
    [
        "ledger.url=postgresql://u:hunter2@h/d?x=[",
        "ledger=postgresql://u:hunter2@h/d",
        "ledger.url={a: 'postgresql://u:hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2@h/d'}",
        "ledger.uri=postgresql://u:hunter2@h/d",
        "ledger.password=hunter2",
        "ledger.url=postgresql:/u:hunter2@h/d",
        "ledger.url=postgres:u:hunter2@h/d",
        "'ledger.url=host=h password=hunter2'",
        "ledgers[0].url=postgresql://u:hunter2@h/d",
        "ledger.url=[postgresql://u:hunter2@h/d",
        "camera.settings.password=hunter2",
    ],
)
def test_a_wrong_setting_is_named_without_the_password_in_it(override):
    try:
        cell = load_cell("sim", None, (override,))
    except ConfigurationError as error:
        assert SECRET not in str(error) and SECRET not in repr(str(error))
    else:
        assert "can read the password on the command line (ps)" in "".join(cell.warnings)
        assert SECRET not in repr(cell)


def test_the_run_folder_holds_no_password_and_its_settings_are_its_owners_alone(tmp_path):
    # issue 15, C11
    site, recipe = load_site_and_recipe("sim", None, ("ledger.url=postgresql://u:hunter2@h/d",))
    (tmp_path / "site.json").write_text("of an earlier version")
    (tmp_path / "site.json").chmod(0o644)
    plan = make_plan(site, recipe, PlanOptions(tmp_path))
    plan.write_run_files()
    for name in ("site.json", "recipe.json", "plant.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET in path.read_text()]
    assert SECRET not in repr(plan) + repr(site) + str(site.ledger) + site.model_dump_json() + str(
        site.model_dump()
    )
    words = [word for spec in plan.nodes for word in spec.command_line()]
    assert not [word for word in words if SECRET in word]


def test_the_processes_of_a_cell_get_the_password_by_their_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(LEDGER_VARIABLE, raising=False)
    url = "postgresql://u:hunter2@h/d"
    site, recipe = load_site_and_recipe("sim", None, (f"ledger.url={url}",))
    plan = make_plan(site, recipe, PlanOptions(tmp_path))
    plan.write_run_files()
    assert plan.environment[LEDGER_VARIABLE] == url
    in_a_node = BeltSite.load_resolved(tmp_path / "site.json")
    with pytest.raises(LedgerError, match="its password stands in no file"):
        Ledger.open(ledger_location(in_a_node, tmp_path))
    monkeypatch.setenv(LEDGER_VARIABLE, url)
    assert ledger_location(in_a_node, tmp_path).reveal() == url
    without, recipe = load_site_and_recipe("sim")
    assert LEDGER_VARIABLE not in make_plan(without, recipe, PlanOptions(tmp_path)).environment


def test_a_private_file_is_private_from_its_first_byte(tmp_path, monkeypatch):
    seen = []
    real = os.fdopen
    monkeypatch.setattr(
        "battery_sorting.core.private_files.os.fdopen",
        lambda descriptor, *rest, **more: (
            seen.append(os.fstat(descriptor).st_mode & 0o777) or real(descriptor, *rest, **more)
        ),
    )
    before = os.umask(0)
    try:
        write_private(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert seen == [0o600] and (tmp_path / "file").read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_recorded_of_a_site_has_no_password_of_a_device_either():
    recorded = settings_without_passwords(
        {
            "camera": {"settings": {"password": SECRET, "url": f"rtsp://a:{SECRET}@h", "port": 5}},
            "x": [f"a://b:{SECRET}@c"],
        }
    )
    assert SECRET not in json.dumps(recorded)
    assert recorded["camera"]["settings"]["port"] == 5


def test_every_error_of_the_package_hides_what_is_quoted_in_it():
    for error in (BatterySortingError, LedgerError):
        assert SECRET not in str(error(f"x postgresql://u:{SECRET}@h/d"))
    problem = ConfigurationError(f"postgresql://u:{SECRET}@h", [f"password={SECRET}"])
    assert SECRET not in str(problem)


def test_a_ledgers_address_never_shows_its_password_whatever_is_done_to_it():
    url = LedgerUrl(f"postgresql://u:{SECRET}@h/d")
    for text in (str(url), repr(url), f"{url}", f"{url!r}", f"{[url]}", "%s" % url):  # noqa: UP031
        assert SECRET not in text
    assert pickle.loads(pickle.dumps(url)) == url and url.reveal().count(SECRET) == 1


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:hunter2@127.0.0.1:99999/d", "the port is no number from 1 to 65535"),
        ("postgresql://u:hunter2@127.0.0.1:http/d", "the port is no number from 1 to 65535"),
        ("postgresql://u:hunter2/x@127.0.0.1/d", "must be written %2F"),
        ("postgresql://u:hunter2?x@127.0.0.1/d", "must be written %2F"),
        ("nosuchdb://u:hunter2@h/d", "no URL of a database that is supported"),
        ("mysql://u:hunter2@h/d", "no URL of a database that is supported"),
        ("postgresql+nodriver://u:hunter2@h/d", "no driver of this name"),
        ("postgresql://u:hunter2@127.0.0.1:1/d", "start the database server"),
    ],
)
def test_a_wrong_address_is_refused_with_key_and_remedy_and_without_its_password(url, problem):
    answer = CliRunner().invoke(make_app("check"), ["check", "--site", "sim", "--set", f"ledger.url='{url}'"])
    assert isinstance(answer.exception, BatterySortingError)
    assert "ledger.url" in str(answer.exception) and problem in str(answer.exception)
    with pytest.raises(LedgerError, match=problem) as error:
        Ledger.open(url)
    assert SECRET not in str(error.value) + str(answer.exception) + answer.output


def test_check_tries_a_ledger_in_a_file_and_changes_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite"

    def check():
        return CliRunner().invoke(make_app("check"), ["check", "--site", "sim", "--set", f"ledger.url={path}"])

    assert "is made at the start" in check().output and not path.exists()
    with Ledger.open(path) as ledger:
        ledger.begin_shift("belt", "sim", 1000.0)
    before = path.read_bytes()
    answer = check()
    assert "can be read and written" in answer.output and answer.exit_code == 0
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]
    for content in (b"", b"time,voltage\n", before[:3000], before[:16] + bytes(9000)):
        path.write_bytes(content)
        answer = check()
        assert isinstance(answer.exception, (ConfigurationError, type(None)))
        assert content == b"" or "ledger.url" in str(answer.exception)
        assert path.read_bytes() == content


def test_the_command_line_that_is_seen_in_the_list_of_processes_is_warned_of_and_shown_nowhere_else(tmp_path):
    words = ["--debug", "check", "--site", "sim", "--set", f"ledger.url=postgresql://u:{SECRET}@127.0.0.1:1/d"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "battery_sorting.cli.main", *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and "Traceback" in done.stderr  # --debug shows where it arose
    assert SECRET not in done.stdout + done.stderr
