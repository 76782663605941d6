"""Whether the process that started this one is still there."""

from __future__ import annotations

import os

_PARENT = os.getppid()
"""Asked for when the package is imported: a node takes a second to start, and its parent may die meanwhile."""


def parent_has_died() -> bool:
    """Whether the parent of this process has died since the package was imported. Not for forked processes."""
    return os.getppid() != _PARENT
