"""Issue 15, D12: places that can't be written are found before the work, and a home is not needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.tiny_model import write_model
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
NOWHERE = "/dev/null/below"
"""Where not even root can write."""


@pytest.fixture
def pictures(tmp_path):
    for label in ("good", "bad"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for n in range(2):
            cv2.imwrite(str(tmp_path / "data" / label / f"{n}.png"), np.full((64, 64, 3), 90 * n, np.uint8))
    return tmp_path / "data"


COMMANDS = [
    "train type --data {data} --out {nowhere}/1",
    "train type --data {data} --out {tmp}/m/1 --cache {nowhere}",
    "train defects --data {data} --output {nowhere}/1",
    "train defects --data {data} --output {tmp}/m/1 --cache {nowhere}",
    "train finder --data {data} --output {nowhere}/finder.onnx",
    "train backbone --pictures {data} --out {nowhere}/own.safetensors",
    "evaluate type --data {data} --out {nowhere}",
    "evaluate defects --data {data} --plots {nowhere}",
    "experiment inspection-table3 --data {data} --out {nowhere}",
    "experiment batsort-table1 --data {data} --out {nowhere}",
    "inspect {data}/good/0.png --view lug --overlay {nowhere}",
    "data check {data} --out {nowhere}/list.csv",
    "data check {data} --html {nowhere}/page.html",
    "explain --image {data}/good/0.png --out {nowhere}/page.html",
    "review {tmp}/ledger.sqlite --out {nowhere}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_place_that_can_t_be_written_is_named_before_the_work(command, pictures, tmp_path, monkeypatch):
    if command.split()[0] in ("train", "evaluate", "experiment", "data"):
        pytest.importorskip("torch")
        # Whatever reads a picture or a network would be work.
        for target in ("backbone.load_backbone", "defect_model.load_backbone", "adaptation.load_backbone"):
            monkeypatch.setattr(f"battery_sorting.vision.training.{target}", lambda *_: pytest.fail("work"))
    monkeypatch.setattr("battery_sorting.vision.inspector.DefectInspector.load", lambda *_: pytest.fail("work"))
    words = command.format(data=pictures, tmp=tmp_path, nowhere=NOWHERE).split()
    result = CliRunner().invoke(make_app(words[0]), words)
    assert isinstance(result.exception, ConfigurationError), result.output
    option = next(word for word, place in pairwise(words) if place.startswith(NOWHERE))
    problem = str(result.exception)
    assert problem.startswith(option) and re.search(
        r"can't be written \(Not a directory\)|is no folder", problem
    ), problem
    assert not (tmp_path / "m" / "1").exists()


HOMES = {
    "read-only": {"HOME": "/proc", "XDG_CACHE_HOME": "/proc/cache"},
    "none": {"HOME": "/proc/nonexistent"},
    "not a folder": {"HOME": "/dev/null", "MPLCONFIGDIR": "/dev/null/m", "NUMBA_CACHE_DIR": "/dev/null/n"},
}


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize(
    "program",
    [
        "from battery_sorting.vision.training.views import default_cache; assert default_cache() is None",
        "from battery_sorting.vision.classifier import TypeClassifier; TypeClassifier({model!r}).warm_up()",
        "from battery_sorting.grading.packing import _kernels",
        "from matplotlib.figure import Figure; Figure().savefig({tmp!r} + '/f.png')",
        "from battery_sorting.cli.main import make_app; make_app('models')(['models', 'list', {models!r}])",
        "from battery_sorting.cli.main import make_app; make_app('check')(['check', '--site', 'sim'])",
    ],
)
def test_home_that_can_t_be_written_or_is_none_gives_no_traceback(home, program, tmp_path):
    if "training" in program:
        pytest.importorskip("torch")
    model = write_model(tmp_path / "models" / "tiny" / "1")
    text = program.format(model=str(model), tmp=str(tmp_path), models=str(tmp_path / "models"))
    clean = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", text], env=clean | HOMES[home], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
