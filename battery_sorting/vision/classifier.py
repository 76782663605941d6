"""Tells the type of the battery in a picture. onnxruntime only; PyTorch is never imported."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from battery_sorting.core.errors import ModelError
from battery_sorting.core.types import Reason
from battery_sorting.vision.card import CARD_FILE, WEIGHTS_FILE, ModelCard, check_file, check_weights, read_card
from battery_sorting.vision.colour import COLOUR_FEATURES, colour_histogram
from battery_sorting.vision.engine import Backend, Engine, LoadedOnce, Precision, open_engine
from battery_sorting.vision.open_set import JUNK_FILE, OPEN_SET_FILE, OpenSetRule, Outputs, read_rule
from battery_sorting.vision.preprocessing import Cutout, check_picture
from battery_sorting.vision.reading import READER_FILE, Reader, text_features

DARK = 12.0
BRIGHT = 249.0
FLAT = 2.0
"""A frame whose grey levels' mean is outside DARK..BRIGHT, or whose spread is below FLAT, shows nothing."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Verdict on one picture. ``scores`` maps every label to its probability (0..1).

    ``label`` is empty, ``confidence`` NaN and ``scores`` empty when the picture was not fit to be looked at.
    ``novelty`` tells how unlike any known type the picture is (NaN: the model has no rule for that), ``views`` how
    many views of it the network has seen, ``embedding`` its unit vector among the training pictures.
    ``inference_s`` covers preprocessing and network.
    """

    label: str
    confidence: float
    accepted: bool
    reason: str
    inference_s: float
    scores: dict[str, float] = field(default_factory=dict)
    novelty: float = float("nan")
    views: int = 1
    embedding: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model whose files and card were found to agree.

    ``rule`` tells batteries of no known type, ``junk`` what is no battery by itself.
    """

    card: ModelCard
    engine: Engine
    rule: OpenSetRule | None
    reader: Reader | None = None
    junk: OpenSetRule | None = None

    @property
    def name(self) -> str:
        """``name/version``, as it is written into records."""
        return f"{self.card.name}/{self.card.version}"


def load_model(
    model_dir: Path | str, threads: int = 1, backend: Backend = "onnxruntime", precision: Precision = "f32"
) -> LoadedModel:
    """Load the model in ``model_dir``.

    Raises:
        ModelError: Card, weights or rule are missing, damaged or don't match; file, key and remedy are named.
        ConfigurationError: The backend is not installed, or lacks the precision.
    """
    folder = Path(model_dir)
    card = read_card(folder)
    weights = check_weights(folder, card)
    engine = open_engine(weights, str(folder / WEIGHTS_FILE), backend, precision, threads)
    rule, reader, junk = None, None, None
    if card.open_set is not None:
        rule = read_rule(check_file(folder, card, OPEN_SET_FILE), card.open_set)
        if rule.reading is not None:
            path = check_file(folder, card, READER_FILE)
            content = path.read_bytes()
            reader = _READERS(content, threads, lambda: Reader(content, str(path), threads))
    if card.junk is not None:
        junk = read_rule(check_file(folder, card, JUNK_FILE), card.junk)
    model = LoadedModel(card, engine, rule, reader, junk)
    _check_shapes(folder, model)
    return model


_READERS: LoadedOnce[Reader] = LoadedOnce()


class TypeClassifier:
    """Classifier of battery types.

    Args:
        model_dir: Folder with weights and card.
        threshold: Least confidence (0..1) at which a type is accepted; None: the card's.
        threads: Threads for the network.
        backend: What runs the network.
        precision: Of its sums.

    Raises:
        ModelError: See `load_model`.
        ConfigurationError: See `load_model`.
        ValueError: The threshold is not between 0 and 1.
    """

    def __init__(
        self,
        model_dir: Path | str,
        threshold: float | None = None,
        threads: int = 1,
        backend: Backend = "onnxruntime",
        precision: Precision = "f32",
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold: {threshold} is not a probability; give 0..1, e.g. 0.8 for 80 %")
        self._model = load_model(model_dir, threads, backend, precision)
        self.threshold = self.card.threshold if threshold is None else threshold

    @property
    def card(self) -> ModelCard:
        """Card of the model in use."""
        return self._model.card

    @property
    def name(self) -> str:
        """``name/version`` of the model."""
        return self._model.name

    def classify(self, rgb: np.ndarray) -> Prediction:
        """Verdict on a picture, uint8 RGB (height, width, 3).

        Raises:
            FrameError: Not such an array, or smaller than 8 × 8.
        """
        started = time.perf_counter()
        check_picture(rgb)
        if _shows_nothing(rgb):
            return _bad_image(started)
        cutout = self.card.preprocessing.cut_out(rgb)
        if cutout.foreground == "none":
            return _bad_image(started)
        outputs = self._look(cutout)
        policy = self.card.views
        if policy.most > 1 and outputs.probabilities.max() < policy.sure:
            cutout = self.card.preprocessing.second_look(rgb)
            if cutout.foreground == "object":
                outputs = outputs.joined(self._look(cutout))
        return self._verdict(outputs, rgb, started)

    def warm_up(self) -> None:
        """Goes the whole way once: the first picture takes many times as long as those after it."""
        picture = np.full((512, 640, 3), 96, dtype=np.uint8)
        picture[200:312, 120:520] = (180, 120, 40)
        picture[:, ::2] += 8
        self.classify(picture)
        self._read(picture)

    def _read(self, rgb: np.ndarray) -> np.ndarray:
        reader = self._model.reader
        return text_features(() if reader is None else reader.read(rgb, self.card.preprocessing))

    def _look(self, cutout: Cutout) -> Outputs:
        colour = colour_histogram(cutout)[None]
        found = self._model.engine.run(self.card.preprocessing.normalise(cutout.pixels), colour)
        return Outputs(found["probabilities"], found["logits"], found["embedding"], colour)

    def _verdict(self, outputs: Outputs, rgb: np.ndarray, started: float) -> Prediction:
        probabilities, logits, embedding, colour = outputs.mean()
        junk = self._model.junk is not None and self._model.junk.judge(probabilities, logits, embedding, colour)[1]
        novelty, unknown = float("nan"), False
        if self._model.rule is not None:
            novelty, unknown = self._model.rule.judge(
                probabilities, logits, embedding, colour, lambda: self._read(rgb)
            )
        best = int(np.argmax(probabilities))
        confidence = float(probabilities[best])
        reason = ""
        if junk:
            reason = str(Reason.NO_SINGLE_BATTERY)
        elif unknown:
            reason = str(Reason.UNKNOWN_TYPE)
        elif not confidence >= self.threshold:
            reason = str(Reason.LOW_CONFIDENCE)
        return Prediction(
            label=self.card.labels[best],
            confidence=confidence,
            accepted=not reason,
            reason=reason,
            inference_s=time.perf_counter() - started,
            scores={name: float(score) for name, score in zip(self.card.labels, probabilities, strict=True)},
            novelty=novelty,
            views=len(outputs),
            embedding=embedding / max(float(np.linalg.norm(embedding)), 1e-6),
        )


def _check_shapes(folder: Path, model: LoadedModel) -> None:
    """Whether the network takes what the card prepares, and says as many things as the card has names for."""
    preprocessing, labels = model.card.preprocessing, model.card.labels
    missing = {"probabilities", "logits", "embedding"} - set(model.engine.outputs)
    if missing:
        raise ModelError(
            f"{folder / WEIGHTS_FILE}: lacks the output {', '.join(sorted(missing))}; train the model again with "
            "'battery-sorting train type'"
        )
    pixels = np.zeros((1, 3, preprocessing.height, preprocessing.width), np.float32)
    try:
        found = model.engine.run(pixels, np.zeros((1, COLOUR_FEATURES), np.float32))["probabilities"]
    except ModelError as error:
        raise ModelError(
            f"{folder / CARD_FILE}: preprocessing: the network refuses pictures of {preprocessing.width}×"
            f"{preprocessing.height} ({error}); restore the card that belongs to {WEIGHTS_FILE}"
        ) from error
    if found.shape != (1, len(labels)):
        raise ModelError(
            f"{folder / CARD_FILE}: labels: {len(labels)} names, but {WEIGHTS_FILE} has outputs of shape "
            f"{found.shape}; restore the card that belongs to the weights"
        )


def _shows_nothing(rgb: np.ndarray) -> bool:
    """Black, white or flat: a covered lens, a blinded sensor, a frame that was never filled."""
    sparse = rgb[::8, ::8]
    mean, spread = float(sparse.mean()), float(sparse.std())
    return not DARK <= mean <= BRIGHT or spread < FLAT


def _bad_image(started: float) -> Prediction:
    return Prediction("", float("nan"), False, str(Reason.BAD_IMAGE), time.perf_counter() - started)
