"""The schemas of passports (config/passport/*.schema.json), and the check against them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.settings import find_shared
from battery_sorting.grading.passport._documents import DRAFT, ISSUED, Document

KINDS = ("cell", "pack")
LEAVES = ("text", "number", "object", "list", "quantity")
"""Definitions in a schema that stand for one value with its unit, limit of error or reason."""


class PassportFormError(BatterySortingError):
    """A document is not what the schema of passports wants."""

    code = "passport_form"


def load_schema(kind: str) -> Document:
    """Schema of the passports of a ``kind`` of `KINDS`. Raises `ConfigurationError` where it is missing."""
    name = f"config/passport/{kind}.schema.json"
    path = find_shared(name)
    if path is None:
        raise ConfigurationError(name, ["there is no such file: install the package's config folder again"])
    try:
        schema: Document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(str(path), [f"can't be read ({error}): install the file again"]) from error
    return schema


def validator(kind: str) -> Any:
    """Validator (JSON Schema 2020-12) of the passports of a ``kind``."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema(kind))


def check_form(document: Document, of_kind: Any) -> None:
    """See that a passport fits its schema, or that a draft fits it but for saying that it is one.

    Args:
        document: Passport or draft.
        of_kind: Validator of its kind, from `validator`.

    Raises:
        PassportFormError: It doesn't, or a draft would pass for a passport.
    """
    if document.get("status") == DRAFT:
        if of_kind.is_valid(document):
            raise PassportFormError(f"{_name(document)}: a draft must not pass for a passport")
        document = {key: value for key, value in document.items() if key != "draft_because"}
        document |= {"status": ISSUED, "simulated": False}
    errors = sorted(of_kind.iter_errors(document), key=lambda error: error.json_path)
    if errors:
        problems = "; ".join(f"{error.json_path}: {error.message[:200]}" for error in errors[:5])
        raise PassportFormError(
            f"{_name(document)}: what the ledger holds does not make a passport: {problems}. "
            "Look at its events with 'battery-sorting items LEDGER --id ID'"
        )


def _name(document: Document) -> str:
    identity = document.get("identity", {})
    return str(identity.get("battery_id") or identity.get("pack_id") or "passport")


def field_paths(schema: Mapping[str, Any]) -> list[str]:
    """All fields of a schema as ``performance.capacity``; those of list items as ``cells[].grade``."""
    return list(_paths(schema, schema, ""))


def _paths(node: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for entry in node.get("allOf", ()):
        if "$ref" in entry:
            node = {**entry, **{key: value for key, value in node.items() if key != "allOf"}}
    reference = str(node.get("$ref", "")).rpartition("/")[2]
    if reference in LEAVES:
        yield path
    elif reference:
        yield from _paths(schema["$defs"][reference], schema, path)
    elif "properties" in node:
        for name, child in node["properties"].items():
            yield from _paths(child, schema, f"{path}.{name}" if path else name)
    elif node.get("type") == "array" and "properties" in node.get("items", {}):
        yield from _paths(node["items"], schema, f"{path}[]")
    else:
        yield path
