"""A ledger on a PostgreSQL server: it works as one in a file does, and its password is shown nowhere."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from support.postgres import PASSWORD, running_server
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import BatterySortingError, LedgerError
from battery_sorting.core.secrets import LEDGER_VARIABLE, LedgerUrl
from battery_sorting.ledger._engine import Access, open_engine
from battery_sorting.ledger.events import Detected, Disposed, Typed
from battery_sorting.ledger.store import Ledger, probe

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: requirements/test.txt")


@pytest.fixture(scope="module")
def port():
    with running_server() as port:
        yield port


@pytest.fixture
def address(port):
    """Of an empty database of this test."""
    with psycopg.connect(host="127.0.0.1", port=port, user="line", password=PASSWORD, dbname="postgres") as server:
        server.autocommit = True
        server.execute("DROP DATABASE IF EXISTS ledger")
        server.execute("CREATE DATABASE ledger")
    return f"postgresql://line:{quote(PASSWORD)}@127.0.0.1:{port}/ledger"


def url(port, login=f"line:{PASSWORD}", database="ledger", more=""):
    return f"postgresql+psycopg://{login}@127.0.0.1:{port}/{database}{more}"


def secret_free(text):
    return not any(part in text for part in (PASSWORD, quote(PASSWORD), "hunter", "2:x", "wrong-one"))


# issue 15, B7
@pytest.mark.parametrize("form", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_ledger_on_a_server_is_written_and_read_by_any_form_of_its_url(address, port, form):
    location = address.replace("postgresql", form) if form != "postgresql+psycopg" else url(port)
    with Ledger.open(location) as ledger:
        ledger.begin_shift("belt", "sim", 1000.0, config={"recipe": {"routes": {"aa": "one"}}})
        with ledger.transaction() as tx:
            tx.record(Detected(trigger_count=1, encoder_count=2**32 - 1, gate_seen=True), "a-1", 1001.0)
            tx.record(Typed(label="aa", confidence=0.9, scores={"aa": float("nan"), "bb": 0.1}), "a-1", 1001.0)
            tx.record(Disposed(bin="one", reason="sorted"), "a-1", 1002.0)
    with Ledger.open(location, read_only=True) as ledger:
        assert secret_free(ledger.name) and "***" in ledger.name
        [shift] = ledger.shifts()
        assert shift.config == {"recipe": {"routes": {"aa": "one"}}}
        [battery] = ledger.batteries(1)
        assert (battery.label, battery.gate_seen, battery.bin, battery.accepted) == ("aa", True, "one", True)
        [typed] = ledger.events(kinds=[Typed], last=1)
        assert typed.data.scores == {"aa": None, "bb": 0.1}
        assert not ledger.unreadable
    answer = CliRunner().invoke(make_app("report"), ["report", location, "--json"])
    assert answer.exit_code == 0 and json.loads(answer.output)["items"] == 1


@pytest.mark.parametrize(("more", "timeout_ms"), [("", "5000"), ("?tcp_user_timeout=9000", "9000")])
def test_a_pulled_cable_is_found_in_seconds_and_ones_own_limits_stand(address, more, timeout_ms):
    """The kernel's own patience is a quarter of an hour, in which the controller does nothing else."""
    engine, _, _ = open_engine(LedgerUrl(address + more), Access.WRITE)
    with engine.connect() as connection:
        limits = connection.connection.driver_connection.info.get_parameters()
    engine.dispose()
    assert limits["tcp_user_timeout"] == timeout_ms
    assert (limits["keepalives_idle"], limits["keepalives_interval"], limits["keepalives_count"]) == ("5", "1", "3")
    assert limits["connect_timeout"] == "3"


def test_check_tries_a_ledger_on_a_server_and_changes_nothing_of_it(address):
    def check():
        words = ["check", "--site", "sim", "--set", f"ledger.url={json.dumps(address)}"]
        return CliRunner().invoke(make_app("check"), words)

    answer = check()
    assert answer.exit_code == 0 and "is empty: its tables are made at the start" in answer.output
    with psycopg.connect(address) as server:
        assert server.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    Ledger.open(address).close()
    answer = check()
    assert answer.exit_code == 0 and "can be read and written" in answer.output
    assert "everybody on this machine can read the password" in answer.output
    assert secret_free(answer.output)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"login": "line:wrong-one"}, "correct user and password"),
        ({"login": f"nobody:{PASSWORD}"}, "correct user and password"),
        ({"database": "other"}, "make the database"),
        ({"port": 1}, "start the database server"),
        ({"more": "?password=wrong-one"}, "correct user and password"),
        ({"more": "?sslmode=sometimes"}, "correct the URL"),
    ],
)
def test_what_is_wrong_with_a_server_is_said_with_its_remedy_and_without_password(address, port, wrong, remedy):
    location = url(**{"port": port, **wrong})
    for attempt in (
        lambda: probe(location),
        lambda: Ledger.open(location),
        lambda: Ledger.open(LedgerUrl(location)),
    ):
        with pytest.raises(LedgerError, match=remedy) as error:
            attempt()
        assert secret_free(str(error.value))
    answer = CliRunner().invoke(make_app("check"), ["check", "--site", "sim", "--set", f"ledger.url={location}"])
    assert isinstance(answer.exception, BatterySortingError)
    assert "ledger.url" in str(answer.exception) and secret_free(str(answer.exception) + answer.output)


def test_a_user_who_may_not_write_is_found_by_check(address, port):
    Ledger.open(address).close()
    with psycopg.connect(address) as server:
        server.execute("DROP ROLE IF EXISTS reader")
        server.execute("CREATE ROLE reader LOGIN PASSWORD 'wrong-one'")
        server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    with pytest.raises(LedgerError, match="permission denied for batteries, events, images, shifts: let the user"):
        probe(url(port, "reader:wrong-one"))
    with psycopg.connect(address) as server:
        server.execute("DROP OWNED BY reader")


def test_a_node_gets_the_password_from_its_environment_and_else_says_how_it_is_had(address, monkeypatch):
    shown = LedgerUrl(str(LedgerUrl(address)))
    monkeypatch.delenv(LEDGER_VARIABLE, raising=False)
    with pytest.raises(LedgerError, match=r"stands in no file.*start the node by the cell's start"):
        Ledger.open(shown.completed())
    monkeypatch.setenv(LEDGER_VARIABLE, "postgresql://other:hunter@127.0.0.1/x")
    assert shown.completed() == shown  # that is the password of another ledger
    monkeypatch.setenv(LEDGER_VARIABLE, address)
    Ledger.open(shown.completed()).close()


def test_numbers_that_are_none_in_a_servers_ledger_are_left_out_with_their_row(address):
    with Ledger.open(address) as ledger:
        ledger.begin_shift("belt", "sim", 1000.0)
        with ledger.transaction() as tx:
            for name in ("a-1", "a-2"):
                tx.record(Detected(trigger_count=1, encoder_count=1), name, 1001.0)
    with psycopg.connect(address) as server:
        server.execute("UPDATE batteries SET confidence = 'NaN' WHERE battery_id = 'a-1'")
        server.execute("""UPDATE events SET payload = '{"trigger_count": "one"}' WHERE battery_id = 'a-2'""")
    with Ledger.open(address, read_only=True) as ledger:
        assert [battery.battery_id for battery in ledger.batteries()] == ["a-2"]
        assert [event.event_id for event in ledger.events()] == [1, 2]
        assert ledger.unreadable == [
            "battery a-1 can't be read: confidence is nan",
            "event 3 can't be read: payload of detected: trigger_count is 'one'",
        ]
