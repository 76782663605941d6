"""Tries a model in a process of its own before it comes near to a belt.

What is written in a file that calls itself a model is run. Its network may never end, take all memory, or end the
process that runs it: then it ends this one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from battery_sorting.core.errors import BatterySortingError, ModelError

PROCESSOR_S = 15
"""Processor time that loading and a first look may take: many times what any usable model needs."""
PATIENCE_S = 120
"""The same on the clock: on a machine that is busy, and for what waits without computing."""
MEMORY = 8 << 30
"""Bytes of address space."""


def try_model(folder: Path, processor_s: int = PROCESSOR_S, patience_s: int = PATIENCE_S) -> None:
    """Load the battery-type model in ``folder`` and let it look once, elsewhere.

    Args:
        folder: Of the model.
        processor_s: Processor time that it may take, s.
        patience_s: Time that it may take, s.

    Raises:
        ModelError: It can't be loaded or does not come to an end.
    """
    command = [sys.executable, "-m", __spec__.name, str(folder), str(processor_s), str(patience_s)]
    search = os.pathsep.join(path for path in sys.path if path)  # as this process finds its packages
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": search},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=patience_s + 10,  # it ends itself before
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{folder}: {_endless(patience_s)}") from None
    if done.returncode == 0:
        return
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if -done.returncode in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL):
        raise ModelError(f"{folder}: {_endless(processor_s)}")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ModelError(f"{folder}: ends the process that runs it ({name}); restore it or train the model again")
    raise ModelError(lines[-1] if lines else f"{folder}: can't be loaded; restore it or train the model again")


def _endless(seconds: int) -> str:
    return (
        f"doesn't come to an end within {seconds} s, or takes too much memory; restore it or train the model again"
    )


def main() -> None:
    """Entry point of the process that tries: folder, processor time and patience in seconds."""
    folder, processor_s, patience_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _limit(processor_s, patience_s)
    from battery_sorting.vision.classifier import TypeClassifier
    from battery_sorting.vision.live import lower_thread_priority

    lower_thread_priority()
    try:
        TypeClassifier(folder).warm_up()
    except BatterySortingError as error:
        sys.exit(" ".join(str(error).split()))
    except Exception as error:  # e.g. MemoryError, or a network that fails at its first picture
        sys.exit(f"{folder}: {type(error).__name__}: {' '.join(str(error).split())}")
    sys.stderr.flush()
    os._exit(0)


def _limit(processor_s: int, patience_s: int) -> None:
    """Limits of this process that the system keeps, whatever it is busy with."""
    if os.name == "nt":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (processor_s, processor_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard < 0 else min(MEMORY, hard), hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(patience_s)


if __name__ == "__main__":
    main()
