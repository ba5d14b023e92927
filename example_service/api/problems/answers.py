"""Converts exceptions to responses with RFC 9457 problem details.

The body of every error is `application/problem+json` with `type`, `title`, `status`, `detail`,
`instance` and `request_id`, and for some types further members. It never contains submitted values
or details of an unexpected exception. The types are in `catalogue.py`.
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from example_service.api.problems import catalogue
from example_service.api.problems.catalogue import ProblemType
from example_service.api.problems.validation import JSONError, described
from example_service.api.route_table import allowed_methods
from example_service.core import context
from example_service.core.exceptions import CircuitBreakerOpenException
from example_service.infra.resilience import CircuitOpenError
from example_service.infra.resilience.validation import MAX_REASON_LENGTH

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SOON: Final = {"Retry-After": "1"}
"""The headers of a problem that may be solved within a second."""

UNKNOWN_WAIT_SECONDS = 30
"""`Retry-After` in seconds if it is not known when an open circuit admits calls again."""

_MAX_INSTANCE_LENGTH = 1_024
_MAX_REFUSAL_LENGTH = 500
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"

_UNREADABLE_BODY = "There was an error parsing the body"
"""The detail of FastAPI's status 400 for a body that cannot be read but has no syntax error."""

_BY_STATUS = {
    401: catalogue.UNAUTHORIZED,
    403: catalogue.FORBIDDEN,
    404: catalogue.NOT_FOUND,
    405: catalogue.METHOD_NOT_ALLOWED,
    413: catalogue.BODY_TOO_LARGE,
    500: catalogue.INTERNAL_ERROR,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One occurrence of a problem.

    Attributes:
        type: The entry in the catalogue.
        detail: An explanation of this occurrence, for the client. None stands for the type's
            `meaning`.
        headers: Additional response headers.
        extensions: Additional members of the body, as JSON values.
        is_logged: Whether to log a warning with the error's text. For faults of the service that no
            circuit breaker reports.
    """

    type: ProblemType
    detail: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    is_logged: bool = False

    def response(self, scope: Scope) -> Response:
        """Create the response to the request with this ASGI scope. It must not be cached."""
        prefix = scope.get("app_root_path", scope.get("root_path", "")).rstrip("/")
        members = {
            "type": f"{prefix}/problems/{self.type.slug}",
            "title": self.type.title,
            "status": self.type.status,
            "detail": self.type.meaning if self.detail is None else self.detail,
            "instance": _instance(scope),
            "request_id": context.request_id(),
        }
        # Standard members come first, and extensions cannot replace them.
        body = {**members, **self.extensions, **members}
        return Response(
            content=json.dumps(body).encode(),
            status_code=self.type.status,
            headers={"Cache-Control": "no-store", **self.headers},
            media_type=MEDIA_TYPE,
        )


ProblemsByError: TypeAlias = Mapping[type[Exception], Problem]
"""The problem for each class of errors. It also applies to subclasses without an entry."""


class ProblemError(Exception):
    """Raised in a route or a dependency to respond with a problem.

    Args:
        problem_type: The entry in the catalogue. A domain defines its own.
        detail: An explanation of this occurrence, for the client. None stands for the type's
            `meaning`.
        headers: Additional response headers.
        extensions: Additional members of the body, as JSON values.
    """

    def __init__(
        self,
        problem_type: ProblemType,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(problem_type.slug, detail)
        self.problem = Problem(problem_type, detail, headers or {}, extensions or {})


def install_problem_handlers(app: FastAPI) -> None:
    """Respond to every error in the application with a problem."""
    for exception_class in (
        HTTPException,
        RequestValidationError,
        ProblemError,
        CircuitOpenError,
        CircuitBreakerOpenException,
        Exception,
    ):
        app.add_exception_handler(exception_class, _answer)


def install_problems(app: FastAPI, problems: ProblemsByError) -> None:
    """Respond with these problems to the errors that routes raise."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = next(problems[kind] for kind in type(error).__mro__ if kind in problems)
        if problem.is_logged:
            logger.warning("%s", error)
        return problem.response(request.scope)

    for error in problems:
        app.add_exception_handler(error, answer)


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code < HTTPStatus.BAD_REQUEST:
        return Response(status_code=error.status_code, headers=error.headers)
    return problem_from(error, request.scope).response(request.scope)


def problem_from(error: Exception, scope: Scope) -> Problem:
    """Convert an exception to a problem.

    An open circuit is also recognised as the cause of another exception (`raise … from`), and in an
    exception group that contains nothing else. Any unexpected exception is an internal error.
    """
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, RequestValidationError):
        return _invalid_request(error)
    if isinstance(error, HTTPException):
        return _http_error(error, scope)
    refusal = _circuit_refusal(error)
    return Problem(catalogue.INTERNAL_ERROR) if refusal is None else _open_circuit(refusal)


def problem_from_refusal(status: int, text: str) -> Problem:
    """Convert a plain-text error response of the framework to a problem."""
    if status == HTTPStatus.BAD_REQUEST and text == "Invalid host header":
        return Problem(catalogue.INVALID_HOST)
    if status == HTTPStatus.BAD_REQUEST and text.startswith("Disallowed CORS "):
        refused = text.removeprefix("Disallowed CORS ")
        return Problem(catalogue.CORS_REFUSED, f"Not allowed: {refused}.")
    return Problem(_type_of(status), _specific_text(status, text[:_MAX_REFUSAL_LENGTH]))


def _invalid_request(error: RequestValidationError) -> Problem:
    errors = error.errors()
    malformed = any(each["type"] == "json_invalid" for each in errors)
    problem_type = catalogue.MALFORMED_JSON if malformed else catalogue.VALIDATION_FAILED
    return Problem(problem_type, extensions={"errors": described(errors)})


def _http_error(error: HTTPException, scope: Scope) -> Problem:
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and "app" in scope:
        # The router only knows the methods of the first route with this path.
        headers["Allow"] = ", ".join(allowed_methods(scope)) or headers.get("Allow", "")
    if isinstance(error.__cause__, RequestValidationError):
        return _invalid_request(error.__cause__)
    # Wrong encodings and overlong numbers raise a ValueError, deep nesting a RecursionError.
    if error.detail == _UNREADABLE_BODY and isinstance(
        error.__cause__, (ValueError, RecursionError)
    ):
        fault = str(error.__cause__) if isinstance(error.__cause__, JSONError) else None
        return Problem(catalogue.MALFORMED_JSON, fault, headers)
    detail: object = error.detail
    if isinstance(detail, str):
        return Problem(
            _type_of(error.status_code), _specific_text(error.status_code, detail), headers
        )
    extensions = {} if detail is None else {"details": jsonable_encoder(detail)}
    return Problem(_type_of(error.status_code), None, headers, extensions)


def _type_of(status: int) -> ProblemType:
    return _BY_STATUS.get(status) or catalogue.plain_status(status)


def _specific_text(status: int, text: str) -> str | None:
    """Return the text, or None if it only repeats the name of the status."""
    try:
        return None if text in {"", HTTPStatus(status).phrase} else text
    except ValueError:
        return text or None


def _circuit_refusal(
    error: BaseException,
) -> CircuitOpenError | CircuitBreakerOpenException | None:
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, (CircuitOpenError, CircuitBreakerOpenException)):
            return error
        if isinstance(error, BaseExceptionGroup):
            refusals = [_circuit_refusal(member) for member in error.exceptions]
            return refusals[0] if all(refusals) else None
        if error.__cause__ is None:
            return None
        error = error.__cause__
    return None


def _open_circuit(refusal: CircuitOpenError | CircuitBreakerOpenException) -> Problem:
    name, state = refusal.breaker_name, refusal.state
    if isinstance(refusal, CircuitBreakerOpenException):
        detail = refusal.detail
    elif name is None:
        detail = None
    else:
        detail = f"Circuit breaker '{name}' is {_in_words(state)}; the call was not made."
    wait = refusal.retry_after
    if wait is not None and not math.isfinite(wait):
        wait = None
    return Problem(
        catalogue.CIRCUIT_BREAKER_OPEN,
        detail,
        headers={"Retry-After": str(_whole_seconds(wait))},
        extensions={
            "breaker": name,
            "state": None if state is None else str(state),
            "retry_after": wait,
            "reason": None if refusal.reason is None else refusal.reason[:MAX_REASON_LENGTH],
        },
    )


def _in_words(state: str | None) -> str:
    return "open" if state is None else str(state).replace("_", " ")


def _whole_seconds(wait_seconds: float | None) -> int:
    """Round up for `Retry-After`, because a client that retries too early is refused again."""
    return UNKNOWN_WAIT_SECONDS if wait_seconds is None else max(1, math.ceil(wait_seconds))


def _instance(scope: Scope) -> str:
    """The path of the request as a URI reference, without the query, which may contain secrets."""
    path = scope.get("raw_path") or scope.get("path", "")
    return quote(path, safe=_PATH_CHARACTERS)[:_MAX_INSTANCE_LENGTH]
