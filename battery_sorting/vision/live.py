"""A model at work on a belt: loaded beside the one in use, and in its shadow."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from battery_sorting.core.errors import FrameError, ModelError
from battery_sorting.core.types import Reason, TypeResult
from battery_sorting.vision.card import ModelCard
from battery_sorting.vision.classifier import TypeClassifier

LOW_PRIORITY = 10
"""Niceness of threads that may take their time."""


class ModelRouting(Protocol):
    """What a recipe asks of the model that works by it."""

    @property
    def name(self) -> str:
        """Name of the recipe."""

    @property
    def threshold(self) -> float:
        """Confidence below which a battery goes to *others*, 0..1."""

    @property
    def routes(self) -> Mapping[str, str]:
        """Battery type → bin."""


def load_warm(folder: Path, recipe: ModelRouting, *, acted_on: bool = True) -> TypeClassifier:
    """A classifier that has gone its whole way once, so that its first battery takes no longer than others.

    Args:
        folder: Folder of the model.
        recipe: Its threshold counts; the types of a model that is ``acted_on`` must fit to its routes.
        acted_on: False for a candidate, which may know types that the recipe doesn't.

    Raises:
        ModelError: The model can't be loaded, or its types don't fit to the recipe.
    """
    classifier = TypeClassifier(folder, threshold=recipe.threshold)
    problems = route_problems(classifier.card, recipe.routes) if acted_on else []
    if problems:
        raise ModelError(f"{folder}: does not fit to recipe {recipe.name}: {'; '.join(problems)}")
    classifier.warm_up()
    return classifier


def route_problems(card: ModelCard, routes: Mapping[str, str]) -> list[str]:
    """Why a model must not take over while a recipe with these routes (type → bin) runs; empty if it may."""
    unrouted = [label for label in card.types if label not in routes]
    unknown = [label for label in routes if label not in card.types]
    problems = [f"type '{label}' has no route: add routes.{label} to the recipe" for label in unrouted]
    return problems + [f"it doesn't know type '{label}': remove routes.{label}" for label in unknown]


def verdict_on(classifier: TypeClassifier, rgb: np.ndarray, battery_id: str, stamp: float) -> TypeResult:
    """The verdict on a picture, uint8 RGB (height, width, 3), of a battery seen at ``stamp`` (s).

    Raises:
        FrameError: The picture can't be looked at.
    """
    begin = time.perf_counter()
    said = classifier.classify(rgb)
    return TypeResult(
        battery_id=battery_id,
        stamp=stamp,
        label=said.label,
        confidence=said.confidence,
        accepted=said.accepted,
        reason=said.reason,
        scores=said.scores,
        model=classifier.name,
        inference_s=time.perf_counter() - begin,
        novelty=said.novelty,
        views=said.views,
    )


def rejected(battery_id: str, stamp: float, reason: Reason | str, model: str) -> TypeResult:
    """The verdict on a battery without a picture that could be looked at."""
    return TypeResult(battery_id, stamp, "", float("nan"), accepted=False, reason=str(reason), model=model)


def lower_thread_priority() -> None:
    """The calling thread stands back behind all others of the machine (on Linux; elsewhere nothing happens)."""
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)


@dataclass(frozen=True, slots=True)
class _Picture:
    rgb: np.ndarray
    battery_id: str
    stamp: float


class Shadow:
    """A candidate that looks at the same pictures after the active model, in a thread of low priority.

    At most one picture waits; while one does, others are skipped, so that nobody ever waits for the candidate.

    Attributes:
        looked_at: Number of pictures that the candidate has judged.
        skipped: Number of pictures that it was too slow for.
    """

    def __init__(self, classifier: TypeClassifier) -> None:
        self.name = classifier.name
        self.sha256 = classifier.card.sha256
        self.looked_at = 0
        self.skipped = 0
        self._classifier = classifier
        self._waiting: queue.Queue[_Picture | None] = queue.Queue(maxsize=1)
        self._results: deque[TypeResult] = deque(maxlen=1000)
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def submit(self, rgb: np.ndarray, battery_id: str, stamp: float) -> bool:
        """Hand over a picture, without waiting. Returns whether it will be looked at."""
        try:
            self._waiting.put_nowait(_Picture(rgb, battery_id, stamp))
        except queue.Full:
            self.skipped += 1
            return False
        return True

    def take_results(self) -> list[TypeResult]:
        """Verdicts since the last call."""
        results = []
        while self._results:
            results.append(self._results.popleft())
        return results

    def end(self) -> None:
        """Lets the thread end after the picture that it looks at, without waiting for it."""
        self._closing = True
        with contextlib.suppress(queue.Full):  # then it wakes up anyway
            self._waiting.put_nowait(None)

    def close(self) -> None:
        """Ends the thread. Closing twice does no harm."""
        self.end()
        self._thread.join(timeout=2.0)

    def _work(self) -> None:
        lower_thread_priority()
        while (picture := self._waiting.get()) is not None and not self._closing:
            try:
                result = verdict_on(self._classifier, picture.rgb, picture.battery_id, picture.stamp)
            except FrameError:
                result = rejected(picture.battery_id, picture.stamp, Reason.BAD_IMAGE, self.name)
            self.looked_at += 1
            self._results.append(result)
