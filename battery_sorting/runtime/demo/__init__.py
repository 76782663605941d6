"""Demos on the simulated plant: the one table of them. A kind of line that is not in it has none."""

from battery_sorting.runtime.demo.belt import BeltJob
from battery_sorting.runtime.demo.ev import EvJob
from battery_sorting.runtime.demo.run import DemoError, DemoJob, DemoOutcome, run_demo

DEMOS: dict[str, type[DemoJob]] = {"belt": BeltJob, "ev": EvJob}

__all__ = ["DEMOS", "BeltJob", "DemoError", "DemoJob", "DemoOutcome", "EvJob", "run_demo"]
