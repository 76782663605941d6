"""The paper's table of networks, with networks of a few hundred weights on drawn parts."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
if find_spec("timm") is None:
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

import torch
from torch import nn
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.defect_card import read_defect_card
from battery_sorting.vision.engine import open_engine
from battery_sorting.vision.framing import Framing
from battery_sorting.vision.inspector import DefectInspector
from battery_sorting.vision.training import defect_model, fine_tune, inspection_table
from battery_sorting.vision.training.backbone import InputConfig
from battery_sorting.vision.training.defect_model import DefectOptions
from battery_sorting.vision.training.fine_tune import Recipe, augmented, make_network, probabilities
from battery_sorting.vision.training.inspection_table import TableOptions, table_text
from battery_sorting.vision.training.model_card import card_text
from battery_sorting.vision.training.onnx_files import export_onnx


class Chain(nn.Module):
    """Strides 8 and 16, random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        layers = [nn.Sequential(nn.Conv2d(3 if n == 0 else 6, 6, 3, 2, 1), nn.ReLU()) for n in range(4)]
        self.features = nn.Sequential(*layers)


def tiny_network(labels: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.LazyLinear(labels))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Networks that are trained in a moment, and small pictures."""
    monkeypatch.setattr(defect_model, "load_backbone", lambda *_: Chain())
    monkeypatch.setattr(
        defect_model, "input_config", lambda _: InputConfig(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    )
    monkeypatch.setattr(inspection_table, "PAPER_SIZE", (64, 64))
    for name in ("cbam-lite0", "alexnet"):
        monkeypatch.setitem(fine_tune.NETWORKS, name, tiny_network)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Twenty grey parts, and twenty that are dark."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(5)
    for label, level in (("good", 150), ("dark", 60)):
        (folder / label).mkdir()
        for n in range(20):
            picture = np.clip(rng.normal(level, 12, (64, 64)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / label / f"{n}.png"), picture)
    return folder


def run(parts, out, **changes):
    defects = DefectOptions(parts, size=(64, 64), memory=0)
    return inspection_table.inspection_table(TableOptions(defects, **{"splits": 2, "epochs": 3} | changes), out)


def test_what_was_run_and_what_was_not_stands_in_every_table(parts, tmp_path):
    report = run(parts, tmp_path, networks=("cbam-lite0", "alexnet"))
    assert [row["name"] for row in report["rows"]] == ["lite0", "cbam-lite0", "alexnet"]
    frozen, whole, missing = report["rows"]
    assert frozen["how"] == "frozen, kernel head; splits of groups: 2"
    assert whole["how"] == "whole, pretrained; epochs: 3, splits of groups: 1"
    assert "fetch torchvision's alexnet" in missing["not_run"]
    assert "--from-scratch" in missing["not_run"]
    text = (tmp_path / "table.md").read_text()
    assert "not run: no pretrained weights" in text
    assert len(text.splitlines()) == 2 + 2 + 3
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == ["lite0", "cbam-lite0"]
    own = frozen["figures"]["accuracy"]
    assert float(rows[0]["accuracy_low"]) == own["low"] <= own["value"] <= float(rows[0]["accuracy_high"])
    assert json.loads((tmp_path / "table.json").read_text()) == report
    assert cv2.imread(str(tmp_path / "table.png")) is not None


# issue 15, B6
def test_table_over_models_that_are_there_is_refused_before_the_first_is_trained(parts, tmp_path, monkeypatch):
    run(parts, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(inspection_table, "prepare", lambda *_: pytest.fail("the training began"))
        with pytest.raises(ConfigurationError, match=r"models/lite0/1 is there already.*--overwrite"):
            run(parts, tmp_path)
        with pytest.raises(ConfigurationError, match="can't be written"):
            run(parts, Path("/dev/null/table"))
    assert run(parts, tmp_path, overwrite=True)["rows"][0]["name"] == "lite0"


def test_what_was_run_can_be_used_at_once_and_its_card_says_how_good_it_is(parts, tmp_path):
    report = run(parts, tmp_path, networks=("cbam-lite0",))
    for row in report["rows"]:
        folder = tmp_path / "models" / row["name"] / "1"
        inspector = DefectInspector.load(folder)
        assert inspector.card.metrics == row["figures"]
        said = {label: inspector.inspect(cv2.imread(str(parts / label / "3.png"))) for label in ("good", "dark")}
        assert said["dark"].probability > said["good"].probability
        text = (folder / "card.md").read_text()
        value = row["figures"]["accuracy"]
        interval = f"{100 * value['low']:.1f}–{100 * value['high']:.1f}"
        assert f"| accuracy | {100 * value['value']:.1f} % ({interval}, {value['pictures']} pictures) |" in text
        assert "| per_label | good 20, dark 20 |" in text
        assert "defectives are needed for the claim" in text
    whole = json.loads((tmp_path / "models" / "cbam-lite0" / "1" / "card.json").read_text())
    assert whole["labels"] == ["good", "defective"]
    assert "which what is shipped has not seen" in whole["data"]["held_out"]


@pytest.mark.parametrize("size", [(20, 44), (6, 6), (7, 3)])
def test_pools_that_onnx_does_not_know_are_exported_exactly(tmp_path, size):
    torch.manual_seed(4)
    layers = (nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d((6, 7)), nn.Flatten(), nn.Linear(5 * 42, 2))
    network = nn.Sequential(*layers).eval()
    network[0].never_asked = nn.AdaptiveAvgPool2d(1)
    pixels = torch.rand(2, 3, *size)
    wanted = torch.softmax(network(pixels), dim=1).detach().numpy()
    framing = Framing.model_construct(width=size[1], height=size[0])
    export_onnx(fine_tune.Judge(network, framing), [pixels], tmp_path / "one.onnx", fine_tune.Judge.outputs)
    got = open_engine((tmp_path / "one.onnx").read_bytes(), "one.onnx").run(pixels.numpy())["probabilities"]
    assert np.allclose(got, wanted, atol=1e-6)


def test_networks_begin_at_random_only_where_that_was_asked_for(parts, tmp_path):
    row = run(parts, tmp_path, frozen=(), networks=("alexnet",), scratch=True)["rows"][0]
    assert row["how"].startswith("whole, from scratch")
    assert row["figures"]["accuracy"]["pictures"] == 8  # a fifth


def test_a_network_that_does_not_exist_is_refused_before_any_work(parts, tmp_path):
    with pytest.raises(ConfigurationError, match="'resnet999' is none"):
        run(parts, tmp_path, networks=("resnet999",))


def test_the_papers_figures_stand_beside_with_the_interval_they_never_gave():
    text = table_text({"rows": [], "paper": inspection_table.PAPER["lug"]})
    assert (
        "| CBAM-ResNet50 | the paper's pictures | 97.5% (92.9%–99.2%) | 96.6% | 98.3% | 0.974 | | about 120 |"
        in text
    )


def test_given_weights_are_taken_where_they_fit(tmp_path):
    torch.save({"2.weight": torch.full((2, 192), 0.25), "2.bias": torch.zeros(2)}, tmp_path / "alexnet.pth")
    fitting = {"alexnet": lambda _: nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(192, 2))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fine_tune.NETWORKS, "alexnet", fitting["alexnet"])
        network = make_network("alexnet", 2, tmp_path)
        assert torch.all(network[2].weight == 0.25)
        torch.save({"other.weight": torch.zeros(3), "more": torch.zeros(1)}, tmp_path / "alexnet.pth")
        with pytest.raises(ModelError, match=r"alexnet.pth: 0 of 2 weights fit alexnet"):
            make_network("alexnet", 2, tmp_path)


def test_attention_starts_from_the_weights_of_the_network_without_it(tmp_path):
    (tmp_path / "resnet50.pth").write_bytes(b"")
    assert fine_tune.weights_file("cbam-resnet50", tmp_path) == tmp_path / "resnet50.pth"
    assert fine_tune.weights_file("vgg16", tmp_path) is None
    assert fine_tune.weights_file("vgg16", tmp_path / "resnet50.pth") == tmp_path / "resnet50.pth"


def test_fine_tuning_learns_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(0)
    cutouts = rng.integers(0, 60, (40, 64, 64, 3)).astype(np.uint8)
    targets = np.arange(40) % 2
    cutouts[targets == 1] += 150
    framing = Framing(width=64, height=64)
    recipe = Recipe(rate=1e-2, batch=16, epochs=4, device="cpu")
    said = [
        probabilities(
            fine_tune.fine_tune(tiny_network(2), cutouts, targets, framing, recipe), cutouts, framing, "cpu"
        )
        for _ in range(2)
    ]
    assert (said[0].argmax(axis=1) == targets).mean() > 0.95
    assert np.array_equal(said[0], said[1])


def test_augmented_pictures_keep_size_and_kind():
    picture = np.full((32, 48, 3), 90, np.uint8)
    picture[10:20, 10:20] = 200
    changed = [augmented(picture, np.random.default_rng(seed)) for seed in range(6)]
    assert {one.shape for one in changed} == {(32, 48, 3)}
    assert all(abs(int((one > 150).sum()) - 300) < 120 for one in changed)
    assert any(not np.array_equal(one, picture) for one in changed)


def test_the_command_prints_the_table(parts, tmp_path):
    said = CliRunner().invoke(
        make_app("experiment"),
        [
            *("experiment", "inspection-table3", "--data", str(parts), "--out", str(tmp_path), "--backbone", ""),
            *("--networks", "cbam-lite0", "--epochs", "1", "--device", "cpu"),
        ],
    )
    assert said.exit_code == 0, said.output
    assert "| cbam-lite0 | whole, pretrained; epochs: 1" in said.output


def test_the_light_network_has_attention_and_two_outputs(monkeypatch):
    class Features(nn.Module):
        num_features = 16

        def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
            return nn.functional.avg_pool2d(pixels, 8).repeat(1, 6, 1, 1)[:, :16]

    monkeypatch.setattr(fine_tune, "load_backbone", lambda _: Features())
    network = fine_tune._lite0_cbam(2)
    assert type(network.attention).__name__ == "CbamModule"
    assert network(torch.rand(3, 3, 64, 64)).shape == (3, 2)


@pytest.mark.parametrize("view", ["lug", "case"])
def test_shipped_models_have_the_words_that_belong_to_their_cards(view):
    folder = Path(__file__).parents[3] / "models" / view / "1"
    assert (folder / "card.md").read_text() == card_text(read_defect_card(folder))
