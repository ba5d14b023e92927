"""Whether this process is shutting down, for the readiness check."""

import threading

_draining = threading.Event()


def is_draining() -> bool:
    """Whether the process was asked to stop, and only finishes what it has begun.

    Readiness answers 503 from that moment on, so that balancers send new requests elsewhere
    while the socket is still open.
    """
    return _draining.is_set()


def begin_draining() -> None:
    """Announce that the process will stop; safe in a signal handler and when called again."""
    _draining.set()


def end_draining() -> None:
    """Undo `begin_draining`, because a server that starts in this process is not stopping."""
    _draining.clear()
