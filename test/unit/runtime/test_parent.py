"""A process whose parent dies while it is still starting ends all the same."""

from __future__ import annotations

import subprocess
import sys

START = """
import os, time
first = os.getppid()  # before the test hears of it and kills the parent
import battery_sorting
print("imported", flush=True)
deadline = time.monotonic() + 60.0
while os.getppid() == first and time.monotonic() < deadline:
    time.sleep(0.01)
from battery_sorting.core.parent import parent_has_died
print(parent_has_died(), flush=True)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {START!r}])
"""


def test_a_parent_that_dies_before_anybody_watches_it_is_noticed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "imported\n"
        parent.kill()
        assert parent.stdout.readline() == "True\n"
