"""Training of a defect model with a tiny backbone on drawn parts."""

from __future__ import annotations

import _thread
import contextlib
import json
import random
import shutil
import threading
import time
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from support.tiny_backbone import TinyBackbone

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision.framing import Framing
from battery_sorting.vision.inspector import DefectInspector
from battery_sorting.vision.model_store import checked_card
from battery_sorting.vision.training import defect_model
from battery_sorting.vision.training.backbone import InputConfig
from battery_sorting.vision.training.defect_data import Grouping, cut_out, list_defect_pictures
from battery_sorting.vision.training.defect_head import (
    Calibration,
    DefectHead,
    DefectHeadOptions,
    HeadEnsemble,
    coreset,
    fit_calibration,
    fit_head,
    fit_novelty,
    novelty_of,
    probabilities_of,
    scores_of,
)
from battery_sorting.vision.training.defect_model import (
    DefectOptions,
    HeldOutVerdicts,
    judge_splits,
    prepare,
    train_defects,
)
from battery_sorting.vision.training.defect_tuning import TuningOptions
from battery_sorting.vision.training.judge_model import judge_model


class ThreeScales(TinyBackbone):
    """With strides 8 and 16, as real backbones have them."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            half = [torch.nn.Sequential(torch.nn.Conv2d(6, 6, 3, 2, 1), torch.nn.ReLU()) for _ in range(3)]
        self.blocks = torch.nn.Sequential(*(torch.nn.Sequential(one) for one in half))
        self.eval()


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr(defect_model, "load_backbone", lambda *_: ThreeScales())
    config = InputConfig(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    monkeypatch.setattr(defect_model, "input_config", lambda _: config)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Thirty grey parts that are good, and as many with a dark hole or a bright scratch."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(5)
    rows = ["file,severity"]
    for label in ("good", "hole", "scratch"):
        (folder / label).mkdir()
        for n in range(30 if label == "good" else 15):
            picture = np.clip(rng.normal(120, 4, (64, 64)), 0, 255).astype(np.uint8)
            x, y = rng.integers(16, 48, 2)
            severity = (n % 5 + 1) / 5
            if label == "hole":
                cv2.circle(picture, (int(x), int(y)), round(4 + 6 * severity), 20, -1)
            if label == "scratch":
                cv2.line(picture, (int(x), 4), (int(x) + 6, 60), 250, round(1 + 4 * severity))
            cv2.imwrite(str(folder / label / f"part_{n:03d}.png"), picture)
            rows.append(f"{label}/part_{n:03d}.png,{0 if label == 'good' else severity}")
    (folder / "looks.csv").write_text("\n".join(rows) + "\n")
    return folder


def options(parts, **changes) -> DefectOptions:
    return DefectOptions(**({"data": parts, "size": (64, 64), "memory": 40} | changes))


@pytest.mark.parametrize("learner", ["kernel", "maps"])
def test_training_writes_a_model_that_tells_the_parts_apart(parts, tmp_path, learner):
    card = train_defects(options(parts, learner=learner, splits=3), tmp_path / "parts" / "1")
    assert card.data["head"] == learner
    assert (card.labels, card.good, card.view) == (["good", "hole", "scratch"], ["good"], "")
    assert card.metrics["accuracy"]["value"] > 0.85
    assert card.metrics["positive"] == "defective"
    assert card.metrics["escape"]["defectives_needed"] >= 598
    assert card.data["per_label"] == {"good": 30, "hole": 15, "scratch": 15}
    inspector = DefectInspector.load(tmp_path / "parts" / "1")
    judged, refused = judge_model(inspector, list_defect_pictures(parts))
    assert judged.report()["accuracy"]["value"] > 0.9
    assert all(reason.startswith("unsure") for reason in refused)
    said = inspector.inspect(np.full((64, 64, 3), 20, np.uint8) + np.arange(64, dtype=np.uint8)[None, :, None])
    assert said.novelty > 1  # a part as no good one looks


def test_what_is_kept_gives_the_same_model(parts, tmp_path):
    first = train_defects(options(parts, cache=tmp_path / "cache"), tmp_path / "a" / "1")
    again = train_defects(options(parts, cache=tmp_path / "cache"), tmp_path / "b" / "1")
    assert first.sha256 == again.sha256
    assert len(list((tmp_path / "cache").glob("cut_*.npz"))) == 60


# issue 15, B6
def test_version_that_is_there_is_refused_before_the_training_and_replaced_whole_where_that_is_allowed(
    parts, tmp_path, monkeypatch
):
    out = tmp_path / "parts" / "1"
    first = train_defects(options(parts, splits=1), out)
    with monkeypatch.context() as patch:
        patch.setattr(defect_model, "prepare", lambda *_: pytest.fail("the training began"))
        with pytest.raises(ConfigurationError, match=r"parts/1 is there already.*--overwrite"):
            train_defects(options(parts), out)
        for place in ("/dev/null/parts/1", "/proc/parts/1"):
            with pytest.raises(ConfigurationError, match="can't be written"):
                train_defects(options(parts), Path(place))
        for name in ("a:b", "_1", "1."):
            with pytest.raises(ConfigurationError, match="give a folder NAME/VERSION"):
                train_defects(options(parts), tmp_path / "parts" / name)
    second = train_defects(options(parts, splits=1, learner="maps"), out, overwrite=True)
    assert second.sha256 != first.sha256
    assert DefectInspector.load(out).card == second
    assert [path.name for path in out.parent.iterdir()] == ["1"]


# issue 15, B6
def test_model_works_at_whatever_moment_its_training_anew_is_interrupted(parts, tmp_path):
    out, cache = tmp_path / "parts" / "1", tmp_path / "cache"
    began = time.perf_counter()
    train_defects(options(parts, splits=1, cache=cache), out)
    takes_s, moments, interrupted = time.perf_counter() - began, random.Random(15), 0
    for _ in range(8):
        alarm = threading.Timer(moments.uniform(0, takes_s), _thread.interrupt_main)
        alarm.start()
        try:
            train_defects(options(parts, splits=1, cache=cache), out, overwrite=True)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            alarm.cancel()
            with contextlib.suppress(KeyboardInterrupt):  # it may come only now
                alarm.join()
        checked_card(out)
        DefectInspector.load(out).warm_up()
        assert [path.name for path in out.parent.iterdir()] == ["1"]
    assert interrupted >= 2


# issue 15, B8
@pytest.mark.parametrize("label", ["a:b", "ends.", "GOOD"])
def test_folder_that_can_be_no_label_is_named_before_the_training(parts, tmp_path, label):
    data = tmp_path / "data"
    shutil.copytree(parts, data)
    (data / label).mkdir()
    for n in range(3):
        shutil.copy(parts / "hole" / f"part_{n:03d}.png", data / label)
    with pytest.raises(ConfigurationError, match=r"rename it|but for its spelling"):
        train_defects(options(data), tmp_path / "parts" / "1")
    assert not (tmp_path / "parts" / "1").exists()


def test_the_report_knows_severities_and_kinds(parts):
    prepared = prepare(options(parts))
    report = judge_splits(prepared, options(parts), 2).report()
    assert report["splits"] == 2
    assert set(report["kinds"]) == {"good", "hole", "scratch"}
    assert report["severity"]["above_medium"]["pictures"] > 0
    json.dumps(report)


def test_the_report_judges_every_split_by_the_threshold_that_is_asked_for():
    judged = HeldOutVerdicts(
        probability=np.array([0.9, 0.3, 0.3, 0.1]),
        defective=np.array([True, False, True, False]),
        kinds=np.array([1, 0, 1, 0]),
        targets=np.array([1, 0, 1, 0]),
        novelty=np.full(4, np.nan),
        split=np.array([0, 0, 1, 1]),
        names=np.array(list("abcd")),
        severity=np.full(4, np.nan),
        scores=np.zeros((4, 0)),
        labels=("good", "scratch"),
    )
    assert judged.report()["accuracy_of_splits"] == {"mean": 0.75, "sd": 0.3536, "worst": 0.5}
    high = judged.report(0.95)
    assert high["accuracy"]["value"] == 0.5
    assert high["accuracy_of_splits"] == {"mean": 0.5, "sd": 0.0, "worst": 0.5}


def test_groups_by_pattern_by_gap_and_by_csv(parts, tmp_path):
    files = list_defect_pictures(parts).files
    by_number, _ = Grouping(r"part_(\d+)").of(files)
    assert len(set(by_number)) == 30
    by_run, said = Grouping(r"part_(\d+)", gap=1).of(files)
    assert len(set(by_run)) == 1
    assert "at most 1 apart" in said
    table = tmp_path / "groups.csv"
    table.write_text("file,group\n" + "\n".join(f"{file.name},{file.name[6]}" for file in files))
    assert len(set(Grouping(str(table)).of(files)[0])) == 3


@pytest.mark.parametrize(
    ("by", "gap", "text"),
    [
        ("(", 0, "no regular expression"),
        ("exp_", 0, "not found"),
        (r"part", 3, "whole numbers"),
        ("no.csv", 0, "columns"),
    ],
)
def test_groups_that_cannot_be_told_are_refused(parts, by, gap, text):
    with pytest.raises(ConfigurationError, match=text):
        list_defect_pictures(parts, grouping=Grouping(by, gap))


def test_folders_that_say_nothing_are_refused(parts, tmp_path):
    with pytest.raises(ConfigurationError, match="no such folder"):
        list_defect_pictures(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="two are the least"):
        list_defect_pictures(tmp_path)
    with pytest.raises(ConfigurationError, match="'fine' has no pictures"):
        list_defect_pictures(parts, good=("fine",))
    with pytest.raises(ConfigurationError, match="not all"):
        list_defect_pictures(parts, good=("good", "hole", "scratch"))


# issue 15, B9
def test_what_is_no_class_is_not_learned_and_what_is_left_out_is_told(tmp_path, caplog):
    for name in ("good/1.png", "bad/1.png", "@eaDir/1.png", ".ipynb_checkpoints/1.png", "bad/new/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((64, 64, 3), 90, np.uint8))
    (tmp_path / "bad" / "2.dng").write_bytes(b"raw")
    found = list_defect_pictures(tmp_path)
    assert found.labels == ("good", "bad") and found.names == ["good/1.png", "bad/1.png"]
    assert "2 (.ipynb_checkpoints/, @eaDir/)" in caplog.text
    assert "raw files of cameras: 1 (bad/2.dng)" in caplog.text
    assert "pictures in folders below a type's: 1 (bad/new/1.png)" in caplog.text


# issue 15, B9
def test_a_class_is_one_however_its_accents_are_written(tmp_path):
    (tmp_path / "good").mkdir()
    cv2.imwrite(str(tmp_path / "good" / "0.png"), np.full((64, 64, 3), 90, np.uint8))
    for form in ("NFC", "NFD"):
        folder = tmp_path / unicodedata.normalize(form, "beulé")
        folder.mkdir()
        cv2.imwrite(str(folder / f"{form}.png"), np.full((64, 64, 3), 90, np.uint8))
    (tmp_path / "groups.csv").write_text(
        unicodedata.normalize("NFD", "file,group\ngood/0.png,1\nbeulé/NFC.png,2\nbeulé/NFD.png,2\n"),
        encoding="utf-8",
    )
    found = list_defect_pictures(tmp_path, grouping=Grouping(str(tmp_path / "groups.csv")))
    assert found.labels == ("good", "beulé")
    assert found.targets.tolist() == [0, 1, 1] and found.groups.tolist() == [0, 1, 1]


# issue 15, B9
def test_pictures_of_12_bits_are_cut_out_like_their_8_bits(tmp_path):
    rng = np.random.default_rng(8)
    for name in ("good", "bad"):
        (tmp_path / "8" / name).mkdir(parents=True)
        (tmp_path / "12" / name).mkdir(parents=True)
        shallow = rng.integers(0, 256, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "8" / name / "1.png"), shallow)
        cv2.imwrite(str(tmp_path / "12" / name / "1.png"), shallow.astype(np.uint16) * 16)
    framing = Framing(crop="none", width=64, height=64)
    cut = [
        cut_out(list_defect_pictures(tmp_path / n), framing, None, tmp_path / "kept").pixels for n in ("8", "12")
    ]
    assert np.array_equal(*cut)


def test_a_picture_that_cannot_be_read_is_left_out_and_named(parts, tmp_path):
    for label in ("good", "hole"):
        (tmp_path / label).mkdir()
        for file in sorted((parts / label).iterdir())[:6]:
            (tmp_path / label / file.name).write_bytes(file.read_bytes())
    (tmp_path / "hole" / "broken.png").write_bytes(b"broken")
    prepared = prepare(options(tmp_path, memory=0))
    assert list(prepared.left_out) == [str(tmp_path / "hole" / "broken.png")]
    assert len(prepared.pictures.files) == 12


def test_a_wrong_view_and_a_wrong_size_are_refused(parts):
    with pytest.raises(ConfigurationError, match="--view"):
        prepare(options(parts, view="top"))
    with pytest.raises(ConfigurationError, match="multiples of 16"):
        prepare(options(parts, size=(65, 64)))
    with pytest.raises(ConfigurationError, match="'trees' is none; choose from kernel, maps"):
        prepare(options(parts, learner="trees"))
    with pytest.raises(ConfigurationError, match="--finder"):
        prepare(options(parts, view="lug", finder=parts / "finder.onnx"))


def maps(count: int, shift: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, 4, 3, 6)).astype(np.float16)


@pytest.mark.parametrize("parts", [1, 2])
def test_head_calibration_and_probabilities_fit_together(parts):
    grid = np.concatenate([maps(80, 0.0, 1), maps(80, 2.5, 2)])
    targets = np.repeat([0, 1], 80)
    targets[120:] = 2
    head = fit_head(grid, targets, [1, 2], 3, parts, DefectHeadOptions(hidden=8, epochs=10, members=2))
    scores = scores_of(head, grid)
    assert scores.shape == (160, 4)
    calibration = fit_calibration(scores, targets, targets > 0, [1, 2])
    said = probabilities_of(torch.from_numpy(scores), calibration, [0]).numpy()
    assert said.sum(axis=1) == pytest.approx(np.ones(160), abs=1e-6)
    assert ((said[:, 0] < 0.5) == (targets > 0)).mean() > 0.95


def test_probabilities_keep_the_order_of_the_labels():
    scores = torch.tensor([[10.0, -1.0, 0.5, -1.0]])
    said = probabilities_of(scores, Calibration(), [2]).numpy()[0]
    assert said[2] < 1e-3  # the good label stands third
    assert said[0] == pytest.approx(said[1] * np.exp(-7.5) if said[1] else 0, abs=1e-2) or said[0] < said[1]


def test_novelty_holds_back_few_good_ones_and_what_differs():
    good, strange = maps(60, 0.0, 3), maps(20, 6.0, 4)
    novelty = fit_novelty(good, memory=50)
    assert (novelty_of(novelty, maps(60, 0.0, 5)) > 1).mean() < 0.2
    assert (novelty_of(novelty, strange) > 1).all()


def test_a_coreset_covers_every_cluster():
    rng = np.random.default_rng(6)
    rows = np.concatenate([rng.normal(centre, 0.01, (50, 4)) for centre in (0, 5, 10)]).astype(np.float32)
    assert {number // 50 for number in coreset(rows, 3, rng)} == {0, 1, 2}


def test_parts_side_by_side_may_stand_in_any_order():
    options = DefectHeadOptions(hidden=8)
    head = HeadEnsemble([DefectHead(np.zeros(4), np.ones(4), 3, 2, options)], [1, 2]).eval()
    grid = maps(5, 0.0, 8)
    swapped = np.concatenate([grid[..., 3:], grid[..., :3]], axis=3)
    one, other = (scores_of(head, np.concatenate([part, part])) for part in (grid, swapped))
    assert one == pytest.approx(other, abs=1.5)  # but for what the convolution sees across the border


def test_trunk_and_head_can_learn_together(parts, tmp_path):
    tuning = TuningOptions(epochs=3, hidden=16)
    card = train_defects(options(parts, learner="maps", tuning=tuning, splits=1), tmp_path / "tuned" / "1")
    assert card.data["fine_tuned_epochs"] == 3
    heat = (
        DefectInspector.load(tmp_path / "tuned" / "1")
        .inspect(cv2.imread(str(parts / "hole" / "part_004.png")))
        .heat
    )
    assert heat is not None
    assert heat.min() >= 0
    with pytest.raises(ConfigurationError, match="--fine-tune"):
        prepare(options(parts, learner="kernel", tuning=tuning))
