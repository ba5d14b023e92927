"""``python -m benchmarks``: measure, and print the results as Markdown tables."""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from benchmarks import (
    calls,
    fleet,
    hanging,
    http_apps,
    http_load,
    http_overhead,
    large_fleet,
    making,
    outage,
    rules,
    scrape,
    transport,
)
from benchmarks.rivals import load_contenders
from benchmarks.rounds import QUICK, Plan
from benchmarks.tables import Table, interpreter, summary, write_json, write_page

DOCS = Path(__file__).resolve().parent.parent / "docs"
# Each group with the page that shows its tables.
PAGES = {
    "scrape": DOCS / "benchmarks.md",
    "calls": DOCS / "benchmarks.md",
    "rules": DOCS / "benchmarks.md",
    "making": DOCS / "benchmarks.md",
    "httpx": DOCS / "benchmarks.md",
    "http": DOCS / "benchmarks.md",
    "load": DOCS / "benchmarks.md",
    "hanging": DOCS / "hanging.md",
    "outage": DOCS / "database-outage.md",
    "fleet": DOCS / "fleet.md",
    "large-fleet": DOCS / "fleet.md",
}
# Groups that need so much time and memory that they run only if they are named.
ONLY_NAMED = {"large-fleet"}
ABOUT_BREAKERS = {"scrape", "calls", "rules", "making", "hanging"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the requested groups, and print each table as soon as it is ready.

    Args:
        arguments: The command line; by default, the one of this process.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    groups: list[str] = options.groups or [name for name in PAGES if name not in ONLY_NAMED]
    # With `choices`, argparse would refuse an empty list.
    if unknown := set(groups) - PAGES.keys():
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    plan = QUICK if options.quick else Plan(rounds=options.rounds, seed=options.seed)
    tables = asyncio.run(_run(groups, plan, quick=options.quick))
    measured = [table for group in tables.values() for table in group]
    if not options.quick and any(table.verdicts for table in measured):
        print(summary(measured))
    if options.json is not None:
        write_json(options.json, tables)
    if options.write_docs:
        for group in groups:
            write_page(PAGES[group], {group: tables[group]})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the breaker and the service beside their rivals.",
    )
    parser.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help=f"of {', '.join(PAGES)}; default: all but {', '.join(ONLY_NAMED)}",
    )
    parser.add_argument(
        "--rounds", type=int, default=Plan().rounds, help="more rounds give steadier results"
    )
    parser.add_argument(
        "--seed", type=int, default=Plan().seed, help="decides the order of execution"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--quick", action="store_true", help="only check that everything runs")
    only.add_argument(
        "--write-docs", action="store_true", help="write the tables into the pages in docs"
    )
    return parser


async def _run(groups: list[str], plan: Plan, *, quick: bool) -> dict[str, list[Table]]:
    means = "; the figures mean nothing" if quick else ""
    print(f"Measured on {interpreter()}, {plan.rounds} rounds{means}.\n")
    tables: dict[str, list[Table]] = {group: [] for group in groups}
    async for group, table in _tables(groups, plan, quick=quick):
        print(table.markdown(), flush=True)
        tables[group].append(table)
    return tables


async def _tables(
    groups: list[str], plan: Plan, *, quick: bool
) -> AsyncIterator[tuple[str, Table]]:
    if ABOUT_BREAKERS & set(groups):
        async for group, table in _breaker_tables(groups, plan, quick=quick):
            yield group, table
    measures: dict[str, Callable[[Plan], AsyncIterator[Table]]] = {
        "httpx": _httpx_tables,
        "http": _http_tables,
        "fleet": partial(_fleet, quick=quick),
        "large-fleet": lambda _: large_fleet.run(quick=quick),
    }
    for group, measure in measures.items():
        if group in groups:
            async for table in measure(plan):
                yield group, table
    if "load" in groups:
        if http_load.wrk_is_there():
            yield "load", http_load.time_load(plan)
        else:
            print(f"{http_load.WRK_MISSING}\n")
    if "outage" in groups:
        for table in await _outage_tables(quick=quick):
            yield "outage", table


def _httpx_tables(plan: Plan) -> AsyncIterator[Table]:
    transports, missing = transport.load_transports()
    _tell_missing(missing)
    return transport.run(transports, plan)


def _http_tables(plan: Plan) -> AsyncIterator[Table]:
    applications, missing = http_apps.load_applications()
    _tell_missing(missing)
    return http_overhead.run(applications, plan)


def _fleet(plan: Plan, *, quick: bool) -> AsyncIterator[Table]:
    # Without a handler, the log lines about openings would appear between the tables.
    logging.getLogger().addHandler(logging.NullHandler())
    return fleet.run(plan, quick=quick)


async def _breaker_tables(
    groups: list[str], plan: Plan, *, quick: bool
) -> AsyncIterator[tuple[str, Table]]:
    # Breakers log; a handler that drops the lines leaves out the cost of a terminal.
    logging.getLogger().addHandler(logging.NullHandler())
    contenders, missing = load_contenders()
    _tell_missing(missing)
    # The scrape comes first; otherwise it would include the breakers of other groups.
    measure = {
        "scrape": scrape.run(contenders, plan),
        "calls": calls.run(contenders, plan),
        "rules": rules.run(contenders, plan, quick=quick),
        "making": making.run(contenders, plan, quick=quick),
        "hanging": hanging.run(contenders),
    }
    for group, tables in measure.items():
        if group in groups:
            async for table in tables:
                yield group, table


async def _outage_tables(*, quick: bool) -> Sequence[Table]:
    try:
        return await outage.run(quick=quick)
    except pytest.skip.Exception as skipped:
        print(f"Left out: {skipped}\n")
        return ()


def _tell_missing(missing: Sequence[str]) -> None:
    if missing:
        print(f"Left out, because not installed: {', '.join(missing)}.\n")


if __name__ == "__main__":
    main()
