"""Issue 15, B6: what is there is whole at any moment, and nothing good is destroyed."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from battery_sorting.core.beside import BEFORE, UNFINISHED, check_writable, file_beside, folder_beside
from battery_sorting.core.errors import ConfigurationError

OURS = frozenset({"weights", "card"})
NOWHERE = [Path("/proc/nowhere"), Path("/dev/null/below"), Path("/sys/nowhere/1")]
"""Where not even root can write."""


def write_version(out: Path, version: str, replaces: frozenset[str] | None = None) -> None:
    with folder_beside(out, replaces) as folder:
        (folder / "weights").write_text(version)
        (folder / "card").write_text(version)


def held(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def whole(version: str) -> dict[str, str]:
    return {"m/2/weights": version, "m/2/card": version}


def test_folder_appears_whole_and_nothing_lies_beside_it(tmp_path):
    with folder_beside(tmp_path / "m" / "2") as folder:
        (folder / "weights").write_text("new")
        assert not (tmp_path / "m" / "2").exists()
    assert held(tmp_path) == {"m/2/weights": "new"}
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["2"]
    assert (tmp_path / "m" / "2").stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_there_is_refused_before_the_work_and_replaced_where_that_is_allowed(tmp_path):
    out = tmp_path / "m" / "2"
    write_version(out, "old")
    with pytest.raises(ConfigurationError, match=r"is there already; name another, or allow it with --overwrite"):
        write_version(out, "new")
    assert held(tmp_path) == whole("old")
    write_version(out, "new", OURS)
    assert held(tmp_path) == whole("new")


def test_folder_with_other_files_is_never_replaced(tmp_path):
    out = tmp_path / "m" / "2"
    write_version(out, "old")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"also holds notes\.txt, which would be lost"):
        write_version(out, "new", OURS)
    with pytest.raises(ConfigurationError, match="which would be lost"):
        write_version(tmp_path, "new", OURS)
    assert held(tmp_path) == whole("old") | {"m/2/notes.txt": "mine"}


def test_what_comes_there_during_the_work_is_not_overwritten(tmp_path):
    out = tmp_path / "m" / "2"
    with pytest.raises(ConfigurationError, match="is there already"), folder_beside(out) as folder:
        (folder / "weights").write_text("slow")
        write_version(out, "quick")
    assert held(tmp_path) == whole("quick")
    with pytest.raises(ConfigurationError, match="File exists"), file_beside(tmp_path / "f") as file:
        file.write_text("slow")
        (tmp_path / "f").write_text("quick")
    assert (tmp_path / "f").read_text() == "quick"


@pytest.mark.parametrize("error", [RuntimeError("halfway"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_ends_the_work_leaves_what_was_there(tmp_path, error):
    write_version(tmp_path / "m" / "2", "old")
    (tmp_path / "f").write_text("old")
    with pytest.raises(type(error)), folder_beside(tmp_path / "m" / "2", OURS) as folder:
        (folder / "weights").write_text("new")
        raise error
    with pytest.raises(type(error)), file_beside(tmp_path / "f", overwrite=True) as file:
        file.write_text("half")
        raise error
    assert held(tmp_path) == whole("old") | {"f": "old"}


def test_errors_of_the_work_itself_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), folder_beside(tmp_path / "m" / "2"):
        (tmp_path / "no" / "picture.jpg").read_bytes()


def test_link_to_a_version_is_followed_and_stays(tmp_path):
    write_version(tmp_path / "m" / "2", "old")
    (tmp_path / "m" / "current").symlink_to("2")
    write_version(tmp_path / "m" / "current", "new", OURS)
    assert (tmp_path / "m" / "current").is_symlink()
    assert (tmp_path / "m" / "2" / "card").read_text() == "new"


@pytest.mark.parametrize("place", NOWHERE)
def test_place_that_can_t_be_written_is_found_before_the_work(place):
    worked = False
    with pytest.raises(ConfigurationError, match="can't be written"), folder_beside(place):
        worked = True
    with pytest.raises(ConfigurationError, match="can't be written"), file_beside(place):
        worked = True
    with pytest.raises(ConfigurationError, match="can't be written"):
        check_writable(place)
    assert not worked


@pytest.mark.parametrize("place", ["a\0b", "x" * 300, "loop/1"])
def test_name_that_no_folder_can_have_is_named(tmp_path, place):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigurationError, match="--out"), folder_beside(tmp_path / place):
        pass


def test_looking_whether_a_folder_can_be_written_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_named_and_leaves_what_was_there(tmp_path):
    write_version(tmp_path / "m" / "2", "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    told = pytest.raises(ConfigurationError, match=r"m/2 can't be written: .*make room")
    try:
        with told, folder_beside(tmp_path / "m" / "2", OURS) as folder:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            (folder / "card").write_text("new")
            (folder / "weights").write_text("new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    with pytest.raises(ConfigurationError, match="make room"), folder_beside(tmp_path / "m" / "2", OURS):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert held(tmp_path) == whole("old")


def test_what_a_killed_process_has_left_goes_and_what_another_writes_stays(tmp_path):
    out = tmp_path / "m" / "2"
    left = tmp_path / "m" / f".2{UNFINISHED}dead"
    left.mkdir(parents=True)
    (left / "weights").write_text("half")
    with folder_beside(out) as first:
        with folder_beside(out) as second:
            assert first.exists() and second.exists()
            assert not left.exists()
            (second / "card").write_text("second")
        assert first.exists()
        (out / "card").unlink()
        (first / "card").write_text("first")
    assert held(tmp_path) == {"m/2/card": "first"}


def test_version_that_had_just_made_room_when_the_process_was_killed_comes_back(tmp_path):
    left = tmp_path / "m" / f".2{UNFINISHED}dead"
    (left / BEFORE).mkdir(parents=True)
    (left / BEFORE / "card").write_text("old")
    with pytest.raises(ConfigurationError, match="is there already"), folder_beside(tmp_path / "m" / "2"):
        pytest.fail("the work began")
    assert held(tmp_path) == {"m/2/card": "old"}


class Halfway(Exception):
    """Ends the work."""


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from battery_sorting.core.beside import folder_beside
out, version = Path(sys.argv[1]), int(sys.argv[2])
print("there", flush=True)
while True:
    version += 1
    with folder_beside(out, frozenset({{"weights", "card"}})) as folder:
        (folder / "weights").write_text(str(version) * 50_000)
        (folder / "card").write_text(str(version))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_weights_and_card_match_whenever_it_is_interrupted(tmp_path, number):
    out = tmp_path / "m" / "2"
    program = WRITER.format(root=str(Path(__file__).parents[3]))
    moments, seen = random.Random(15), 0
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(out), str(attempt * 1000)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None and process.stdout.readline() == b"there\n"
        time.sleep(moments.uniform(0.01, 0.2))  # the moment is what is tried, nothing is waited for
        process.send_signal(number)
        process.communicate(timeout=30)
        with pytest.raises((ConfigurationError, Halfway)), folder_beside(out):  # whoever comes next clears up
            raise Halfway
        if out.exists():
            assert (out / "weights").read_text() == (out / "card").read_text() * 50_000
            seen += 1
        assert [path.name for path in out.parent.iterdir() if path.name != "2"] == []
    assert seen >= 3


def test_work_that_fails_leaves_no_empty_folders(tmp_path):
    with pytest.raises(Halfway), folder_beside(tmp_path / "a" / "b" / "1"):
        raise Halfway
    assert list(tmp_path.iterdir()) == []
