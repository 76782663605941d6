"""Runs a robotic battery sorting cell."""

from pkgutil import extend_path

import battery_sorting.core.parent  # noqa: F401  # notes who the parent is, before anything that takes its time
from battery_sorting.core.quiet import keep_quiet

# The ROS interfaces (battery_sorting.msg, battery_sorting.srv) are generated into an install space. A source tree
# that stands before it on sys.path must not hide them.
__path__ = extend_path(__path__, __name__)

# Here, so that it comes before any import of onnxruntime or another dependency by this package.
keep_quiet()

__version__ = "0.1.0"
