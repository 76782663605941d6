"""Errors by chemistry: a wrong brand costs a little, a Li-ion cell among Ni-MH can set the furnace on fire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import find_shared, read_document
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.pictures import label_of_folder

CHEMISTRIES = ("alkaline", "zinc_carbon", "lithium_primary", "li_ion", "nimh", "nicd")
SHIPPED = "config/labels/batsort_chemistry.yaml"


@dataclass(frozen=True, slots=True)
class ChemistryErrors:
    """How batteries of known types were sorted by chemistry. Those turned away are in no bin and no error.

    Attributes:
        batteries: Of known types.
        turned_away: Of these, those that went to *others*.
        right: Of these, those taken for a type of their own chemistry.
        confusion: ``confusion[true][predicted]`` counts what was not turned away, by chemistry.
        unknown_taken_for: Batteries of no known type that were accepted, by the chemistry they were taken for.
    """

    batteries: int
    turned_away: int
    right: int
    confusion: dict[str, dict[str, int]]
    unknown_taken_for: dict[str, int]

    @property
    def sorted(self) -> int:
        """Batteries of known types that were given a type."""
        return self.batteries - self.turned_away

    @property
    def accuracy(self) -> float:
        """Share (0..1) of the right chemistry among those given a type; NaN where there are none."""
        return self.right / self.sorted if self.sorted else float("nan")

    @property
    def li_ion_as_nimh(self) -> int:
        """Li-ion cells taken for Ni-MH, the worst error there is."""
        return self.taken("li_ion", "nimh")

    def taken(self, true: str, predicted: str) -> int:
        """How many of one chemistry were taken for another."""
        return self.confusion.get(true, {}).get(predicted, 0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "batteries": self.batteries,
            "turned_away": self.turned_away,
            "accuracy": round(self.accuracy, 4) if self.sorted else None,
            "errors": self.sorted - self.right,
            "li_ion_as_nimh": self.li_ion_as_nimh,
            "confusion": self.confusion,
            "unknown_taken_for": self.unknown_taken_for,
        }


def chemistry_errors(
    truth: Sequence[str], predicted: Sequence[str], chemistry: Mapping[str, str]
) -> ChemistryErrors:
    """Count errors by chemistry.

    Args:
        truth: Label of each battery; ``others`` (or the folder's name ``Other``) for those of no known type.
        predicted: What each was taken for; ``others`` for those turned away.
        chemistry: Chemistry of each type, see `read_chemistry`.

    Raises:
        ConfigurationError: A type has no chemistry.
    """
    true = _chemistries(truth, chemistry)
    taken_for = _chemistries(predicted, chemistry)
    pairs = Counter(zip(true, taken_for, strict=True))
    known = {pair: n for pair, n in pairs.items() if pair[0] != OTHERS}
    confusion: dict[str, dict[str, int]] = {}
    for (a, b), n in sorted(known.items()):
        if b != OTHERS:
            confusion.setdefault(a, {})[b] = n
    return ChemistryErrors(
        batteries=sum(known.values()),
        turned_away=sum(n for (_, b), n in known.items() if b == OTHERS),
        right=sum(n for (a, b), n in known.items() if a == b),
        confusion=confusion,
        unknown_taken_for={b: n for (a, b), n in sorted(pairs.items()) if a == OTHERS and b != OTHERS},
    )


def read_chemistry(path: Path | None = None) -> dict[str, str]:
    """Chemistry of each type, from a YAML file ``TYPE: CHEMISTRY``; without ``path`` that of the BatSort types.

    Raises:
        ConfigurationError: The file can't be read, or names chemistries that are none of `CHEMISTRIES`.
    """
    path = path or find_shared(SHIPPED)
    if path is None:
        raise ConfigurationError(SHIPPED, ["no such file here; name one"])
    document = read_document(path)
    for label, value in document.data.items():
        if value not in CHEMISTRIES:
            problem = f"{value!r} is no chemistry that is known; write one of {', '.join(CHEMISTRIES)}"
            document.problems.append(document.describe((str(label),), problem))
    document.raise_if_faulty()
    return {str(label): str(value) for label, value in document.data.items()}


def _chemistries(labels: Sequence[str], chemistry: Mapping[str, str]) -> list[str]:
    names = [label_of_folder(label) for label in labels]
    missing = sorted({name for name in names if name != OTHERS and name not in chemistry})
    if missing:
        problem = f"{', '.join(missing)}: no chemistry given; add a line 'TYPE: CHEMISTRY' for each"
        raise ConfigurationError("chemistry of the types", [problem])
    return [OTHERS if name == OTHERS else chemistry[name] for name in names]
