"""`python -m tests.chaos`: the long form of the chaos test, with a report."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.report import markdown
from tests.chaos.run import Plan, run

FAULT_NAMES = ("late-charge", "own-clock", "gateway", "unknown")
"""The faults that `tests/chaos/faults` can put back."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the storms that are asked for, and print a table of each.

    Returns:
        The exit status: 0 if every payment was charged exactly once or has failed without a
        charge, 1 otherwise.
    """
    options = _parser().parse_args(arguments)
    plans = {
        "postgresql": Plan(
            "postgresql",
            2,
            options.seed,
            options.kills,
            options.crashes,
            replicas=2,
            clients=options.clients,
            start_seconds=options.start_seconds,
            fault=options.fault,
        ),
        "sqlite": Plan(
            "sqlite",
            1,
            options.seed,
            options.sqlite_kills,
            0,
            clients=options.clients,
            start_seconds=options.start_seconds,
            fault=options.fault,
        ),
    }
    failed = False
    for name in options.databases or plans:
        failed |= not _is_kept(plans[name])
    return int(failed)


def _is_kept(plan: Plan) -> bool:
    """Run a plan and print what came of it; the folder stays where something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    result = asyncio.run(run(plan, folder, _tell))
    print(markdown(result), flush=True)
    if result.faults:
        print(f"The logs are in {folder}.\n", flush=True)
        return False
    shutil.rmtree(folder)
    return True


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Kill the service under load, and see that every payment is charged once.",
    )
    parser.add_argument(
        "databases",
        nargs="*",
        metavar="DATABASE",
        type=_database,
        help="postgresql or sqlite; both if none is named",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides what happens in which order")
    parser.add_argument("--kills", type=int, default=200, help="kills with PostgreSQL")
    parser.add_argument("--crashes", type=int, default=20, help="crashes of PostgreSQL")
    parser.add_argument("--clients", type=int, default=8, help="how many order at once")
    parser.add_argument(
        "--start-seconds",
        type=float,
        default=10.0,
        help="how long processes may take to start; more on a busy machine",
    )
    parser.add_argument("--fault", choices=FAULT_NAMES, help="a fault to put back, and to find")
    parser.add_argument("--sqlite-kills", type=int, default=50, help="kills with SQLite")
    return parser


def _database(name: str) -> str:
    if name not in ("postgresql", "sqlite"):
        raise argparse.ArgumentTypeError("must be postgresql or sqlite")
    return name


if __name__ == "__main__":
    sys.exit(main())
