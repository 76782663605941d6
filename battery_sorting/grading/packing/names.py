"""Names of grades as people write them."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

REJECTED = ("D", "E", "F", "invalid")
"""Grades that are not used unless one says otherwise."""
_WORDS = re.compile(r"^(grade|class|klasse|quality|等级|级)[\s_:.-]*(?=\S)|[\s_-]*(grade|class|级|等|등급)$")
_REJECT_WORDS = (
    "reject rejected rejects fail failed failure ng n.g. nok n.i.o. nio bad scrap scrapped discard discarded"
    " defect defective defekt faulty broken dead recycle recycling waste ausschuss schrott rebut брак"
    " 不合格 不良 报废 报废品 废品 次品 불량"
)
_REJECTS = {*_REJECT_WORDS.split(), "not ok", "out of spec", "to recycle"}
_NONE = {"", "-", "--", "?", "na", "n/a", "nan", "none", "null", "unknown", "ungraded", "invalid"}


def grade_named(value: Any) -> str:
    """A grade by its name: ``d``, ``Grade D``, ``Reject`` are D, no grade is ``invalid``; others stay."""
    text = " ".join(unicodedata.normalize("NFKC", "" if value is None else str(value)).split())
    lower = text.casefold()
    if lower in _NONE:
        return "invalid"
    lower = _WORDS.sub("", lower)
    if lower in _REJECTS or lower.rstrip(".!") in _REJECTS:
        return "D"
    return lower.upper() if re.fullmatch(r"[a-z][+-]?", lower) else text
