"""Lets a line work under random faults, and judges it by the plant's own record: a soak that can be repeated.

    scripts/run-in-environment python bench/soak.py --minutes 30 --seed 1 --line belt|ev [--rate 5] [--json FILE]
    scripts/run-in-environment python bench/soak.py --replay RUN/faults.json [--only N]

Every 15 to 20 s a fault strikes: a switch of the plant, SIGKILL or SIGSTOP of a node, trouble on a link between a
driver and its device, a lock on the ledger. After it the line must go on by itself, or by the command that the docs
name for what a person then sees. Exit code 0 only if every fault ended so, nothing lies in a product bin but what
its recorded verdict sent there, nothing was ejected twice, at most 1 battery in 2,000 is unaccounted for and nobody
can know of it. docs/explanation/results.md explains the table. Ctrl-C ends it with what can be judged by then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test"))  # the soak is a test: its code lives with the tests' harness

from support.soak.faults import read_faults  # noqa: E402
from support.soak.run import Options, Outcome, Soak, discard_bulk  # noqa: E402

from battery_sorting.core.errors import BatterySortingError  # noqa: E402

SWITCH_INTERVAL_S = 0.001  # the links are carried by a thread of this process: it must not wait for the judge


def main() -> int:
    """Runs the soak. Exit code 0 if the line has passed, 1 if not, 2 if it could not be tried."""
    arguments = parse_arguments()
    console = Console(highlight=False, soft_wrap=True)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    began = time.monotonic()

    def tell(text: str) -> None:
        passed = int(time.monotonic() - began)
        console.print(f"{passed // 60:3d}:{passed % 60:02d}  {text}", markup=False)

    try:
        options = make_options(arguments)
        console.print(f"{options.line} line, seed {options.seed}; records in {options.run_dir}", markup=False)
        outcome = Soak(options, tell).run()
    except BatterySortingError as error:
        console.print(f"soak: {error}", markup=False)
        return 2
    print_table(console, outcome)
    result = json.dumps(outcome.to_dict(), indent=1) + "\n"
    (options.run_dir / "result.json").write_text(result, encoding="utf-8")
    if arguments.json is not None:
        arguments.json.write_text(result, encoding="utf-8")
    for text in outcome.failures:
        console.print(f"FAILED  {text}", markup=False)
    if outcome.failures or outcome.interrupted or arguments.run_dir is not None:
        console.print(f"ledger, pictures, logs and the plant's record are kept in {options.run_dir}", markup=False)
    else:
        discard_bulk(options.run_dir)
    return 1 if outcome.failures or outcome.interrupted else 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="faults strike for so long")
    parser.add_argument("--seed", type=int, default=1, help="of the batteries and of the faults")
    parser.add_argument("--line", choices=("belt", "ev"), default="belt")
    parser.add_argument("--rate", type=float, default=5.0, help="belt: batteries per second")
    parser.add_argument("--json", type=Path, help="write the result, with the lists of offenders")
    parser.add_argument("--replay", type=Path, metavar="FAULTS", help="repeat the faults of this faults.json")
    parser.add_argument("--only", type=int, metavar="N", help="with --replay: fault N alone")
    parser.add_argument("--run-dir", type=Path, help="folder of the records; else a new one in runs/")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    if arguments.only is not None and arguments.replay is None:
        parser.error("--only: needs --replay, the file that holds fault N")
    return arguments


def make_options(arguments: argparse.Namespace) -> Options:
    """What to do; what a replay does not say again comes from its file.

    Raises:
        ConfigurationError: The file of the replay is no good.
    """
    line, seed, rate, replay = arguments.line, arguments.seed, arguments.rate, None
    if arguments.replay is not None:
        head, replay = read_faults(arguments.replay, arguments.only)
        line, seed, rate = head["line"], head["seed"], head["rate"]
    run_dir = arguments.run_dir or Path("runs") / f"soak-{line}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Options(
        line,
        run_dir.absolute(),
        arguments.minutes,
        seed,
        rate,
        replay,
        tuple(arguments.overrides),
        catch_signals=True,
    )


def print_table(console: Console, outcome: Outcome) -> None:
    """What came of it: batteries and faults on one side, offenders on the other."""
    judgement, faults = outcome.judgement, outcome.faults
    ended = [entry["took_s"] for entry in faults if "took_s" in entry]
    table = Table("what", "number", title="partial: it was interrupted" if outcome.interrupted else None)
    rows: dict[str, object] = {
        "batteries": judgement.batteries,
        "in product bins": judgement.products,
        "of these misnamed": judgement.misnamed,
        "in others": judgement.others,
        "unaccounted": judgement.unaccounted.count,
        **{text: judgement.offences[kind].count if kind in judgement.offences else 0
           for kind, text in judgement.must_be_empty.items()},
        "nobody can know": judgement.excused,
        "faults": len(faults),
        "ended by themselves": sum(not entry["commands"] and not entry.get("failed") for entry in faults),
        "ended by a command": sum(bool(entry["commands"]) and not entry.get("failed") for entry in faults),
        "failed": sum(bool(entry.get("failed")) for entry in faults),
        "back after, median (s)": f"{sorted(ended)[len(ended) // 2]:.1f}" if ended else "-",
        "back after, longest (s)": f"{max(ended):.1f}" if ended else "-",
        "memory in MB, first": round(sum(outcome.memory_mb.get("first", {}).values())),
        "memory in MB, last": round(sum(outcome.memory_mb.get("last", {}).values())),
    }  # fmt: skip
    for what, number in rows.items():
        table.add_row(what, str(number))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
