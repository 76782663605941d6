"""How much memory and time `battery-sorting report` takes for a ledger of many events.

    scripts/run-in-environment python bench/ledger_report.py [--events 1000000] [--ledger FILE] [--html]

The ledger is written as the line writes it, once; name it with --ledger to use it again.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from battery_sorting.core.types import EjectOutcome, make_battery_id
from battery_sorting.ledger.events import Decided, Detected, Disposed, EjectOrdered, EjectReported, Exited, Typed
from battery_sorting.ledger.store import Ledger, Transaction

BOOT = 0x6A000001
TYPES = [f"type_{letter}" for letter in "abcdefghijklmnopqrst"]
ROUTES = {name: f"bin_{index % 8}" for index, name in enumerate(TYPES)}
BATCH = 2000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--html", action="store_true", help="write the page, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = arguments.ledger or Path(folder) / "ledger.sqlite"
        if not ledger.exists():
            write_ledger(ledger, arguments.events)
        more = ["--html", str(Path(folder) / "report.html")] if arguments.html else []
        print(json.dumps(measure(["report", str(ledger), "--json", *more]), indent=1))
    return 0


def measure(command: list[str]) -> dict[str, float]:
    """Peak memory (MB) and time (s) of one command in a process of its own."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "battery_sorting.cli.main", *command], check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "peak_mb": round(used.ru_maxrss / 1024, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "seconds": round(seconds, 1),
    }


def write_ledger(path: Path, events: int) -> None:
    """One shift of the belt line of so many events, seven or eight a battery."""
    chance = random.Random(1)
    number = written = 0
    with Ledger.open(path) as ledger:
        ledger.begin_shift("belt", "sim", 1_770_000_000.0, config={"recipe": {"routes": ROUTES}})
        while written < events:
            with ledger.transaction() as transaction:
                for _ in range(BATCH):
                    number += 1
                    written += write_battery(transaction, number, chance)


def write_battery(transaction: Transaction, number: int, chance: random.Random) -> int:
    """The events of one battery; returns how many these are."""
    name, eye = make_battery_id(BOOT, number), 1_770_000_000.0 + 0.2 * number
    label, confidence = chance.choice(TYPES), chance.uniform(0.6, 1.0)
    scores = dict.fromkeys(TYPES, (1 - confidence) / 19) | {label: confidence}
    accepted = confidence > 0.7
    bin_, reason = (ROUTES[label], "sorted") if accepted else ("others", "low_confidence")
    record = transaction.record
    record(Detected(trigger_count=number, encoder_count=4000 * number, gap_ahead_mm=81.5), name, eye)
    record(
        Typed(
            label=label,
            confidence=confidence,
            accepted=accepted,
            reason="" if accepted else reason,
            scores=scores,
            model="battery_type/1",
            inference_s=0.012,
            novelty=0.3,
        ),
        name,
        eye + 0.03,
    )
    record(Decided(bin=bin_, reason=reason), name, eye + 0.03)
    if accepted:
        record(EjectOrdered(token=number, bin=bin_), name, eye + 0.03)
        for outcome, after, latency in (("scheduled", 0.04, chance.uniform(0.02, 0.05)), ("fired", 1.5, None)):
            record(
                EjectReported(
                    token=number,
                    outcome=EjectOutcome[outcome.upper()],
                    latency_s=latency,
                    fire_count=4000 * number + 900,
                    reason="",
                ),
                name,
                eye + after,
            )
    else:
        record(Exited(exit_count=number, encoder_count=4000 * number + 2100), name, eye + 4.0)
    record(Disposed(bin=bin_, reason=reason), name, eye + 4.2)
    return 7 if accepted else 5


if __name__ == "__main__":
    sys.exit(main())
