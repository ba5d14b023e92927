"""`python -m tests.chaos`: the long chaos test, with a report."""

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
"""The faults that `tests/chaos/faults` can reintroduce."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested storms, and print a table of each.

    Returns:
        The exit status: 0 if every payment was charged exactly once or failed without a charge,
        1 otherwise.
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
    """Run a plan and print the result; keep its folder if something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    result = asyncio.run(run(plan, folder, _print))
    print(markdown(result), flush=True)
    if result.faults:
        print(f"The logs are in {folder}.\n", flush=True)
        return False
    shutil.rmtree(folder)
    return True


def _print(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Kill the service under load, and check that every payment is charged once.",
    )
    parser.add_argument(
        "databases",
        nargs="*",
        metavar="DATABASE",
        type=_database,
        help="postgresql or sqlite (default: both)",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides the order of events")
    parser.add_argument("--kills", type=int, default=200, help="kills with PostgreSQL")
    parser.add_argument("--crashes", type=int, default=20, help="crashes of PostgreSQL")
    parser.add_argument("--clients", type=int, default=8, help="number of concurrent clients")
    parser.add_argument(
        "--start-seconds",
        type=float,
        default=10.0,
        help="time limit for processes to start; raise it on a busy machine",
    )
    parser.add_argument(
        "--fault", choices=FAULT_NAMES, help="a fault to reintroduce, which the run should find"
    )
    parser.add_argument("--sqlite-kills", type=int, default=50, help="kills with SQLite")
    return parser


def _database(name: str) -> str:
    if name not in ("postgresql", "sqlite"):
        raise argparse.ArgumentTypeError("must be postgresql or sqlite")
    return name


if __name__ == "__main__":
    sys.exit(main())
