"""A recorded call, and the parsing of its fields."""

from datetime import datetime
from http import HTTPStatus
from math import inf
from typing import Final, NamedTuple

SUCCESS: Final = "success"
FAILURE: Final = "failure"
NEUTRAL: Final = "neutral"
"""The outcome of a call that says nothing about the dependency, such as a cancelled call."""

CLIENT_CLOSED_REQUEST: Final = 499
# Unix time in seconds reaches this number in the year 5138; in milliseconds, it did so in 1973.
_MILLISECONDS: Final = 1e11
_MAX_CALL_SECONDS: Final = 1e6
_STATUS_DIGITS: Final = 3


class Call(NamedTuple):
    """A recorded call.

    Attributes:
        time: When it started, in seconds.
        duration: How long it took until its outcome was known, in seconds.
        outcome: `SUCCESS`, `FAILURE` or `NEUTRAL`.
    """

    time: float
    duration: float
    outcome: str


class FieldError(ValueError):
    """A field has an invalid value. The message names it and says what to write instead."""


class Outcomes(dict[str, str]):
    """A mapping from words and HTTP statuses to outcomes. Parsed statuses are cached."""

    def __init__(self) -> None:
        super().__init__({word: word for word in (SUCCESS, FAILURE, NEUTRAL)})

    def __missing__(self, text: str) -> str:
        is_number = len(text) == _STATUS_DIGITS and text.isascii() and text.isdigit()
        if not (is_number and is_status(int(text))):
            raise FieldError(
                f"the outcome {shown(text)} is unknown; write {SUCCESS}, {FAILURE}, {NEUTRAL} "
                "or an HTTP status"
            )
        self[text] = outcome = of_status(int(text))
        return outcome


def is_status(number: int) -> bool:
    """Whether a number is an HTTP status."""
    return 100 <= number <= 599  # noqa: PLR2004


def of_status(status: int) -> str:
    """The outcome of a response: 429 and 500 or above are failures, as for httpx clients."""
    if status == CLIENT_CLOSED_REQUEST:
        return NEUTRAL
    failed = status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return FAILURE if failed else SUCCESS


def seconds_of(text: str) -> float:
    """Parse a time in seconds since an arbitrary moment."""
    try:
        seconds = float(text)
    except ValueError:
        raise FieldError(
            f"the time {shown(text)} is not a number of seconds; write it as 12.5"
        ) from None
    if not -inf < seconds < inf:
        raise FieldError(f"the time {shown(text)} is not a number of seconds; write it as 12.5")
    if abs(seconds) > _MILLISECONDS:
        raise FieldError(f"the time {shown(text)} is in milliseconds; divide it by 1000")
    return seconds


def moment_of(text: str) -> float:
    """Parse an ISO 8601 date and time with a time zone, as Unix time in seconds."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FieldError(
            f"the time {shown(text)} is not a date; write it as 2026-11-29T08:30:00.250Z"
        ) from None
    if moment.tzinfo is None:
        raise FieldError(
            f"the time {shown(text)} has no time zone; append Z, or an offset such as +01:00"
        )
    return moment.timestamp()


def duration_of(text: str) -> float:
    """Parse a duration in seconds, 0 or more."""
    try:
        seconds = float(text)
    except ValueError:
        hint = "use a decimal point" if "," in text else "write it as 0.25"
        raise FieldError(f"the duration {shown(text)} is not a number of seconds; {hint}") from None
    if not 0.0 <= seconds < inf:
        raise FieldError(
            f"the duration {shown(text)} must be 0 seconds or more; correct or remove the line"
        )
    if seconds > _MAX_CALL_SECONDS:
        raise FieldError(f"the duration {shown(text)} is more than eleven days; write seconds")
    return seconds


def shown(text: str) -> str:
    """Quote a text for a message, truncated if it is long."""
    most = 40
    return repr(text if len(text) <= most else f"{text[:most]}…")
