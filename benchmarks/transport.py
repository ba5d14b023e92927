"""What a breaker's transport adds to a request of httpx, without a network.

The requests end in an `httpx.MockTransport`. The time that a transport adds is measured without the
client, whose own time would hide it, and compared with the time of a whole request. A body made
from bytes arrives with its headers; a streamed body is guarded until its end.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from importlib import import_module

import httpx

from benchmarks.contender import OURS
from benchmarks.rounds import Plan, Samples, Slice, interleave
from benchmarks.tables import Table, Target, Verdict, with_quartiles
from example_service.infra.resilience.httpx import CircuitBreakerTransport

URL = "https://api.example.com/items/42"
BYTES = "a body of bytes"
STREAM = "a body that streams"
ALONE = "MockTransport alone"
WHOLE = "a whole request of the client"
RIVAL = "interlock-cb"

# The larger of the two is the target.
MAX_MICROSECONDS = 6.0
MAX_SHARE = 0.03

Wrap = Callable[[httpx.MockTransport], httpx.AsyncBaseTransport]


def answer_bytes(_request: httpx.Request) -> httpx.Response:
    """A small body that arrives at once."""
    return httpx.Response(200, content=b'{"item_id":42}')


def answer_stream(_request: httpx.Request) -> httpx.Response:
    """The same body, read in pieces."""
    return httpx.Response(200, content=_pieces())


async def _pieces() -> AsyncIterator[bytes]:
    yield b'{"item_id":42}'


def load_transports() -> tuple[dict[str, Wrap], list[str]]:
    """Return how each library wraps a transport.

    Returns:
        The installed libraries, with plain MockTransport first, and the names of missing ones.
    """
    transports: dict[str, Wrap] = {ALONE: lambda mock: mock, OURS: CircuitBreakerTransport}
    try:
        rival = import_module("interlock.integrations.httpx")
    except ImportError:
        return transports, [RIVAL]
    return {**transports, RIVAL: rival.AsyncCircuitBreakerTransport}, []


async def run(transports: dict[str, Wrap], plan: Plan) -> AsyncIterator[Table]:
    """Yield the table about transports.

    Args:
        transports: The transports to compare, including one without a breaker.
        plan: How much to time.
    """
    async with AsyncExitStack() as stack:
        entrants: dict[str, Slice] = {}
        for body, answer in ((BYTES, answer_bytes), (STREAM, answer_stream)):
            client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
            await stack.enter_async_context(client)
            entrants[_entrant(WHOLE, body)] = requesting(client)
            for name, wrap in transports.items():
                entrants[_entrant(name, body)] = handling(wrap(httpx.MockTransport(answer)))
        samples = await interleave(entrants, plan)
    yield _table(list(transports), samples)


def requesting(client: httpx.AsyncClient) -> Slice:
    """Return a loop of requests through a client, each read to its end."""

    async def run(count: int) -> None:
        for _ in range(count):
            await client.get(URL)

    return run


def handling(transport: httpx.AsyncBaseTransport) -> Slice:
    """Return a loop of the same requests to a transport, without the client's own work."""
    request = httpx.Request("GET", URL)

    async def run(count: int) -> None:
        for _ in range(count):
            response = await transport.handle_async_request(request)
            await response.aread()

    return run


def _entrant(name: str, body: str) -> str:
    return f"{name}, {body}"


def _table(names: list[str], samples: Samples) -> Table:
    table = Table("A request of httpx through MockTransport", ["", "µs", "added to MockTransport"])
    for body in (BYTES, STREAM):
        alone, whole = _entrant(ALONE, body), _entrant(WHOLE, body)
        for name in [*names, WHOLE]:
            entrant = _entrant(name, body)
            time = samples.time(entrant).in_microseconds()
            added = samples.difference(entrant, alone).in_microseconds()
            cell = "" if name in {ALONE, WHOLE} else with_quartiles(added, 1)
            table.rows.append([entrant, f"{time.median:.1f}", cell])
            table.figures[entrant] = {"microseconds": time, "added": added}
        share = samples.time(whole).in_microseconds().median * MAX_SHARE
        added = samples.difference(_entrant(OURS, body), alone).in_microseconds()
        target = Target(max(MAX_MICROSECONDS, round(share, 1)))
        table.verdicts.append(Verdict(f"microseconds added by ours, {body}", added, target))
    return table
