"""Turns invalid input into an answer that names the field and what it allows."""

from pydantic import ValidationError
from starlette.responses import JSONResponse


def invalid_input(error: ValidationError) -> JSONResponse:
    """Answer 422 with every invalid field, without repeating what was sent."""
    return invalid_fields(field_messages(error))


def field_messages(error: ValidationError) -> dict[str, str]:
    """What is wrong with each invalid field, without what was sent."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return {".".join(map(str, fault["loc"])) or "body": fault["msg"] for fault in faults}


def invalid_fields(messages: dict[str, str], **members: object) -> JSONResponse:
    """Answer 422 with a message for each field, and these members besides."""
    errors = [{"field": field, "message": text} for field, text in messages.items()]
    return JSONResponse({**members, "errors": errors}, status_code=422)
