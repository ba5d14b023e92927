"""Ports for servers that go away and come back."""

import random
import socket


def lasting_port() -> int:
    """A TCP port of 127.0.0.1 that is still free when its server comes back.

    It is below the range from which systems take ports for outgoing connections: from that, a
    client that knocks on a closed port may be given this very port, and be connected to itself.
    """
    while True:
        port = random.randrange(20_000, 30_000)  # noqa: S311
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
