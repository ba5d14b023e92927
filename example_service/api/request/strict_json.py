"""JSON that means one thing to everybody who reads it (I-JSON, RFC 7493), and no more than is used.

`json.loads` accepts more: of two members with one name it takes the last, and it guesses encodings.
A proxy or a log that reads the first member would see another order than the one that is paid.
"""

import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from example_service.api.problems.validation import JSONError

MOST_VALUES: Final = 1_000
"""Members and items that a body may have in all; validation takes time for each of them."""


class StrictJSONRoute(APIRoute):
    """The class of every route with a body: `APIRouter(route_class=StrictJSONRoute)`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Have the body read strictly."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


def parse_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        JSONError: It is not UTF-8, names a member twice, has more than `MOST_VALUES` members and
            items, or a number or character that JSON does not have.
        json.JSONDecodeError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant)
        if "\\u" in text:
            # Half of a surrogate pair is no character.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise JSONError("The body must be UTF-8.") from None
    # There is a comma between any two of them, and some more in strings perhaps.
    if body.count(b",") >= MOST_VALUES and sum(1 for _ in _values(value)) > MOST_VALUES:
        raise JSONError(f"The body may have at most {MOST_VALUES} members and items.")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JSONError("A member must not be there twice.")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise JSONError("A number must be finite.")


def _values(value: Any) -> Iterator[Any]:
    """The members and items of a value and of all that is in it."""
    inner = list(value.values()) if isinstance(value, dict) else value
    if isinstance(inner, list):
        for each in inner:
            yield each
            yield from _values(each)
