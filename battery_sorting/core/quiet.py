"""No dependency tells anybody of its use: what the package sets before the first of them is imported.

A sorting cell tells nobody. That is decided here and not left to a default: docs/how-to/network.md lists what each
dependency would do.
"""

from __future__ import annotations

import os
import sys

QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variables of every process. onnxruntime (from 1.29 on) reads its own when it is imported, once."""


def keep_quiet() -> None:
    """Set what keeps dependencies quiet in this process and in those that it starts, whatever stood there before.

    It has no effect on what was imported before this package.
    """
    os.environ.update(QUIET)
    # Its import by OpenVINO would report the use over the network, from a thread, and there is no variable against
    # it. With None here that part counts as not installed, and OpenVINO works without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
