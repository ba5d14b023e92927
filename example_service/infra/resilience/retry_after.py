"""The wait that an upstream asks for with `Retry-After` (RFC 9110, section 10.2.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def announced_seconds(retry_after: str, date: str) -> float | None:
    """For how many seconds a response asks callers to wait; None if it does not.

    Args:
        retry_after: The header `Retry-After`: seconds or a date; empty for none.
        date: The header `Date`; empty for none. Dates are relative to it, so the local clock does
            not matter.
    """
    if retry_after.isascii() and retry_after.isdigit():
        seconds = float(retry_after)
    elif (until := _parsed(retry_after)) is not None:
        seconds = (until - (_parsed(date) or datetime.now(UTC))).total_seconds()
    else:
        return None
    return seconds if seconds > 0 else None


def _parsed(date: str) -> datetime | None:
    """Parse a date in any of the three HTTP formats; None if it is not one."""
    try:
        parsed = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed
