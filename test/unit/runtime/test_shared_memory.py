"""Removing shared memory of the dead, and leaving that of the living."""

from __future__ import annotations

import fcntl
import mmap
import time

from harness import wait_for

from battery_sorting.runtime import shared_memory as module
from battery_sorting.runtime.shared_memory import clean_shared_memory, remove_leaked_shared_memory


def test_shared_memory_of_the_dead_is_removed_and_that_of_the_living_is_kept(tmp_path):
    dead, living = "fastrtps_0123456789abcdef", "fastrtps_fedcba9876543210"
    port = "fastrtps_port7411"
    for name in (dead, dead + "_el", living, living + "_el", port, port + "_el", f"sem.{port}_mutex", "other_el"):
        (tmp_path / name).touch()
    with (tmp_path / (living + "_el")).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        removed = remove_leaked_shared_memory(tmp_path)
    assert {path.name for path in removed} == {dead, dead + "_el", port, port + "_el", f"sem.{port}_mutex"}
    assert {path.name for path in tmp_path.iterdir()} == {living, living + "_el", "other_el"}


def test_shared_memory_without_a_lock_is_removed_once_nobody_has_it_mapped(tmp_path):
    mine, left, port, fresh = (tmp_path / f"fastrtps_{name}" for name in ("a" * 16, "b" * 16, "port7411", "c" * 16))
    for path in (mine, left, port):
        path.write_bytes(b"x")
    wait_for(lambda: time.time() - port.stat().st_ctime > module.MAKING_S, "they are no longer fresh")
    fresh.write_bytes(b"x")
    with mine.open("r+b") as file, mmap.mmap(file.fileno(), 1):
        removed = remove_leaked_shared_memory(tmp_path)
    assert set(removed) == {left, port}
    assert set(tmp_path.iterdir()) == {mine, fresh}


def test_shared_memory_that_a_node_made_in_its_last_moment_is_removed_too(tmp_path):
    fresh, mine = (tmp_path / f"fastrtps_{name}" for name in ("port7006", "a" * 16))
    for path in (fresh, mine):
        path.write_bytes(b"x")
    with mine.open("r+b") as file, mmap.mmap(file.fileno(), 1):
        clean_shared_memory(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]
