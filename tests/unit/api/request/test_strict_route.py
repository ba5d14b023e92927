"""What `StrictRoute` accepts."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Header, Query
from pydantic import BaseModel

from example_service.api.problems.answers import install_problem_handlers
from example_service.api.request.strict_route import StrictRoute
from tests.application import Serve


class Page(BaseModel):
    """Parameters in a model."""

    limit: int = 1


router = APIRouter(route_class=StrictRoute)


@router.get("/single")
async def single(
    size: int = 1, name: str = "", x_single: Annotated[str, Header()] = ""
) -> dict[str, Any]:
    """Read single values."""
    return {"size": size, "name": name, "header": x_single}


@router.get("/lists")
async def lists(
    size: Annotated[list[int], Query()], x_list: Annotated[list[str], Header()]
) -> dict[str, Any]:
    """Read lists."""
    return {"size": size, "header": x_list}


@router.get("/model")
async def model(page: Annotated[Page, Query()]) -> int:
    """Read a model."""
    return page.limit


@router.post("/body")
async def body(page: Page) -> int:
    """Read a body."""
    return page.limit


@pytest.fixture
def app() -> FastAPI:
    """An application with these routes."""
    app = FastAPI()
    install_problem_handlers(app)
    app.include_router(router)
    return app


@pytest.mark.parametrize(
    ("url", "headers", "location"),
    [
        ("/single?size=5&size=6", [], ["query", "size"]),
        ("/single?size=5&size=5", [], ["query", "size"]),
        ("/single?size=5&%73ize=6", [], ["query", "size"]),
        ("/single?name=a&size=5&name=", [], ["query", "name"]),
        ("/single?name&name", [], ["query", "name"]),
        ("/model?limit=1&limit=2", [], ["query", "limit"]),
        ("/single", [("X-Single", "a"), ("x-single", "a")], ["header", "x-single"]),
    ],
)
async def test_a_repeated_value_is_refused(
    url: str, headers: list[tuple[str, str]], location: list[str], app: FastAPI, serve: Serve
) -> None:
    """The problem names the parameter or the header, even if both values are equal."""
    client = await serve(app)

    response = await client.get(url, headers=headers)

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"location": location, "message": "Value must not be repeated", "type": "repeated"}
    ]


async def test_a_repeated_content_type_is_refused(app: FastAPI, serve: Serve) -> None:
    """A proxy may have read the body as something else."""
    client = await serve(app)

    types = [("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    response = await client.post("/body", content=b"{}", headers=types)

    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] == ["header", "content-type"]


async def test_lists_and_single_values_are_accepted(app: FastAPI, serve: Serve) -> None:
    """A parameter or a header whose type is a list may be repeated."""
    client = await serve(app)

    lists = await client.get("/lists?size=1&size=2", headers=[("X-List", "a"), ("X-List", "b")])
    single = await client.get("/single?size=2&name=b", headers={"X-Single": "c"})

    assert lists.json() == {"size": [1, 2], "header": ["a", "b"]}
    assert single.json() == {"size": 2, "name": "b", "header": "c"}
    assert (await client.get("/single")).json() == {"size": 1, "name": "", "header": ""}
