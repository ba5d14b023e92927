"""The OpenAPI document describes the real responses."""

import dataclasses
import re
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr

from example_service.api.problems.catalogue import CIRCUIT_BREAKER_OPEN, VALIDATION_FAILED
from example_service.api.problems.openapi import problem_responses
from example_service.core.settings import Settings
from example_service.core.settings.model import AdminSettings
from example_service.infra.resilience import CircuitBreaker, FailureRate, StateChanged
from example_service.main import create_app
from tests.application import Serve

PROBLEM_JSON = "application/problem+json"


@pytest.fixture
def app() -> FastAPI:
    """The service with all its routers."""
    admin = AdminSettings(token=SecretStr("a-token-of-more-than-sixteen"))
    return create_app(Settings(environment="development", admin=admin))


@pytest.fixture
async def document(app: FastAPI, serve: Serve) -> dict[str, Any]:
    """The document as it is served."""
    document: dict[str, Any] = (await (await serve(app)).get("/openapi.json")).json()
    return document


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every operation, by method and path."""
    return {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def slugs(operation: dict[str, Any], status: int) -> set[str]:
    """The problems that an operation documents for a status."""
    return set(operation["responses"][str(status)]["content"][PROBLEM_JSON]["examples"])


async def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    """Errors have one schema, one media type and no other form."""
    found = operations(document)
    assert "post /admin/circuit-breakers/{name}/reset" in found
    assert "get /health/ready" in found
    for operation in found.values():
        errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
        assert {"400", "500", "503", "504"} <= set(errors)
        for response in errors.values():
            assert list(response["content"]) == [PROBLEM_JSON]
            schema = response["content"][PROBLEM_JSON]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
            assert response["description"].startswith("Problem: ")


async def test_the_schema_of_the_framework_is_gone(document: dict[str, Any]) -> None:
    """FastAPI's validation errors are not documented, because they are never sent."""
    assert "HTTPValidationError" not in str(document)
    assert "ValidationError" not in document["components"]["schemas"]
    assert "Problem" in document["components"]["schemas"]


async def test_operations_document_the_errors_of_their_input(document: dict[str, Any]) -> None:
    """A body adds 400, 408 and 413, parameters add 422, and no input adds none."""
    found = operations(document)
    shadowing = "post /admin/circuit-breakers/{name}/shadow"
    assert {"malformed-json", "invalid-host"} == slugs(found[shadowing], 400)
    assert {"body-too-slow"} == slugs(found[shadowing], 408)
    assert {"body-too-large"} == slugs(found[shadowing], 413)
    assert {"validation-failed"} == slugs(found["get /problems/{slug}"], 422)
    assert not {"408", "413", "422"} & set(found["get /health/live"]["responses"])
    assert {"not-ready", "overloaded"} == slugs(found["get /health/ready"], 503)
    assert {"unauthorized"} == slugs(found["post /admin/circuit-breakers/{name}/reset"], 401)


async def test_operations_have_names_that_clients_can_be_generated_from(
    document: dict[str, Any],
) -> None:
    """An operation ID is unique, says what it does, and does not depend on its path."""
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)+", name) for name in names)
    assert not [name for name in names if name.endswith(("_get", "_post", "_put"))]


async def test_the_administration_asks_for_a_bearer_token(document: dict[str, Any]) -> None:
    """Readers of the document, and `/docs`, learn which operations need the token."""
    scheme = {"type": "http", "scheme": "bearer"}
    assert document["components"]["securitySchemes"] == {"administration": scheme}
    for name, operation in operations(document).items():
        assert ("security" in operation) == ("/admin/" in name)
        assert operation.get("security", []) in ([], [{"administration": []}])


async def test_examples_are_real_problems(document: dict[str, Any], serve: Serve) -> None:
    """The service explains each example's type with the same title and status."""
    client = await serve(create_app(Settings(environment="development")))
    for operation in operations(document).values():
        for status, response in operation["responses"].items():
            examples = response.get("content", {}).get(PROBLEM_JSON, {}).get("examples", {})
            for example in examples.values():
                explained = (await client.get(example["value"]["type"])).json()
                assert explained["title"] == example["value"]["title"] == example["summary"]
                assert explained["status"] == example["value"]["status"] == int(status)


async def test_the_schema_fits_real_problems(document: dict[str, Any], serve: Serve) -> None:
    """Required members are present and have the documented type."""
    client = await serve(create_app(Settings(environment="test")))
    schema = document["components"]["schemas"]["Problem"]
    body = (await client.get("/nowhere")).json()
    assert set(schema["required"]) == set(body)
    kinds = {"string": str, "integer": int, "array": list}
    for name, value in body.items():
        kind = schema["properties"][name]["type"]
        assert isinstance(value, kinds[kind if isinstance(kind, str) else kind[0]])


async def test_the_schema_knows_the_members_of_an_open_circuit(
    document: dict[str, Any], serve: Serve
) -> None:
    """Members beyond the standard ones are documented."""
    app = create_app(Settings(environment="test"))

    @app.get("/refused")
    async def refused() -> None:
        breaker = CircuitBreaker("shop", registry=None)
        breaker.force_open("maintenance", seconds=10)
        with breaker:
            pass

    body = (await (await serve(app)).get("/refused")).json()
    members = document["components"]["schemas"]["Problem"]["properties"]
    assert set(body) <= set(members)
    for name in ("breaker", "state", "reason"):
        assert (members[name]["type"], type(body[name])) == (["string", "null"], str)
    assert (members["retry_after"]["type"], type(body["retry_after"])) == (
        ["number", "null"],
        float,
    )


async def test_responses_about_breakers_are_documented_member_by_member(
    document: dict[str, Any],
) -> None:
    """Members that are always present are required, the others optional."""
    schemas = document["components"]["schemas"]
    breaker = CircuitBreaker("documented", registry=None)
    always = set(breaker.get_metrics())
    breaker = CircuitBreaker("documented", failure_rate=FailureRate(), registry=None)
    breaker.force_open("to see all members")
    metrics = schemas["BreakerMetrics"]
    assert set(metrics["required"]) == always
    in_a_fleet = {"verdict", "opened_by"}
    assert set(metrics["properties"]) == set(breaker.get_metrics()) | in_a_fleet
    assert set(schemas["WindowMetrics"]["required"]) == set(breaker.get_metrics()["window"])
    assert set(schemas["BreakerMode"]["required"]) == set(breaker.get_metrics()["mode"])
    event = {field.name for field in dataclasses.fields(StateChanged)}
    assert set(schemas["Transition"]["required"]) == event | {"at", "worker"}


async def test_a_route_documents_its_own_problems(serve: Serve) -> None:
    """They are listed beside those that every operation has."""
    app = create_app(Settings(environment="test"))

    class Order(BaseModel):
        """A body."""

        amount: int

    @app.post("/orders", responses=problem_responses(CIRCUIT_BREAKER_OPEN, VALIDATION_FAILED))
    async def order(order: Order) -> Order:
        return order

    client = await serve(app)
    found = operations((await client.get("/openapi.json")).json())["post /orders"]
    assert slugs(found, 503) == {"circuit-breaker-open", "overloaded"}
    assert slugs(found, 422) == {"validation-failed"}
    assert "Retry-After" in found["responses"]["503"]["headers"]
    assert "application/json" in found["responses"]["200"]["content"]


def test_routes_added_later_are_documented_too(app: FastAPI) -> None:
    """The document is rebuilt when routes change, and otherwise cached."""
    first = app.openapi()
    assert app.openapi() is first

    @app.get("/late/{number}")
    async def late(number: int) -> int:
        return number

    second = app.openapi()
    assert slugs(second["paths"]["/late/{number}"]["get"], 422) == {"validation-failed"}
    assert "HTTPValidationError" not in str(second)
