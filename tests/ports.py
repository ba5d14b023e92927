"""Ports for servers that are stopped and started again."""

import os
import random
import socket

# These are below the range of ports for outgoing connections. A client that connects to a closed
# port in that range may get the same port as its own, and be connected to itself.
FIRST_PORT, PORTS_OF_A_PROCESS, PROCESSES = 20_000, 500, 20


def lasting_port() -> int:
    """A TCP port of 127.0.0.1 that stays free until its server starts again.

    Each of several concurrent test processes uses its own range.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    first = FIRST_PORT + process * PORTS_OF_A_PROCESS
    while True:
        port = random.randrange(first, first + PORTS_OF_A_PROCESS)  # noqa: S311
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
