"""Why the model decided as it did: where it looked, which colours it saw, which training pictures are alike.

The network's head is linear in the pooled features, so the class activation map (Zhou et al., *Learning Deep
Features for Discriminative Localization*, CVPR 2016) is exact, and the same as Grad-CAM at the last layer
(Selvaraju et al., ICCV 2017): the network gives it as its output ``cam``, without a gradient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from battery_sorting.core.errors import FrameError, ModelError
from battery_sorting.core.types import Reason
from battery_sorting.vision.card import WEIGHTS_FILE, ModelCard, check_file, check_weights, read_card
from battery_sorting.vision.classifier import Prediction, TypeClassifier
from battery_sorting.vision.colour import colour_histogram
from battery_sorting.vision.engine import Engine, open_engine
from battery_sorting.vision.gallery import GALLERY_FILE, Gallery, Neighbour
from battery_sorting.vision.likeness import softmax
from battery_sorting.vision.pictures import decode_picture
from battery_sorting.vision.preprocessing import Cutout

NEIGHBOURS = 5
COLOURS = 6
CELL = 32
"""Colours of one cell of the CIELAB cube of this side (8-bit units) count as one colour of the palette."""
OPACITY = 0.6
LEAST = 1e-9
"""Probabilities below this are taken for it, so that they have a logarithm."""
NETWORK_SHARE = "network_share"
"""Key of the card's metrics: by which the head's logits count in the mix of network and colours."""


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour of the battery (RGB, 0..255) and the share (0..1) of the battery that has it."""

    rgb: tuple[int, int, int]
    share: float

    @property
    def hex(self) -> str:
        """As a page or a drawing program writes it: ``#rrggbb``."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was decided on a picture and why.

    Attributes:
        picture: uint8 RGB (height, width, 3).
        cutout: What the network saw of it.
        prediction: The verdict. Where ``label`` is empty, nothing was looked at and all below is empty.
        model: ``name/version``.
        threshold: Confidence (0..1) below which a type is not accepted.
        novelty_limit: Novelty above which a battery counts as of no known type; None: the model has no such rule.
        runner_up: The second most probable type.
        activation: Of the chosen type and the runner-up: float32 (height, width) of the cut-out, 0..1, what speaks
            for the type; both on one scale.
        network: How far the network's head alone speaks for each label, 0..1, adding up to 1, from one view.
        likeness: The same for all the rest: colours, and likeness to training pictures in look and colours. The
            product of the two, brought to a sum of 1, is the probability from one view. Empty: there is no rest.
        palette: The battery's main colours.
        neighbours: The most similar training pictures, the most similar first.
        missing: What the model can't tell, in words.
    """

    picture: np.ndarray
    cutout: Cutout
    prediction: Prediction
    model: str
    threshold: float
    novelty_limit: float | None = None
    runner_up: str = ""
    activation: dict[str, np.ndarray] = field(default_factory=dict)
    network: dict[str, float] = field(default_factory=dict)
    likeness: dict[str, float] = field(default_factory=dict)
    palette: list[Colour] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def verdict(self) -> str:
        """One sentence: what was decided, and by which figure."""
        said = self.prediction
        if not said.label:
            return "Not looked at: the picture is black, white or flat, or shows no battery."
        sure = f"{said.confidence:.1%}"
        if said.accepted:
            return f"Accepted as {said.label}: {sure} sure, at least {self.threshold:.0%} is asked for."
        if said.reason == Reason.LOW_CONFIDENCE:
            rival = f"; {self.runner_up} comes to {said.scores[self.runner_up]:.1%}" if self.runner_up else ""
            return f"Rejected: most like {said.label}, but {sure} is less than {self.threshold:.0%}{rival}."
        if said.reason == Reason.UNKNOWN_TYPE and self.novelty_limit is not None:
            return (
                f"Rejected as no known type: novelty {said.novelty:.3g} is above {self.novelty_limit:.3g}; of the "
                f"known types {said.label} is the most probable ({sure})."
            )
        if said.reason == Reason.NO_SINGLE_BATTERY:
            return (
                "Rejected: looks like no battery by itself, but like a hand, packaging, or several at once; of the "
                f"known types {said.label} is the most probable ({sure})."
            )
        return f"Rejected ({said.reason.replace('_', ' ')}): the most probable label is {said.label} ({sure})."

    def overlay(self, label: str) -> np.ndarray:
        """The cut-out, uint8 RGB, with what speaks for ``label`` drawn over it."""
        return draw_activation(self.cutout.pixels, self.activation[label])


class Explainer:
    """Explains the decisions of one model.

    Args:
        card: Of the model.
        engine: The model's network.
        classify: Gives the verdict that is explained.
        threshold: By which ``classify`` accepts.
        gallery: The model's training pictures, where there are any on record.
    """

    def __init__(
        self,
        card: ModelCard,
        engine: Engine,
        classify: Callable[[np.ndarray], Prediction],
        threshold: float,
        gallery: Gallery | None,
    ) -> None:
        self.card = card
        self.threshold = threshold
        self.gallery = gallery
        self._engine = engine
        self._classify = classify

    @classmethod
    def load(cls, model_dir: Path, threshold: float | None = None) -> Explainer:
        """Explainer of the model in ``model_dir``, with the line's threshold (None: the card's).

        Raises:
            ModelError: Card, weights or gallery are missing, damaged or don't match.
        """
        classifier = TypeClassifier(model_dir, threshold)
        card = read_card(model_dir)
        engine = open_engine(check_weights(model_dir, card), str(model_dir / WEIGHTS_FILE))
        gallery = None
        if GALLERY_FILE in card.files:
            gallery = Gallery.load(check_file(model_dir, card, GALLERY_FILE))
        return cls(card, engine, classifier.classify, classifier.threshold, gallery)

    @property
    def name(self) -> str:
        """``name/version`` of the model."""
        return f"{self.card.name}/{self.card.version}"

    def explain(self, rgb: np.ndarray) -> Explanation:
        """Explain the verdict on a picture, uint8 RGB (height, width, 3).

        Raises:
            FrameError: Not such an array, or smaller than 8 × 8.
            ModelError: The gallery was made by another network.
        """
        prediction = self._classify(rgb)
        cutout = self.card.preprocessing.cut_out(rgb)
        limit = None if self.card.open_set is None else self.card.open_set.threshold
        if not prediction.label:
            return Explanation(rgb, cutout, prediction, self.name, self.threshold, limit)
        outputs = self._look(cutout)
        shown = sorted(prediction.scores, key=lambda label: -prediction.scores[label])[:2]
        network, likeness = self._parts(outputs)
        embedding = outputs["embedding"] if prediction.embedding is None else prediction.embedding
        return Explanation(
            picture=rgb,
            cutout=cutout,
            prediction=prediction,
            model=self.name,
            threshold=self.threshold,
            novelty_limit=limit,
            runner_up=shown[1],
            activation=self._activation(outputs, shown, cutout),
            network=self._named(network),
            likeness=self._named(likeness) if "colour" in self._engine.inputs else {},
            palette=palette(cutout),
            neighbours=self._neighbours(embedding),
            missing=self._missing(),
        )

    def _look(self, cutout: Cutout) -> dict[str, np.ndarray]:
        """Every output of the network for the cut-out as it is, without the leading 1."""
        pixels = self.card.preprocessing.normalise(cutout.pixels)
        found = self._engine.run(pixels, colour_histogram(cutout)[None])
        return {name: values[0] for name, values in found.items()}

    def _parts(self, outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What the network and what the likeness say, each (labels,): the logarithms of the two add up.

        Without the network's share in the card, calibration counts as the likeness' part.
        """
        share = float(self.card.metrics.get(NETWORK_SHARE, 1.0))
        of_network = share * outputs["logits"]
        of_both = np.log(np.maximum(outputs["probabilities"], LEAST))
        return softmax(of_network), softmax(of_both - of_network)

    def _activation(
        self, outputs: Mapping[str, np.ndarray], shown: list[str], cutout: Cutout
    ) -> dict[str, np.ndarray]:
        if "cam" not in outputs:
            return {}
        maps = {label: np.maximum(outputs["cam"][self.card.labels.index(label)], 0) for label in shown}
        top = max(float(each.max()) for each in maps.values()) or 1.0
        height, width = cutout.pixels.shape[:2]
        return {
            label: np.asarray(cv2.resize(each / top, (width, height), interpolation=cv2.INTER_LINEAR))
            for label, each in maps.items()
        }

    def _neighbours(self, embedding: np.ndarray) -> list[Neighbour]:
        if self.gallery is None:
            return []
        try:
            return self.gallery.nearest(embedding, NEIGHBOURS)
        except ValueError as error:
            raise ModelError(f"{GALLERY_FILE} of {self.name}: {error}; train the model again") from error

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return {label: float(value) for label, value in zip(self.card.labels, values, strict=True)}

    def _missing(self) -> list[str]:
        missing = []
        if "cam" not in self._engine.outputs:
            missing.append(f"{self.name} gives no activation map: where it looked can't be shown")
        if self.gallery is None:
            missing.append(f"{self.name} has no {GALLERY_FILE}: similar training pictures can't be found")
        return missing


def palette(cutout: Cutout, count: int = COLOURS) -> list[Colour]:
    """The ``count`` main colours of the battery in a cut-out, the largest first."""
    pixels = cutout.pixels[cutout.mask] if cutout.mask.any() else cutout.pixels.reshape(-1, 3)
    lab = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2LAB)[0]
    cells = (lab // CELL).astype(int) @ (CELL**2, CELL, 1)
    _, cell, sizes = np.unique(cells, return_inverse=True, return_counts=True)
    return [
        Colour(_mean_colour(pixels[cell.ravel() == index]), float(sizes[index] / len(pixels)))
        for index in np.argsort(-sizes, kind="stable")[:count]
    ]


def draw_activation(rgb: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """A picture with an activation (0..1) of its size over it; where that is 0 the picture stays as it is."""
    levels = np.clip(255 * activation, 0, 255).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    opacity = OPACITY * np.clip(activation, 0, 1)[..., None]
    return np.asarray(rgb * (1 - opacity) + heat * opacity).round().astype(np.uint8)


def training_picture(neighbour: Neighbour, data: Path) -> np.ndarray:
    """The pixels of a training picture from the folder ``data``.

    Raises:
        FrameError: It isn't there, can't be decoded, or is another picture than the model was trained on.
    """
    path = (data / neighbour.name).resolve()
    if not path.is_relative_to(data.resolve()):
        raise FrameError(f"{neighbour.name}: leads out of {data}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{neighbour.name}: can't be read from {data} ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != neighbour.sha256:
        raise FrameError(f"{neighbour.name}: the one in {data} is not the picture of the training")
    return decode_picture(content)


def _mean_colour(pixels: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (round(float(level)) for level in pixels.mean(axis=0))
    return red, green, blue
