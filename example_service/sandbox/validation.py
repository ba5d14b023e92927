"""Responses to invalid input that name each field and the allowed values."""

from pydantic import ValidationError
from starlette.responses import JSONResponse


def invalid_input(error: ValidationError) -> JSONResponse:
    """Respond with 422 and all invalid fields, without the submitted values."""
    return invalid_fields(field_messages(error))


def field_messages(error: ValidationError) -> dict[str, str]:
    """Return a message for each invalid field, without the submitted values."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return {".".join(map(str, fault["loc"])) or "body": fault["msg"] for fault in faults}


def invalid_fields(messages: dict[str, str], **members: object) -> JSONResponse:
    """Respond with 422, a message for each field and additional members."""
    errors = [{"field": field, "message": text} for field, text in messages.items()]
    return JSONResponse({**members, "errors": errors}, status_code=422)
