"""The command battery-sorting: what it says, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def run(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from battery_sorting.cli.main import main; main()"
    )
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=cwd)


def test_help_names_every_command_and_imports_none():
    program = (
        "import sys; sys.argv = ['battery-sorting', '--help']\n"
        "from battery_sorting.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'numpy', 'cv2', 'pydantic', 'sqlalchemy', 'rich', 'torch', 'yaml'}\n"
        "print('heavy:', *sorted(slow & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    for command in ("up", "demo", "check", "fault", "report", "items", "train", "classify"):
        assert f"\n  {command} " in result.stdout
    assert result.stdout.rstrip().endswith("heavy:")


def test_check_shows_the_plan(tmp_path):
    result = run("check", "--site", "sim", "--set", "recipe.speed_mps=0.7", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "/belt/line_controller" in result.stdout
    assert "0.7 m/s" in result.stdout
    assert "site 'sim' is ready to start" in result.stdout
    assert list(tmp_path.iterdir()) == [], "a check must not write"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "--site", "simm"], "did you mean 'sim'"),
        (["check", "--site", "sim", "--set", "plc.driver=modbuss"], "modbus"),
        (["check", "--site", "sim", "--set", "plc.settings.prt=1"], "plc.settings.prt"),
        (["check", "--site", "sim", "--set", "camera.driver=nowhere.cam:Cam"], "nowhere"),
        (["check", "--site", "sim", "--set", "recipe.routes.Klarus=klaru"], "did you mean 'klarus'"),
        (["check", "--site", "sim", "--set", "recipe.routes.Clarus=klarus"], "the model doesn't know this type"),
        (["check", "--site", "sim", "--set", "model=models/none"], "models/none"),
        (["up", "--site", "sim", "--recipe", "batsart"], "did you mean 'batsort'"),
        (["fault", "camera.drop=1", "--run-dir", "nowhere"], "--run-dir"),
        (["fault", "camera.drop"], "SWITCH=VALUE"),
        (["command", "emptied"], "BIN is missing: name what was emptied"),
        (["command", "hold", "klarus"], "BIN belongs to 'emptied' alone, not to 'hold'"),
    ],
)
def test_mistakes_end_with_code_2_and_no_traceback(arguments, expected, tmp_path):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_where_an_error_arose():
    assert "Traceback" in run("--debug", "check", "--site", "simm").stderr
