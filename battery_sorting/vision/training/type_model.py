"""Trains the battery-type model: a frozen backbone, a head fitted in seconds, calibrated on held-out views."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import torch

from battery_sorting.core.beside import check_writable
from battery_sorting.core.bounded import read_bytes
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.strict_json import to_json
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.card import (
    CARD_FILE,
    LARGEST_FILE,
    WEIGHTS_FILE,
    ModelCard,
    ViewPolicy,
    check_file,
    read_card,
    sha256_of,
)
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.gallery import GALLERY_FILE, Gallery
from battery_sorting.vision.likeness import unit
from battery_sorting.vision.open_set import JUNK_FILE, OPEN_SET_FILE, OpenSetCard, OpenSetRule, Outputs
from battery_sorting.vision.pictures import Photograph, label_of_folder
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.reading import READER_FILE, Reader
from battery_sorting.vision.review import reviewed_pictures
from battery_sorting.vision.training import backbone, head, open_set
from battery_sorting.vision.training.corrections import Corrections
from battery_sorting.vision.training.data import Studio, list_photographs, read_photograph
from battery_sorting.vision.training.head import FastHead, HeadOptions
from battery_sorting.vision.training.network import TypeNetwork, write_model
from battery_sorting.vision.training.new_model import TRAINING, check_labels, name_and_version, new_model
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.selective import threshold_for_purity
from battery_sorting.vision.training.splits import grouped_splits
from battery_sorting.vision.training.two_stage import LabelledImages, TwoStage, TwoStageOptions
from battery_sorting.vision.training.views import (
    BELT,
    DRAWN,
    JUNK,
    LOOK,
    PLAIN,
    VIEWS_FILE,
    Extractor,
    ViewMaker,
    ViewPlan,
    ViewTable,
)

log = logging.getLogger(__name__)

FOLDS = 5
VALIDATION = 0.1
MAX_DIFFERENCE = 1e-4
TEST_SEED = 50_000_000  # seeds of held-out drawings start here
HIDE_BEYOND = 3
"""Pixels of the cut-out: a model that never saw what batteries lie on is not misled by it."""
SCENES = 4  # belts, lights and sensors that are seen
JUNK_METHOD = "background"
JUNK_FALSE_REJECT = 0.01
"""Share of known batteries that may be taken for junk, where there are pictures enough for so small a share."""
JUNK_PER_RENDER = 4
"""Drawings of every kind of junk, for each drawing of a type."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What training is asked for.

    Attributes:
        out: Folder of the model, models/NAME/VERSION.
        data: Photographs, a folder per type; None: drawings alone, or what ``base`` has learnt from.
        corrections: Their corrections, see `Corrections`.
        base: Model whose training views are taken over.
        junk: Folder of pictures of what is no battery by itself, in sub-folders of any names.
        add: Folders of further photographs, a folder per type or as `battery-sorting review` has exported them.
        method: ``fast`` fits the head alone; ``two-stage`` lets the backbone's last blocks learn before, as the
            BatSort paper does.
        blocks: That many of them.
        renders: Drawings per type; 0: none.
        test_renders: Drawings per type by which the model is judged.
        threshold: Least confidence (0..1) written into the card.
        target_purity: Purity (0..1) that the threshold is to be chosen for, where the pictures bear it out.
        false_reject: Share (0..1) of known batteries that the rule for unknown types may give up.
        threads: Pictures at work at a time.
        cache: Folder that keeps features; None: nothing is kept.
        device: ``auto``, ``cpu`` or ``cuda``.
        reader: Network that reads what is printed on batteries; None: that of ``base``, or else nobody reads.
        overwrite: Whether a version that is there may be replaced.
    """

    out: Path
    data: Path | None = None
    corrections: Corrections | None = None
    base: Path | None = None
    junk: Path | None = None
    add: tuple[Path, ...] = ()
    method: Literal["fast", "two-stage"] = "fast"
    blocks: int = 2
    renders: int = 60
    test_renders: int = 30
    seed: int = 0
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    threshold: float = 0.5
    target_purity: float | None = None
    false_reject: float = open_set.FALSE_REJECT
    backbone: str = backbone.DEFAULT_BACKBONE
    weights: Path | None = None
    device: str = "auto"
    cache: Path | None = None
    reader: Path | None = None
    plan: ViewPlan = field(default_factory=ViewPlan)
    head: HeadOptions = field(default_factory=HeadOptions)
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What heads say of views that they were fitted without, see `FastHead.evidence`; ``fold`` (n,) of each."""

    views: ViewTable
    evidence: np.ndarray
    fold: np.ndarray

    def where(self, rows: np.ndarray) -> HeldOut:
        """The views in ``rows``: a mask or numbers."""
        return HeldOut(self.views.where(rows), self.evidence[:, rows], self.fold[rows])

    def outputs(self, mix: FastHead) -> Outputs:
        """As the shipped model gives them, with its mix."""
        return outputs_of(mix, self.views, self.evidence)

    def after_doubt(self, mix: FastHead) -> tuple[HeldOut, Outputs]:
        """All but the second looks, and what the classifier goes by, see `after_second_look`."""
        rows, outputs = after_second_look(self.views, self.outputs(mix))
        return self.where(rows), outputs


class TrainingSetup:
    """Backbone, studio and cache: what every kind of training and evaluation begins with."""

    def __init__(self, options: TrainingOptions, progress: Progress = no_progress) -> None:
        torch.set_num_threads(1)  # pictures are worked at in parallel, see ViewMaker
        if options.cache is not None:
            check_writable(options.cache, "--cache")
        self.network = backbone.load_backbone(options.backbone, options.weights)
        self.preprocessing = _preprocessing(options, self.network)
        self.extractor = Extractor(self.network, self.preprocessing, options.device)
        self.reader_weights = _reader_weights(options)
        self.reader = Reader(self.reader_weights, READER_FILE) if self.reader_weights else None
        self._options, self._progress = options, progress
        self._photographs: list[tuple[Path, list[Photograph]]] | None = None

    def take_network(self, network: torch.nn.Module) -> None:
        """Goes on with another backbone, which sees pictures as the first did."""
        self.network = network
        self.extractor = Extractor(network, self.preprocessing, self._options.device)

    def examples(self, plain: ViewTable, labels: Sequence[str]) -> LabelledImages:
        """Cut-outs of photographs, given by their plain views."""
        of_name = {one.name: one for _, found in self.photographs() for one in found}
        known = [of_name[name] for name in plain.picture]
        pixels = [read_photograph(one.path, bits=one.bits) for one in known]
        cutouts = [self.preprocessing.cut_out(one).pixels for one in pixels if one is not None]
        return LabelledImages(np.stack(cutouts), head.index_of(plain.label, labels))

    def maker(self, first_seed: int = 0) -> ViewMaker:
        """Makes views on belts of its own, drawn with ``first_seed``."""
        options = self._options
        studio = Studio(self.preprocessing, first_seed + options.seed, SCENES)
        return ViewMaker(
            self.extractor, studio, options.plan, options.threads, options.cache, self._progress, self.reader
        )

    def photographs(self) -> list[tuple[Path, list[Photograph]]]:
        """Folders and their photographs: of the data, corrected as the options say, and what was added."""
        if self._photographs is None:  # what is left out is said once
            options, found = self._options, []
            if options.data is not None:
                found.append((options.data, list_photographs(options.data, options.corrections)))
            for folder in options.add:
                reviewed = reviewed_pictures(folder)
                bits = camera_bits([one.path for one in reviewed])
                found.append((folder, [Photograph(one.path, label_of_folder(one.label), bits) for one in reviewed]))
            self._photographs = found
        return self._photographs


def train_type_model(options: TrainingOptions, progress: Progress = no_progress) -> ModelCard:
    """Train, measure and write the model; returns its card.

    Photographs are judged by cross-validation over groups of near-duplicates, then the head is fitted once more on
    all of them; drawings are judged on seeds, belts and brands that were not trained on.

    Raises:
        ConfigurationError: A folder is missing or empty, or fewer than two types are left; the version is there
            already, or can't be written.
        ModelError: No weights of the backbone to be had, or the base doesn't fit.
    """
    with new_model(options.out, options.overwrite) as folder:
        return _train(options, folder, progress)


def _train(options: TrainingOptions, out: Path, progress: Progress) -> ModelCard:
    """Train, measure and write the model to the empty folder ``out``."""
    started = time.perf_counter()
    workshop = TrainingSetup(options, progress)
    for source, found in workshop.photographs():
        check_labels({one.label for one in found}, source)
    learnt = _learn(options, workshop, progress)
    rules = _rules(learnt, options.false_reject, workshop.reader is not None)
    tests = _test_drawings(options, workshop, learnt.labels)
    difference = _write_weights(workshop, learnt.mix, out / WEIGHTS_FILE)
    further = _write_further(workshop, learnt, rules, out)
    metrics = _metrics(learnt.mix, rules.unknown, learnt.judges, tests, options)
    if rules.junk is not None and tests is not None:
        taken = _junk_figures(rules.junk, learnt.mix, tests)
        metrics["drawn junk and drawn known batteries, taken for junk"] = taken
    name, version = name_and_version(options.out)
    card = ModelCard(
        name=name,
        version=version,
        labels=learnt.labels,
        preprocessing=workshop.preprocessing,
        threshold=metrics.get("purity", {}).get("threshold") or options.threshold,
        sha256=sha256_of(out / WEIGHTS_FILE),
        files={name: sha256_of(out / name) for name in further},
        open_set=_told(rules.unknown, options.false_reject),
        junk=_told(rules.junk, rules.junk_share),
        data=_describe(options, learnt.views),
        metrics=metrics
        | {"onnx_max_abs_difference": difference, "seconds": round(time.perf_counter() - started, 1)},
    )
    write_card(card, out)
    with contextlib.suppress(FileNotFoundError):
        _log_folder(options).rename(out / TRAINING)
    return card


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What the pictures have taught, and what is held out to judge it.

    Attributes:
        views: Of batteries, as the backbone sees them in the end.
        junk: Views of what is no battery by itself.
        labels: The known types, in order.
        mix: Fitted to all known batteries, and calibrated.
        judges: What it was calibrated by.
        judged: What rules are judged by, with their folds.
        said: What the classifier goes by of these.
    """

    views: ViewTable
    junk: ViewTable
    labels: list[str]
    mix: FastHead
    judges: HeldOut
    judged: HeldOut
    said: Outputs

    def material(self, background: ViewTable) -> open_set.Material:
        """What a rule is fitted to that tells ``background`` from the known types."""
        types = head.index_of(self.judged.views.label, self.labels)
        evidence = self.mix.evidence(background)
        return open_set.Material(self.said, types, outputs_of(self.mix, background, evidence))


def _learn(options: TrainingOptions, workshop: TrainingSetup, progress: Progress) -> _Learnt:
    views, junk = _apart(_gather(options, workshop))
    labels = sorted(set(views.label) - {OTHERS})
    if len(labels) < 2:
        raise ConfigurationError(str(options.data or options.base or options.out), ["two types are the least"])
    # Before the backbone changes, and with it what is nearly the same: what it learns from must not judge it.
    same_shoot = backbone.same_shoot(options.backbone)
    known = views.where(views.label != OTHERS)
    fold_of = picture_folds(known, options.seed, same_shoot)
    folds, rule_fold_of = FOLDS, fold_of
    if options.method == "two-stage":
        rule_fold_of = _folds_of_first(known, fold_of, options.seed, same_shoot)
        views, junk = _apart(_tuned(options, workshop, views, labels, fold_of, progress))
        known, folds = views.where(views.label != OTHERS), 1
    held_out = hold_out(known, labels, options.head, fold_of, folds)
    mix, judges = calibrated(known, held_out, labels, options.head)
    judged, said = held_out.after_doubt(mix)
    judged = replace(judged, fold=_of_pictures(rule_fold_of, judged.views))
    return _Learnt(views, junk, labels, mix, judges, judged, said)


@dataclass(frozen=True, slots=True)
class _Rules:
    """For unknown types, and for junk: the latter gives up ``junk_share`` of the known batteries at most."""

    unknown: OpenSetRule | None
    junk: OpenSetRule | None
    junk_share: float


def _rules(learnt: _Learnt, false_reject: float, reads: bool) -> _Rules:
    others = learnt.views.where(learnt.views.label == OTHERS)
    unknown = _rule(learnt.material(others), learnt.judged, false_reject, reads)
    return _Rules(unknown, *_junk_rule(learnt.material(learnt.junk), learnt.judged))


def _write_further(workshop: TrainingSetup, learnt: _Learnt, rules: _Rules, out: Path) -> list[str]:
    """Write what stands beside the weights; returns the names of the files."""
    _gallery(learnt.views).save(out / GALLERY_FILE)
    kept_junk = learnt.junk.where(learnt.junk.sha256 != "")  # what is drawn can be drawn anew
    ViewTable.joined([learnt.views, kept_junk]).save(out / VIEWS_FILE)
    further = [GALLERY_FILE, VIEWS_FILE]
    for written, file in ((rules.unknown, OPEN_SET_FILE), (rules.junk, JUNK_FILE)):
        if written is not None:
            (out / file).write_bytes(written.to_bytes())
            further.append(file)
    reads = rules.unknown is not None and rules.unknown.reading is not None
    if reads and workshop.reader_weights is not None:
        (out / READER_FILE).write_bytes(workshop.reader_weights)
        further.append(READER_FILE)
    return further


def picture_folds(views: ViewTable, seed: int, same_shoot: float) -> dict[str, int]:
    """Fold, below `FOLDS`, of each picture. Photographs that are nearly the same share one; drawings take turns.

    ``same_shoot`` is of the views' backbone, see `backbone.same_shoot`.

    Raises:
        ConfigurationError: All are nearly the same, so that none could judge what was learnt from the others.
    """
    pictures, first = np.unique(views.picture.astype(str), return_index=True)
    drawn = views.kind[first] == DRAWN
    fold = np.zeros(len(pictures), int)
    fold[drawn] = np.arange(drawn.sum()) % FOLDS
    shot = first[~drawn]
    if len(shot):
        groups = head.group_near_duplicates(views.features[shot], same_shoot)
        fold[~drawn] = head.assign_folds(groups, views.label[shot].tolist(), FOLDS, seed)
    if len(np.unique(fold)) < 2:
        raise ConfigurationError(
            "pictures", ["all are nearly the same to this backbone; add some of other batteries"]
        )
    return dict(zip(pictures.tolist(), fold.tolist(), strict=True))


def calibrated(
    views: ViewTable, held_out: HeldOut, labels: Sequence[str], options: HeadOptions
) -> tuple[FastHead, HeldOut]:
    """A head fitted to all views, and what it was calibrated by: held-out photographs, where there are any."""
    real = held_out.where(held_out.views.kind != DRAWN)
    judges = real if len(real.views) else held_out
    fitted = head.fit_fast_head(views, labels, options)
    targets, pictures = head.index_of(judges.views.label, labels), len(set(judges.views.picture))
    return head.calibrate(fitted, judges.evidence, targets, pictures), judges


def hold_out(
    views: ViewTable, labels: Sequence[str], options: HeadOptions, fold_of: Mapping[str, int], folds: int = FOLDS
) -> HeldOut:
    """What cross-validation says of the views that may be judged.

    Args:
        views: Of known types.
        labels: Their labels, in order.
        options: Of the heads.
        fold_of: Fold of each picture, see `picture_folds`.
        folds: So many of the `FOLDS` are judged, each by what the others have taught.
    """
    fold = _of_pictures(fold_of, views)
    judged = np.isin(views.kind, (PLAIN, LOOK, BELT, DRAWN)) & (fold < folds)
    evidence = np.zeros((3, len(views), len(labels)))
    for number in range(folds):
        rows = judged & (fold == number)
        if rows.any():
            fitted = head.fit_fast_head(views.where(fold != number), labels, options)
            evidence[:, rows] = fitted.evidence(views.where(rows))
    return HeldOut(views.where(judged), evidence[:, judged], fold[judged])


def outputs_of(mix: FastHead, views: ViewTable, evidence: np.ndarray) -> Outputs:
    """What the rule for unknown types goes by, of views whose evidence is known."""
    return Outputs(mix.mixed(evidence), evidence[0], unit(views.features), views.colour, views.text)


def after_second_look(views: ViewTable, outputs: Outputs) -> tuple[np.ndarray, Outputs]:
    """What the classifier goes by: the mean with the second look where the first left doubt.

    Returns:
        Numbers of the views that are no second looks, and their outputs.
    """
    first, second = np.flatnonzero(views.kind != LOOK), np.flatnonzero(views.kind == LOOK)
    again = dict(zip(views.picture[second], second.tolist(), strict=True))
    left_doubt = (views.kind[first] == PLAIN) & (outputs.probabilities[first].max(axis=1) < ViewPolicy().sure)
    doubtful = [n for n in np.flatnonzero(left_doubt).tolist() if views.picture[first[n]] in again]
    asked = np.array([again[views.picture[first[n]]] for n in doubtful], int)
    return first, outputs.where(first).averaged(np.array(doubtful, int), outputs.where(asked))


def _log_folder(options: TrainingOptions) -> Path:
    """Where a training in two stages keeps its log and from where it goes on; in the end it is the model's."""
    place = options.out.absolute()
    return place.with_name(f".{place.name}.{TRAINING}")


def write_card(card: ModelCard, folder: Path) -> None:
    """Write ``card.json``."""
    text = to_json(card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def _gather(options: TrainingOptions, workshop: TrainingSetup) -> ViewTable:
    """Views of the base, the photographs, the drawings, and the junk."""
    maker = workshop.maker()
    parts = []
    if options.base is not None:
        parts.append(_views_of(options.base, options))
    parts += [maker.photographs(found, folder.name) for folder, found in workshop.photographs()]
    if options.renders and options.base is None:
        parts.append(maker.drawings(_wanted_drawings(maker, options)))
    if options.renders:
        parts.append(maker.drawn_junk(JUNK_PER_RENDER * options.renders))
    if options.junk is not None:
        parts.append(maker.photographed_junk(list_photographs(options.junk)))
    if not parts:
        raise ConfigurationError(str(options.out), ["nothing to learn from: give --data, --base or --renders"])
    return ViewTable.joined(parts)


def _apart(views: ViewTable) -> tuple[ViewTable, ViewTable]:
    """Batteries, and junk."""
    return views.where(views.kind != JUNK), views.of_kind(JUNK)


def _preprocessing(options: TrainingOptions, network: torch.nn.Module) -> Preprocessing:
    """As the base sees pictures: its views are joined by new ones."""
    if options.base is not None:
        return read_card(options.base).preprocessing
    wanted = backbone.input_config(network)
    return Preprocessing(mean=wanted.mean, std=wanted.std, hide_beyond=HIDE_BEYOND)


def _reader_weights(options: TrainingOptions) -> bytes | None:
    """Of the network that reads; None where there is none."""
    path = options.reader
    if path is None and options.base is not None and READER_FILE in (card := read_card(options.base)).files:
        path = check_file(options.base, card, READER_FILE)
    if path is None:
        return None
    try:
        return read_bytes(path, LARGEST_FILE)
    except OSError as error:
        raise ConfigurationError(str(path), [f"--reader: can't be read ({error.strerror})"]) from error


def _views_of(base: Path, options: TrainingOptions) -> ViewTable:
    card = read_card(base)
    trained_with = card.data.get("backbone")
    if trained_with != options.backbone:
        raise ModelError(
            f"{base / CARD_FILE}: data.backbone: {trained_with}, but --backbone is {options.backbone}; use the same"
        )
    return ViewTable.load(check_file(base, card, VIEWS_FILE))


def _wanted_drawings(maker: ViewMaker, options: TrainingOptions) -> list[tuple[str, str, int]]:
    """Types, every second of the known brands and many invented ones, and a few bare belts."""
    seeds = iter(range(options.seed * 1_000_003, TEST_SEED))
    brands = maker.studio.brands[0::2]
    wanted = []
    for n in range(options.renders):
        wanted += [(label, label, next(seeds)) for label in maker.studio.types]
        wanted += [(brands[n % len(brands)], OTHERS, next(seeds)), (f"invented {n}", OTHERS, next(seeds))]
        if n % 10 == 0:
            wanted.append(("", OTHERS, next(seeds)))
    return wanted


def _test_drawings(options: TrainingOptions, workshop: TrainingSetup, labels: Sequence[str]) -> ViewTable | None:
    """Drawings with seeds, belts and brands that training has not seen; None where the types are others."""
    if not options.test_renders or not options.renders:
        return None
    maker = workshop.maker(TEST_SEED)
    brands = maker.studio.brands[1::2]
    wanted = []
    for n in range(options.test_renders):
        wanted += [(label, label, TEST_SEED + 100 * n + k) for k, label in enumerate(maker.studio.types)]
        wanted += [(brands[(2 * n + k) % len(brands)], OTHERS, TEST_SEED + 100 * n + 50 + k) for k in range(2)]
    wanted = [one for one in wanted if one[1] in (*labels, OTHERS)]
    drawn = maker.drawings(wanted, "held-out drawings").of_kind(DRAWN)
    return ViewTable.joined([drawn, maker.drawn_junk(options.test_renders)])


def _folds_of_first(known: ViewTable, fold_of: Mapping[str, int], seed: int, same_shoot: float) -> dict[str, int]:
    """Folds among the pictures of the first fold, which alone are held out where the backbone has learnt.

    The rules' scores are fitted without those that they judge, so they need folds among these.
    """
    first = known.where(_of_pictures(fold_of, known) == 0)
    try:
        return picture_folds(first, seed, same_shoot)
    except ConfigurationError:  # all are nearly the same: `fit_rule` says what that means
        return dict.fromkeys(first.picture.tolist(), 0)


def _of_pictures(fold_of: Mapping[str, int], views: ViewTable) -> np.ndarray:
    return np.array([fold_of[picture] for picture in views.picture])


def _tuned(
    options: TrainingOptions,
    workshop: TrainingSetup,
    views: ViewTable,
    labels: Sequence[str],
    fold_of: Mapping[str, int],
    progress: Progress,
) -> ViewTable:
    """Views by a backbone whose last blocks have learnt from the photographs of all folds but the first.

    The first fold is kept for an honest figure; a tenth of the others tells when to stop.
    """
    if options.data is None:
        raise ConfigurationError("--head two-stage", ["learns from photographs: give --data"])
    plain = views.where((views.label != OTHERS) & (views.kind == PLAIN))
    learnt = plain.where(_of_pictures(fold_of, plain) > 0)
    groups = head.group_near_duplicates(learnt.features, backbone.same_shoot(options.backbone))
    split = grouped_splits(learnt.label.tolist(), groups, 1, options.seed, VALIDATION)[0]
    examples = workshop.examples(learnt, labels)
    settings = TwoStageOptions(
        blocks=options.blocks,
        copies=options.plan.augmented,
        seed=options.seed,
        device=options.device,
        out=_log_folder(options),
        resume=True,
    )
    fitted = TwoStage(workshop.network, labels, settings).fit(
        examples.take(split.train), examples.take(split.test), progress
    )
    workshop.take_network(fitted.network)
    return _gather(options, workshop)


def _rule(material: open_set.Material, judged: HeldOut, false_reject: float, reads: bool) -> OpenSetRule | None:
    """The rule for unknown types; no source of pictures gives up more than it may. None where pictures are few."""
    method = open_set.best_method(len(material.background) > 0, reads and bool(material.known.read().any()))
    return _fitted_rule("unknown types", material, judged, method, false_reject)


def _junk_rule(material: open_set.Material, judged: HeldOut) -> tuple[OpenSetRule | None, float]:
    """The rule for what is no battery by itself, and the share of known batteries that it gives up at most.

    It is a rule of its own: junk among the background of the rule for unknown types makes that one miss brands.
    """
    if not len(material.background):
        return None, JUNK_FALSE_REJECT
    _, pictures = np.unique(judged.views.kind.astype(str), return_counts=True)
    share = max(JUNK_FALSE_REJECT, 1 / (1 + int(pictures.min())))
    return _fitted_rule("what is no battery by itself", material, judged, JUNK_METHOD, share), share


def _fitted_rule(
    purpose: str, material: open_set.Material, judged: HeldOut, method: str, false_reject: float
) -> OpenSetRule | None:
    """The rule, by pictures of all sources; None, and a warning, where they are too few for its threshold."""
    try:
        return open_set.fit_rule(material, judged.fold, method, false_reject, judged.views.kind)
    except ValueError as error:
        log.warning("no rule for %s: %s", purpose, error)
        return None


def _told(rule: OpenSetRule | None, false_reject: float) -> OpenSetCard | None:
    """What the card says of a rule."""
    if rule is None:
        return None
    return OpenSetCard(
        method=rule.method, threshold=rule.threshold, false_reject=false_reject, reading=rule.reading
    )


def _write_weights(workshop: TrainingSetup, mix: FastHead, path: Path) -> float:
    """Write the weights; returns the largest difference between onnxruntime and torch with scikit-learn."""
    size = workshop.preprocessing
    write_model(workshop.network, mix, size, path)
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    network = TypeNetwork(workshop.network, mix).eval()
    rng = np.random.default_rng(0)
    difference = 0.0
    for _ in range(5):
        pixels = torch.randn(2, 3, size.height, size.width)
        colours = rng.dirichlet(np.full(mix.forest.n_features_in_, 0.1), 2).astype(np.float32)
        with torch.no_grad():
            outputs = network(pixels, torch.from_numpy(colours))
        logits, embedding, cam, likeness = (output.numpy() for output in outputs)
        probabilities = mix.mixed(np.stack([logits, mix.forest_evidence(colours), likeness]))
        expected = [probabilities, logits, embedding, cam]
        found = session.run(
            ["probabilities", "logits", "embedding", "cam"], {"pixels": pixels.numpy(), "colour": colours}
        )
        gaps = [np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in zip(found, expected, strict=True)]
        difference = max(difference, float(max(gaps)))
    if difference > MAX_DIFFERENCE:
        raise ModelError(f"{path}: onnxruntime and torch differ by {difference:.2g}; use the pinned onnx versions")
    return difference


def _gallery(views: ViewTable) -> Gallery:
    """The photographs, or where there are none the drawings, as they are."""
    plain = views.of_kind(PLAIN)
    shown = plain if len(plain) else views.of_kind(DRAWN)
    return Gallery(shown.features, shown.label.tolist(), shown.picture.tolist(), shown.sha256.tolist())


def _metrics(
    mix: FastHead, rule: OpenSetRule | None, held_out: HeldOut, tests: ViewTable | None, options: TrainingOptions
) -> dict[str, Any]:
    """Figures per source of pictures."""
    names = ("network_share", "forest_share", "likeness_share")
    result: dict[str, Any] = dict(zip(names, (round(share, 3) for share in mix.shares), strict=True))
    outputs = held_out.outputs(mix)
    for kind, name in ((PLAIN, "photograph"), (BELT, "photograph on belt")):
        rows = held_out.views.kind == kind
        if rows.any():
            judged = held_out.views.where(rows)
            result[name] = head.figures(outputs.probabilities[rows], judged, mix.labels, options.threshold)
    if tests is not None:
        known = tests.where(tests.label != OTHERS)
        result["drawn on belt"] = head.figures(mix.probabilities(known), known, mix.labels, options.threshold)
    if tests is not None and rule is not None:
        strangers = tests.where((tests.label == OTHERS) & (tests.kind != JUNK))
        said = outputs_of(mix, strangers, mix.evidence(strangers))
        result["unknown brands drawn on belt, told as unknown"] = head.share(
            rule.novelty(said) > rule.threshold, strangers.picture
        )
    if options.target_purity is not None:
        result["purity"] = _purity(mix, held_out, options.target_purity)
    return result


def _junk_figures(rule: OpenSetRule, mix: FastHead, tests: ViewTable) -> dict[str, Any]:
    """Share of each kind that is taken for junk."""
    taken = rule.novelty(outputs_of(mix, tests, mix.evidence(tests))) > rule.threshold
    junk = tests.kind == JUNK
    rows = {"known": ~junk & (tests.label != OTHERS), "unknown brand": ~junk & (tests.label == OTHERS)}
    kind_of = np.array([str(name).split("/")[-1].split(" ")[0] for name in tests.picture])
    rows |= {kind: junk & (kind_of == kind) for kind in np.unique(kind_of[junk])}
    return {name: head.share(taken[own], tests.picture[own]) for name, own in rows.items() if own.any()}


def _purity(mix: FastHead, held_out: HeldOut, target: float) -> dict[str, Any]:
    """The threshold for a purity; one view of each picture counts."""
    kind = PLAIN if (held_out.views.kind == PLAIN).any() else DRAWN
    one = held_out.where(held_out.views.kind == kind)
    probabilities = mix.mixed(one.evidence)
    right = probabilities.argmax(axis=1) == head.index_of(one.views.label, mix.labels)
    claim = threshold_for_purity(probabilities.max(axis=1), right, target)
    return {"threshold": claim.threshold, "claim": str(claim), "needed": claim.needed}


def _describe(options: TrainingOptions, views: ViewTable) -> dict[str, Any]:
    """What the card says of the data and the split."""
    about: dict[str, Any] = {
        "trained": date.today().isoformat(),
        "backbone": options.backbone,
        "seed": options.seed,
        "views": len(views),
    }
    photographed = views.of_kind(PLAIN)
    if len(photographed):
        labels, counts = np.unique(photographed.label.astype(str), return_counts=True)
        same_shoot = backbone.same_shoot(options.backbone)
        about["photographs"] = {
            "pictures": len(photographed),
            "groups_of_near_duplicates": len(set(head.group_near_duplicates(photographed.features, same_shoot))),
            "per_label": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
            "corrections": None if options.corrections is None else Path(options.corrections.source).name,
            "held_out": (
                f"{FOLDS}-fold cross-validation, near-duplicates (cosine > {same_shoot}) kept together; the "
                "mix was calibrated on the same folds; the head that is shipped was then fitted on all of them"
            ),
        }
    if options.base is not None:
        about["base"] = str(read_card(options.base).version)
    if options.junk is not None:
        about["junk"] = {"folder": options.junk.name}
    if options.renders:
        held_out = "seeds, belts, lights and brands that were not trained on"
        about["drawings"] = {
            "per_type": options.renders,
            "per_kind_of_junk": JUNK_PER_RENDER * options.renders,
            "held_out": held_out,
        }
    return about
