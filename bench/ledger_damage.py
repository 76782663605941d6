"""Damages ledgers by a seed and looks whether every command that reads one still ends as it should.

    scripts/run-in-environment python bench/ledger_damage.py [--mutations 10000] [--first 0]

Prints what failed, by command and by the place of the traceback, and how the others ended.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))

from support.ledger_damage import WRITERS, commands, damage, faults, fresh, run

ALWAYS = ("report", "report --json")
"""One of these is tried on each ledger, with `BESIDE` other commands."""
BESIDE = 2
PROGRESS = 250
SLOW = "report --html"
SLOW_SHARE = 0.02
"""It draws plots, so it is tried on so many of the ledgers only."""


def chosen(names: list[str], chance: random.Random) -> list[str]:
    """The commands that are tried on one ledger."""
    others = [name for name in names if name not in {*ALWAYS, SLOW}]
    slow = [SLOW] if chance.random() < SLOW_SHARE else []
    return [chance.choice(ALWAYS), *chance.sample(others, BESIDE), *slow]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    codes: Counter[tuple[str, object]] = Counter()
    places: Counter[str] = Counter()
    failed = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, write in WRITERS.items():
            write(folder / f"{kind}.sqlite")
        for seed in range(arguments.first, arguments.first + arguments.mutations):
            chance = random.Random(seed)
            kind = chance.choice(list(WRITERS))
            what, wrong = "", False
            source = fresh(folder / f"{kind}.sqlite", folder / "source")
            what = damage(source, chance)
            for command in chosen(list(commands(kind, source, chance)), chance):
                begin = time.monotonic()
                outcome = run(commands(kind, source, random.Random(seed))[command])
                slowest = max(slowest, time.monotonic() - begin)
                codes[command, outcome.code] += 1
                for fault in faults(command, outcome, what):
                    wrong = True
                    lines = fault.strip().splitlines()
                    place = " | ".join(line.strip() for line in (*lines[-3:-1], lines[-1]))
                    if places[f"{command}: {place}"] == 0:
                        print(f"seed {seed} ({kind}, {what:.100}): {command}: {place:.300}", flush=True)
                    places[f"{command}: {place}"] += 1
            failed += wrong
            if (seed + 1) % PROGRESS == 0:
                print(f"seeds {arguments.first} to {seed}: {failed} wrong", file=sys.stderr, flush=True)
    print(
        f"{failed} of {arguments.mutations} damaged ledgers were not taken as they should; {slowest:.1f} s at most"
    )
    for (command, code), count in sorted(codes.items(), key=str):
        print(f"{count:7} {command}: exit code {code}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
