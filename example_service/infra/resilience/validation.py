"""Checks of constructor values, with errors that name the parameter and the fix."""

import inspect
import sys

MAX_COUNT = 1_000_000_000
MAX_REASON_LENGTH = 500


def check_name(parameter: str, value: object) -> None:
    """Require a string that is not empty."""
    if not isinstance(value, str):
        raise TypeError(f"{parameter} must be a string, not {value!r}")
    if not value:
        raise ValueError(f"{parameter} must not be empty")


def check_reason(parameter: str, value: object) -> None:
    """Require one line for a log: printable, and of bounded length."""
    check_name(parameter, value)
    if not str(value).isprintable() or len(str(value)) > MAX_REASON_LENGTH:
        raise ValueError(
            f"{parameter} must be printable and at most {MAX_REASON_LENGTH} characters long"
        )


def check_mode(reason: object, seconds: object) -> None:
    """Require a valid reason and duration of a mode; None for no end."""
    check_reason("reason", reason)
    if seconds is not None:
        check_number("seconds", seconds)


def check_number(
    parameter: str,
    value: object,
    *,
    at_least: float | None = None,
    at_most: float = sys.float_info.max,
) -> None:
    """Require a finite number within its range.

    Args:
        parameter: The name that the message begins with.
        value: The value to check.
        at_least: Smallest value allowed; None means anything above zero.
        at_most: Largest value allowed.
    """
    if type(value) is float and at_least is None and 0.0 < value <= at_most:
        return  # The usual case, in a third of the time.
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        raise TypeError(f"{parameter} must be a number, not {value!r}")
    above = value > 0 if at_least is None else value >= at_least
    # NaN fails every comparison, so it is refused together with values out of range.
    if above and value <= at_most:
        return
    lower = "above 0" if at_least is None else f"at least {at_least:g}"
    upper = "finite" if at_most == sys.float_info.max else f"at most {at_most:g}"
    raise ValueError(f"{parameter} must be {lower} and {upper}, not {value!r}")


def check_count(parameter: str, value: object, *, at_most: int = MAX_COUNT) -> None:
    """Require a whole number from 1 to `at_most`."""
    if type(value) is int and 1 <= value <= at_most:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{parameter} must be a whole number, not {value!r}")
    if value > at_most:
        raise ValueError(f"{parameter} must be at most {at_most}")
    if value < 1:
        raise ValueError(f"{parameter} must be at least 1, not {value!r}")


def check_exception_types(parameter: str, value: object) -> None:
    """Require a subclass of Exception, or a tuple of at least one."""
    if value is Exception:
        return
    types = value if isinstance(value, tuple) else (value,)
    if not types or not all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in types
    ):
        raise TypeError(
            f"{parameter} must be a subclass of Exception or a tuple of them, not {value!r}"
        )


def check_callable(parameter: str, value: object) -> None:
    """Require something that can be called."""
    if not callable(value):
        raise TypeError(f"{parameter} must be callable, not {value!r}")


def check_predicate(parameter: str, value: object) -> None:
    """Require something that can be called and whose result need not be awaited."""
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{parameter} is not awaited, so {value!r} must be a plain function")
    check_callable(parameter, value)


def check_instance(parameter: str, value: object, of: type) -> None:
    """Require an instance of a class."""
    if not isinstance(value, of):
        raise TypeError(f"{parameter} must be a {of.__name__}, not {value!r}")
