"""A model and its card: weights, and all that must be known to use them rightly."""

from __future__ import annotations

import errno
import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from battery_sorting.core.bounded import MIB, parse_json, read_bytes, read_text
from battery_sorting.core.errors import ModelError
from battery_sorting.core.names import Name
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.open_set import OpenSetCard
from battery_sorting.vision.pictures import label_of_folder
from battery_sorting.vision.preprocessing import Preprocessing

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.onnx"
SHA256 = "^[0-9a-f]{64}$"
LARGEST_CARD = 4 * MIB
LARGEST_FILE = 2048 * MIB
"""Bytes of weights or another file of a model; ONNX files can't be larger."""


class ViewPolicy(BaseModel):
    """How often the network looks at a picture: again, at a stricter cut-out, where the first look left doubt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    most: Literal[1, 2] = 2
    sure: float = Field(default=0.9, ge=0, le=1, description="confidence (0..1) of the first view that is enough")


class ModelCard(BaseModel):
    """What stands in ``card.json`` beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: Name
    version: Name
    labels: list[Name] = Field(min_length=2, description="in the order of the network's outputs")
    preprocessing: Preprocessing
    threshold: float = Field(
        default=0.8, gt=0, lt=1, description="least confidence (0..1), unless the recipe says otherwise"
    )
    sha256: str = Field(pattern=SHA256, description="of the weights file")
    files: dict[Name, Annotated[str, Field(pattern=SHA256)]] = Field(
        default_factory=dict, description="further files of the model and their sha256"
    )
    views: ViewPolicy = ViewPolicy()
    open_set: OpenSetCard | None = Field(default=None, description="how unknown types are told; null: not at all")
    junk: OpenSetCard | None = Field(default=None, description="how what is no battery is told; null: not at all")
    data: dict[str, Any] = Field(default_factory=dict, description="what it was trained on, and how it was split")
    metrics: dict[str, Any] = Field(default_factory=dict)

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: list[str]) -> list[str]:
        refuse_twins(labels)
        none = next((label for label in labels if label_of_folder(label) == OTHERS), None)
        if none is not None:
            raise ValueError(f"{none!r} is no type: what belongs to none is told by 'open_set'")
        return labels

    @property
    def types(self) -> list[str]:
        """Battery types that the model knows."""
        return self.labels


class Checked(Protocol):
    """What every card says of the model's files."""

    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def files(self) -> dict[str, str]: ...  # noqa: D102


Card = TypeVar("Card", bound=BaseModel)


def read_card(model_dir: Path) -> ModelCard:
    """Card of the battery-type model in ``model_dir``.

    Raises:
        ModelError: The card is missing or wrong; file, key and remedy are named.
    """
    return read_card_as(ModelCard, model_dir, "a folder made by 'battery-sorting train type'")


def read_card_as(kind: type[Card], model_dir: Path, remedy: str) -> Card:
    """The card in ``model_dir``, of a model of any kind. ``remedy`` names what folder the site should point to.

    Raises:
        ModelError: The card is missing or wrong; file, key and remedy are named.
    """
    path = model_dir / CARD_FILE
    try:
        text = read_text(path, LARGEST_CARD)
    except OSError as error:
        raise ModelError(
            f"{path}: the model's card can't be read ({error.strerror}); point the site's 'model' to {remedy}"
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is no text in UTF-8; restore it or train the model again") from error
    try:
        return kind.model_validate(parse_json(text))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'the file'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ModelError(f"{path}: {faults}; restore the card or train the model again") from error
    except ValueError as error:
        raise ModelError(f"{path}: is no JSON ({error}); restore the card or train the model again") from error


def refuse_twins(labels: Sequence[str]) -> None:
    """Raise `ValueError` if two labels are the same to a person or to some file system."""
    seen = {unicodedata.normalize("NFC", label).casefold() for label in labels}
    if len(seen) != len(labels):
        raise ValueError("a label stands twice")


def check_weights(model_dir: Path, card: Checked) -> bytes:
    """Content of the weights file, checked against the card.

    Raises:
        ModelError: The file is missing or is not the one that the card describes.
    """
    return _checked(model_dir, WEIGHTS_FILE, card.sha256, "sha256")


def check_file(model_dir: Path, card: Checked, name: str) -> Path:
    """Path of a further file of the model, checked against the card.

    Raises:
        ModelError: The card doesn't name it, or the file is missing or another one.
    """
    if name not in card.files:
        raise ModelError(
            f"{model_dir / CARD_FILE}: files: has no {name}; restore the card or train the model again"
        )
    _checked(model_dir, name, card.files[name], f"files.{name}")
    return model_dir / name


def sha256_of(path: Path) -> str:
    """Of a file, in hex, as a card names it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checked(model_dir: Path, name: str, sha256: str, key: str) -> bytes:
    path = model_dir / name
    try:
        # A folder may be a link, and an install space may link each of its files; but not one of them elsewhere.
        folder, own = (model_dir / CARD_FILE).resolve().parent, path.resolve()
        if own.parent != folder:
            raise OSError(errno.EINVAL, f"leads out of the model's folder, to {own}", str(path))
        content = read_bytes(path, LARGEST_FILE)
    except RuntimeError as error:  # links in a circle, before Python 3.13
        raise ModelError(f"{path}: leads nowhere ({error}); restore the file or train the model again") from error
    except OSError as error:
        raise ModelError(
            f"{path}: can't be read ({error.strerror}); restore the file or train the model again"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ModelError(
            f"{path}: sha256 is {digest[:12]}…, {CARD_FILE} says {sha256[:12]}… (key '{key}'); file and card are "
            "not of one training: restore both"
        )
    return content
