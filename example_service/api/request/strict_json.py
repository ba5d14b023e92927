"""Parses JSON strictly, so that every parser reads the same values (I-JSON, RFC 7493).

`json.loads` is more lenient: it guesses encodings, and of two members with the same name it uses
the last. A proxy or a log that uses the first would see another amount than the one that is paid.
"""

import json
import math
from typing import Any, Final, NoReturn

from example_service.api.problems.validation import JSONError

MAX_VALUES: Final = 1_000
"""The maximum total number of members and items in a body, because validating each takes time."""


def parse_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        JSONError: The body is not UTF-8, repeats a member, has more than `MAX_VALUES` members and
            items, or contains a number or character that JSON does not allow.
        json.JSONDecodeError: The body is not JSON.
        RecursionError: The body is nested too deeply.
    """
    try:
        text = body.decode()
        value = json.loads(
            text,
            object_pairs_hook=_members,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        if "\\u" in text:
            # A lone surrogate is not a character; encoding it raises a `UnicodeError`.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise JSONError("The body must be UTF-8.") from None
    # Counting commas first is cheap: a body with too many values has at least that many commas.
    if body.count(b",") >= MAX_VALUES and _has_too_many(value):
        raise JSONError(f"The body may have at most {MAX_VALUES} members and items.")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JSONError("A member must not be repeated.")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise JSONError("A number must be finite.")


def _finite(digits: str) -> float:
    """Convert a number, and refuse one such as `1e999`, which `float` makes infinite."""
    value = float(digits)
    if math.isinf(value):
        _refuse_constant(digits)
    return value


def _has_too_many(value: Any) -> bool:
    """Whether a value has more than `MAX_VALUES` members and items, at any depth together."""
    count, found = 0, [value]
    while found and count <= MAX_VALUES:
        each = found.pop()
        inner = list(each.values()) if isinstance(each, dict) else each
        if isinstance(inner, list):
            count += len(inner)
            found += inner
    return count > MAX_VALUES
