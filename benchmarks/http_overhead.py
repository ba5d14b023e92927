"""What the service's layers add to a FastAPI route, in process and without a server.

Each application is called as by a server, with a scope, `receive` and `send`; nothing is parsed and
no socket is involved. The result is the difference to the bare application in the same round.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI
from starlette.types import Message, Scope

from benchmarks.http_apps import (
    BARE,
    BARE_AGAIN,
    GUARDED,
    GUARDED_BY_DEPENDENCY,
    GUARDED_FUNCTION,
    OURS,
    OURS_WITHOUT_ACCESS_LINE,
    PATH,
)
from benchmarks.rounds import Plan, Samples, Slice, interleave
from benchmarks.tables import Table, Target, Verdict, with_quartiles

OK = 200
# A request takes a hundred times as long as a call through a breaker.
SLICES = 5
# A guard adds less than 2 % to its route, so more rounds are needed to measure it.
GUARDS_ROUNDS = 3

GUARDED_ROUTES = (BARE_AGAIN, GUARDED, GUARDED_FUNCTION, GUARDED_BY_DEPENDENCY)

TARGETS = {
    OURS_WITHOUT_ACCESS_LINE: Target(6.0),
    OURS: Target(16.0),
    GUARDED: Target(1.0),
    GUARDED_FUNCTION: Target(1.0),
}

Applications = Mapping[str, Callable[[], FastAPI]]


async def run(applications: Applications, plan: Plan) -> AsyncIterator[Table]:
    """Yield the table of whole stacks, then that of guarded routes.

    Guarded routes are timed on their own. The large stacks evict others from the caches, which
    would scatter such small differences too widely.
    """
    stacks = {name: make for name, make in applications.items() if name not in GUARDED_ROUTES}
    guards = {name: applications[name] for name in (BARE, *GUARDED_ROUTES)}
    yield await time_requests("A request in process", stacks, plan)
    more = replace(plan, rounds=plan.rounds * GUARDS_ROUNDS)
    yield await time_requests("A guarded request in process", guards, more)


async def time_requests(title: str, applications: Applications, plan: Plan) -> Table:
    """The time that each application adds to a request, without writing access lines."""
    async with AsyncExitStack() as stack:
        stack.enter_context(_output_thrown_away())
        entrants: dict[str, Slice] = {}
        for name, make in applications.items():
            app = make()
            await stack.enter_async_context(app.router.lifespan_context(app))
            entrants[name] = await exchanging(app)
        samples = await interleave(
            entrants, replace(plan, slice_seconds=plan.slice_seconds * SLICES)
        )
    return _table(title, samples)


@contextmanager
def _output_thrown_away() -> Iterator[None]:
    """Format and write access lines as usual, but to a sink."""
    with Path(os.devnull).open("w", encoding="utf-8") as sink, redirect_stdout(sink):
        yield


async def exchanging(app: FastAPI) -> Slice:
    """Return a loop that sends requests to an application, one after another.

    Raises:
        RuntimeError: If the first response is not a 200.
    """
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep_status(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def drop(message: Message) -> None:
        pass

    async def run(count: int) -> None:
        for _ in range(count):
            await app(_scope(), receive, drop)

    await app(_scope(), receive, keep_status)
    if statuses != [OK]:
        message = f"{app.title} answered {statuses} instead of 200"
        raise RuntimeError(message)
    return run


def _scope() -> Scope:
    """The scope of a request as uvicorn creates it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"user-agent", b"benchmark"),
            (b"accept", b"*/*"),
        ],
        "state": {},
    }


def _table(title: str, samples: Samples) -> Table:
    table = Table(title, ["", "µs", "added to bare FastAPI"])
    for name in sorted(samples.nanoseconds, key=lambda name: samples.time(name).median):
        time = samples.time(name).in_microseconds()
        added = samples.difference(name, BARE).in_microseconds()
        table.rows.append([name, f"{time.median:.1f}", with_quartiles(added, 1)])
        table.figures[name] = {"microseconds": time, "added": added}
    for name, target in TARGETS.items():
        if name in samples.nanoseconds:
            added = samples.difference(name, BARE).in_microseconds()
            table.verdicts.append(Verdict(f"microseconds added: {name}", added, target))
    return table
