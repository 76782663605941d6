"""Issue 15, C11: a network that never ends holds nobody up."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_model import battery, write_model
from typer.testing import CliRunner

pytest.importorskip("onnx", reason="onnx is not installed: requirements/train.txt")
from support.endless_model import write_endless_model

from battery_sorting.cli.models import app
from battery_sorting.core.errors import ModelError
from battery_sorting.vision import engine, trial
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.trial import try_model


def test_network_that_never_ends_is_ended_and_others_load_meanwhile_and_after(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LONGEST_RUN_S", 0.5)
    with pytest.raises(ModelError, match=r"didn't come to an end within 0\.5 s"):
        TypeClassifier(write_endless_model(tmp_path / "tiny" / "2", "2"))
    monkeypatch.setattr(engine, "LONGEST_RUN_S", 30.0)
    assert TypeClassifier(write_model(tmp_path / "tiny" / "1")).classify(battery((220, 30, 30))).label == "Red"


@pytest.mark.timeout(120)
def test_endless_network_is_found_by_a_process_of_its_own(tmp_path):
    folder = write_endless_model(tmp_path / "tiny" / "1")
    with pytest.raises(ModelError, match=r"tiny/1.*come to an end within"):
        try_model(folder, processor_s=6)


def test_the_system_ends_a_trial_that_waits_for_ever():
    program = "from battery_sorting.vision.trial import _limit; _limit(60, 1); import time; time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False)
    assert -done.returncode == signal.SIGALRM


@pytest.mark.timeout(120)
def test_model_that_is_one_is_tried_and_what_is_wrong_with_another_is_said(tmp_path):
    folder = write_model(tmp_path / "tiny" / "1")
    try_model(folder)
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"model\.onnx: sha256 is .* restore both"):
        try_model(folder)


def test_network_that_ends_the_process_which_tries_it_ends_no_other(tmp_path, monkeypatch):
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(ModelError, match=r"tiny/1: ends the process that runs it \(SIGSEGV\)"):
        try_model(write_model(tmp_path / "tiny" / "1"))


@pytest.mark.timeout(120)
def test_activating_a_network_that_never_ends_is_refused_and_undone(tmp_path, monkeypatch):
    family = tmp_path / "tiny"
    write_endless_model(family / "2", "2")
    monkeypatch.setattr(trial, "try_model", lambda folder: try_model(folder, processor_s=6))
    result = CliRunner().invoke(app, ["activate", str(family / "2"), "--offline"])
    assert isinstance(result.exception, ModelError)
    assert "come to an end within" in str(result.exception)
    assert not (family / "active").exists()
