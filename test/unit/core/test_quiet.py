"""Issue 15, B5: no dependency tells anybody of its use."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from support.tiny_model import write_model

from battery_sorting.belt.site import BeltSite
from battery_sorting.core.quiet import QUIET
from battery_sorting.runtime.plan import environment

ROOT = Path(__file__).parents[3]
TELLING = ("onnxruntime", "openvino", "huggingface_hub", "timm")
"""Packages that tell of their use, or hold one that does."""
SUPPRESSING = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILDKITE", "TEAMCITY_VERSION")
"""Where one of these is set, onnxruntime is quiet by itself, and a test would prove nothing."""
PATIENCE_S = 60.0

SPY = """
#include <cstdio>
#include <cstdlib>
#include <netdb.h>
static void note(const char *name) {
  const char *path = std::getenv("LOOKED_UP");
  if (!name || !path) return;
  if (FILE *file = std::fopen(path, "a")) { std::fprintf(file, "%s\\n", name); std::fclose(file); }
}
extern "C" int getaddrinfo(const char *name, const char *, const addrinfo *, addrinfo **) {
  note(name);
  return EAI_AGAIN;
}
extern "C" hostent *gethostbyname(const char *name) { note(name); return nullptr; }
"""
"""Stands before the resolver of a process: writes down each name that is looked up, and finds none."""


@pytest.fixture
def spy(tmp_path: Path) -> Path:
    source, library = tmp_path / "spy.cpp", tmp_path / "spy.so"
    source.write_text(SPY)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture
def watched(tmp_path: Path, spy: Path) -> Callable[[str, str], tuple[subprocess.Popen[bytes], Path, Path]]:
    """Starts a Python program with an empty home; returns it, its home, and the file of the names it looks up.

    Nothing keeps it quiet from outside, on the contrary. It ends when its standard input does.
    """

    def start(name: str, program: str) -> tuple[subprocess.Popen[bytes], Path, Path]:
        home, names = tmp_path / name, tmp_path / f"{name}.names"
        home.mkdir()
        clean = {key: value for key, value in os.environ.items() if key not in (*SUPPRESSING, *QUIET)}
        clean.pop("XDG_CACHE_HOME", None)
        given = {"ORT_DISABLE_TELEMETRY": "0", "HOME": str(home), "LD_PRELOAD": str(spy), "LOOKED_UP": str(names)}
        waiting = textwrap.dedent(program) + "\nimport sys; print('there', flush=True); sys.stdin.read()\n"
        process = subprocess.Popen(
            [sys.executable, "-c", waiting],
            env=clean | given | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=home,
        )
        return process, home, names

    return start


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=PATIENCE_S)


@pytest.mark.skipif(
    tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 29), reason="tells nobody before version 1.29"
)
def test_a_process_with_a_model_looks_up_no_foreign_name_and_leaves_no_id_on_disk(tmp_path, watched) -> None:
    model = write_model(tmp_path / "tiny" / "1")
    bare = f"""
        import onnxruntime
        onnxruntime.InferenceSession({str(model / "model.onnx")!r}, providers=["CPUExecutionProvider"])
    """
    ours = f"""
        from battery_sorting.vision.classifier import TypeClassifier
        TypeClassifier({str(model)!r}).warm_up()
        import importlib.util
        if importlib.util.find_spec("openvino"):
            TypeClassifier({str(model)!r}, backend="openvino").warm_up()
    """
    quiet, quiet_home, quiet_names = watched("quiet", ours)
    assert quiet.stdout is not None
    assert quiet.stdout.readline() == b"there\n"
    telling, telling_home, telling_names = watched("telling", bare)
    try:
        # What onnxruntime does by itself shows that the watch sees it, and how long it must last.
        deadline = time.monotonic() + PATIENCE_S
        while not telling_names.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "microsoft.com" in telling_names.read_text()
        assert any("deviceid" in name for name in _files(telling_home))
        assert not quiet_names.exists(), quiet_names.read_text()
        assert _files(quiet_home) == []
    finally:
        _end(telling)
        _end(quiet)
    assert not quiet_names.exists(), quiet_names.read_text()  # nor when it ends
    assert _files(quiet_home) == []


def test_every_process_of_a_cell_and_every_command_of_the_environment_is_quiet(tmp_path) -> None:
    assert environment(BeltSite.load("sim"), tmp_path).items() >= QUIET.items()
    told = subprocess.run(
        [ROOT / "scripts" / "run-in-environment", "env"],
        env={key: value for key, value in os.environ.items() if key not in QUIET},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {f"{name}={value}" for name, value in QUIET.items()} <= set(told)


def test_the_import_of_the_package_alone_makes_a_process_and_its_children_quiet() -> None:
    program = "import battery_sorting, subprocess; subprocess.run(['env'])"
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={key: value for key, value in os.environ.items() if key not in QUIET} | {"ORT_DISABLE_TELEMETRY": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {f"{name}={value}" for name, value in QUIET.items()} <= set(told)


def test_no_script_and_no_snippet_of_the_docs_imports_what_tells_before_the_package() -> None:
    programs = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "bench").glob("*.py")}
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            programs[f"{page.name}, snippet {number + 1}"] = snippet
    assert len(programs) > 5
    early = []
    for name, program in programs.items():
        for statement in ast.parse(program).body:
            names = [alias.name for alias in getattr(statement, "names", [])]
            modules = {
                module.split(".")[0] for module in [*names, getattr(statement, "module", None) or ""] if module
            }
            if "battery_sorting" in modules:
                break
            early += [f"{name}: {module}" for module in modules & set(TELLING)]
    assert early == []
