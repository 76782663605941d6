"""The plant's own record: where every battery really fell. The truth that results are judged against."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from battery_sorting.core.plant_control import PlantRecord
from battery_sorting.core.strict_json import to_json
from battery_sorting.ev.plant_record import EvPlantRecord

_log = logging.getLogger(__name__)


class Recorder:
    """Keeps the record in memory and, after `open`, writes it line by line to a file.

    ``record`` folds the events, unless ``keep`` is false: a plant that runs for long has them in its file alone.

    A disk that is full stops the file, not the plant: `write_error` then says why.
    """

    def __init__(self, record: PlantRecord | EvPlantRecord | None = None, keep: bool = True) -> None:
        self.write_error = ""
        self.keep = keep
        self.record = record or PlantRecord()
        self.counts: Counter[str] = Counter()
        self.bins: Counter[str] = Counter()
        self._file: TextIO | None = None

    def open(self, path: str | Path) -> None:
        """Write events from now on to a new file.

        Raises:
            OSError: The file can't be written.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = target.open("w", encoding="utf-8", buffering=1)

    def __call__(self, event: dict[str, Any]) -> None:
        """Record one event: a dict with its kind under ``event``."""
        if self.keep:
            self.record.apply(event)
        self._count(event)
        if self._file is None:
            return
        try:
            self._file.write(to_json(event, None, separators=(",", ":")) + "\n")
        except OSError as error:
            self._give_up(error)

    def _count(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.counts[kind] += 1
        if kind == "bin":
            self.bins[event["bin"]] += 1
        elif kind == "pulse":
            self.counts["empty_pulse"] += not event["hit"]
            self.counts["double_hit"] += len(event["hit"]) > 1
        elif kind == "trigger":
            self.counts["false_trigger"] += event["index"] is None

    def _give_up(self, error: OSError) -> None:
        self.write_error = f"the record file is incomplete: {error}"
        _log.error(self.write_error)
        self._close_quietly()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._close_quietly()

    def _close_quietly(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            self.write_error = self.write_error or f"the record file is incomplete: {error}"
