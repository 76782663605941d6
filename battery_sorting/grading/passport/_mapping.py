"""The attributes of the EU battery passport and the fields of ours that tell them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import Settings, find_shared, read_document, validate

FILE = "config/passport/din_dke_spec_99100.yaml"
Demand = Literal["mandatory", "voluntary", "none"]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class Required(Settings):
    """For which category of batteries an attribute is mandatory."""

    ev: Demand = Field(description="electric vehicle batteries")
    lmt: Demand = Field(description="batteries of light means of transport")
    industrial: Demand = Field(description="industrial batteries above 2 kWh other than stationary ones")
    stationary: Demand = Field(description="stationary battery energy storage systems above 2 kWh")


class SpecAttribute(Settings):
    """An attribute of the battery passport, and what of it stands in our documents."""

    clause: str = Field(pattern=r"^6\.\d+(\.\d+)*$", description="clause of DIN DKE SPEC 99100:2025-02")
    name: str = Field(min_length=1, description="name of the attribute there")
    unit: str = Field(default="", description="unit there; empty for none")
    regulation: str = Field(default="", description="reference to Regulation (EU) 2023/1542 as it is given there")
    required: Required = Field(description="for which category of batteries it is mandatory")
    coverage: Literal["yes", "partly", "no"] = Field(description="whether our documents tell it")
    fields: Names = Field(default=(), description="our fields that tell it, as cell.… and pack.…")
    note: str = Field(min_length=1, description="how the two go together, or why we don't have it")

    @model_validator(mode="after")
    def _fits(self) -> SpecAttribute:
        if (self.coverage == "no") == bool(self.fields):
            raise ValueError("coverage: 'no' goes with no fields, 'yes' and 'partly' with some")
        return self


class FieldMapping(Settings):
    """A field of ours that no attribute of the battery passport asks for."""

    fields: Names = Field(min_length=1, description="our fields, as cell.… and pack.…")
    because: str = Field(min_length=1, description="why it stands in our documents, and in no attribute there")
    clause: str = Field(default="", description="clause of the spec that recommends such data, if any")


class Mapping99100(Settings):
    """Both directions: attributes of the battery passport, and what of ours is none of them."""

    sources: Names = Field(min_length=1, description="what the numbers were taken from")
    attributes: Annotated[tuple[SpecAttribute, ...], Field(strict=False, min_length=1)]
    not_asked_for: Annotated[tuple[FieldMapping, ...], Field(strict=False)]

    def mapped(self) -> set[str]:
        """Our fields that have a place in the table."""
        entries: Sequence[SpecAttribute | FieldMapping] = (*self.attributes, *self.not_asked_for)
        return {name for entry in entries for name in entry.fields}


def load_mapping(path: Path | None = None) -> Mapping99100:
    """Read the table that ships with the package. Raises `ConfigurationError` with every fault of it."""
    path = path or find_shared(FILE)
    if path is None:
        raise ConfigurationError(FILE, ["there is no such file: install the package's config folder again"])
    document = read_document(path)
    mapping = validate(Mapping99100, document)
    document.raise_if_faulty()
    assert mapping is not None
    return mapping
