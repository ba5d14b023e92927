"""The pages that the `type` of a problem points to."""

import re
from html import escape

import httpx
import pytest

from example_service.api.problems.catalogue import defined_problem_types
from example_service.core.settings import Settings
from example_service.main import create_app
from tests.application import Serve

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(create_app(Settings(environment="test")))


async def test_every_type_is_listed_and_explained(client: httpx.AsyncClient) -> None:
    """The page of a `type` says what it means and what to do."""
    listed = (await client.get("/problems")).json()
    assert [each["type"] for each in listed] == [
        f"/problems/{each.slug}" for each in defined_problem_types()
    ]
    for each in listed:
        explained = await client.get(each["type"])
        assert explained.json() == each
        assert set(each) == {"type", "title", "status", "meaning", "cause", "what_to_do"}


@pytest.mark.parametrize("path", ["/problems", "/problems/overloaded"])
async def test_browsers_get_a_page(client: httpx.AsyncClient, path: str) -> None:
    """A browser gets HTML, and caches learn that there are two forms."""
    response = await client.get(path, headers=BROWSER)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Vary"] == "Accept"
    assert "Overloaded" in response.text


async def test_the_list_for_browsers_has_links(client: httpx.AsyncClient) -> None:
    """The list links to each page."""
    page = (await client.get("/problems", headers=BROWSER)).text
    assert '<a href="/problems/not-found">Not found</a> (404)' in page


async def test_a_page_shows_code_and_links_back(client: httpx.AsyncClient) -> None:
    """Backquotes become code, in both colour schemes, and a link leads to the list."""
    advice = (await client.get("/problems/unauthorized")).json()["what_to_do"]
    page = (await client.get("/problems/unauthorized", headers=BROWSER)).text
    codes = re.findall(r"`([^`]+)`", advice)

    assert codes
    assert all(f"<code>{escape(code)}</code>" in page for code in codes)
    assert "`" not in page
    assert "color-scheme: light dark" in page
    assert '<a href="/problems">All problems</a>' in page


async def test_pages_are_escaped(client: httpx.AsyncClient) -> None:
    """Texts of a domain's problems are escaped in HTML."""
    page = (await client.get("/problems/http-418", headers=BROWSER)).text
    assert "<h1>I&#x27;m a Teapot</h1>" in page


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "application/json", "application/json, text/html;q=0.5", "text/plain", ""],
)
async def test_programs_get_json(client: httpx.AsyncClient, accept: str | None) -> None:
    """HTML is only sent if the client prefers it to JSON."""
    headers = {} if accept is None else {"Accept": accept}
    response = await client.get("/problems/overloaded", headers=headers)
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize("slug", ["nothing", "http-200", "%3Cscript%3E", "Overloaded"])
async def test_an_unknown_type_is_a_problem(client: httpx.AsyncClient, slug: str) -> None:
    """A slug that is not in the catalogue gets a 404 problem."""
    response = await client.get(f"/problems/{slug}", headers=BROWSER)
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/not-found"


async def test_pages_answer_head(client: httpx.AsyncClient) -> None:
    """Link checkers ask with HEAD."""
    for path in ("/problems", "/problems/overloaded"):
        assert (await client.head(path)).status_code == 200


async def test_links_work_behind_a_proxy_that_strips_a_prefix() -> None:
    """With a root path, types and links begin with it."""
    app = create_app(Settings(environment="test"))
    transport = httpx.ASGITransport(app, root_path="/shop")
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as behind:
        missing = (await behind.get("/shop/nowhere")).json()
        listed = (await behind.get("/shop/problems")).json()
        assert missing["type"] == "/shop/problems/not-found"
        assert listed[0]["type"].startswith("/shop/problems/")
        assert (await behind.get(missing["type"])).status_code == 200
