"""Passports of measured cells and of their packs, from what the ledger holds. docs/reference/passport.md."""

from battery_sorting.grading.passport._documents import (
    DRAFT,
    ISSUED,
    Document,
    Sources,
    as_draft,
    cell_passport,
    file_name,
    pack_passport,
    render,
)
from battery_sorting.grading.passport._dossiers import Dossier, Pack, Selection, collect
from battery_sorting.grading.passport._mapping import FieldMapping, Mapping99100, SpecAttribute, load_mapping
from battery_sorting.grading.passport._schema import (
    PassportFormError,
    check_form,
    field_paths,
    load_schema,
    validator,
)
from battery_sorting.grading.passport._specification import Specification, specification_from_file, specification_in

__all__ = [
    "DRAFT",
    "ISSUED",
    "Document",
    "Dossier",
    "FieldMapping",
    "Mapping99100",
    "Pack",
    "PassportFormError",
    "Selection",
    "Sources",
    "SpecAttribute",
    "Specification",
    "as_draft",
    "cell_passport",
    "check_form",
    "collect",
    "field_paths",
    "file_name",
    "load_mapping",
    "load_schema",
    "pack_passport",
    "render",
    "specification_from_file",
    "specification_in",
    "validator",
]
