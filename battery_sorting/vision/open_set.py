"""Is this a type that the model knows at all? Novelty scores and the rule that a model brings along.

numpy alone; fitting and judging live in `battery_sorting.vision.training.open_set`.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.arrays import read_arrays
from battery_sorting.vision.likeness import (
    SMALL,
    Likeness,
    root_histogram,
    softmax,
    standardised,
    unit,
    weighted_text,
)
from battery_sorting.vision.reading import TEXT_FEATURES

OPEN_SET_FILE = "open_set.npz"
JUNK_FILE = "junk.npz"
NEAREST = 3
"""Pictures of a type to which colours are compared."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model says of n pictures, each the mean over the views that were looked at.

    ``probabilities`` (n, types), ``logits`` (n, types) of the network's head, ``embedding`` (n, d),
    ``colour`` (n, k) histogram of the battery's colours, ``text`` (n, `TEXT_FEATURES`) what was read on it: zeros
    where nothing was, or nobody has read; None stands for that, too.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    embedding: np.ndarray
    colour: np.ndarray
    text: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    def where(self, rows: np.ndarray) -> Outputs:
        """Those pictures alone; ``rows`` are numbers or a mask."""
        text = None if self.text is None else self.text[rows]
        return Outputs(self.probabilities[rows], self.logits[rows], self.embedding[rows], self.colour[rows], text)

    def joined(self, other: Outputs) -> Outputs:
        """These and the other pictures."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        both = Outputs(*(np.concatenate(pair) for pair in pairs))
        if self.text is None and other.text is None:
            return both
        return replace(both, text=np.concatenate([self.read(), other.read()]))

    def read(self) -> np.ndarray:
        """``text``, zeros where nobody has read."""
        return np.zeros((len(self), TEXT_FEATURES), np.float32) if self.text is None else self.text

    def mean(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities, logits, embedding and colours, each the mean over all."""
        probabilities, logits, embedding, colour = (array.mean(axis=0) for array in self._arrays())
        return probabilities, logits, embedding, colour

    def averaged(self, rows: np.ndarray, second: Outputs) -> Outputs:
        """These, but of the pictures ``rows`` (numbers) the mean with what ``second`` says of them, in order."""
        arrays = []
        for own, again in zip(self._arrays(), second._arrays(), strict=True):
            mean = own.copy()
            mean[rows] = (own[rows] + again) / 2
            arrays.append(mean)
        probabilities, logits, embedding, colour = arrays
        return Outputs(probabilities, logits, embedding, colour, self.text)

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.probabilities, self.logits, self.embedding, self.colour

    @property
    def best(self) -> np.ndarray:
        """Number of the most probable type: int (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1))


class ReadingZone(BaseModel):
    """Where it is worth the time to read what is printed on a battery: novelty before reading within this range."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    above: float = Field(allow_inf_nan=False, description="below it, it is known whatever is printed on it")
    below: float = Field(allow_inf_nan=False, description="above it, it is unknown whatever is printed on it")

    def holds(self, novelty: float | np.ndarray) -> bool | np.ndarray:
        """Whether a battery of this novelty is read."""
        return (novelty > self.above) & (novelty < self.below)


class OpenSetCard(BaseModel):
    """``open_set`` in the model's card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(min_length=1, description="name of the scores that are summed up, for people")
    threshold: float = Field(allow_inf_nan=False, description="novelty above which a battery is of no known type")
    false_reject: float = Field(gt=0, lt=1, description="share of known batteries that the threshold gives up")
    reading: ReadingZone | None = Field(default=None, description="when reader.onnx reads; null: never")
    metrics: dict[str, Any] = Field(
        default_factory=dict, description="what was measured, see docs/explanation/open_set.md"
    )


class Score(Protocol):
    """Tells how little a picture resembles any known type. A dataclass whose fields are all arrays."""

    name: ClassVar[str]

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """(n,), higher is less known."""
        ...


@dataclass(frozen=True, slots=True)
class MaxProbability:
    """1 − the best type's probability: with a threshold of 0.2 the rule of the BatSort paper (section III)."""

    name: ClassVar[str] = "max_probability"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """0..1."""
        return np.asarray(1.0 - outputs.probabilities.max(axis=1))


@dataclass(frozen=True, slots=True)
class Surprise:
    """−log of the best type's probability: orders pictures as `MaxProbability` does, and adds up better."""

    name: ClassVar[str] = "surprise"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """0 or more."""
        return np.asarray(-np.log(outputs.probabilities.max(axis=1) + SMALL))


@dataclass(frozen=True, slots=True)
class Energy:
    """Free energy of the logits (Liu et al., Energy-based Out-of-distribution Detection, 2020)."""

    name: ClassVar[str] = "energy"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """−log Σ exp(logit)."""
        largest = outputs.logits.max(axis=1)
        return np.asarray(-largest - np.log(np.exp(outputs.logits - largest[:, None]).sum(axis=1)))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Distance to the nearest training picture of the best type (Sun et al., Deep Nearest Neighbors, 2022).

    ``reference`` (m, d) unit rows, ``type_of`` (m,) their types' numbers, ``mean``, ``spread`` (d,) of embeddings.
    """

    reference: np.ndarray
    type_of: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    name: ClassVar[str] = "neighbours"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """1 − cosine, 0..2."""
        return _distance(standardised(outputs.embedding, self.mean, self.spread), self, outputs.best, 1)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far what the network's head says by itself is from what all opinions say together.

    A stranger often looks like one type and is coloured like another. Total variation distance.
    """

    name: ClassVar[str] = "disagreement"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """0..1."""
        return np.asarray(0.5 * np.abs(softmax(outputs.logits) - outputs.probabilities).sum(axis=1))


@dataclass(frozen=True, slots=True)
class UnknownWords:
    """How much was read that pictures of the best type don't show, against what they do.

    ``familiar`` (types, h) is how well a type knows a piece of a word, 0..1.
    """

    familiar: np.ndarray
    name: ClassVar[str] = "unknown_words"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """Log-ratio of the two; 0 where nothing was read."""
        if outputs.text is None:
            return np.zeros(len(outputs))
        read, known = outputs.text, self.familiar[outputs.best]
        return np.asarray(np.log1p((read * (1 - known)).sum(axis=1)) - np.log1p((read * known).sum(axis=1)))


@dataclass(frozen=True, slots=True)
class ColourNeighbours:
    """Mean distance to the `NEAREST` training pictures of the best type by colours, in Hellinger's sense.

    ``reference`` (m, k) as `root_histogram` makes them, ``type_of`` (m,).
    """

    reference: np.ndarray
    type_of: np.ndarray
    name: ClassVar[str] = "colour_neighbours"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """0..1."""
        return _distance(root_histogram(outputs.colour), self, outputs.best, NEAREST)


@dataclass(frozen=True, slots=True)
class Mahalanobis:
    """Distance to the nearest type's mean under one covariance (Lee et al., A Simple Unified Framework, 2018).

    ``whiten`` (d, c) takes embeddings, less ``mean``, to where that covariance is 1; ``centres`` (types, c).
    """

    mean: np.ndarray
    whiten: np.ndarray
    centres: np.ndarray
    name: ClassVar[str] = "mahalanobis"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """0 or more; 1 is one standard deviation."""
        at = (unit(outputs.embedding) - self.mean) @ self.whiten
        return np.asarray(np.sqrt(((at[:, None] - self.centres) ** 2).sum(axis=2).min(axis=1)))


@dataclass(frozen=True, slots=True)
class Conformal:
    """1 − the largest p-value of any type (label-conditional conformal prediction, Vovk et al. 2005).

    A picture's strangeness as type t is 1 − its probability; ``calibration`` (m,) holds that of each training
    picture as what it is, judged by a model that had not learnt from it, and ``type_of`` (m,) the type's number.
    """

    calibration: np.ndarray
    type_of: np.ndarray
    name: ClassVar[str] = "conformal"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """0..1; ties are broken by the strangeness itself, else a few pictures would make few thresholds."""
        strangeness = 1.0 - outputs.probabilities
        p_value = np.zeros_like(strangeness)
        for label in range(strangeness.shape[1]):
            own = np.sort(self.calibration[self.type_of == label])
            as_strange = len(own) - np.searchsorted(own, strangeness[:, label], side="left")
            p_value[:, label] = (as_strange + 1 - strangeness[:, label]) / (len(own) + 1)
        return np.asarray(1.0 - p_value.max(axis=1))


@dataclass(frozen=True, slots=True)
class Background:
    """Log-odds that a picture belongs to the pictures of unknown batteries that training was shown.

    Softmax regression over the known types and the background class, on standardised embeddings: ``mean``,
    ``spread`` (d,), ``weight`` (types + 1, d), ``bias`` (types + 1,), background last.
    """

    mean: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    name: ClassVar[str] = "background"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """Logit of the background over the log-sum of the known types."""
        logits = standardised(outputs.embedding, self.mean, self.spread) @ self.weight.T + self.bias
        largest = logits.max(axis=1, keepdims=True)
        known = np.log(np.exp(logits[:, :-1] - largest).sum(axis=1) + SMALL**2)
        return np.asarray(logits[:, -1] - largest[:, 0] - known)


@dataclass(frozen=True, slots=True)
class LookAndColour(Likeness):
    """How much more a picture looks, and is coloured, like the background than like its nearest known type.

    A `Likeness` to the types and the background class, which is the last of its labels.
    """

    name: ClassVar[str] = "look_and_colour"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """Regression's value of the background less that of the best known type; about −1 .. 1."""
        values = self.to(outputs.embedding, outputs.colour)
        return np.asarray(values[:, -1] - values[:, :-1].max(axis=1))


@dataclass(frozen=True, slots=True)
class LookColourText(LookAndColour):
    """The same, and by what is printed on it.

    ``rarity`` (h,) is how much a piece of a word tells, ``text_weight`` (h, L).
    """

    rarity: np.ndarray
    text_weight: np.ndarray
    name: ClassVar[str] = "look_colour_text"

    def __call__(self, outputs: Outputs) -> np.ndarray:
        """As of `LookAndColour`; where nothing was read, look and colour decide."""
        values = self.to(outputs.embedding, outputs.colour)
        if outputs.text is not None:
            values = values + weighted_text(outputs.text, self.rarity) @ self.text_weight
        return np.asarray(values[:, -1] - values[:, :-1].max(axis=1))


SCORES: dict[str, Any] = {
    score.name: score
    for score in (
        MaxProbability,
        Surprise,
        Energy,
        Neighbours,
        ColourNeighbours,
        Mahalanobis,
        Conformal,
        Disagreement,
        UnknownWords,
        Background,
        LookAndColour,
        LookColourText,
    )
}


@dataclass(frozen=True, slots=True)
class ScorePart:
    """A score and how it counts: (score − centre) / scale."""

    score: Score
    centre: float
    scale: float


class OpenSetRule:
    """Whether a picture shows a type that the model knows.

    Args:
        parts: Scores whose scaled sum is the novelty.
        threshold: Novelty above which a picture is of no known type.
        reading: Novelty before reading at which what is printed counts, too; None: it never does.
    """

    def __init__(self, parts: tuple[ScorePart, ...], threshold: float, reading: ReadingZone | None = None) -> None:
        if not parts:
            raise ValueError("parts: none; a rule needs at least one score")
        self.parts = parts
        self.threshold = threshold
        self.reading = reading

    @property
    def method(self) -> str:
        """Names of its scores, joined by +."""
        return "+".join(part.score.name for part in self.parts)

    def novelty(self, outputs: Outputs) -> np.ndarray:
        """(n,), higher is less like any known type; +inf where it can't be computed.

        What was read counts where `judge` would have asked for it.
        """
        before = self._novelty(replace(outputs, text=None))
        if self.reading is None or outputs.text is None:
            return before
        return np.where(self.reading.holds(before), self._novelty(outputs), before)

    def _novelty(self, outputs: Outputs) -> np.ndarray:
        total = np.zeros(len(outputs))
        for part in self.parts:
            total += (part.score(outputs) - part.centre) / part.scale
        return np.where(np.isnan(total), np.inf, total)

    def judge(
        self,
        probabilities: np.ndarray,
        logits: np.ndarray,
        embedding: np.ndarray,
        colour: np.ndarray,
        read: Callable[[], np.ndarray] | None = None,
    ) -> tuple[float, bool]:
        """Novelty of one picture, and whether it is of no known type; arrays (L,) … (k,), means over its views.

        ``read`` gives the picture's `text_features`. It takes its time, and is only asked where that may matter.
        """
        one = Outputs(probabilities[None], logits[None], embedding[None], colour[None])
        novelty = float(self._novelty(one)[0])
        if read is not None and self.reading is not None and self.reading.holds(novelty):
            novelty = float(self._novelty(replace(one, text=read()[None]))[0])
        return novelty, novelty > self.threshold

    def to_bytes(self) -> bytes:
        """Content of ``open_set.npz``: for every part its name, centre, scale and arrays."""
        arrays: dict[str, np.ndarray] = {
            "scores": np.array([part.score.name for part in self.parts]),
            "centre": np.array([part.centre for part in self.parts]),
            "scale": np.array([part.scale for part in self.parts]),
        }
        for number, part in enumerate(self.parts):
            for key in _keys(type(part.score)):
                arrays[f"{number}.{key}"] = _stored(getattr(part.score, key))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


def read_rule(path: Path, card: OpenSetCard) -> OpenSetRule:
    """The rule whose arrays are in ``path`` and whose threshold stands in the card.

    Raises:
        ModelError: The file is missing, damaged, or not the one that the card speaks of.
    """
    remedy = "restore the file that belongs to the card or train the model again"
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise ModelError(f"{path}: {error}; {remedy}") from error
    try:
        parts = tuple(_part(number, str(name), arrays) for number, name in enumerate(arrays["scores"]))
        rule = OpenSetRule(parts, card.threshold, card.reading)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(f"{path}: {error} is missing or unknown; {remedy}") from error
    if rule.method != card.method:
        raise ModelError(
            f"{path}: holds {rule.method!r}, the card's 'open_set.method' is {card.method!r}; {remedy}"
        )
    return rule


def _distance(rows: np.ndarray, score: Neighbours | ColourNeighbours, best: np.ndarray, nearest: int) -> np.ndarray:
    """1 − the mean product with the nearest reference rows of the best type; 2 where that type has none.

    Where it has fewer, its nearest counts for those that are missing.
    """
    likeness = rows @ score.reference.T
    likeness[score.type_of[None, :] != best[:, None]] = -1.0
    nearest = min(nearest, likeness.shape[1])
    first = likeness.max(axis=1, keepdims=True)
    best_few = np.partition(likeness, -nearest, axis=1)[:, -nearest:]
    return np.asarray(1.0 - np.where(best_few == -1.0, first, best_few).mean(axis=1))


def _part(number: int, name: str, arrays: dict[str, np.ndarray]) -> ScorePart:
    kind = SCORES[name]
    fields = {key: _loaded(arrays[f"{number}.{key}"]) for key in _keys(kind)}
    return ScorePart(kind(**fields), float(arrays["centre"][number]), float(arrays["scale"][number]))


def _keys(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _stored(array: np.ndarray) -> np.ndarray:
    """Half precision, which is more than these figures are good for; small arrays as they are."""
    return array.astype(np.float16) if array.dtype.kind == "f" and array.size > 4096 else array


def _loaded(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind == "f" else array
