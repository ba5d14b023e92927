"""Whether this process is shutting down, for the readiness check."""

from types import SimpleNamespace

# No lock: a signal may interrupt the handler of another signal, which would hold the lock.
_state = SimpleNamespace(is_draining=False)


def is_draining() -> bool:
    """Whether the process is draining, because it has received a signal to stop.

    The readiness endpoint then returns 503, so that load balancers send new requests elsewhere
    while the socket is still open.
    """
    return bool(_state.is_draining)


def begin_draining() -> None:
    """Start draining. Safe to call in a signal handler, and more than once."""
    _state.is_draining = True


def end_draining() -> None:
    """Stop draining, because a new server is starting in this process."""
    _state.is_draining = False
