"""The scripts that set everything up on a fresh machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"

pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="not run from a checkout")


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with a shell and its tools, but without compilers."""
    for tool in ("sh", "bash", "env", "dirname", "mkdir", "ls"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    return str(tmp_path)


def run(command: list[str], path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)


def test_all_missing_programs_are_named_with_the_command_that_installs_them(bare_path):
    result = run([str(SCRIPTS / "need"), "sh:dash", "cmake:cmake", "g++:g++"], bare_path)
    assert result.returncode == 1
    assert "missing on this machine: cmake g++" in result.stderr
    assert "sudo apt-get install -y cmake g++" in result.stderr


def test_nothing_missing_is_no_news(bare_path):
    result = run([str(SCRIPTS / "need"), "sh:dash"], bare_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_set_up_without_python_says_what_to_install(bare_path, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copytree(SCRIPTS, checkout / "scripts")
    result = run([str(checkout / "scripts" / "setup"), "runtime"], bare_path)
    assert result.returncode != 0
    assert "sudo apt-get install -y python3 g++ make cmake" in result.stderr


def test_running_before_the_set_up_names_the_remedy(bare_path, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copytree(SCRIPTS, checkout / "scripts")
    result = run([str(checkout / "scripts" / "run-in-environment"), "true"], bare_path)
    assert result.returncode == 1
    assert "make build" in result.stderr
