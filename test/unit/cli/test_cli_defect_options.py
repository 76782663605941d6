"""The options that every training of the appearance inspection takes: one list of them, for two commands."""
# issue 16, 8

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from battery_sorting.cli._defect_options import DefectArguments
from battery_sorting.cli.evaluate import evaluate_defects
from battery_sorting.cli.train import train_defects


class Asked(Exception):
    """The options have come to the training, which is not what is tested here."""


@pytest.fixture
def asked(monkeypatch) -> list[tuple[DefectArguments, Path]]:
    found = []

    def options(self: DefectArguments, data: Path) -> None:
        found.append((self, data))
        raise Asked

    monkeypatch.setattr(DefectArguments, "options", options)
    return found


def run(command, *arguments: object) -> None:
    app = typer.Typer()
    app.command()(command)
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(ended.exception, Asked), ended.output


@pytest.mark.parametrize(("command", "own"), [(evaluate_defects, ()), (train_defects, ("--out", "model/1"))])
def test_each_option_comes_to_the_training(command, own, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(command, "--data", tmp_path, *own)
    run(
        command, "--data", tmp_path, *own, "--view", "lug", "--good", "fine", "--groups", "g.csv", "--group-gap", 2,
        "--backbone", "lite1", "--weights", "w", "--size", "64x32", "--finder", "f.onnx", "--head", "maps",
        "--epochs", 3, "--members", 2, "--max-escape", 0.01, "--seed", 4, "--device", "cpu", "--threads", 5,
        "--cache", "cache",
    )  # fmt: skip
    given = DefectArguments(
        view="lug", good="fine", groups="g.csv", group_gap=2, backbone="lite1", weights=Path("w"), size="64x32",
        finder=Path("f.onnx"), head="maps", epochs=3, members=2, max_escape=0.01, seed=4, device="cpu", threads=5,
        cache=Path("cache"),
    )  # fmt: skip
    assert asked == [(DefectArguments(), tmp_path), (given, tmp_path)]
    assert all(getattr(given, field.name) != field.default for field in fields(DefectArguments)), (
        "none is forgotten"
    )


def test_limits_of_options_hold(tmp_path):
    app = typer.Typer()
    app.command()(evaluate_defects)
    ended = CliRunner().invoke(app, ["--data", str(tmp_path), "--members", "10"])
    assert ended.exit_code == 2 and "--members" in ended.output


def test_both_commands_have_all_of_them():
    names = {field.name for field in fields(DefectArguments)}
    for command in (evaluate_defects, train_defects):
        assert names < set(signature(command).parameters)
        assert "training" not in signature(command).parameters
