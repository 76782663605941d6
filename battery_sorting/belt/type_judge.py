"""The models at work on a belt: the one that decides, the candidate in its shadow, and the watch on what comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from battery_sorting.belt.drift import DriftMonitor, Reference, ReferenceBook
from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.active_model import find_model
from battery_sorting.core.errors import BatterySortingError, ConfigurationError, FrameError
from battery_sorting.core.types import Alarm, ModelChange, Reason, TypeResult
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.live import Shadow, load_warm, rejected, verdict_on
from battery_sorting.vision.trial import try_model

News: TypeAlias = "ModelChange | Alarm"
"""What the ledger is to know; whoever passes it on gives it its time by the wall clock."""


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What came of loading a model: the model, or why there is none."""

    folder: Path | None = None
    classifier: TypeClassifier | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is said of one battery.

    Attributes:
        result: The verdict.
        rgb: Picture, uint8 (height, width, 3); None: there was none that could be looked at.
        problem: Why its frame could not be looked at; empty if it could, or if there was none.
    """

    result: TypeResult
    rgb: np.ndarray | None = None
    problem: str = ""


class TypeJudge:
    """Names the types of batteries. What it does it says as `News`, in their order.

    Used by one thread, `load` by any.

    Args:
        site: Which models, and what counts as drift.
        recipe: Threshold and routes.
        references: File in which the references for drift are kept.
        complain: Is told what goes wrong without stopping the belt.
    """

    def __init__(
        self, site: BeltSite, recipe: BeltRecipe, references: Path, complain: Callable[[str], object]
    ) -> None:
        self._site, self._recipe, self._complain = site, recipe, complain
        self._classifier: TypeClassifier | None = None
        self._shadow: Shadow | None = None
        self._drift = DriftMonitor(site.drift)
        self._references = ReferenceBook(references)
        self._count = 0
        self._inference_s = math.nan

    @property
    def is_open(self) -> bool:
        """Whether there is a model that decides."""
        return self._classifier is not None

    @property
    def model(self) -> str:
        """Name of the model that decides; empty if none does."""
        return self._classifier.name if self._classifier else ""

    @property
    def shadow(self) -> str:
        """Name of the candidate in its shadow; empty if there is none."""
        return self._shadow.name if self._shadow else ""

    @property
    def warning(self) -> str:
        """The alarms that stand; empty if none does."""
        return "; ".join(self._drift.raised.values())

    def figures(self) -> dict[str, str | float]:
        """What has been counted and measured, for people."""
        figures: dict[str, str | float] = {
            "model": self.model,
            "images": self._count,
            "inference_ms": round(self._inference_s * 1e3, 1),
            **self._drift.figures(),
        }
        if self._shadow is not None:
            figures["shadow_model"] = self._shadow.name
            figures["shadow_images"] = self._shadow.looked_at
            figures["shadow_skipped"] = self._shadow.skipped
        return figures

    def open(self, now: float) -> list[News]:
        """Loads the site's model, and the candidate if the site names one.

        Raises:
            ConfigurationError: One can't be found.
            ModelError: One can't be loaded.
        """
        folder, shadow_folder = self._site.model_directory(), self._site.shadow_directory()
        classifier = TypeClassifier(folder, threshold=self._recipe.threshold)
        classifier.warm_up()
        shadow = None if shadow_folder is None else load_warm(shadow_folder, self._recipe, acted_on=False)
        news = self._use(classifier, folder, now, self._references.of(classifier.card.sha256))
        if shadow is not None:
            news += self.use_in_shadow(ModelLoad(shadow_folder, shadow))
        return news

    def close(self) -> None:
        """Forgets the models."""
        self._classifier = None
        shadow, self._shadow = self._shadow, None
        if shadow is not None:
            shadow.close()

    # ---- batteries ----

    def judge(self, battery_id: str, stamp: float, error: str, picture: Callable[[], np.ndarray]) -> Judgement:
        """The verdict on a battery of ``stamp`` (s); there must be a model.

        Args:
            battery_id: The battery.
            stamp: Time of its frame.
            error: Why it has no frame; empty if it has one.
            picture: Gives the frame, uint8 RGB (height, width, 3), or raises `FrameError`.
        """
        assert self._classifier is not None
        self._count += 1
        if error:
            return Judgement(rejected(battery_id, stamp, error, self.model))
        begin = time.perf_counter()
        rgb, problem = None, ""
        try:
            rgb = picture()
            result = verdict_on(self._classifier, rgb, battery_id, stamp)
        except FrameError as failure:
            problem = str(failure)
            result = rejected(battery_id, stamp, Reason.BAD_IMAGE, self.model)
        self._inference_s = time.perf_counter() - begin
        return Judgement(result if problem else replace(result, inference_s=self._inference_s), rgb, problem)

    def follow(self, judgement: Judgement, now: float) -> list[News]:
        """What else is done with a picture, when nobody waits for its verdict any more."""
        result, rgb = judgement.result, judgement.rgb
        if self._shadow is not None and rgb is not None:
            self._shadow.submit(rgb, result.battery_id, result.stamp)
        if rgb is None and not judgement.problem:
            return []  # that there was no frame says nothing of what comes along
        before = self._drift.reference
        news: list[News] = [*self._drift.take(result, now)]
        reference, classifier = self._drift.reference, self._classifier
        if reference is not None and before is None and classifier is not None:
            self._write(lambda: self._references.keep(classifier.card.sha256, reference))
        return news

    def shadow_results(self) -> list[TypeResult]:
        """Verdicts of the candidate since the last call."""
        return [] if self._shadow is None else self._shadow.take_results()

    # ---- models ----

    def load(self, name: str, acted_on: bool) -> ModelLoad:
        """Loads a model beside the one that works; ``acted_on``: to take over. Whatever goes wrong is told only."""
        try:
            folder = find_model(name)
            try_model(folder)
            return ModelLoad(folder, load_warm(folder, self._recipe, acted_on=acted_on))
        except BatterySortingError as error:
            return ModelLoad(problem=str(error))
        except Exception as error:  # e.g. MemoryError, or a network that fails at its first picture
            return ModelLoad(problem=f"{name}: {type(error).__name__}: {error}")

    def take_over(self, loaded: ModelLoad, now: float) -> list[News]:
        """From the next frame on, this model decides, and is compared with its own beginning."""
        classifier = loaded.classifier
        assert classifier is not None
        self._write(lambda: self._references.forget(classifier.card.sha256))
        return self._use(classifier, loaded.folder, now)

    def use_in_shadow(self, loaded: ModelLoad) -> list[News]:
        """From the next frame on, this candidate is compared; without a model: none is."""
        classifier, earlier = loaded.classifier, self._shadow
        self._shadow = None if classifier is None else Shadow(classifier)
        if earlier is not None:
            earlier.end()
        if earlier is None and classifier is None:
            return []
        return [_change(classifier, loaded.folder, earlier.name if earlier else "", shadow=True)]

    def reservation(self, folder: Path | None) -> str:
        """What there is to know of a model that took over: whether it will be there after the next start."""
        try:
            if self._site.model_directory() == folder:
                return ""
        except ConfigurationError as error:
            return str(error)
        return f"until the next start: the site's model is {self._site.model}"

    def _use(
        self, classifier: TypeClassifier, folder: Path | None, now: float, reference: Reference | None = None
    ) -> list[News]:
        previous, self._classifier = self.model, classifier
        cleared = self._drift.restart(now, f"model {classifier.name} took over", reference)
        return [_change(classifier, folder, previous, shadow=False), *cleared]

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:  # a full disk is told by others; the belt goes on
            self._complain(f"the reference for drift can't be written: {error}")


def _change(classifier: TypeClassifier | None, folder: Path | None, previous: str, shadow: bool) -> ModelChange:
    return ModelChange(
        stamp=math.nan,
        model=classifier.name if classifier else "",
        previous=previous,
        folder=str(folder or ""),
        sha256=classifier.card.sha256 if classifier else "",
        shadow=shadow,
    )
