"""A belt learns on while it runs: what it was unsure of is labelled, learnt, compared and put to work."""

from __future__ import annotations

import csv
import json
import os
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
from harness import check_account, run_cli
from typer.testing import CliRunner

pytest.importorskip("torch")
if not all(find_spec(name) for name in ("sklearn", "onnx", "skl2onnx")):
    pytest.skip("needs requirements/train.txt", allow_module_level=True)
import torch

from battery_sorting.cli.main import make_app
from battery_sorting.core.active_model import activate, find_model
from battery_sorting.core.types import OTHERS, make_battery_id
from battery_sorting.ledger.events import ModelChanged, Typed
from battery_sorting.vision.card import read_card
from battery_sorting.vision.synthetic.renderer import make_renderer
from battery_sorting.vision.training import backbone
from battery_sorting.vision.training.data import random_item
from battery_sorting.vision.training.head import HeadOptions
from battery_sorting.vision.training.type_model import TrainingOptions, train_type_model
from battery_sorting.vision.training.views import ViewPlan

pytestmark = pytest.mark.system

TYPES = {"Duracell_Alk": "duracell_alk", "Exell_Green": "exell_green", "Klarus": "klarus"}
RATE_PER_S = 3.0
CELL = (
    f"recipe.routes={json.dumps(TYPES)}",
    "recipe.threshold=0.6",
    f"plant.types={json.dumps(list(TYPES))}",
    "timeouts.heartbeat_s=10",
    "timeouts.belt_state_s=5",
    "timeouts.frame_s=2",
)


class Mosaic(torch.nn.Module):
    """A backbone without weights: its features are the colours of 8 × 16 tiles."""

    def forward_features(self, pixels):
        tiles = torch.nn.functional.avg_pool2d(pixels, 16)
        return tiles.flatten(1)[:, :, None, None]


@pytest.fixture(autouse=True)
def backbone_that_needs_no_time(monkeypatch):
    seen = backbone.InputConfig(256, 128, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    monkeypatch.setattr(backbone, "load_backbone", lambda *_: Mosaic())
    monkeypatch.setattr(backbone, "input_config", lambda _: seen)


def draw(folder: Path, number: int, first_seed: int) -> Path:
    renderer = make_renderer(None, first_seed)
    for label in TYPES:
        (folder / label).mkdir(parents=True)
        for n in range(number):
            frame = renderer.render(random_item(label, first_seed + n), speed_mps=0.3, t_s=float(n))
            cv2.imwrite(str(folder / label / f"{n}.png"), frame[::2, ::2, ::-1])
    return folder


def command(*arguments: object) -> str:
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(make_app(words[0]), words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def label_as_a_person_would(folder: Path, truth: dict[str, str]) -> set[str]:
    """Fills in the column of the table by what really lay on the belt; returns the labels."""
    with (folder / "review.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = truth[row["battery_id"]]
        (folder / row["label"]).mkdir(exist_ok=True)
    with (folder / "review.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return {row["label"] for row in rows}


def test_belt_learns_on_without_a_stop_and_loses_no_battery(make_cell, tmp_path):
    family = tmp_path / "models" / "tiny"
    few = {"renders": 0, "test_renders": 0, "plan": ViewPlan(1, 0, 1), "head": HeadOptions(trees=40, leaf=2)}
    train_type_model(TrainingOptions(family / "1", data=draw(tmp_path / "data", 8, 300), threads=1, **few))
    activate(family, "1", 0.0)
    test_pictures = draw(tmp_path / "test", 4, 900)

    with make_cell(0, RATE_PER_S, (f"model={family}", *CELL)) as cell:
        cell.wait_for_triggers(15, timeout_s=60)

        def typed_by(model: str) -> int:
            with cell.ledger() as ledger:
                events = ledger.events(kinds=[Typed])
            return sum(event.data.model == model for event in events)

        cell.wait_for(lambda: typed_by("tiny/1") >= 12, "verdicts to review")
        to_label = tmp_path / "to_label"
        command("review", cell.plan.run_dir / "ledger.sqlite", "--out", to_label, "--limit", 12)
        record = cell.control.record()
        truth = {
            make_battery_id(record["boot_id"], item["trigger_count"]): item["label"] if item["known"] else "Other"
            for item in record["items"]
            if item["trigger_count"] is not None
        }
        labels = label_as_a_person_would(to_label, truth)
        options = ("--base", family / "1", "--add", to_label, "--renders", 0, "--cache", tmp_path / "cache")
        command("train", "type", "--out", family / "2", *options)
        card = read_card(family / "2")
        assert card.types == sorted(TYPES) and card.data["base"] == "1"
        learnt = card.data["photographs"]["per_label"]
        assert sum(learnt.values()) > 24 and set(learnt) <= {*TYPES, OTHERS}, labels

        both = (family / "1", family / "2", "--data", test_pictures)
        compared = json.loads(command("models", "compare", *both, "--json"))
        assert compared["models"] == ["tiny/1", "tiny/2"]
        assert compared["on_pictures"]["pictures"] == 12

        assert cell.state == "Execute" and find_model(str(family)) == family / "1"
        environment = {**os.environ, **cell.plan.environment}
        recipe = str(cell.plan.recipe_file)
        answer = run_cli("models", "activate", str(family / "2"), "--recipe", recipe, env=environment)
        assert "line belt decides with tiny/2 now" in answer.stdout, answer.stderr
        cell.wait_for(lambda: typed_by("tiny/2") >= 5, "the new version decides")
        cell.control.set_faults(**{"feeder.empty": True})
        figures, record, batteries = cell.finish()

    check_account(record, batteries)
    assert figures.items == figures.accounted
    assert figures.named_but_misplaced == 0
    assert (figures.missed, figures.late, figures.double_ejected, figures.lost) == (0, 0, 0, [])
    assert "Holding" not in cell.states and "Aborting" not in cell.states
    with cell.ledger() as ledger:
        changes = [event.data.model for event in ledger.events(kinds=[ModelChanged])]
    assert changes == ["tiny/1", "tiny/2"]
    assert typed_by("tiny/1") + typed_by("tiny/2") == len(batteries)
