"""How the cells of a pack are wired: ``8s``, ``4s4p``, ``2p``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from battery_sorting.core.errors import ConfigurationError

_FORM = re.compile(r"(?:(\d+)s)?(?:(\d+)p)?", re.IGNORECASE)
_MOST_CELLS = 4096


@dataclass(frozen=True, slots=True)
class Layout:
    """``series`` groups one after the other, each of ``parallel`` cells side by side."""

    series: int
    parallel: int

    def __str__(self) -> str:
        return f"{self.series}s{self.parallel}p" if self.parallel > 1 and self.series > 1 else self._short()

    def _short(self) -> str:
        return f"{self.series}s" if self.parallel == 1 else f"{self.parallel}p"

    @property
    def size(self) -> int:
        """Cells of a pack."""
        return self.series * self.parallel

    @classmethod
    def parse(cls, text: str) -> Layout:
        """The layout that ``text`` names, upper or lower case.

        Raises:
            ConfigurationError: It names none, or one without cells or with more than 4096.
        """
        form = _FORM.fullmatch(text.strip())
        if form is None or not any(form.groups()):
            problem = "is no layout: write it as 8s (8 in series), 4s4p (4 groups of 4 in parallel) or 4p"
            swapped = re.fullmatch(r"(\d+p)(\d+s)", text.strip(), re.IGNORECASE)
            if swapped is not None:
                problem += f"; do you mean {swapped[2]}{swapped[1]}?".lower()
            raise ConfigurationError(f"layout '{text}'", [problem])
        series, parallel = (int(number or 1) for number in form.groups())
        if not 1 <= series * parallel <= _MOST_CELLS:
            problem = f"makes packs of {series * parallel} cells: it must be 1 to {_MOST_CELLS}"
            raise ConfigurationError(f"layout '{text}'", [problem])
        return cls(series, parallel)
