"""Trains the battery-type model: a frozen backbone, a head fitted in seconds, calibrated on held-out views."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.card import CARD_FILE, WEIGHTS_FILE, ModelCard, read_card
from battery_sorting.vision.gallery import GALLERY_FILE, Gallery
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.training import backbone, head
from battery_sorting.vision.training.corrections import Corrections
from battery_sorting.vision.training.data import Photograph, Studio, list_photographs
from battery_sorting.vision.training.head import FastHead, HeadOptions
from battery_sorting.vision.training.network import TypeNetwork, write_model
from battery_sorting.vision.training.views import (
    BELT,
    DRAWN,
    PLAIN,
    VIEWS_FILE,
    Extractor,
    Progress,
    ViewMaker,
    ViewPlan,
    Views,
    no_progress,
)

FOLDS = 5
MAX_DIFFERENCE = 1e-4
TEST_SEED = 50_000_000  # seeds of held-out drawings start here
SCENES = 4  # belts, lights and sensors that are seen


@dataclass(frozen=True, slots=True)
class Options:
    """What training is asked for.

    Attributes:
        out: Folder of the model, models/NAME/VERSION.
        data: Photographs, a folder per type; None: drawings alone, or what ``base`` has learnt from.
        corrections: Their corrections, see `Corrections`.
        base: Model whose training views are taken over.
        add: Folders of further photographs, for instance those that `battery-sorting review` has exported.
        renders: Drawings per type; 0: none.
        test_renders: Drawings per type by which the model is judged.
        threshold: Least confidence (0..1) written into the card.
        threads: Pictures at work at a time.
        cache: Folder that keeps features; None: nothing is kept.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    out: Path
    data: Path | None = None
    corrections: Path | None = None
    base: Path | None = None
    add: tuple[Path, ...] = ()
    renders: int = 60
    test_renders: int = 30
    seed: int = 0
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    threshold: float = 0.5
    backbone: str = backbone.DEFAULT_BACKBONE
    weights: Path | None = None
    device: str = "auto"
    cache: Path | None = None
    plan: ViewPlan = field(default_factory=ViewPlan)
    head: HeadOptions = field(default_factory=HeadOptions)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What heads that were fitted without them say of views: log-probabilities (n, L) of both parts."""

    views: Views
    network: np.ndarray
    forest: np.ndarray


class Workshop:
    """Backbone, studio and cache: what every kind of training and evaluation begins with."""

    def __init__(self, options: Options, progress: Progress = no_progress) -> None:
        torch.set_num_threads(1)  # pictures are worked at in parallel, see ViewMaker
        self.network = backbone.load_backbone(options.backbone, options.weights)
        wanted = backbone.input_config(self.network)
        self.preprocessing = Preprocessing(mean=wanted.mean, std=wanted.std)
        self.extractor = Extractor(self.network, self.preprocessing, options.device)
        self._options, self._progress = options, progress

    def maker(self, first_seed: int = 0) -> ViewMaker:
        """Makes views on belts of its own, drawn with ``first_seed``."""
        options = self._options
        studio = Studio(self.preprocessing, first_seed + options.seed, SCENES)
        return ViewMaker(self.extractor, studio, options.plan, options.threads, options.cache, self._progress)

    def photographs(self, folder: Path) -> list[Photograph]:
        """Photographs of a folder, corrected as the options say."""
        path = self._options.corrections
        return list_photographs(folder, None if path is None else Corrections.read(path))


def train_type_model(options: Options, progress: Progress = no_progress) -> ModelCard:
    """Train, measure and write the model; returns its card.

    Photographs are judged by cross-validation over groups of near-duplicates, then the head is fitted once more on
    all of them; drawings are judged on seeds, belts and brands that were not trained on.

    Raises:
        ConfigurationError: A folder is missing or empty, or fewer than two types are left.
        ModelError: No weights of the backbone to be had, or the base doesn't fit.
    """
    started = time.perf_counter()
    workshop = Workshop(options, progress)
    views = _gather(options, workshop)
    labels = sorted(set(views.label) - {OTHERS})
    if len(labels) < 2:
        raise ConfigurationError(str(options.data or options.base or options.out), ["two types are the least"])
    known = views.where(views.label != OTHERS)
    held_out = hold_out(known, labels, options.head, options.seed)
    targets = head.index_of(held_out.views.label, labels)
    mix = head.calibrate(
        head.fit_fast_head(known, labels, options.head), held_out.network, held_out.forest, targets
    )
    tests = _test_drawings(options, workshop, labels)

    options.out.mkdir(parents=True, exist_ok=True)
    difference = _write_weights(workshop, mix, options.out / WEIGHTS_FILE)
    _gallery(views).save(options.out / GALLERY_FILE)
    views.save(options.out / VIEWS_FILE)
    card = ModelCard(
        name=options.out.parent.name or "battery_type",
        version=options.out.name,
        labels=labels,
        preprocessing=workshop.preprocessing,
        threshold=options.threshold,
        sha256=digest(options.out / WEIGHTS_FILE),
        files={name: digest(options.out / name) for name in (GALLERY_FILE, VIEWS_FILE)},
        data=_describe(options, views),
        metrics=_metrics(mix, held_out, tests, options.threshold)
        | {"onnx_max_abs_difference": difference, "seconds": round(time.perf_counter() - started, 1)},
    )
    write_card(card, options.out)
    return card


def hold_out(views: Views, labels: Sequence[str], options: HeadOptions, seed: int) -> HeldOut:
    """What cross-validation says of the plain and belt views; near-duplicates stay in one fold.

    Drawings train in every fold, unless there is nothing else to judge by.
    """
    judged_kinds = (PLAIN, BELT) if (views.sha256 != "").any() else (DRAWN,)
    fold = _folds(views, judged_kinds, seed)
    judged = np.isin(views.kind, judged_kinds) & (fold >= 0)
    network = np.zeros((len(views), len(labels)))
    forest = np.zeros_like(network)
    for number in range(FOLDS):
        rows = judged & (fold == number)
        if not rows.any():
            continue
        fitted = head.fit_fast_head(views.where(fold != number), labels, options)
        network[rows], forest[rows] = fitted.evidence(views.where(rows))
    return HeldOut(views.where(judged), network[judged], forest[judged])


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_card(card: ModelCard, folder: Path) -> None:
    """Write ``card.json``."""
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def _gather(options: Options, workshop: Workshop) -> Views:
    """Views of the base, the photographs and the drawings."""
    maker = workshop.maker()
    parts = []
    if options.base is not None:
        parts.append(_views_of(options.base, options))
    folders = [*([options.data] if options.data else []), *options.add]
    parts += [maker.photographs(workshop.photographs(folder), folder.name) for folder in folders]
    if options.renders and options.base is None:
        parts.append(maker.drawings(_wanted_drawings(maker, options)))
    if not parts:
        raise ConfigurationError(str(options.out), ["nothing to learn from: give --data, --base or --renders"])
    return Views.joined(parts)


def _views_of(base: Path, options: Options) -> Views:
    card = read_card(base)
    trained_with = card.data.get("backbone")
    if trained_with != options.backbone:
        raise ModelError(
            f"{base / CARD_FILE}: data.backbone: {trained_with}, but --backbone is {options.backbone}; use the same"
        )
    return Views.load(base / VIEWS_FILE)


def _wanted_drawings(maker: ViewMaker, options: Options) -> list[tuple[str, str, int]]:
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


def _test_drawings(options: Options, workshop: Workshop, labels: Sequence[str]) -> Views | None:
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
    return maker.drawings(wanted, "held-out drawings").of_kind(DRAWN)


def _folds(views: Views, kinds: Sequence[str], seed: int) -> np.ndarray:
    """Fold of each view; -1: trains in all."""
    pictures, first = np.unique(views.picture.astype(str), return_index=True)
    judged = np.isin(pictures, np.unique(views.picture[np.isin(views.kind, kinds)].astype(str)))
    pictures, first = pictures[judged], first[judged]
    groups = head.group_near_duplicates(views.features[first])
    assigned = head.assign_folds(groups, views.label[first].tolist(), FOLDS, seed)
    fold_of = dict(zip(pictures.tolist(), assigned.tolist(), strict=True))
    return np.array([fold_of.get(picture, -1) for picture in views.picture])


def _write_weights(workshop: Workshop, mix: FastHead, path: Path) -> float:
    """Write the weights; returns the largest difference between onnxruntime and torch with scikit-learn."""
    size = workshop.preprocessing
    example = torch.randn(1, 3, size.height, size.width)
    write_model(workshop.network, mix, example, path)
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    network = TypeNetwork(workshop.network, mix.linear).eval()
    rng = np.random.default_rng(0)
    difference = 0.0
    for _ in range(5):
        pixels = torch.randn(2, 3, size.height, size.width)
        colours = rng.dirichlet(np.full(mix.forest.n_features_in_, 0.1), 2).astype(np.float32)
        with torch.no_grad():
            logits, embedding, cam = (output.numpy() for output in network(pixels))
        expected = [mix.mixed(head.log_softmax(logits), mix.forest_evidence(colours)), logits, embedding, cam]
        found = session.run(
            ["probabilities", "logits", "embedding", "cam"], {"pixels": pixels.numpy(), "colour": colours}
        )
        gaps = [np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in zip(found, expected, strict=True)]
        difference = max(difference, float(max(gaps)))
    if difference > MAX_DIFFERENCE:
        raise ModelError(f"{path}: onnxruntime and torch differ by {difference:.2g}; use the pinned onnx versions")
    return difference


def _gallery(views: Views) -> Gallery:
    """The photographs, or where there are none the drawings, as they are."""
    plain = views.of_kind(PLAIN)
    shown = plain if len(plain) else views.of_kind(DRAWN)
    return Gallery(shown.features, shown.label.tolist(), shown.picture.tolist(), shown.sha256.tolist())


def _metrics(mix: FastHead, held_out: HeldOut, tests: Views | None, threshold: float) -> dict[str, Any]:
    """Figures per source of pictures."""
    result: dict[str, Any] = {
        "network_share": round(mix.network_share, 3),
        "forest_share": round(mix.forest_share, 3),
    }
    probabilities = mix.mixed(held_out.network, held_out.forest)
    for kind, name in ((PLAIN, "photograph"), (BELT, "photograph on belt")):
        rows = held_out.views.kind == kind
        if rows.any():
            result[name] = head.figures(probabilities[rows], held_out.views.where(rows), mix.labels, threshold)
    if tests is not None:
        known = tests.where(tests.label != OTHERS)
        result["drawn on belt"] = head.figures(mix.probabilities(known), known, mix.labels, threshold)
    return result


def _describe(options: Options, views: Views) -> dict[str, Any]:
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
        about["photographs"] = {
            "pictures": len(photographed),
            "groups_of_near_duplicates": len(set(head.group_near_duplicates(photographed.features).tolist())),
            "per_label": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
            "corrections": None if options.corrections is None else options.corrections.name,
            "held_out": (
                f"{FOLDS}-fold cross-validation, near-duplicates (cosine > {head.SAME_SHOOT}) kept together; the "
                "mix was calibrated on the same folds; the head that is shipped was then fitted on all of them"
            ),
        }
    if options.base is not None:
        about["base"] = str(read_card(options.base).version)
    if options.renders:
        held_out = "seeds, belts, lights and brands that were not trained on"
        about["drawings"] = {"per_type": options.renders, "held_out": held_out}
    return about
