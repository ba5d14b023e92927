"""Whether this process is shutting down, for the readiness check."""

import threading

_draining = threading.Event()


def is_draining() -> bool:
    """Whether the process is draining, because it has received a signal to stop.

    The readiness endpoint then returns 503, so that load balancers send new requests elsewhere
    while the socket is still open.
    """
    return _draining.is_set()


def begin_draining() -> None:
    """Start draining. Safe to call in a signal handler, and more than once."""
    _draining.set()


def end_draining() -> None:
    """Stop draining, because a new server is starting in this process."""
    _draining.clear()
