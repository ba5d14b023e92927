"""The open wait that an upstream announces with `Retry-After` (RFC 9110, section 10.2.3)."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

from example_service.infra.resilience.rules.backoff import Backoff

_announced: ContextVar[float | None] = ContextVar("_announced", default=None)


@contextmanager
def announcing(seconds: float | None) -> Iterator[None]:
    """Have a failure that is handed to a breaker within the block open for so many seconds.

    A breaker asks for its wait within the call that hands it the failure, so that is how long an
    announcement holds. It counts for breakers whose backoff is an `AnnouncedWait`.

    Args:
        seconds: The wait; None for none announced.
    """
    token = _announced.set(seconds)
    try:
        yield
    finally:
        _announced.reset(token)


@dataclass(frozen=True, slots=True)
class AnnouncedWait(Backoff):
    """The open wait that was announced, where one was.

    Attributes:
        usual: The wait elsewhere.
    """

    usual: Backoff = field(default_factory=Backoff)

    @classmethod
    def instead_of(cls, usual: Backoff) -> Self:
        """One that shows the values of another, and falls back on it."""
        return cls(**{one.name: getattr(usual, one.name) for one in fields(Backoff)}, usual=usual)

    def wait_seconds(self, recovery_timeout: float, reopenings: int, opening: int) -> float:
        """Seconds to stay open; see `Backoff`."""
        seconds = _announced.get()
        if seconds is not None:
            return seconds
        return self.usual.wait_seconds(recovery_timeout, reopenings, opening)


def announced_seconds(retry_after: str, date: str) -> float | None:
    """How long a response asks to be left alone, in seconds; None for not at all.

    Args:
        retry_after: Its header `Retry-After`: seconds or a date; empty for none.
        date: Its header `Date`; empty for none. A date is counted from there, so that our own
            clock need not be right.
    """
    if retry_after.isascii() and retry_after.isdigit():
        seconds = float(retry_after)
    elif (until := _parsed(retry_after)) is not None:
        seconds = (until - (_parsed(date) or datetime.now(UTC))).total_seconds()
    else:
        return None
    return seconds if seconds > 0 else None


def _parsed(date: str) -> datetime | None:
    """A date in any of the three forms that HTTP knows; None for anything else."""
    try:
        parsed = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed
