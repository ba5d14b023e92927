"""Descriptions of invalid input, which do not repeat the input."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Field,
    HttpUrl,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from example_service.api.problems.validation import described

SECRET = "hunter2"


class Colour(Enum):
    """An enumeration."""

    RED = "red"


class Cat(BaseModel):
    """A model of the first kind."""

    kind: Literal["cat"]


class Dog(BaseModel):
    """A model of the second kind."""

    kind: Literal["dog"]


def _repeats(value: object) -> object:
    raise ValueError(f"not {value}")


def _asserts(value: object) -> object:
    raise AssertionError(f"not {value}")


def _invents(value: object) -> object:
    raise PydanticCustomError("my_error", f"not {value}")


def errors_of(annotation: Any, value: object) -> list[dict[str, Any]]:
    """The descriptions of the errors of a value."""
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(annotation).validate_python(value)
    return described(raised.value.errors())


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, SECRET, "Input should be a valid integer, unable to parse string as an integer"),
        (Annotated[int, Field(gt=3)], 1, "Input should be greater than 3"),
        (Annotated[str, Field(max_length=3)], SECRET, "String should have at most 3 characters"),
        (Annotated[str, Field(min_length=1)], "", "String should have at least 1 character"),
        (Annotated[str, Field(pattern="^x{2}$")], SECRET, "String should match pattern '^x{2}$'"),
        (
            Annotated[list[int], Field(max_length=1)],
            [1, 2, 3],
            "List should have at most 1 item after validation",
        ),
        (
            Annotated[Decimal, Field(max_digits=2)],
            "12345",
            "Decimal input should have no more than 2 digits in total",
        ),
        (Literal["a", "b"], SECRET, "Input should be 'a' or 'b'"),
        (Colour, SECRET, "Input should be 'red'"),
        (UUID, SECRET, "Input should be a valid UUID"),
        (datetime, SECRET, "Input should be a valid datetime or date"),
        (AwareDatetime, datetime(2026, 1, 1), "Input should have timezone info"),  # noqa: DTZ001
        (HttpUrl, SECRET, "Input should be a valid URL"),
        (HttpUrl, "ftp://x", "URL scheme should be 'http' or 'https'"),
        (
            Annotated[Cat | Dog, Field(discriminator="kind")],
            {"kind": SECRET},
            (
                "Input tag '…' found using 'kind' does not match any of the expected tags: "
                "'cat', 'dog'"
            ),
        ),
        (Annotated[str, AfterValidator(_repeats)], SECRET, "Value error"),
        (Annotated[str, AfterValidator(_asserts)], SECRET, "Assertion failed"),
        (Annotated[str, AfterValidator(_invents)], SECRET, "Value is not acceptable"),
    ],
)
def test_a_message_says_what_the_model_requires(
    annotation: object, value: object, message: str
) -> None:
    """It contains limits, patterns and choices, but nothing from the input."""
    (error,) = errors_of(annotation, value)
    assert error["message"] == message
    assert SECRET not in str(error)


def test_long_keys_of_the_client_are_shortened() -> None:
    """The location contains at most 64 characters of each key."""
    (error,) = errors_of(dict[str, int], {"k" * 1000: "x"})
    assert error["location"] == ["k" * 64]


def test_deep_locations_are_shortened() -> None:
    """The location contains at most ten keys."""
    annotation: Any = int
    value: Any = "x"
    for _ in range(30):
        annotation, value = dict[str, annotation], {"a": value}
    (error,) = errors_of(annotation, value)
    assert error["location"] == ["a"] * 10


@given(st.text(min_size=4, alphabet=st.characters(min_codepoint=0x2600, max_codepoint=0x27FF)))
def test_no_text_of_the_input_is_repeated(secret: str) -> None:
    """No description contains the input, whatever type was expected."""
    for annotation in (int, UUID, datetime, HttpUrl, Literal["a"], bool, Decimal, list[int]):
        assert secret not in str(errors_of(annotation, secret))
    for validator in (_repeats, _asserts, _invents):
        assert secret not in str(errors_of(Annotated[str, AfterValidator(validator)], secret))
