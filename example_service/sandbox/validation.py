"""Turns invalid input into an answer that names the field and what it allows."""

from pydantic import ValidationError
from starlette.responses import JSONResponse


def invalid_input(error: ValidationError) -> JSONResponse:
    """Answer 422 with every invalid field, without repeating what was sent."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return invalid_fields(
        {".".join(map(str, fault["loc"])) or "body": fault["msg"] for fault in faults}
    )


def invalid_fields(messages: dict[str, str]) -> JSONResponse:
    """Answer 422 with a message for each field."""
    return JSONResponse(
        {"errors": [{"field": field, "message": text} for field, text in messages.items()]},
        status_code=422,
    )
