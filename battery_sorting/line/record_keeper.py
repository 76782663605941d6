"""A line's ledger as its controller keeps it: the shift, records that wait, the room on its disk.

What the keeper sees goes to the controller as events: `LedgerTold`, `ProblemSeen`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import battery_sorting
from battery_sorting.core.disk import look_at_disk
from battery_sorting.core.errors import LedgerError
from battery_sorting.core.secrets import settings_without_passwords
from battery_sorting.core.settings import RecipeSettings, SiteSettings
from battery_sorting.ledger import Record
from battery_sorting.ledger.backlog import Backlog
from battery_sorting.ledger.events import ShiftEnded
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.controller import LedgerTold, ProblemSeen
from battery_sorting.line.paths import ledger_folder, ledger_location
from battery_sorting.line.resume import resume_line
from battery_sorting.line.site import LineSite
from battery_sorting.packml.restart import Restart

UNWRITTEN = "ledger.unwritten.jsonl"
"""File in the run folder that takes the records which no ledger took until the end."""


class RecordKeeper:
    """The only one that writes the history of a line's batteries.

    Args:
        site: The line's site.
        run_dir: Its run folder.
        log_error: Is told what a person must know.

    Attributes:
        ledger: With the shift that was begun, or taken up again, by `resume` and `begin_shift`.
    """

    def __init__(self, site: LineSite, run_dir: Path, log_error: Callable[[str], Any]) -> None:
        self.ledger = Ledger.open(ledger_location(site, run_dir))
        self._site = site
        self._run_dir = run_dir
        self._log_error = log_error
        self._backlog = Backlog(self.ledger, log_error)

    def resume(self, run_id: str, *, wanted: bool) -> Restart:
        """How the line goes on, see `line.resume.resume_line`."""
        how = resume_line(self.ledger, self._site.line, run_id, wanted=wanted)
        for sentence in self.ledger.unreadable:
            self._log_error(f"ledger: {sentence}")
        return how

    def begin_shift(self, configuration: dict[str, Any]) -> bool:
        """Begins a shift, unless one was cut off and is gone on with. Returns whether it has begun one.

        Args:
            configuration: What the shift's batteries are judged by.
        """
        if self.ledger.shift_id is not None:
            return False
        version = battery_sorting.__version__
        site = self._site
        self.ledger.begin_shift(site.line, site.name, time.time(), software_version=version, config=configuration)
        return True

    def write(self, records: Iterable[Record] = ()) -> bool:
        """Writes records, first those that could not be written before. Returns whether all stand in the ledger."""
        return self._backlog.write(records)

    @property
    def told(self) -> LedgerTold:
        """How the ledger is."""
        return LedgerTold(self._backlog.problem, waiting=len(self._backlog) > 0)

    def look(self, disk_free_mb: float) -> list[LedgerTold | ProblemSeen]:
        """Looks at the ledger's file, and whether its disk has ``disk_free_mb`` free; 0: nobody asks."""
        self._backlog.check_file()
        if disk_free_mb <= 0:
            return [self.told]
        folder = ledger_folder(self._site, self._run_dir)
        return [self.told, ProblemSeen("disk", look_at_disk(folder, disk_free_mb).problem)]

    def close(self, in_flight: int, held: Callable[[], dict[str, Any]]) -> None:
        """Ends the shift. Batteries that are on their way stay open in the ledger and are taken up again.

        Args:
            in_flight: How many they are.
            held: What bins, outlets and trays hold; a simulated plant begins with empty ones.
        """
        try:
            if self.write():
                contents = {} if self._site.simulated else held()
                self.ledger.end_shift(time.time(), ShiftEnded(in_flight, **contents))
        except LedgerError as error:
            self._log_error(str(error))
        self._rescue()
        self.ledger.close()

    def _rescue(self) -> None:
        path = self._run_dir / UNWRITTEN
        try:
            number = self._backlog.rescue(path)
        except OSError as error:
            self._log_error(f"{path}: {error}: {len(self._backlog)} records are lost")
            return
        if number:
            self._log_error(f"{number} records that no ledger took are in {path}")


def configuration_of(site: SiteSettings, recipe: RecipeSettings) -> dict[str, Any]:
    """Site (without passwords) and recipe as a shift keeps them."""
    shown = settings_without_passwords(site.model_dump(mode="json"))
    return {"site": shown, "recipe": recipe.model_dump(mode="json")}
