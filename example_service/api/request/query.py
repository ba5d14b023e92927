"""Types of query parameters that are stricter than pydantic's."""

import re
from typing import Final

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

_DIGITS: Final = re.compile(r"-?[0-9]{1,20}")


def _check_digits(value: object) -> object:
    """Refuse underscores, spaces, line ends, plus signs and `1.0`, which pydantic would accept."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


PLAIN_DIGITS: Final = BeforeValidator(_check_digits)
"""Only accepts plain digits for an integer in a query. Put it last, so that it is checked first.

    limit: Annotated[int, Query(ge=1, le=100), PLAIN_DIGITS] = 20
"""
