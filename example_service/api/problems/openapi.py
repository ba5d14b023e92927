"""Lists the problems of each operation in the OpenAPI document.

By default, FastAPI only documents validation errors, and in its own format.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI

from example_service.api.problems import catalogue
from example_service.api.problems.answers import MEDIA_TYPE
from example_service.api.problems.catalogue import ProblemType

_SCHEMA_NAME = "Problem"
_ANY_OPERATION = (
    catalogue.INVALID_HOST,
    catalogue.INTERNAL_ERROR,
    catalogue.OVERLOADED,
    catalogue.REQUEST_TIMEOUT,
)
_WITH_BODY = (
    catalogue.MALFORMED_JSON,
    catalogue.BODY_TOO_SLOW,
    catalogue.BODY_TOO_LARGE,
)
_WITH_INPUT = (catalogue.VALIDATION_FAILED,)
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_RETRY_AFTER = {
    "description": "Whole seconds after which to repeat the request. Not all problems have it.",
    "schema": {"type": "integer", "minimum": 1},
}
_PROBLEM_SCHEMA: dict[str, Any] = {
    "title": _SCHEMA_NAME,
    "description": "Problem details as defined in RFC 9457. Some types have further members.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "Problem type: the URL of a description that says what to do about it.",
        },
        "title": {"type": "string", "description": "Short name of the type."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "Explanation of this occurrence."},
        "instance": {
            "type": "string",
            "format": "uri-reference",
            "description": "Path of the request.",
        },
        "request_id": {
            "type": ["string", "null"],
            "description": "Id of the request in the logs.",
        },
        "errors": {
            "type": "array",
            "description": "Errors in the input, without the submitted values.",
            "items": {
                "type": "object",
                "required": ["location", "message", "type"],
                "properties": {
                    "location": {
                        "type": "array",
                        "items": {"type": ["string", "integer"]},
                        "examples": [["body", "amount"]],
                    },
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
        "breaker": {
            "type": ["string", "null"],
            "description": "Of `circuit-breaker-open`: name of the circuit breaker.",
        },
        "state": {
            "type": ["string", "null"],
            "description": "Of `circuit-breaker-open`: state of the circuit.",
            "examples": ["open", "half_open"],
        },
        "retry_after": {
            "type": ["number", "null"],
            "description": "Of `circuit-breaker-open`: seconds until a call may be admitted.",
        },
        "reason": {
            "type": ["string", "null"],
            "description": "Of `circuit-breaker-open`: why the circuit opened.",
        },
    },
    "additionalProperties": True,
}


def problem_responses(*types: ProblemType) -> dict[int | str, dict[str, Any]]:
    """Document the problems of an operation: `@router.get(..., responses=problem_responses(...))`.

    Leave out the problems that every operation can respond with: they are documented automatically.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for problem_type in types:
        _add(responses, problem_type.status, problem_type)
    return responses


def document_problems(app: FastAPI) -> None:
    """List the problems of an application, and no other errors, in its OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        # FastAPI caches the document, so it may already be revised.
        if _SCHEMA_NAME not in schemas:
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            schemas[_SCHEMA_NAME] = _PROBLEM_SCHEMA
            for operations in document["paths"].values():
                _revise(operation for name, operation in operations.items() if name in _METHODS)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _revise(operations: Iterable[dict[str, Any]]) -> None:
    for operation in operations:
        responses = operation["responses"]
        types = list(_ANY_OPERATION)
        if "application/json" in responses.get("422", {}).get("content", {}):
            del responses["422"]
        if "parameters" in operation or "requestBody" in operation:
            types += _WITH_INPUT
        if "requestBody" in operation:
            types += _WITH_BODY
        for problem_type in types:
            _add(responses, str(problem_type.status), problem_type)
        operation["responses"] = dict(sorted(responses.items()))


def _add(responses: dict[Any, dict[str, Any]], status: int | str, added: ProblemType) -> None:
    response = responses.setdefault(status, {"description": "", "content": {}})
    content = response["content"].setdefault(
        MEDIA_TYPE, {"schema": {"$ref": f"#/components/schemas/{_SCHEMA_NAME}"}, "examples": {}}
    )
    content["examples"][added.slug] = {"summary": added.title, "value": _example(added)}
    slugs = ", ".join(f"`{slug}`" for slug in content["examples"])
    response["description"] = f"Problem: {slugs}"
    if added.status in {catalogue.OVERLOADED.status, catalogue.REQUEST_TIMEOUT.status}:
        response["headers"] = {"Retry-After": _RETRY_AFTER}


def _example(problem_type: ProblemType) -> dict[str, Any]:
    return {
        "type": f"/problems/{problem_type.slug}",
        "title": problem_type.title,
        "status": problem_type.status,
        "detail": problem_type.meaning,
        "instance": "/the/path/of/the/request",
        "request_id": "6f1d7a3e4c0b4f8e9a2b5c7d8e9f0a1b",
    }
