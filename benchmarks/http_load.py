"""Requests through one real uvicorn worker, driven by `wrk`, per second of its CPU time.

A worker uses one core, so this is its rate on a core of its own, even while other programs run.

Each application has its own worker process. The service has the server of production, and so has a
bare application, which shows what that costs. The others have uvicorn with its defaults, but
without an access log, except for a bare application that shows what uvicorn's costs. The workers
all stay up and are loaded one at a time, for a second each, in a random order for each round.
"""

import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from benchmarks.http_apps import (
    BARE,
    OURS,
    OURS_WITHOUT_ACCESS_LINE,
    PATH,
    USUAL_STACK,
    load_applications,
)
from benchmarks.rounds import Plan, Samples
from benchmarks.tables import Table, Target, Verdict, exactly, with_quartiles
from example_service.core.settings import Settings
from example_service.server.process import DrainingServer, server_config

# wrk runs for a second at least, so these rounds are fewer than the others.
SECONDS_PER_SLICE = 1
MAX_ROUNDS = 12
CONNECTIONS = 32
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 60.0

WRK_MISSING = (
    "Left out: requests under load, because wrk is missing. "
    "Install it with `apt-get install wrk` or `brew install wrk`."
)

BARE_BEHIND_OUR_SERVER = "bare FastAPI, behind its server"
BARE_WITH_ACCESS_LOG = "bare FastAPI, with uvicorn's access log"
LAYERS = (
    BARE,
    BARE_WITH_ACCESS_LOG,
    BARE_BEHIND_OUR_SERVER,
    OURS_WITHOUT_ACCESS_LINE,
    OURS,
    USUAL_STACK,
)
"""The applications in the order of the table. Each of the service's rows adds a layer."""

_BEHIND_OUR_SERVER = (BARE_BEHIND_OUR_SERVER, OURS_WITHOUT_ACCESS_LINE, OURS)

_COUNT = re.compile(r"^\s*([0-9]+) requests in ", re.MULTILINE)
_FAULT = re.compile(r"^\s*(?:Non-2xx or 3xx responses|Socket errors):.*$", re.MULTILINE)


class Worker(NamedTuple):
    """A worker process.

    Attributes:
        address: The URL of the route to load.
        pid: Its process id.
    """

    address: str
    pid: int


def wrk_is_there() -> bool:
    """Whether the load generator is installed."""
    return shutil.which("wrk") is not None


def time_load(plan: Plan) -> Table:
    """The request rates of the applications, and their shares of the bare one's rate.

    Each row of the service adds a layer: its server, its middleware, and its access log.

    Args:
        plan: How many rounds, at most `MAX_ROUNDS`, and their order.
    """
    applications, _ = load_applications()
    known = {*applications, BARE_WITH_ACCESS_LOG, BARE_BEHIND_OUR_SERVER}
    names = [name for name in LAYERS if name in known]
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(name)) for name in names}
        samples = _load_in_turn(workers, plan)
    table = Table(
        "Through one uvicorn worker under wrk",
        ["", "requests per CPU second", "µs of CPU each", "share of bare FastAPI's rate"],
    )
    for name in names:
        # Samples are nanoseconds per request, so the inverse ratio compares the rates.
        per_request, share = samples.time(name), samples.ratio(BARE, name)
        rate, microseconds = 1e9 / per_request.median, per_request.in_microseconds()
        table.rows.append(
            [name, f"{rate:,.0f}", f"{microseconds.median:.1f}", with_quartiles(share, 2)]
        )
        table.figures[name] = {"requests per CPU second": exactly(rate), "of bare": share}
    target = Target(0.80, at_least=True)
    for what, compared in (
        ("share of bare FastAPI's rate", samples.ratio(BARE, OURS)),
        ("the same, without an access line", samples.ratio(BARE, OURS_WITHOUT_ACCESS_LINE)),
        ("the same, with uvicorn's access log", samples.ratio(BARE_WITH_ACCESS_LOG, OURS)),
    ):
        table.verdicts.append(Verdict(what, compared, target))
    return table


def _load_in_turn(workers: Mapping[str, Worker], plan: Plan) -> Samples:
    nanoseconds: dict[str, list[float]] = {name: [] for name in workers}
    order = list(workers)
    shuffle = random.Random(plan.seed).shuffle
    for name in order:
        nanoseconds_of_request(workers[name])
    for _ in range(min(plan.rounds, MAX_ROUNDS)):
        shuffle(order)
        for name in order:
            nanoseconds[name].append(nanoseconds_of_request(workers[name]))
    return Samples(nanoseconds)


def nanoseconds_of_request(worker: Worker) -> float:
    """Load a worker with `wrk` for one slice, and return its CPU time per request.

    Raises:
        RuntimeError: If any response was an error.
    """
    threads, connections = "-t1", f"-c{CONNECTIONS}"
    command = ["wrk", threads, connections, f"-d{SECONDS_PER_SLICE}s", worker.address]
    begin = _cpu_seconds(worker.pid)
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = _cpu_seconds(worker.pid) - begin
    fault, count = _FAULT.search(printed), _COUNT.search(printed)
    if fault is not None or count is None:
        message = f"wrk reported: {fault.group().strip() if fault else printed}"
        raise RuntimeError(message)
    return 1e9 * used / int(count.group(1))


def _cpu_seconds(pid: int) -> float:
    """The CPU time of a process so far; on other systems than Linux, the time of the clock."""
    if sys.platform != "linux":
        return time.perf_counter()
    # The kernel's id of the CPU-time clock of another process (see clock_getcpuclockid).
    return time.clock_gettime(~pid << 3 | 2)


@contextmanager
def worker(name: str) -> Iterator[Worker]:
    """Run one application in its own uvicorn process for the length of the block.

    Yields:
        The worker, which has responded once.
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
        yield Worker(address, process.pid)
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
    app = applications[name if name in applications else BARE]
    if name in _BEHIND_OUR_SERVER:
        settings = Settings(environment="test")
        server: uvicorn.Server = DrainingServer(
            server_config(settings), shutdown=settings.shutdown, on_started=lambda: None
        )
        server.config.app = app
    elif name == BARE_WITH_ACCESS_LOG:
        # Nothing but the access log, because the rest says when each worker starts and stops.
        access = {"uvicorn.access": LOGGING_CONFIG["loggers"]["uvicorn.access"]}
        log_config = LOGGING_CONFIG | {"loggers": access}
        server = uvicorn.Server(uvicorn.Config(app, factory=True, log_config=log_config))
    else:
        server = uvicorn.Server(
            uvicorn.Config(app, factory=True, access_log=False, log_config=None)
        )
    server.config.loop, server.config.timeout_graceful_shutdown = "uvloop", 1
    server.run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
