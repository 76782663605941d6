"""Names that come from outside: a label, a version, a battery's id may become the name of a file or folder."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator

LONGEST = 100
"""Characters of a name. In UTF-8 it stays below the 255 bytes of a file's name, with an ending."""
LONGEST_BYTES = 200
FORBIDDEN = '/\\:*?"<>|'
"""What leads elsewhere, or is no part of a name where a card's folder may be copied to."""
_JOINERS = "\u200c\u200d"  # written within words of some scripts


def name_problem(text: str) -> str:
    """Why ``text`` can't be the name of a file or folder wherever it is copied to; empty if it can."""
    if not text:
        return "is empty"
    if len(text) > LONGEST or len(text.encode("utf-8", "replace")) > LONGEST_BYTES:
        return f"has {len(text)} characters; a name has {LONGEST} at most"
    wrong = next((letter for letter in text if letter in FORBIDDEN or _unprintable(letter)), "")
    if wrong:
        return f"{text!r} has {wrong!r} in it, which can't stand in the name of a file"
    if text[0] in "._- " or text[-1] in ". ":
        return f"{text!r} begins with '.', '_', '-' or a space, or ends with '.' or a space"
    return ""


def is_name(text: object) -> bool:
    """Whether ``text`` can be the name of a file or folder."""
    return isinstance(text, str) and not name_problem(text)


def file_stem(text: str) -> str:
    """A name for the file that belongs to the thing called ``text``: ``text`` itself where it is a name.

    Other texts get one of their own that can be told from all others.
    """
    if is_name(text):
        return text
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", text)[:40].strip("_-") or "unnamed"
    return f"{plain}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _unprintable(letter: str) -> bool:
    return unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} and letter not in _JOINERS


def _checked(text: str) -> str:
    problem = name_problem(text)
    if problem:
        raise ValueError(problem)
    return text


Name = Annotated[str, AfterValidator(_checked)]
"""Field of a settings model or card: a name."""
