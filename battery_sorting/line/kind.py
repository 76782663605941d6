"""What is different from one kind of line to the other, for those who start and check lines of any kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from battery_sorting.core.settings import RecipeSettings, SiteSettings
from battery_sorting.line.contract import Contract

if TYPE_CHECKING:  # the database takes long to import, and few need it
    from battery_sorting.ledger.store import Ledger
    from battery_sorting.line.reporting import ShiftReport

SiteT = TypeVar("SiteT", bound=SiteSettings)
RecipeT = TypeVar("RecipeT", bound=RecipeSettings)


@dataclass(frozen=True)
class Findings:
    """What was found about a line before its start.

    Attributes:
        facts: What a person wants to see of models and recipe.
        warnings: They don't stop the start.
    """

    facts: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class LineKind(ABC, Generic[SiteT, RecipeT]):
    """A kind of line; one instance each, listed in `battery_sorting.lines.LINES`.

    Attributes:
        name: Value of the key ``kind`` in its files.
        entrance: Where its items are seen first, in the words of a person.
        site: Class that reads its site file.
        recipe: Class that reads its recipes.
        contract: What its nodes say to each other.
        executables: Name of a node → its executable, where that is another.
        companions: Names of processes that are no ROS nodes, such as a page: observers, each with an executable of
            its name that takes ``--run-dir FOLDER`` and, as the plant does, ``--exit-with-parent``.
        plant_ports: Ports in the ``plant:`` section of its sites; for each the path of the device that talks to it,
            and the setting of its driver. Empty: it has no simulated plant.
        explains: Whether the page of its report explains decisions, by a model and the pictures it was trained on.
    """

    name: str
    entrance: str = "first seen"
    site: type[SiteT]
    recipe: type[RecipeT]
    contract: Contract
    executables: Mapping[str, str] = {}
    companions: tuple[str, ...] = ()
    plant_ports: Mapping[str, tuple[str, str] | None] = {}
    explains: bool = False

    @abstractmethod
    def node_names(self, site: SiteT) -> tuple[str, ...]:
        """Names of the nodes of a site's line, in their start order."""

    def started_elsewhere(self, site: SiteT) -> frozenset[str]:  # noqa: ARG002
        """Names of those that are started with another line."""
        return frozenset()

    def arguments(self, site: SiteT, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """What a node gets beside its parameters, a companion beside its options."""
        return ()

    def plant_settings(self, site: SiteT, recipe: RecipeT) -> dict[str, Any]:  # noqa: ARG002
        """What the simulated plant must know of the line, unless the site's ``plant:`` section says otherwise."""
        return {"kind": self.name}

    @abstractmethod
    def check(self, site: SiteT, recipe: RecipeT) -> Findings:
        """Check site, recipe and models against each other.

        Raises:
            ConfigurationError: A file is wrong; every fault of it is listed.
            ModelError: A model's card or weights are missing or don't match.
        """

    @abstractmethod
    def report(self, ledger: Ledger, shift_id: int | None = None, plant: Path | None = None) -> ShiftReport:
        """What a shift came to.

        Args:
            ledger: Where to read.
            shift_id: The shift; the last one if ``None``.
            plant: File of the plant's record: the truth to judge by.

        Raises:
            BatterySortingError: There is no such shift, or the record can't be read.
        """
