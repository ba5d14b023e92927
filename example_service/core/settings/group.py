"""The base classes of settings."""

import re
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from example_service.core.settings.variables import mentions

_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


class PlainNumbers(BaseModel):
    """A model that reads numbers in plain digits only.

    Python also accepts `1_0`, ` 5 `, `1e9` and the digits of other scripts. In a variable these are
    mistakes, and other programs would read them differently.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _in_plain_digits(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str) or info.field_name is None:
            return value
        annotation = cls.model_fields[info.field_name].annotation
        if mentions(annotation, int) and not _WHOLE.fullmatch(value):
            raise ValueError("should be a whole number in plain digits, without spaces")
        if mentions(annotation, float) and not _DECIMAL.fullmatch(value):
            raise ValueError("should be a number such as 2 or 0.5 in plain digits, without spaces")
        return value


class Group(PlainNumbers):
    """A group of settings. It is immutable and rejects unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
