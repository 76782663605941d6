"""Loads the compiled inner loops when they are first needed, since numba takes a while to import."""

from __future__ import annotations

from types import ModuleType

from battery_sorting.core.errors import ConfigurationError


def kernels() -> ModuleType:
    """The module of compiled loops.

    Raises:
        ConfigurationError: numba is missing or does not get on with the NumPy that is installed.
    """
    try:
        from battery_sorting.grading.packing import _kernels
    except ImportError as error:
        problem = f"pack building needs numba, which can't be loaded ({error}): pip install numba==0.68.1"
        raise ConfigurationError("numba", [problem]) from error
    return _kernels
