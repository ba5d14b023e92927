"""Requests per second through one real uvicorn worker, driven by `wrk`.

Each application has its own worker process with the same uvicorn options. The service also has its
own protocol, as in production. The workers all stay up and are loaded one at a time, for a second
each, in a random order for each round.
"""

import random
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import uvicorn

from benchmarks.http_apps import BARE, OURS, PATH, USUAL_STACK, load_applications
from benchmarks.rounds import Plan, Samples
from benchmarks.tables import Table, Target, Verdict, exactly, with_quartiles
from example_service.core.settings import Settings
from example_service.server.process import server_config

# wrk runs for a second at least, so these rounds are fewer than the others.
SECONDS_PER_SLICE = 1
MAX_ROUNDS = 12
CONNECTIONS = 32
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 10.0

WRK_MISSING = (
    "Left out: requests per second, because wrk is missing. "
    "Install it with `apt-get install wrk` or `brew install wrk`."
)

_RATE = re.compile(r"^Requests/sec:\s+([0-9.]+)$", re.MULTILINE)
_FAULT = re.compile(r"^\s*(?:Non-2xx or 3xx responses|Socket errors):.*$", re.MULTILINE)


def wrk_is_there() -> bool:
    """Whether the load generator is installed."""
    return shutil.which("wrk") is not None


def time_load(plan: Plan) -> Table:
    """The request rates of the applications, and their shares of the bare one's rate.

    Args:
        plan: How many rounds, at most `MAX_ROUNDS`, and their order.
    """
    applications, _ = load_applications()
    names = [name for name in (BARE, OURS, USUAL_STACK) if name in applications]
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(worker(name)) for name in names}
        samples = _load_in_turn(addresses, plan)
    table = Table(
        "Through one uvicorn worker under wrk", ["", "requests/s", "share of bare FastAPI's"]
    )
    for name in names:
        # Samples are nanoseconds per request, so the inverse ratio compares the rates.
        rate, share = 1e9 / samples.time(name).median, samples.ratio(BARE, name)
        table.rows.append([name, f"{rate:,.0f}", with_quartiles(share, 2)])
        table.figures[name] = {"requests per second": exactly(rate), "of bare": share}
    ours = samples.ratio(BARE, OURS)
    target = Target(0.80, at_least=True)
    table.verdicts.append(Verdict("share of bare FastAPI's requests per second", ours, target))
    return table


def _load_in_turn(addresses: Mapping[str, str], plan: Plan) -> Samples:
    nanoseconds: dict[str, list[float]] = {name: [] for name in addresses}
    order = list(addresses)
    shuffle = random.Random(plan.seed).shuffle
    for name in order:
        requests_per_second(addresses[name])
    for _ in range(min(plan.rounds, MAX_ROUNDS)):
        shuffle(order)
        for name in order:
            nanoseconds[name].append(1e9 / requests_per_second(addresses[name]))
    return Samples(nanoseconds)


def requests_per_second(address: str) -> float:
    """Load a worker with `wrk` for one slice.

    Raises:
        RuntimeError: If any response was an error.
    """
    threads, connections = "-t1", f"-c{CONNECTIONS}"
    command = ["wrk", threads, connections, f"-d{SECONDS_PER_SLICE}s", address]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    fault, rate = _FAULT.search(printed), _RATE.search(printed)
    if fault is not None or rate is None:
        message = f"wrk reported: {fault.group().strip() if fault else printed}"
        raise RuntimeError(message)
    return float(rate.group(1))


@contextmanager
def worker(name: str) -> Iterator[str]:
    """Run one application in its own uvicorn process for the length of the block.

    Yields:
        The URL of the route to load, which has responded once.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        host, port = listener.getsockname()
        command = [sys.executable, "-m", "benchmarks.http_load", name, str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=subprocess.DEVNULL)
    try:
        address = f"http://{host}:{port}{PATH}"
        # The socket already listens, so the request waits in its queue until the worker is up.
        with urllib.request.urlopen(address, timeout=START_TIMEOUT_SECONDS):
            pass
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(name: str, listener: int) -> None:
    """Serve on a listening socket until stopped.

    Args:
        name: The application.
        listener: The socket's file descriptor.
    """
    applications, _ = load_applications()
    config = uvicorn.Config(
        applications[name],
        factory=True,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    if name == OURS:
        ours = server_config(Settings(environment="test"))
        config.http, config.reset_contextvars = ours.http, ours.reset_contextvars
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
