"""The paper's experiments, on pictures of plain colours and a network without knowledge."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
if find_spec("timm") is None:
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

import torch
from support.tiny_backbone import TinyBackbone
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision.training import experiments
from battery_sorting.vision.training.experiments import (
    EXPERIMENTS,
    ExperimentOptions,
    TrainingRun,
    fit_picture,
    read_examples,
    run_experiment,
    split,
    summarise,
)

SETTINGS = [setting.name for setting in EXPERIMENTS["batsort-table2"].settings]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three types and an *Other*; a broken file among them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number, label in enumerate(("red", "green", "blue", "Other")):
        (folder / label).mkdir()
        for n in range(8):
            pixels = rng.integers(0, 90, (40, 60, 3))
            pixels[..., 2 - number % 3] += 150
            cv2.imwrite(str(folder / label / f"{n}.png"), pixels.astype(np.uint8))
    (folder / "red" / "broken.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A backbone of a few thousand weights, and stages that end soon."""
    torch.set_num_threads(1)
    monkeypatch.setattr(experiments, "load_backbone", lambda name, weights: TinyBackbone())  # noqa: ARG005
    monkeypatch.setattr(experiments, "random_backbone", lambda name, seed: TinyBackbone(seed))  # noqa: ARG005
    made = experiments.TwoStageOptions
    short = {"first_epochs": 2, "second_epochs": 1, "batch": 16}
    monkeypatch.setattr(experiments, "TwoStageOptions", lambda **given: made(**given | short))


def options(pictures, out, **given):
    return ExperimentOptions(pictures, out, **{"runs": 2, "size": 32, "scratch_size": 32} | given)


def runs_of(*accuracies):
    return [
        TrainingRun(blocks, 0.2, n, 72, 8, 20, 1.0, 0.9, value, 11, 11, 1.0)
        for blocks, values in enumerate(accuracies)
        for n, value in enumerate(values)
    ]


def test_split_is_the_papers_and_the_same_for_every_setting():
    train, validation, test = split(500, 0, 3)
    assert (len(train), len(validation), len(test)) == (360, 40, 100)
    assert sorted(np.concatenate([train, validation, test])) == list(range(500))
    assert np.array_equal(split(500, 0, 3)[2], test)
    assert not np.array_equal(split(500, 0, 4)[2], test)


def test_others_and_unreadable_pictures_stand_aside(pictures, tmp_path):
    examples, names = read_examples(options(pictures, tmp_path), 32)
    assert names == ("blue", "green", "red")
    assert examples.pixels.shape == (24, 32, 32, 3)
    assert np.bincount(examples.targets).tolist() == [8, 8, 8]


def test_corrections_are_taken(pictures, tmp_path):
    (tmp_path / "labels.csv").write_text("file,label,action,reason,confidence\nred/0.png,,drop,faded,1\n")
    examples, _ = read_examples(options(pictures, tmp_path, labels=str(tmp_path / "labels.csv")), 32)
    assert np.bincount(examples.targets).tolist() == [8, 8, 7]


@pytest.mark.parametrize(("fit", "shape"), [("squash", (64, 64)), ("letterbox", (64, 64)), ("crop", (32, 64))])
def test_input_has_the_size_that_the_network_wants(fit, shape):
    assert fit_picture(np.full((50, 100, 3), 255, np.uint8), 64, fit).shape[:2] == shape


def test_letterbox_keeps_the_aspect_and_squash_fills():
    white = np.full((50, 100, 3), 255, np.uint8)
    assert (fit_picture(white, 64, "letterbox") == 255).all(axis=2).mean() == 0.5
    assert (fit_picture(white, 64, "squash") == 255).all()


def test_experiment_writes_runs_table_plot_and_goes_on_where_it_ended(pictures, tmp_path):
    def stop_after_three(_, runs):
        for number, run in enumerate(runs):
            if number == 3:
                raise KeyboardInterrupt
            yield run

    with pytest.raises(KeyboardInterrupt):
        run_experiment("batsort-table2", options(pictures, tmp_path, runs=1), stop_after_three)
    with pytest.raises(ConfigurationError, match=r"runs\.csv(.|\n)*--resume"):
        run_experiment("batsort-table2", options(pictures, tmp_path, runs=1))
    done = []
    resumed = options(pictures, tmp_path, runs=1, resume=True)
    report = run_experiment("batsort-table2", resumed, lambda _, runs: done.extend(runs) or runs)
    assert [setting.name for _, setting in done] == SETTINGS[3:]
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["blocks"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert {(row["train"], row["validation"], row["test"]) for row in rows} == {("17", "2", "5")}
    assert [row["mean"] for row in report["summary"]] == [float(row["test_accuracy"]) for row in rows]
    table = (tmp_path / "batsort-table2.md").read_text()
    assert "| 2 blocks | 1 |" in table
    assert "92.1%" in table
    assert (tmp_path / "batsort-table2.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "batsort-table2.csv").open() as file:
        assert [row["paper_mean"] for row in csv.DictReader(file)] == ["0.831", "0.902", "0.921", "0.84", "0.69"]
    with pytest.raises(ConfigurationError, match=r"size: the runs there have 32, not 48"):
        run_experiment("batsort-table2", options(pictures, tmp_path, runs=1, resume=True, size=48))


def test_experiments_share_what_they_have_in_common(pictures, tmp_path):
    run_experiment("batsort-table1", options(pictures, tmp_path, runs=1))
    done = []
    shared = options(pictures, tmp_path, runs=1, resume=True)
    run_experiment("batsort-table2", shared, lambda _, runs: done.extend(runs) or runs)
    assert [setting.name for _, setting in done] == ["1 block", "3 blocks", "4 blocks"]
    table = (tmp_path / "batsort-table1.md").read_text()
    assert "| no knowledge | 1 |" in table


def test_findings_follow_from_the_figures():
    table2 = EXPERIMENTS["batsort-table2"]
    wobble = np.array([-0.01, 0.0, 0.01, 0.005, -0.005])
    turned = wobble[::-1]
    accuracies = [0.83 + wobble, 0.915 + 4 * turned, 0.92 + wobble, 0.925 + turned, 0.68 + wobble]
    findings = summarise(table2, runs_of(*accuracies))["findings"]
    assert any("2 blocks:" in text and "than chance explains" in text for text in findings)
    assert any("3 blocks:" in text and "points above the paper" in text for text in findings)
    assert any("0 blocks against 2 blocks: -9.0 ± 0.0" in text and "a fall here, too" in text for text in findings)
    assert any("1 block against 2 blocks" in text and "can't tell" in text for text in findings)
    assert any("3 blocks against 2 blocks" in text and "not seen" in text for text in findings)
    assert any("4 blocks against 2 blocks" in text and "a fall here, too" in text for text in findings)


def test_mistakes_are_named(pictures, tmp_path):
    with pytest.raises(ConfigurationError, match=r"table9(.|\n)*batsort-table1, batsort-table2, batsort-figure3"):
        run_experiment("table9", options(pictures, tmp_path))
    with pytest.raises(ConfigurationError, match=r"--input(.|\n)*'stretch'(.|\n)*squash"):
        run_experiment("batsort-table1", options(pictures, tmp_path, fit="stretch"))
    with pytest.raises(ConfigurationError, match="--data"):
        run_experiment("batsort-table1", options(tmp_path / "gone", tmp_path))


def test_command_prints_json(pictures, tmp_path):
    arguments = ["experiment", "batsort-figure3", "--data", str(pictures), "--out", str(tmp_path), "--runs", "1"]
    result = CliRunner().invoke(
        make_app("experiment"), [*arguments, "--size", "32", "--json"], catch_exceptions=False
    )
    report = json.loads(result.stdout)
    assert [row["setting"] for row in report["summary"]] == ["0 %", "10 %", "20 %", "30 %", "40 %", "50 %"]
    assert report["summary"][2]["paper"]["mean"] == 0.921
