"""Further lines that one classifier serves: which of them have started, and with what."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import BatterySortingError
from battery_sorting.line.paths import RECIPE_FILE, SITE_FILE
from battery_sorting.vision.classifier import TypeClassifier

RunFileTimes: TypeAlias = tuple[int, ...]
"""When the run files of a line were written (ns); empty as long as one is missing."""


@dataclass(frozen=True, slots=True)
class GuestLine:
    """A line that has started: its run folder, when its files were written, and its models."""

    folder: Path
    written: RunFileTimes
    site: BeltSite
    models: list[TypeClassifier]

    @classmethod
    def load(cls, folder: Path, written: RunFileTimes) -> GuestLine:
        """Reads the run files of a line, and its models, which takes long; what is wrong with those is told later.

        Raises:
            ConfigurationError: The site file can't be read; it may just be being written.
        """
        site = BeltSite.load_resolved(folder / SITE_FILE)
        models = []
        with contextlib.suppress(BatterySortingError):  # the node tells what is wrong when it is configured
            named = (site.model_directory(), site.shadow_directory())
            models = [TypeClassifier(model) for model in named if model is not None]
        return cls(folder, written, site, models)

    @property
    def is_outdated(self) -> bool:
        """Whether the line was started again since."""
        return self.written != _written(self.folder)

    def namespace(self, of_host: str) -> str:
        """Namespace of its nodes, next to that of the host's line."""
        return f"{of_host.rpartition('/')[0]}/{self.site.line}"

    def why_not(self, namespace: str, taken: Collection[str]) -> str:
        """Why it can't be served, where namespaces are ``taken``; empty if it can."""
        if self.site.own_classifier:
            return "it has a classifier of its own: set own_classifier: false in its site file"
        if namespace in taken:
            return f"it is called {self.site.line}, as another that is served: give each a name of its own"
        return ""


class GuestFolders:
    """The run folders of the lines that may be served."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._seen: dict[Path, RunFileTimes] = {}

    def started(self) -> list[tuple[Path, RunFileTimes]]:
        """Those whose run files were written since the last look."""
        found = [(folder, written) for folder in self._folders if (written := _written(folder))]
        new = [(folder, written) for folder, written in found if written != self._seen.get(folder)]
        self._seen.update(new)
        return new

    def look_again(self, folder: Path) -> None:
        """At the next look this one counts as new."""
        self._seen.pop(folder, None)


def _written(folder: Path) -> RunFileTimes:
    try:
        return tuple((folder / name).stat().st_mtime_ns for name in (SITE_FILE, RECIPE_FILE))
    except OSError:
        return ()
