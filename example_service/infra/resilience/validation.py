"""Checks of constructor values, with errors that name the parameter and the fix.

Each returns the error to raise, or None where the value is fine.
"""

import inspect
import sys


def name_error(parameter: str, value: object) -> TypeError | ValueError | None:
    """A name is a string with something in it."""
    if not isinstance(value, str):
        return TypeError(f"{parameter} must be a string, not {value!r}")
    return None if value else ValueError(f"{parameter} must not be empty")


LONGEST_REASON = 500


def reason_error(parameter: str, value: object) -> TypeError | ValueError | None:
    """A reason is one line that a log can show: printable, and of bounded length."""
    if error := name_error(parameter, value):
        return error
    if str(value).isprintable() and len(str(value)) <= LONGEST_REASON:
        return None
    return ValueError(f"{parameter} must be printable and at most {LONGEST_REASON} characters long")


def number_error(
    parameter: str,
    value: object,
    *,
    at_least: float | None = None,
    at_most: float = sys.float_info.max,
) -> TypeError | ValueError | None:
    """A number is finite and within its range.

    Args:
        parameter: The name that the message begins with.
        value: What was given.
        at_least: Smallest value allowed; None means anything above zero.
        at_most: Largest value allowed.
    """
    if type(value) is float and at_least is None and 0.0 < value <= at_most:
        return None  # What is given nearly always, at a third of the price.
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        return TypeError(f"{parameter} must be a number, not {value!r}")
    above = value > 0 if at_least is None else value >= at_least
    # NaN fails every comparison and is therefore refused with the values out of range.
    if above and value <= at_most:
        return None
    lower = "above 0" if at_least is None else f"at least {at_least:g}"
    upper = "finite" if at_most == sys.float_info.max else f"at most {at_most:g}"
    return ValueError(f"{parameter} must be {lower} and {upper}, not {value!r}")


def mode_error(reason: object, seconds: object) -> TypeError | ValueError | None:
    """A mode set by hand has a reason, and an end in so many seconds or none."""
    if error := reason_error("reason", reason):
        return error
    return None if seconds is None else number_error("seconds", seconds)


LARGEST_COUNT = 1_000_000_000


def count_error(parameter: str, value: object) -> TypeError | ValueError | None:
    """A count is a whole number from 1 to `LARGEST_COUNT`."""
    if type(value) is int and 1 <= value <= LARGEST_COUNT:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        return TypeError(f"{parameter} must be a whole number, not {value!r}")
    if value > LARGEST_COUNT:
        return ValueError(f"{parameter} must be at most {LARGEST_COUNT}")
    return None if value >= 1 else ValueError(f"{parameter} must be at least 1, not {value!r}")


def exception_types_error(parameter: str, value: object) -> TypeError | None:
    """Exception types are a subclass of Exception, or a tuple of at least one."""
    if value is Exception:
        return None
    types = value if isinstance(value, tuple) else (value,)
    if types and all(isinstance(one, type) and issubclass(one, Exception) for one in types):
        return None
    return TypeError(
        f"{parameter} must be a subclass of Exception or a tuple of them, not {value!r}"
    )


def callable_error(parameter: str, value: object) -> TypeError | None:
    """Something that can be called."""
    return None if callable(value) else TypeError(f"{parameter} must be callable, not {value!r}")


def predicate_error(parameter: str, value: object) -> TypeError | None:
    """Something that can be called, and whose answer need not be awaited."""
    if inspect.iscoroutinefunction(value):
        return TypeError(f"{parameter} is not awaited, so {value!r} must be a plain function")
    return callable_error(parameter, value)


def instance_error(parameter: str, value: object, of: type) -> TypeError | None:
    """An instance of a class."""
    if isinstance(value, of):
        return None
    return TypeError(f"{parameter} must be a {of.__name__}, not {value!r}")
