"""The card of a model that tells good cells from defective ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from battery_sorting.core.bounded import parse_json, read_text
from battery_sorting.core.names import Name
from battery_sorting.vision.card import (
    CARD_FILE,
    LARGEST_CARD,
    SHA256,
    ModelCard,
    read_card,
    read_card_as,
    refuse_twins,
)
from battery_sorting.vision.framing import Framing

REMEDY = "a folder made by 'battery-sorting train defects'"


class ImageLimits(BaseModel):
    """Below or above what a picture can't be judged by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sharpness: float = Field(default=0.0, ge=0, description="least sharpness, see `sharpness` in framing.py")
    cell_px: tuple[float, float] | None = Field(
        default=None, description="least and largest long side of the cell, as a share of the frame's width"
    )
    slenderness: tuple[float, float] | None = Field(
        default=None, description="least and largest long side of the cell over its short side"
    )


class DefectCard(BaseModel):
    """What stands in ``card.json`` beside the weights of a defect model."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: Literal["defects"] = "defects"
    name: Name
    version: Name
    view: Name | Literal[""] = Field(default="", description="lug or case; empty: pictures of anything else")
    labels: list[Name] = Field(min_length=2, description="in the order of the network's outputs")
    good: list[str] = Field(min_length=1, description="labels that are no defect")
    framing: Framing
    defective_from: float = Field(gt=0, lt=1, description="probability of a defect that makes a cell defective")
    good_below: float = Field(ge=0, lt=1, description="probability of a defect below which a cell is good")
    novelty_from: float | None = Field(
        default=None, gt=0, description="novelty that no good cell shows; null: unused"
    )
    limits: ImageLimits = ImageLimits()
    sha256: str = Field(pattern=SHA256, description="of the weights file")
    files: dict[Name, Annotated[str, Field(pattern=SHA256)]] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict, description="what it was trained on, and how it was split")
    metrics: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> DefectCard:
        refuse_twins(self.labels)
        stray = sorted(set(self.good) - set(self.labels))
        if stray:
            raise ValueError(f"good: {', '.join(stray)} is none of the labels")
        if set(self.good) == set(self.labels):
            raise ValueError("good: every label is; name those that are no defect")
        if self.good_below > self.defective_from:
            raise ValueError("good_below: is above defective_from")
        return self

    @property
    def types(self) -> list[str]:
        """All labels; the name that models of any kind share."""
        return self.labels

    @property
    def defects(self) -> list[str]:
        """Labels that are defects."""
        return [label for label in self.labels if label not in self.good]


def read_any_card(folder: Path) -> ModelCard | DefectCard:
    """Card of the model in ``folder``, whatever kind it is of. Raises `ModelError` as the others do."""
    try:
        kind = parse_json(read_text(folder / CARD_FILE, LARGEST_CARD)).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # what is wrong is said by who reads it whole
    return read_defect_card(folder) if kind == "defects" else read_card(folder)


def read_defect_card(folder: Path) -> DefectCard:
    """Card of the defect model in ``folder``.

    Raises:
        ModelError: The card is missing or wrong; file, key and remedy are named.
    """
    return read_card_as(DefectCard, folder, REMEDY)
