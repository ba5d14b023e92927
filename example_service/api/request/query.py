"""Types of query parameters that are stricter than pydantic's."""

import re
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

_DIGITS: Final = re.compile(r"-?[0-9]{1,20}")


def _check_digits(value: object) -> object:
    """Refuse what pydantic takes besides: underscores, spaces, line ends, plus signs, `1.0`."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


PlainInteger: TypeAlias = Annotated[int, BeforeValidator(_check_digits)]
"""An integer in plain digits, the only type for integers in a query."""
