"""Validation errors for the client, without the values that it sent.

Submitted values can be passwords, tokens and card numbers. They must not appear in an error or in a
log. pydantic puts them into `input`, into parts of `ctx`, and through `ctx` into messages.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticKnownError

_MOST_ERRORS = 20
_DEEPEST_LOCATION = 10
_LONGEST_NAME = 64

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
    """A body is not acceptable as JSON; the text says why, and repeats nothing of it."""


def described(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Describe validation errors for the client.

    Args:
        errors: What pydantic and FastAPI report, with `loc`, `type` and perhaps `ctx`.

    Returns:
        For each of the first twenty errors its `location` (a path from the part of the request, as
        `["body", "amount"]`), `message` and `type`. The only words of the client in there are names
        of members, cut to 64 characters.
    """
    return [
        {
            "location": [_bounded(part) for part in _location(error)],
            "message": _message(error["type"], error.get("ctx") or {}),
            "type": error["type"],
        }
        for error in errors[:_MOST_ERRORS]
    ]


def _location(error: Mapping[str, Any]) -> Sequence[object]:
    """Where the error is; a member that the model does not know is the client's own word."""
    location: Sequence[object] = error["loc"]
    if error["type"] == "extra_forbidden":
        location = location[:-1]
    return location[:_DEEPEST_LOCATION]


def _bounded(part: object) -> str | int:
    return part if isinstance(part, int) else str(part)[:_LONGEST_NAME]


def _message(error_type: str, context: dict[str, Any]) -> str:
    """Write the message again, from pydantic's template and what the model defines.

    A message is its template filled from the context. Other members of the context (`error`, `tag`,
    `actual_length` and more) may come from the input, and are withheld. So is the text of a
    `ValueError` that a validator raised, because it may contain anything.
    """
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
