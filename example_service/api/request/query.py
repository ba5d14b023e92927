"""Types of query parameters that are stricter than pydantic's."""

import re
from typing import Final

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

_DIGITS: Final = re.compile(r"-?[0-9]{1,20}")


def _check_digits(value: object) -> object:
    """Refuse what pydantic takes besides: underscores, spaces, line ends, plus signs, `1.0`."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


PLAIN_DIGITS: Final = BeforeValidator(_check_digits)
"""Marks an integer in a query: only plain digits. It comes after the limits, which it precedes.

    limit: Annotated[int, Query(ge=1, le=100), PLAIN_DIGITS] = 20
"""
