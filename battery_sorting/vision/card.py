"""A model and its card: weights, and all that must be known to use them rightly."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from battery_sorting.core.errors import ModelError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.preprocessing import Preprocessing

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.onnx"


class ModelCard(BaseModel):
    """What stands in ``card.json`` beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    labels: list[str] = Field(min_length=2, description="in the order of the network's outputs")
    others: str = Field(default=OTHERS, description="the label that means 'no known type'")
    preprocessing: Preprocessing
    threshold: float = Field(
        default=0.8, gt=0, lt=1, description="least confidence (0..1), unless the recipe says otherwise"
    )
    temperature: float = Field(default=1.0, gt=0, description="already part of the weights")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the weights file")
    data: dict[str, Any] = Field(default_factory=dict, description="what it was trained on, and how it was split")
    metrics: dict[str, Any] = Field(default_factory=dict)

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) != len(labels):
            raise ValueError("a label stands twice")
        return labels

    @property
    def types(self) -> list[str]:
        """Labels that are battery types."""
        return [label for label in self.labels if label != self.others]


def read_card(model_dir: Path) -> ModelCard:
    """Card of the model in ``model_dir``.

    Raises:
        ModelError: The card is missing or wrong; file, key and remedy are named.
    """
    path = model_dir / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"{path}: the model's card can't be read ({error.strerror}); point the site's 'model' to a "
            "folder made by 'battery-sorting train type'"
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is not a text file; restore it or train the model again") from error
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'the file'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ModelError(f"{path}: {faults}; restore the card or train the model again") from error


def check_weights(model_dir: Path, card: ModelCard) -> bytes:
    """Content of the weights file, checked against the card.

    Raises:
        ModelError: The file is missing or is not the one that the card describes.
    """
    path = model_dir / WEIGHTS_FILE
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: the weights can't be read ({error.strerror}); restore the file or train the model again"
        ) from error
    digest = hashlib.sha256(weights).hexdigest()
    if digest != card.sha256:
        raise ModelError(
            f"{path}: sha256 is {digest[:12]}…, {CARD_FILE} says {card.sha256[:12]}… (key 'sha256'); weights "
            "and card are not of one training: restore both"
        )
    return weights
