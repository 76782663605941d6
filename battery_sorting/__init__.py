"""Runs a robotic battery sorting cell."""

from pkgutil import extend_path

# The ROS interfaces (battery_sorting.msg, battery_sorting.srv) are generated into an install space. A source tree
# that stands before it on sys.path must not hide them.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
