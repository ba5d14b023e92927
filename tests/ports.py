"""Ports for servers that go away and come back."""

import os
import random
import socket

# Below the range from which systems take ports for outgoing connections: from that, a client that
# knocks on a closed port may be given this very port, and be connected to itself.
FIRST_PORT, PORTS_OF_A_PROCESS, PROCESSES = 20_000, 500, 20


def lasting_port() -> int:
    """A TCP port of 127.0.0.1 that is still free when its server comes back.

    Tests that run in several processes at once take theirs from ranges of their own.
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
