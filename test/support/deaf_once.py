"""Starts a command, the first time in a ROS domain where nobody else is.

deaf_once.py FILE COMMAND… remembers in FILE that it was started before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

started = Path(sys.argv[1])
if not started.exists():
    started.touch()
    os.environ["ROS_DOMAIN_ID"] = str((int(os.environ["ROS_DOMAIN_ID"]) + 101) % 202)
os.execv(sys.argv[2], sys.argv[2:])
