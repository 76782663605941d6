"""Every command of battery-sorting with what users do to it: pipes, terminals, homes, files that are none.

Nothing here may show a traceback, or end with a code that docs/reference/command_line.md does not give that
meaning.
"""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.table import Table
from support.command_line import REPOSITORY, CommandLine, Ended, all_commands
from support.ev_shift import write_shift

from battery_sorting.cli._exit import ANSWERS, MEANINGS, ExitCode
from battery_sorting.cli._output import plain_lines, visible
from battery_sorting.core.settings import find_shared
from battery_sorting.core.types import make_battery_id
from battery_sorting.ledger.events import Detected, Disposed, Typed
from battery_sorting.ledger.store import ImageStore, Ledger

WORDS = [" ".join(words) for words in all_commands()]
HOSTILE = "[red] 编号 id"
"""Of a battery: what looks like markup, and no Latin letters."""

INPUTS: dict[str, tuple[str, ...]] = {
    "up": ("--site {}", "--site sim --recipe {}"),
    "check": ("--site {}", "--site sim --recipe {}", "--site sim_ev --recipe {}"),
    "fault": ("--run-dir {}",),
    "demo": ("--line {}", "--set plant.images={}"),
    "command": ("{}", "emptied"),
    "report": ("{}", "EV --plant {}", "BELT --plant {}"),
    "items": ("{}", "{} --id x"),
    "check-driver": ("modbus {}", "{} SETTINGS"),
    "classify": ("{}", "PICTURES --model {}", "PICTURES --labels {}"),
    "explain": ("{} --id x", "--image {}", "--image PICTURE --model {}", "BELT --id 00000001-000001 --model {}"),
    "grade": ("{} --spec lfp-20ah", "CELLS --spec {}"),
    "regroup": ("{} --spec lfp-20ah", "CELLS --spec {}"),
    "packs": ("{} --layout 2s", "CELLS --layout 2s --spec {}"),
    "export passport": ("{} --output OUT", "EV --draft --output OUT --spec {}"),
    "review": ("{} --out OUT", "BELT --out OUT --images {}"),
    "inspect": ("{} --view lug", "PICTURES --model {}"),
    "experiment": ("batsort-table1 --data {} --out OUT", "inspection-table3 --data {} --out OUT"),
    "train type": ("--data {} --out OUT/m/1", "--base {} --add PICTURES --out OUT/m/1"),
    "train defects": ("--data {} --out OUT/m/1", "--data PICTURES --weights {} --out OUT/m/1"),
    "train finder": ("--data {} --out OUT.onnx",),
    "train backbone": ("--pictures {} --out OUT.safetensors --drawings 2 --steps 1 --batch 2 --processes 1",),
    "evaluate type": ("--data {}", "--data PICTURES --chemistry {}"),
    "evaluate defects": ("--data {}", "--data PICTURES --model {}"),
    "models list": ("{}",),
    "models compare": ("{} MODEL", "MODEL MODEL --data {}"),
    "models activate": ("{} --offline",),
    "models rollback": ("{} --offline",),
    "models candidate": ("{}",),
    "models shadow": ("{}", "BELT --plant {}"),
    "data check": ("{}", "PICTURES --labels {}"),
}
"""Commands → arguments with {} where a user may name the wrong thing."""

OUTPUTS: dict[str, tuple[str, ...]] = {
    "up": ("--site sim --run-dir FOLDER",),
    "demo": ("--run-dir FOLDER", "--json FILE"),
    "report": ("BELT --html FILE.html",),
    "classify": (),
    "explain": ("--image PICTURE --out FILE.html",),
    "grade": tuple(
        f"CELLS --spec lfp-20ah --{one}" for one in ("output FILE.csv", "plot FILE.png", "report FILE.html")
    ),
    "regroup": tuple(
        f"CELLS --spec lfp-20ah --{one}" for one in ("output FILE.csv", "plot FILE.png", "report FILE.htm")
    ),
    "packs": tuple(
        f"CELLS --layout 2s --{one}" for one in ("output FILE.xlsx", "plot FILE.svg", "report FILE.html")
    ),
    "export passport": ("EV --draft --output FOLDER",),
    "review": ("BELT --out FOLDER",),
    "inspect": ("PICTURES --view lug --overlay FOLDER",),
    "experiment": ("batsort-table1 --data PICTURES --out FOLDER", "inspection-table3 --data PICTURES --out FOLDER"),
    "train type": ("--data PICTURES --out FOLDER", "--data PICTURES --out OUT/m/1 --cache FOLDER"),
    "train defects": ("--data PICTURES --output FOLDER", "--data PICTURES --output OUT/m/1 --cache FOLDER"),
    "train finder": ("--data PICTURES --output FILE.onnx",),
    "train backbone": ("--out FILE.safetensors",),
    "evaluate type": ("--data PICTURES --out FOLDER",),
    "evaluate defects": ("--data PICTURES --plots FOLDER",),
    "data check": ("PICTURES --out FILE.csv", "PICTURES --html FILE.html"),
}
"""Commands → arguments with FILE or FOLDER where a result goes; the last option is the one that is wrong."""

GOOD: dict[str, str] = {
    "check": "--site sim",
    "report": "BELT",
    "items": "BELT",
    "grade": "CELLS --spec lfp-20ah",
    "regroup": "CELLS --spec lfp-20ah",
    "packs": "CELLS --layout 2s --effort 0.01",
    "export passport": "EV --draft --output OUT",
    "review": "BELT --out OUT",
    "models list": "MODELS",
    "models compare": "MODEL MODEL",
    "classify": "PICTURES",
    "inspect": "PICTURES --view lug",
    "explain": "--image PICTURE",
}
"""Commands → arguments that work and take no time."""

LOADING = ("classify", "inspect", "explain", "review", "packs")
"""Commands that take a second, for a network or numba: they are tried less often."""

TRAINING = ("train", "evaluate", "data", "experiment")
"""Commands that compute with PyTorch, which a process that was forked can't: they run as processes of their own."""

BAD_INPUTS = ("missing", "folder", "empty", "rubbish", "below a file", "too long a name", "unreadable")
BAD_OUTPUTS = ("folder", "below a file", "too long a name", "unwritable")


class Workplace:
    """A folder with what commands read, and a new place for what they write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs = 0
        write_shift(folder / "ev.sqlite")
        write_belt_shift(folder / "belt.sqlite")
        rows = (f"c{n},{19 + n * 0.1:.2f},1.{n},3.2{n}" for n in range(8))
        header = "id,capacity_ah,resistance_mohm,ocv_v"
        (folder / "cells.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        for number, name in enumerate(("good", "Klarus")):
            (folder / "pictures" / name).mkdir(parents=True)
            noise = np.random.default_rng(number).integers(0, 255, (64, 96, 3), np.uint8)
            cv2.imwrite(str(folder / "pictures" / name / "1.png"), noise)
        (folder / "settings.yaml").write_text("host: 127.0.0.1\nport: 1\n", encoding="utf-8")
        (folder / "empty").touch()
        (folder / "rubbish").write_bytes(bytes(range(256)) * 40)
        (folder / "empty folder").mkdir()
        (folder / "unreadable").write_text("x", encoding="utf-8")
        (folder / "unreadable").chmod(0)

    def arguments(self, template: str, **places: Path) -> list[str]:
        """Words of a template with the paths that its capitals stand for."""
        self._runs += 1
        self.out = self.folder / f"out{self._runs}"
        known = {
            **{
                "EV": self.folder / "ev.sqlite",
                "BELT": self.folder / "belt.sqlite",
                "CELLS": self.folder / "cells.csv",
            },
            **{"PICTURES": self.folder / "pictures", "PICTURE": self.folder / "pictures" / "good" / "1.png"},
            **{"MODELS": find_shared("models"), "MODEL": find_shared("models/battery_type/1")},
            **{"SETTINGS": self.folder / "settings.yaml", "OUT": self.out, **places},
        }
        return [self._word(word, known) for word in template.split()]

    def bad_input(self, kind: str) -> Path:
        names = {
            "folder": "empty folder",
            "below a file": "empty/x",
            "too long a name": "n" * 300,
            "missing": "none",
        }
        return self.folder / names.get(kind, kind)

    def bad_output(self, kind: str, suffix: str, is_folder: bool) -> Path:
        if kind == "folder" and is_folder:  # a file where a folder must be
            return self.folder / "rubbish"
        if kind == "folder":
            place = self.folder / f"folder{suffix}"
            place.mkdir(exist_ok=True)
            return place
        if kind == "unwritable":
            return Path("/proc") / f"out{suffix}"  # not even root can write there
        return Path(f"{self.bad_input(kind)}{suffix}")

    @staticmethod
    def _word(word: str, known: dict[str, Path | None]) -> str:
        for name in sorted(known, key=len, reverse=True):
            if word == name or word.startswith((f"{name}.", f"{name}/")):
                return f"{known[name]}{word[len(name) :]}"
        return word.replace("{}", str(known.get("{}", "{}")))


def write_belt_shift(path: Path) -> None:
    """Three batteries that want a review, of which two have a picture; the third has a hostile id."""
    store = ImageStore(path.parent / "images")
    with Ledger.open(path) as ledger:
        ledger.begin_shift("belt", "sim", 1000.0, config={"recipe": {"routes": {"Klarus": "klarus"}}})
        with ledger.transaction() as tx:
            for count, battery_id in enumerate((make_battery_id(1, 1), make_battery_id(1, 2), HOSTILE), start=1):
                eye = 1000.0 + count
                tx.record(Detected(trigger_count=count, encoder_count=count), battery_id, eye)
                facts = {"label": "Klarus", "confidence": 0.4, "accepted": False, "reason": "low_confidence"}
                tx.record(Typed(**facts, scores={"Klarus": 0.4}, model="battery_type/1"), battery_id, eye)
                tx.record(Disposed(bin="others", reason="low_confidence"), battery_id, eye + 4)
                if battery_id != HOSTILE:
                    jpeg = cv2.imencode(".jpg", np.full((64, 96, 3), 40 * count, np.uint8))[1].tobytes()
                    sha256 = store.put(jpeg)
                    where = str(store.path(sha256).relative_to(store.folder))
                    size = {"width": 96, "height": 64, "size": len(jpeg)}
                    tx.add_image(battery_id, sha256, path=where, **size, stamp=eye)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Iterator[CommandLine]:
    with CommandLine(tmp_path_factory.mktemp("line")) as server:
        yield server


def needs_models(words: str) -> None:
    if words in {"classify", "inspect", "explain", "models list", "models compare", "check"} and not find_shared(
        "models/lug/1/card.json"
    ):
        pytest.skip("the models that are shipped are not here: models/")


def fails_well(ended: Ended, codes: Sequence[int] = (ExitCode.WRONG,)) -> str:
    assert b"Traceback" not in ended.out + ended.err, ended.text
    assert ended.code in codes, ended.text
    return ended.err.decode("utf-8", "replace")


def real(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    """A command as a process of its own from its first to its last moment."""
    return subprocess.run(command(*arguments), cwd=REPOSITORY, timeout=120, check=False, **options)  # type: ignore


def alone(*arguments: object) -> Ended:
    done = real(*arguments, capture_output=True)
    return Ended(done.returncode, done.stdout, done.stderr)


def command(*arguments: object) -> list[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from battery_sorting.cli.main import main; main()"
    )
    return [sys.executable, "-c", program, *map(str, arguments)]


# ---- every command ----  (issue 15, D12)


def test_every_command_is_tried_here():
    assert sorted(INPUTS) == sorted(WORDS)


@pytest.mark.parametrize("words", WORDS)
def test_help_ends_alike_whoever_reads_it(line, words):
    arguments = (*words.split(), "--help")
    assert line.run(*arguments).code == ExitCode.DONE
    assert line.run(*arguments, out="gone").code == ExitCode.READER_GONE
    assert line.run(*arguments, out="closed").code == ExitCode.DONE
    full = line.run(*arguments, out="full")
    assert "standard output can't be written (No space left on device)" in fails_well(full)
    for encoding in ("ascii", "latin-1", "cp437"):
        plain = line.run(*arguments, env={"PYTHONIOENCODING": encoding})
        assert plain.code == ExitCode.DONE, plain.text
        assert plain.out.decode(encoding)
        assert encoding != "ascii" or plain.out.isascii()


@pytest.mark.parametrize("words", WORDS)
def test_what_can_not_be_read_is_an_error_with_a_message(line, place, words):
    training = words.split()[0] in TRAINING
    if training:
        pytest.importorskip("torch", reason="PyTorch is not installed: requirements/train.txt")
    needs_models(words)
    for template in INPUTS[words]:
        for kind in ("missing", "rubbish") if training else BAD_INPUTS:
            if kind == "unreadable" and os.geteuid() == 0:
                continue  # root may read everything
            arguments = place.arguments(template, **{"{}": place.bad_input(kind)})
            ended = (alone if training else line.run)(*words.split(), *arguments)
            text = fails_well(ended, (ExitCode.WRONG, ExitCode.NO))
            assert text.strip(), f"{words} {template} with {kind}: no message"
            assert ended.code == ExitCode.WRONG or words in ("models list", "check-driver"), ended.text
            made = [*place.out.rglob("*.*"), *place.folder.glob(f"{place.out.name}.*")]
            assert not made, f"{words} {template} with {kind} has written {made}"


@pytest.mark.parametrize("words", [words for words, templates in OUTPUTS.items() if templates])
def test_what_can_not_be_written_is_found_before_the_work(line, place, words):
    for template in OUTPUTS[words]:
        option = template.split()[-2]
        suffix = Path(template).suffix
        for kind in BAD_OUTPUTS:
            bad = place.bad_output(kind, suffix, template.endswith("FOLDER"))
            arguments = place.arguments(template.removesuffix(suffix), FILE=bad, FOLDER=bad)
            ended = line.run(*words.split(), *arguments)
            text = fails_well(ended)
            assert f"{option} {bad}: 1 problem" in text, ended.text
            assert ended.out == b""


def test_every_option_that_names_a_result_is_tried_above():
    import typer

    from battery_sorting.cli.main import make_app

    results = ("--out", "--output", "--html", "--plot", "--plots", "--report", "--overlay", "--run-dir", "--cache")
    for words in WORDS:
        found = typer.main.get_command(make_app(words.split()[0]))
        for word in words.split():
            found = found.commands[word]  # type: ignore[attr-defined]
        named = {name for option in found.params for name in option.opts if name in results}
        if words == "fault":  # reads it
            continue
        tried = " ".join(OUTPUTS.get(words, ()))
        missing = [name for name in named if name not in tried and not (name == "--out" and "--output" in named)]
        assert set(missing) <= {"--cache", "--plot"}, words


@pytest.mark.parametrize(
    ("words", "template", "remedy"),
    [
        (
            "grade",
            "CELLS --spec lfp-20ah --output x.ods",
            "--output x.ods: 1 problem\n  - can be written as .csv or .xlsx",
        ),
        ("regroup", "CELLS --spec lfp-20ah --output x.ods", "as .csv or .xlsx"),
        ("packs", "CELLS --layout 2s --output x.ods", "as .csv or .xlsx"),
        ("packs", "CELLS --layout 2s --output x", "as .csv or .xlsx"),
        ("packs", "CELLS --layout 2s --plot x.docx", "as .png or .svg or .pdf"),
        ("grade", "CELLS --spec lfp-20ah --report x.pdf", "as .html or .htm"),
        ("report", "BELT --html x.pdf", "as .html or .htm"),
        ("explain", "--image PICTURE --out x.pdf", "as .html or .htm"),
        ("data check", "PICTURES --html x.png", "as .html or .htm"),
        ("data check", "PICTURES --out x.xlsx", "as .csv"),
        ("train finder", "--data PICTURES --out x.pt", "as .onnx"),
        ("train backbone", "--out x.pt", "as .safetensors"),
        ("grade", "CELLS --spec lfp-20ah --output CELLS", "is the table of cells itself"),
        ("grade", "CELLS --spec lfp-20ah --output x.csv --plot x.csv", "--plot x.csv"),
        ("report", "BELT --html BELT", "can be written as .html"),
    ],
)
def test_a_result_of_an_unknown_kind_is_refused_with_the_kinds_that_work(line, place, words, template, remedy):
    assert remedy in fails_well(line.run(*words.split(), *place.arguments(template)))


@pytest.mark.parametrize("words", GOOD)
def test_results_end_alike_whoever_reads_them(line, place, words):
    needs_models(words)

    def run(env: dict[str, str] | None = None, **streams: str) -> Ended:
        return line.run(*words.split(), *place.arguments(GOOD[words]), env=env, **streams)

    assert run(out="gone", err="gone").code == ExitCode.READER_GONE
    assert run(err="full").code == ExitCode.DONE
    assert "No space left on device" in fails_well(run(out="full"))
    if words not in LOADING:
        assert run(out="gone").code == ExitCode.READER_GONE
        assert run(err="gone").code == ExitCode.DONE
        assert run(out="closed").code == ExitCode.DONE
        assert run(out="closed", err="closed").code == ExitCode.DONE
    for encoding in ("ascii",) if words in LOADING else ("ascii", "latin-1", "cp1252", "ascii:strict", "utf-8"):
        ended = run({"PYTHONIOENCODING": encoding})
        assert ended.code == ExitCode.DONE, ended.text
        assert ended.out.decode(encoding.partition(":")[0])
        assert b"\x1b" not in ended.out


@pytest.mark.parametrize("words", [words for words in GOOD if words != "check"])
def test_json_is_strict_and_alone_on_standard_output(line, place, words):
    needs_models(words)
    for encoding in ("latin-1",) if words in LOADING else ("utf-8", "ascii", "latin-1"):
        arguments = (*place.arguments(GOOD[words]), "--json")
        ended = line.run(*words.split(), *arguments, env={"PYTHONIOENCODING": encoding})
        assert ended.code == ExitCode.DONE, ended.text
        json.loads(ended.out.decode(encoding), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (
        line.run(*words.split(), *place.arguments(GOOD[words]), "--json", out="gone").code == ExitCode.READER_GONE
    )
    fails_well(line.run(*words.split(), *place.arguments(GOOD[words]), "--json", out="full"))


# ---- what is no terminal ----


def test_a_table_that_is_piped_has_whole_values_a_record_a_line(line, place):
    ended = line.run("items", place.folder / "belt.sqlite", env={"COLUMNS": "20"})
    title, heads, *rows = ended.out.decode().splitlines()
    assert title.startswith("# Shift 1, started")
    assert heads.split("\t") == ["battery", "at, s", "type", "sure", "bin", "reason"]
    assert [row.split("\t")[0] for row in rows[:2]] == ["00000001-000001", "00000001-000002"]
    assert [len(row.split("\t")) for row in rows] == [6, 6, 6]


def test_markup_in_an_id_is_shown_and_not_run(line, place):
    belt = place.folder / "belt.sqlite"
    assert HOSTILE in line.run("items", belt).out.decode()
    assert HOSTILE in on_terminal(120, "items", belt)
    assert "[red] \\u7f16\\u53f7 id" in line.run("items", belt, env={"PYTHONIOENCODING": "ascii"}).out.decode()


def test_characters_that_steer_a_terminal_or_break_a_table_are_shown_as_escapes():
    table = Table("id", "files", title="of\x1b[2J")
    table.add_row("a\tb\x07", "one\ntwo\u202e")
    assert list(plain_lines(table)) == ["# of\\x1b[2J", "id\tfiles", "a\\tb\\x07\tone, two\\u202e"]
    assert visible("line\nline\ttab") == "line\nline\ttab"


def test_all_packs_are_listed_where_nobody_looks(line, place, tmp_path):
    rows = "\n".join(f"c{n},20,1.5,3.2" for n in range(120))
    (tmp_path / "many.csv").write_text(f"id,capacity_ah,resistance_mohm,ocv_v\n{rows}\n", encoding="utf-8")
    out = line.run("packs", tmp_path / "many.csv", "--layout", "2s", "--effort", "0.01").out.decode()
    assert out.count("\n") > 60 and "more packs" not in out


def test_on_a_narrow_terminal_ids_are_folded_and_not_cut(place):
    shown = on_terminal(60, "items", place.folder / "ev.sqlite")
    assert "…" not in shown and "─" in shown
    assert [shown.count(f" 6a000001-00000{number} ") for number in (1, 2, 3, 4, 5)] == [1, 1, 1, 1, 1]


def test_no_colour_where_none_is_wanted_and_boxes_in_ascii_on_an_ascii_terminal(place):
    coloured = on_terminal(100, "packs", place.folder / "cells.csv", "--layout", "2s", NO_COLOR="1")
    assert "\x1b[3" not in coloured.replace("\x1b[3m", "")  # italics are no colour
    plain = on_terminal(100, "items", place.folder / "ev.sqlite", PYTHONIOENCODING="ascii", TERM="dumb")
    assert plain.isascii() and "6a000001-000001" in plain


def on_terminal(columns: int, *arguments: object, **env: str) -> str:
    """What a command shows on a terminal of so many columns."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (40, columns)) if hasattr(termios, "tcsetwinsize") else None
    environment = {**os.environ, "COLUMNS": str(columns), **env}
    shown = b""
    with subprocess.Popen(command(*arguments), stdout=its, stderr=its, stdin=its, env=environment) as process:
        os.close(its)
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part
        assert process.wait(60) == 0, shown
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


# ---- from the first to the last moment of a process ----


def test_a_pipe_that_closes_early_is_no_error_even_at_the_shutdown_of_the_interpreter(place):
    shell = shlex.join(command("items", place.folder / "ev.sqlite"))
    done = subprocess.run(
        ["bash", "-c", f'{shell} | true; echo "${{PIPESTATUS[0]}}"'], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() in ("141", "0")  # 0: all was in the pipe before its reader went
    assert done.stderr == ""


def test_a_full_disk_is_a_message_and_not_a_broken_end(place):
    with Path("/dev/full").open("wb") as full:
        done = real("report", place.folder / "ev.sqlite", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"battery-sorting: standard output can't be written (No space left on device)\n"


def test_the_c_locale_gets_ascii(place):
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    done = real("report", place.folder / "ev.sqlite", capture_output=True, env=environment)
    assert done.returncode == 0 and done.stdout.isascii() and b"mOhm" in done.stdout


@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide", "99999"])
def test_odd_widths_end_nothing(place, columns):
    environment = {**os.environ, "COLUMNS": columns}
    assert real("report", place.folder / "ev.sqlite", capture_output=True, env=environment).returncode == 0


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"control_port": silent.getsockname()[1]}
        (tmp_path / "plant.json").write_text(json.dumps(settings), encoding="utf-8")
        with subprocess.Popen(command("fault", "--run-dir", tmp_path), stderr=subprocess.PIPE) as process:
            silent.settimeout(60)
            talk, _ = silent.accept()  # it waits for an answer now
            with talk:
                process.send_signal(signal.SIGINT)
                _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, b"battery-sorting: interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        "grade CELLS --spec lfp-20ah --plot OUT.png --report OUT.html",
        "packs CELLS --layout 2s --effort 0.01 --plot OUT.svg",
        "regroup CELLS --spec lfp-20ah --plot OUT.png",
        "report BELT --html OUT.html",
        "classify PICTURES",
    ],
)
def test_a_home_that_can_not_be_written_ends_nothing(place, arguments):
    needs_models(arguments.split()[0])
    nowhere = str(place.folder / "empty" / "home")
    environment = {**os.environ, "HOME": nowhere, "XDG_CACHE_HOME": f"{nowhere}/.cache"}
    environment |= {"XDG_CONFIG_HOME": f"{nowhere}/.config", "XDG_DATA_HOME": f"{nowhere}/.data"}
    done = real(*place.arguments(arguments), capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.ros
def test_a_line_is_asked_from_a_home_that_can_not_be_written(place, domain):
    environment = {**os.environ, "HOME": str(place.folder / "empty" / "home"), "ROS_DOMAIN_ID": str(domain)}
    environment.pop("ROS_LOG_DIR", None)
    done = real("command", "hold", capture_output=True, env=environment)
    assert done.returncode == 2
    assert b"no line 'belt' answers within 6 s" in done.stderr and b"Traceback" not in done.stderr


def test_only_json_comes_to_standard_output_whoever_else_writes_there():
    program = (
        f"import sys, os, warnings; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from battery_sorting.cli._streams import take_streams\n"
        "from battery_sorting.cli._output import write_json\n"
        "take_streams(json_alone=True)\n"
        "print('a library that talks'); warnings.warn('old'); os.system('echo a program that talks')\n"
        "write_json({'value': float('nan'), 'id': '\\udcff'})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"value": None, "id": "\udcff"}
    for noise in ("a library that talks", "old", "a program that talks"):
        assert noise in done.stderr


# ---- addresses and nothing to find ----


@pytest.mark.parametrize(
    "address",
    ["postgresql://h:abc/db", "postgresql://[::1/db", "sqlite://x:y/z", "http://h:80x/", "foo://x", "://"],
)
@pytest.mark.parametrize("words", ["report", "items", "explain", "export passport", "review", "models shadow"])
def test_a_wrong_address_of_a_ledger_is_an_error_with_a_message(line, place, words, address):
    more = {"explain": "--id x", "export passport": "--output OUT", "review": "--out OUT"}.get(words, "")
    fails_well(line.run(*words.split(), address, *place.arguments(more)))


@pytest.mark.parametrize("port", ["99999", "-1", '"x"', "null", "[]"])
def test_a_wrong_port_of_a_device_or_plant_is_an_error_with_a_message(line, tmp_path, port):
    (tmp_path / "settings.yaml").write_text(f"host: 127.0.0.1\nport: {port}\n", encoding="utf-8")
    fails_well(line.run("check-driver", "modbus", tmp_path / "settings.yaml"), (ExitCode.NO,))
    (tmp_path / "plant.json").write_text(f'{{"control_port": {port}}}', encoding="utf-8")
    fails_well(line.run("fault", "--run-dir", tmp_path))
    fails_well(line.run("check", "--site", "sim", "--set", f"plc.settings.port={port}"))


def test_nothing_found_is_told_from_found_and_from_wrong(line, place, tmp_path):
    belt, out = place.folder / "belt.sqlite", tmp_path / "out"
    with Ledger.open(tmp_path / "new.sqlite") as book:
        book.begin_shift("belt", "sim", 1000.0)
    new = tmp_path / "new.sqlite"
    (tmp_path / "few.csv").write_text("id,capacity_ah,resistance_mohm,ocv_v\na,20,1.5,3.2\n", encoding="utf-8")
    (tmp_path / "none.csv").write_text("id,capacity_ah,resistance_mohm,ocv_v\na,x,y,z\n", encoding="utf-8")
    for arguments, code in (
        (("items", belt, "--id", "nobody"), ExitCode.NO),
        (("items", belt, "--bin", "nowhere"), ExitCode.NO),
        (("items", new), ExitCode.NO),
        (("items", belt, "--shift", 7), ExitCode.WRONG),
        (("report", new), ExitCode.DONE),
        (("models", "list", place.folder / "empty folder"), ExitCode.NO),
        (("models", "shadow", belt), ExitCode.NO),
        (("review", new, "--out", out), ExitCode.NO),
        (("packs", tmp_path / "few.csv", "--layout", "8s"), ExitCode.NO),
        (("packs", tmp_path / "none.csv", "--layout", "8s"), ExitCode.NO),
        (("grade", tmp_path / "none.csv", "--spec", "lfp-20ah"), ExitCode.NO),
        (("regroup", tmp_path / "none.csv", "--spec", "lfp-20ah"), ExitCode.NO),
        (("explain", belt, "--id", "nobody"), ExitCode.NO),
        (
            ("export", "passport", place.folder / "ev.sqlite", "--draft", "--id", "nobody", "--output", out),
            ExitCode.NO,
        ),
        (("classify", place.folder / "empty folder"), ExitCode.WRONG),
        (("inspect", place.folder / "empty folder", "--view", "lug"), ExitCode.WRONG),
    ):
        ended = line.run(*arguments)
        assert ended.code == code, f"{arguments}: {ended.text}"
        assert b"Traceback" not in ended.err
        assert not out.exists()
    assert json.loads(line.run("items", new, "--json").out) == []


def test_pictures_of_which_none_can_be_read_are_no_success(line, place, tmp_path):
    needs_models("classify")
    (tmp_path / "1.png").write_bytes(b"no picture")
    for arguments in (("classify",), ("inspect", "--view", "lug")):
        ended = line.run(*arguments, tmp_path)
        assert "none of the pictures can be read: 1 of 1" in fails_well(ended)
    mixed = line.run("classify", tmp_path, place.folder / "pictures")
    assert mixed.code == ExitCode.DONE and b"1 unreadable" in mixed.out


def test_the_documented_exit_codes_are_those_of_the_code():
    text = (REPOSITORY / "docs" / "reference" / "command_line.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| `", "| 0", "| 1"))]
    rows += [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| 2 ", "| 3 ", "| 70 "))
    ]
    tables = {first.strip("`"): rest for first, *rest in rows}
    assert {code: tables.get(str(int(code))) for code in ExitCode} == {code: [MEANINGS[code]] for code in ExitCode}
    assert {words: tables.get(words) for words in ANSWERS} == {words: [text] for words, text in ANSWERS.items()}
    assert set(ANSWERS) <= set(WORDS)
    documented = {words for words in tables if words in WORDS}
    assert documented == set(ANSWERS)
