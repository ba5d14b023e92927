"""The signals that stop the service, from the first moment of the process."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[None]:
    """End with status 0 at SIGTERM until a server replaces this, and treat SIGHUP like SIGTERM.

    Without it, the first process of a container would ignore SIGTERM while it starts. SIGHUP comes
    when a terminal is closed, and from systemd with `SendSIGHUP=yes`. If it is ignored, because the
    service was started with `nohup`, it stays ignored.
    """
    former = {signal.SIGTERM: signal.signal(signal.SIGTERM, _end)}
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        former[signal.SIGHUP] = signal.signal(signal.SIGHUP, _terminate)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(0)


def _terminate(_: int, __: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)
