"""Trains the battery-type model: frozen backbone, views as the belt camera has them, calibrated softmax head."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import onnxruntime as ort
import torch

from battery_sorting.core.errors import ModelError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.training import backbone, head
from battery_sorting.vision.training.data import Studio, augment, list_photographs, read_photographs

T = TypeVar("T")


class Progress(Protocol):
    """Passes items through and shows how far it got."""

    def __call__(self, text: str, items: Sequence[T]) -> Iterable[T]: ...  # noqa: D102


def _no_progress(text: str, items: Sequence[T]) -> Iterable[T]:
    del text
    return items


L2_GRID = (1e-6, 3e-6, 1e-5, 1e-4)
FOLDS = 5
LAST_LAYER = 1280  # features of the network's last layer stand last
MAX_DIFFERENCE = 1e-4
TEST_SEED = 50_000_000  # seeds of held-out drawings start here


@dataclass(frozen=True, slots=True)
class Options:
    """What `train_type_model` is asked for.

    ``renders`` and ``test_renders`` are drawings per type, ``clean_views`` and ``belt_views`` views per photograph,
    ``scenes`` the belts, lights and sensors that are seen.
    """

    out: Path
    data: Path | None = None
    renders: int = 150
    test_renders: int = 60
    seed: int = 0
    threads: int = 1
    clean_views: int = 5
    belt_views: int = 4
    scenes: int = 4
    l2_grid: tuple[float, ...] = L2_GRID
    threshold: float = 0.8
    backbone: str = backbone.DEFAULT_BACKBONE
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """Features (n, features) of views; ``kinds`` says which, ``owners`` which photograph (-1: a drawing)."""

    features: np.ndarray
    labels: list[str]
    kinds: list[str]
    owners: np.ndarray

    def where(self, mask: np.ndarray) -> Samples:
        """The views for which ``mask`` is true."""
        rows = np.flatnonzero(mask)
        return Samples(
            self.features[rows], [self.labels[n] for n in rows], [self.kinds[n] for n in rows], self.owners[rows]
        )

    def with_(self, other: Samples) -> Samples:
        """Both together."""
        return Samples(
            np.concatenate([self.features, other.features]),
            self.labels + other.labels,
            self.kinds + other.kinds,
            np.concatenate([self.owners, other.owners]),
        )

    def targets(self, names: list[str]) -> np.ndarray:
        """Index of each view's label in ``names``."""
        return np.array([names.index(label) for label in self.labels])

    def fit(self, names: list[str], l2: float) -> head.Head:
        """A head fitted to these views, drawings and photographs balanced."""
        sources = ["drawing" if owner < 0 else "photograph" for owner in self.owners]
        return head.fit_head(self.features, self.targets(names), head.balance(self.labels, sources), len(names), l2)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The head that is shipped, and logits of held-out views by which it was calibrated."""

    head: head.Head
    temperature: float
    l2: float
    held_out: Samples
    held_out_logits: np.ndarray

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated."""
        return np.asarray(np.exp(head.log_softmax(logits / self.temperature)))


def train_type_model(options: Options, progress: Progress = _no_progress) -> ModelCard:
    """Train, measure and write the model; returns its card.

    Photographs are judged by cross-validation over groups of near-duplicates, then the head is fitted once more on
    all of them; drawings are judged on seeds, belts and brands that were not trained on.

    Raises:
        ConfigurationError: The data folder is missing or empty.
        ModelError: No weights of the backbone to be had.
    """
    torch.set_num_threads(options.threads)
    preprocessing = Preprocessing()
    network = backbone.Features(backbone.load_backbone(options.backbone, options.weights)).eval()
    extractor = _Extractor(network, preprocessing, options.threads)
    studio = Studio(preprocessing, options.seed, options.scenes)

    drawings = _drawings(extractor, studio, options, progress)
    unseen = Studio(preprocessing, TEST_SEED + options.seed, options.scenes)
    tests = _test_drawings(extractor, unseen, options, progress)
    photographs = _photographs(extractor, studio, options, progress) if options.data else None
    groups = _groups(photographs) if photographs else None
    names = [*sorted({*drawings.labels, *(photographs.labels if photographs else ())} - {OTHERS}), OTHERS]
    fitted = _fit(drawings, photographs, groups, names, options)

    options.out.mkdir(parents=True, exist_ok=True)
    difference = _export(network, fitted, preprocessing, options.out / WEIGHTS_FILE)
    card = ModelCard(
        name=options.out.parent.name or "battery_type",
        version=options.out.name,
        labels=names,
        preprocessing=preprocessing,
        threshold=options.threshold,
        temperature=round(fitted.temperature, 4),
        sha256=hashlib.sha256((options.out / WEIGHTS_FILE).read_bytes()).hexdigest(),
        data=_describe(options, studio, drawings, photographs, groups),
        metrics=_metrics(fitted, tests, names, options.threshold) | {"onnx_max_abs_difference": difference},
    )
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (options.out / CARD_FILE).write_text(text + "\n", encoding="utf-8")
    return card


class _Extractor:
    """Features by onnxruntime, which is about twice as fast as torch on a CPU."""

    def __init__(self, network: torch.nn.Module, preprocessing: Preprocessing, threads: int) -> None:
        self._preprocessing = preprocessing
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features.onnx"
            backbone.export_onnx(network, _example(preprocessing), path)
            session = ort.SessionOptions()
            session.intra_op_num_threads = threads
            self._session = ort.InferenceSession(path.read_bytes(), session, providers=["CPUExecutionProvider"])

    def __call__(self, views: Iterable[_View]) -> Samples:
        features, labels, kinds, owners = [], [], [], []
        for view in views:
            pixels = self._preprocessing.normalise(view.pixels)
            features.append(self._session.run(None, {"pixels": pixels})[0][0])
            labels.append(view.label)
            kinds.append(view.kind)
            owners.append(view.owner)
        return Samples(np.stack(features), labels, kinds, np.array(owners))


@dataclass(frozen=True, slots=True)
class _View:
    pixels: np.ndarray
    label: str
    kind: str
    owner: int = -1


def _drawings(extractor: _Extractor, studio: Studio, options: Options, progress: Progress) -> Samples:
    """Types, every second of the known brands and many invented ones, and a few bare belts."""
    rng = np.random.default_rng([options.seed, 21])
    seeds = iter(range(options.seed * 1_000_003, TEST_SEED))

    def views() -> Iterator[_View]:
        for n in progress("drawings", range(options.renders)):
            for label in studio.types:
                yield from _twice(studio.drawn(label, next(seeds)), label, rng)
            yield from _twice(
                studio.drawn(_trained_brands(studio)[n % len(_trained_brands(studio))], next(seeds)), OTHERS, rng
            )
            yield from _twice(studio.drawn(f"invented {n}", next(seeds)), OTHERS, rng)
            if n % 10 == 0:
                yield _View(studio.empty(next(seeds)), OTHERS, "empty belt")

    return extractor(views())


def _twice(pixels: np.ndarray, label: str, rng: np.random.Generator) -> Iterator[_View]:
    yield _View(pixels, label, "drawn on belt")
    yield _View(augment(pixels, rng), label, "augmented")


def _trained_brands(studio: Studio) -> list[str]:
    return studio.brands[0::2]


def _test_drawings(extractor: _Extractor, studio: Studio, options: Options, progress: Progress) -> Samples:
    """Drawings with seeds, belts and brands that training has not seen."""
    brands = studio.brands[1::2]

    def views() -> Iterator[_View]:
        for n in progress("held-out drawings", range(options.test_renders)):
            for k, label in enumerate(studio.types):
                yield _View(studio.drawn(label, TEST_SEED + 100 * n + k), label, "drawn on belt")
            for k in range(2):
                brand = brands[(2 * n + k) % len(brands)]
                yield _View(studio.drawn(brand, TEST_SEED + 100 * n + 50 + k), OTHERS, "drawn on belt")

    return extractor(views())


def _photographs(extractor: _Extractor, studio: Studio, options: Options, progress: Progress) -> Samples:
    """Each photograph as it is and on belts, both also augmented."""
    assert options.data is not None
    listed = list_photographs(options.data)
    rng = np.random.default_rng([options.seed, 22])

    def views() -> Iterator[_View]:
        for n, (photograph, pixels) in enumerate(read_photographs(progress("photographs", listed))):
            clean = studio.cut_out(pixels)
            yield _View(clean, photograph.label, "photograph", n)
            for _ in range(options.clean_views):
                yield _View(augment(clean, rng), photograph.label, "augmented", n)
            for k in range(options.belt_views):
                laid = studio.on_belt(pixels, options.seed * 1_000_003 + 100 * n + k)
                yield _View(laid, photograph.label, "photograph on belt", n)
                for _ in range(2):
                    yield _View(augment(laid, rng), photograph.label, "augmented", n)

    return extractor(views())


def _groups(photographs: Samples) -> np.ndarray:
    """Group of near-duplicates of each photograph."""
    clean = np.array([kind == "photograph" for kind in photographs.kinds])
    return head.group_near_duplicates(photographs.features[clean][:, -LAST_LAYER:])


def _fit(
    drawings: Samples, photographs: Samples | None, groups: np.ndarray | None, names: list[str], options: Options
) -> Fitted:
    """Choose the penalty and the temperature on held-out folds, then fit on everything."""
    everything = drawings if photographs is None else drawings.with_(photographs)
    folds = _folds(drawings, photographs, groups, options.seed)
    judged = np.array([kind != "augmented" for kind in everything.kinds]) & (folds >= 0)
    if photographs is not None:
        judged &= everything.owners >= 0
    targets = everything.targets(names)
    best: tuple[float, float, float, np.ndarray] | None = None
    for l2 in options.l2_grid:
        logits = _held_out_logits(everything, folds, names, l2)
        temperature = head.fit_temperature(logits[judged], targets[judged])
        loss = head.log_loss(logits[judged] / temperature, targets[judged])
        if best is None or loss < best[0]:
            best = (loss, l2, temperature, logits)
    assert best is not None
    _, l2, temperature, logits = best
    return Fitted(everything.fit(names, l2), temperature, l2, everything.where(judged), logits[judged])


def _folds(drawings: Samples, photographs: Samples | None, groups: np.ndarray | None, seed: int) -> np.ndarray:
    """Fold of each view. Drawings are in every training set (-1) unless there is nothing else to judge by."""
    if photographs is None or groups is None:
        pairs = np.arange(len(drawings.labels)) // 2
        return pairs % FOLDS
    clean = [n for n, kind in enumerate(photographs.kinds) if kind == "photograph"]
    per_photograph = head.assign_folds(groups, [photographs.labels[n] for n in clean], FOLDS, seed)
    fold_of = dict(zip(photographs.owners[clean].tolist(), per_photograph.tolist(), strict=True))
    own = [fold_of[owner] for owner in photographs.owners.tolist()]
    return np.concatenate([np.full(len(drawings.labels), -1), np.array(own)])


def _held_out_logits(samples: Samples, folds: np.ndarray, names: list[str], l2: float) -> np.ndarray:
    logits = np.zeros((len(samples.labels), len(names)), np.float32)
    for fold in range(FOLDS):
        fitted = samples.where(folds != fold).fit(names, l2)
        logits[folds == fold] = fitted.logits(samples.features[folds == fold])
    return logits


def _metrics(fitted: Fitted, tests: Samples, names: list[str], threshold: float) -> dict[str, Any]:
    def score(samples: Samples, logits: np.ndarray) -> dict[str, Any]:
        probabilities = fitted.probabilities(logits)
        return head.figures(probabilities, samples.targets(names), samples.owners, names, OTHERS, threshold)

    result: dict[str, Any] = {"drawn on belt": score(tests, fitted.head.logits(tests.features))}
    for kind in ("photograph on belt", "photograph"):
        mask = np.array([own == kind for own in fitted.held_out.kinds])
        if mask.any():
            result[kind] = score(fitted.held_out.where(mask), fitted.held_out_logits[mask])
    return result | {"l2": fitted.l2}


def _export(network: backbone.Features, fitted: Fitted, preprocessing: Preprocessing, path: Path) -> float:
    """Write backbone, head and temperature as one file; returns the largest difference to torch on random input."""
    weight, bias = torch.from_numpy(fitted.head.weight), torch.from_numpy(fitted.head.bias)
    whole = backbone.FullNetwork(network, weight, bias, fitted.temperature).eval()
    backbone.export_onnx(whole, _example(preprocessing), path)
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    difference = 0.0
    for _ in range(5):
        pixels = _example(preprocessing)
        with torch.no_grad():
            expected = whole(pixels).numpy()
        found = session.run(None, {"pixels": pixels.numpy()})[0]
        difference = max(difference, float(np.abs(found - expected).max()))
    if difference > MAX_DIFFERENCE:
        raise ModelError(f"{path}: onnxruntime and torch differ by {difference:.2g}; use the pinned onnx versions")
    return difference


def _example(preprocessing: Preprocessing) -> torch.Tensor:
    return torch.randn(1, 3, preprocessing.height, preprocessing.width)


def _describe(
    options: Options,
    studio: Studio,
    drawings: Samples,
    photographs: Samples | None,
    groups: np.ndarray | None,
) -> dict[str, Any]:
    """What the card says of the data and the split."""
    about: dict[str, Any] = {
        "trained": date.today().isoformat(),
        "backbone": options.backbone,
        "seed": options.seed,
        "drawings": {
            "views": len(drawings.labels),
            "brands_trained_as_others": _trained_brands(studio),
            "held_out": "seeds, belts, lights and brands that training has not seen",
            "brands_held_out": studio.brands[1::2],
        },
    }
    if photographs is not None and groups is not None:
        clean = [n for n, kind in enumerate(photographs.kinds) if kind == "photograph"]
        labels = [photographs.labels[n] for n in clean]
        about["photographs"] = {
            "pictures": len(clean),
            "groups_of_near_duplicates": len(set(groups.tolist())),
            "per_label": {label: labels.count(label) for label in sorted(set(labels))},
            "views": len(photographs.labels),
            "held_out": (
                f"{FOLDS}-fold cross-validation, near-duplicates (cosine > {head.SAME_SHOOT}) kept together; l2 "
                "and temperature were chosen on the same held-out folds; the head that is shipped was then fitted "
                "on all folds"
            ),
            "left_out": "pictures with wrong labels, see battery_sorting/vision/training/corrections.py",
        }
    return about
