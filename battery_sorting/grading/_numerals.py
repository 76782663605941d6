"""Texts as numbers: which of comma and point separates decimals, which thousands, and what is no reading at all.

``20.120`` is twenty in London and twenty thousand in Berlin. So no text is read by itself: what the other values of
its column and file prove settles it, or else what a cell can have; where neither does, the file is refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from battery_sorting.core.readings import NOT_MEASURED_WORD, OVERLOAD, OVERLOAD_WORD

__all__ = ["NAMES", "OVERLOAD", "Floats", "Numerals", "read_together"]

Floats = npt.NDArray[np.float64]
Role = Literal["decimal", "thousands"]

SIGNS = (",", ".")
NAMES = {",": "comma", ".": "point"}
CAN_BE = {"capacity": (0.03, 999.0), "ocv": (0.1, 6.0)}
"""What a cell can have, in Ah and V: where a text may be a number or a thousand times it, one of them is absurd."""

_MISSING = {"", "nan", "na", "n/a", "n.a.", "#n/a", "-", "--", "none", "null", "nil", "?", "无", "нет"}
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:[ \u2009'\u2019]\d{3})+(?=$|[.,]\d*$)")
_SPACED = re.compile(r"\d[ \u2009'\u2019]\d")
_START, _END, _SIGN = r"(?<![^\0])", r"(?![^\0])", r"[+-]?"


def _patterns(sign: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """What proves that ``sign`` separates decimals, what that it separates thousands, and what leaves it open."""
    s, other = re.escape(sign), re.escape("." if sign == "," else ",")
    power = r"[eE][+-]?\d+"
    decimals = (
        rf"\d{{1,3}}(?:{other}\d{{3}})+{s}\d*"
        rf"|\d*{s}\d+{power}|\d+{s}{power}"
        rf"|(?:\d{{4,}}|0\d*|){s}\d+|\d+{s}(?:\d{{0,2}}|\d{{4,}})"
    )
    thousands = rf"\d{{1,3}}(?:{s}\d{{3}}){{2,}}(?:{other}\d*)?|\d{{1,3}}(?:{s}\d{{3}})+{other}\d*"
    unclear = rf"[1-9]\d{{0,2}}{s}\d{{3}}"
    return (
        re.compile(f"{_START}{_SIGN}(?:{decimals}){_END}"),
        re.compile(f"{_START}{_SIGN}(?:{thousands}){_END}"),
        re.compile(f"{_START}{_SIGN}(?:{unclear}){_END}"),
    )


_PATTERNS = {sign: _patterns(sign) for sign in SIGNS}


@dataclass
class Numerals:
    """A column of numbers as it stands in the file.

    Attributes:
        title: Of the column.
        raw: Its n values, texts or numbers.
        kind: The quantity, `capacity`, `resistance` or `ocv`; empty where nothing is known of it.
        factor: To Ah, mΩ or V.
        values: (n,) NaN where there is no number; known after `read`.
        faults: Row → why there is none.
        unclear: Row that can't be told, and the sign in doubt; None where there is none.
    """

    title: str
    raw: list[Any]
    kind: str = ""
    factor: float = 1.0
    values: Floats = field(default_factory=lambda: np.zeros(0))
    faults: dict[int, str] = field(default_factory=dict)
    unclear: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        self.raw = [_tidy(value) if isinstance(value, str) else value for value in self.raw]
        self.text = "\0".join(value for value in self.raw if isinstance(value, str))
        self.proven: dict[str, set[Role]] = {sign: self._proofs(sign) for sign in SIGNS}
        self.open = {sign: sign in self.text and bool(_PATTERNS[sign][2].search(self.text)) for sign in SIGNS}
        self.likely = {sign: self._likely(sign) for sign in SIGNS}

    def _proofs(self, sign: str) -> set[Role]:
        if sign not in self.text:
            return set()
        decimals, thousands, _ = _PATTERNS[sign]
        found: set[Role] = {"decimal"} if decimals.search(self.text) else set()
        return found | ({"thousands"} if thousands.search(self.text) else set())

    def _likely(self, sign: str) -> Role | None:
        """What ``sign`` must be, since a cell can't have the other number."""
        if self.kind not in CAN_BE or not self.open[sign] or self.proven[sign]:
            return None
        low, high = CAN_BE[self.kind]
        tokens = _PATTERNS[sign][2].findall(self.text)
        numbers = np.abs(np.array([float(token.replace(sign, ".")) for token in tokens])) * self.factor
        as_decimal = bool(((numbers >= low) & (numbers <= high)).any())
        as_thousands = bool(((1000 * numbers >= low) & (1000 * numbers <= high)).any())
        return None if as_decimal == as_thousands else "decimal" if as_decimal else "thousands"

    def read(self, roles: Mapping[str, Role | None], told: bool = False) -> None:
        """Set values, faults and what is unclear. ``roles``: of the signs in this column; ``told``: by the user."""
        if not told and not self._strange():
            try:
                column = np.array([value or "nan" for value in self.raw], dtype=float)  # a million at once
                if not np.isnan(column).any():
                    plain = roles["."] == "decimal" or not self.open["."]
                    if plain and "," not in self.text:
                        self.values = column
                        return
            except (ValueError, TypeError):
                pass
        rare = self._rarer_sign() if not told else None
        self.values = np.full(len(self.raw), np.nan)
        for row, value in enumerate(self.raw):
            try:
                self.values[row] = self._number(row, value, roles, rare, told)
            except ValueError as error:
                self.faults[row] = str(error)

    def _strange(self) -> bool:
        """Whether there are values that Python takes for numbers and people don't: True, 1_000."""
        return "_" in self.text or any(isinstance(value, bool) for value in self.raw)

    def _rarer_sign(self) -> str | None:
        """Of two signs that both separate decimals in one column, that of the fewer values."""
        if not all("decimal" in self.proven[sign] for sign in SIGNS):
            return None
        counts = {sign: len(_PATTERNS[sign][0].findall(self.text)) for sign in SIGNS}
        return "," if counts[","] <= counts["."] else "."

    def _number(
        self, row: int, value: Any, roles: Mapping[str, Role | None], rare: str | None, told: bool
    ) -> float:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise ValueError("is missing")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, str):
            raise ValueError(f"'{str(value)[:30]}' is not a number")
        if value.lower() in _MISSING or NOT_MEASURED_WORD.fullmatch(value):
            raise ValueError("is missing")
        if OVERLOAD_WORD.fullmatch(value):
            raise ValueError(f"'{value[:30]}' is the mark of an overload and no reading")
        text = value
        for sign in SIGNS:
            decimals, thousands, unclear = _PATTERNS[sign]
            role = roles[sign]
            if unclear.fullmatch(text):
                if role is None:
                    self.unclear = self.unclear or (row, sign)
                    raise ValueError(f"'{value[:30]}' may be a number or a thousand times it")
                text = text.replace(sign, "." if role == "decimal" else "")
                break
            if decimals.fullmatch(text):
                if sign == rare or (told and role == "thousands"):
                    right = NAMES["." if sign == "," else ","]
                    raise ValueError(f"'{value[:30]}' is not a number: write it with a decimal {right}")
                text = text.replace("." if sign == "," else ",", "").replace(sign, ".")
                break
            if thousands.fullmatch(text):
                if told and role == "decimal":
                    raise ValueError(f"'{value[:30]}' is not a number where a {NAMES[sign]} separates decimals")
                text = text.replace(sign, "").replace(",", ".")
                break
        return _plain_number(value, text)


def _plain_number(value: str, text: str) -> float:
    try:
        if "_" in text:
            raise ValueError
        number = float(text)
    except ValueError:
        remedy = ": write it with a decimal point" if re.fullmatch(r"[\d., ]+", text) else ""
        raise ValueError(f"'{value[:30]}' is not a number{remedy}") from None
    if math.isnan(number):
        raise ValueError("is missing")
    return number


def _tidy(text: str) -> str:
    """Full-width digits, special spaces and minus signs as those of ASCII; no spaces and apostrophes in numbers."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u202f", " ")
    text = text.strip()
    return _GROUPED.sub(lambda grouped: re.sub(r"[^\d+-]", "", grouped[0]), text) if _SPACED.search(text) else text


def read_together(columns: Sequence[Numerals], decimal: str | None = None) -> None:
    """Read columns of one file: what one of them proves of comma and point holds for those that prove nothing.

    Args:
        columns: All columns of measurements.
        decimal: The sign before the decimals, if the user says so.
    """
    if decimal is not None:
        told: dict[str, Role | None] = {sign: "decimal" if sign == decimal else "thousands" for sign in SIGNS}
        for column in columns:
            column.read(told, told=True)
        return
    proven = {sign: set().union(*(column.proven[sign] for column in columns)) for sign in SIGNS}
    likely = {sign: {column.likely[sign] for column in columns} - {None} for sign in SIGNS}
    by_proof = _roles(proven)
    by_both = _roles({sign: proven[sign] or likely[sign] for sign in SIGNS})
    for column in columns:
        column.read({sign: _role(column, sign, by_proof[sign], by_both[sign]) for sign in SIGNS})


def _roles(proven: Mapping[str, set[Any]]) -> dict[str, Role | None]:
    roles: dict[str, Role | None] = {}
    for sign, other in (SIGNS, SIGNS[::-1]):
        own, foreign = proven[sign], proven[other]
        if own:
            roles[sign] = next(iter(own)) if len(own) == 1 else None
        elif foreign == {"decimal"}:
            roles[sign] = "thousands"
        else:
            roles[sign] = "decimal" if foreign == {"thousands"} else None
    return roles


def _role(column: Numerals, sign: str, by_proof: Role | None, by_both: Role | None) -> Role | None:
    """Of a sign in one column; None: what proves it is missing, or contradicts itself.

    Args:
        column: It.
        sign: Comma or point.
        by_proof: What the texts of all columns prove of it.
        by_both: The same with what cells can have.
    """
    own = column.proven[sign]
    if own:
        return next(iter(own)) if len(own) == 1 else None
    other = "." if sign == "," else ","
    within = _roles({sign: set(), other: column.proven[other]})[sign]  # 45.1 says what 2,500 in the same column is
    known: set[Role | None] = {role for role in (within or by_proof, column.likely[sign]) if role is not None}
    known = known or {by_both}
    return known.pop() if len(known) == 1 else None
