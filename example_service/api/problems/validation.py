"""Describes validation errors to the client without repeating submitted values.

Submitted values can be passwords, tokens or card numbers and must not appear in errors or logs.
pydantic includes them in `input`, in parts of `ctx`, and through `ctx` in messages.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticKnownError

_MAX_ERRORS = 20
_DEEPEST_LOCATION = 10
_MAX_NAME_LENGTH = 64

REPEATED = "repeated"
"""The type of the error of a query parameter or a header that occurs more than once."""

_SET_BY_THE_MODEL = frozenset(
    {
        "class",
        "class_name",
        "decimal_places",
        "discriminator",
        "encoding",
        "expected",
        "expected_schemes",
        "expected_tags",
        "expected_version",
        "field_type",
        "ge",
        "gt",
        "le",
        "lt",
        "max_digits",
        "max_length",
        "min_length",
        "multiple_of",
        "pattern",
        "tz_expected",
        "whole_digits",
    }
)
_WITHHELD = "…"
_WITHHELD_AT_THE_END = re.compile(rf"[,:]?(?: error:| got| not)? {_WITHHELD}$")


class JSONError(ValueError):
    """A body is not acceptable as JSON. The message gives the reason without quoting the body."""


def described(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Describe validation errors for the client.

    Args:
        errors: The errors of pydantic and FastAPI, with `loc`, `type` and optionally `ctx`.

    Returns:
        The `location`, `message` and `type` of each of the first 20 errors. A location is a path
        that starts with the part of the request, such as `["body", "amount"]`. Member names, cut to
        64 characters, are the only text in it that comes from the client.
    """
    return [
        {
            "location": [_bounded(part) for part in _location(error)],
            "message": _message(error["type"], error.get("ctx") or {}),
            "type": error["type"],
        }
        for error in errors[:_MAX_ERRORS]
    ]


def _location(error: Mapping[str, Any]) -> Sequence[object]:
    """Return the path to the error, without the name of a member that the model does not have."""
    location: Sequence[object] = error["loc"]
    if error["type"] == "extra_forbidden":
        location = location[:-1]
    return location[:_DEEPEST_LOCATION]


def _bounded(part: object) -> str | int:
    return part if isinstance(part, int) else str(part)[:_MAX_NAME_LENGTH]


def _message(error_type: str, context: dict[str, Any]) -> str:
    """Build the message from pydantic's template and the values that the model defines.

    pydantic fills its template from the context. Some values of the context (`error`, `tag`,
    `actual_length` and others) may come from the input, so they are withheld. The text of a
    `ValueError` that a validator raised is also withheld, because it may contain anything.
    """
    if error_type == REPEATED:
        return "Value must not be repeated"
    try:
        template = PydanticKnownError(error_type, context).message_template  # type: ignore[arg-type]
    except (KeyError, TypeError):
        return "Value is not acceptable"
    known = _Withholding({k: v for k, v in context.items() if k in _SET_BY_THE_MODEL})
    known["expected_plural"] = "" if 1 in known.values() else "s"
    return _WITHHELD_AT_THE_END.sub("", template.format_map(known))


class _Withholding(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return _WITHHELD
