"""JSON as its standard has it: NaN and infinities are no numbers there, and most readers refuse them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Data for JSON: NaN and infinities become ``None``, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def to_json(
    value: Any,
    indent: int | None = 2,
    *,
    ensure_ascii: bool = True,
    separators: tuple[str, str] | None = None,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """Strict JSON; NaN and infinities are written as null. The rest is as of `json.dumps`."""
    return json.dumps(
        finite(value),
        indent=indent,
        ensure_ascii=ensure_ascii,
        separators=separators,
        default=default,
        allow_nan=False,
    )
