"""If configured, calls that are made for a request pass its baggage on."""

import httpx
import pytest
import respx

from example_service.api.request.baggage import MAX_BYTES, MAX_MEMBERS, usable
from example_service.core.settings import Settings
from example_service.core.settings.model import HTTPSettings
from example_service.infra.http.client import create_http_client
from example_service.main import create_app

ELSEWHERE = "https://elsewhere.test/"


async def headers_of_call(*given: str, propagate: bool) -> httpx.Headers:
    """The headers of a call made for a request with these values of `baggage`."""
    http = HTTPSettings(propagate_baggage=propagate, cors_origins=["https://app.test"])
    app = create_app(Settings(environment="test", http=http))

    @app.get("/calling")
    async def calling() -> None:
        async with create_http_client() as client:
            await client.get(ELSEWHERE)

    with respx.mock:
        route = respx.get(ELSEWHERE)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
            await client.get("/calling", headers=[("baggage", value) for value in given])
    return route.calls.last.request.headers


async def test_baggage_is_passed_on_if_configured() -> None:
    """Several headers with that name form one list."""
    headers = await headers_of_call("tenant=blue", "flag=1;ttl=2", propagate=True)

    assert headers["baggage"] == "tenant=blue,flag=1;ttl=2"


async def test_baggage_is_not_passed_on_by_default() -> None:
    """It may identify a user, which third parties need not know."""
    assert "baggage" not in await headers_of_call("tenant=blue", propagate=False)


@pytest.mark.parametrize("propagate", [True, False])
async def test_pages_of_other_origins_may_send_it_if_it_is_used(propagate: bool) -> None:
    """Otherwise, the browser would not send such a request at all."""
    http = HTTPSettings(propagate_baggage=propagate, cors_origins=["https://app.test"])
    transport = httpx.ASGITransport(create_app(Settings(environment="test", http=http)))
    preflight = {
        "Origin": "https://app.test",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "baggage, tracestate",
    }
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        answer = await client.options("/health/live", headers=preflight)

    assert (answer.status_code == 200) is propagate


@pytest.mark.parametrize(
    "value",
    [
        b"a=1",
        b"a=1,b=2",
        b"a = 1 ; p ; q = 2 , b=",
        b"user%20id=%E2%82%AC;p=x",
        b",".join(b"k%d=v" % number for number in range(MAX_MEMBERS)),
        b"a=" + b"x" * (MAX_BYTES - 2),
    ],
)
def test_valid_baggage_is_passed_on(value: bytes) -> None:
    """It is unchanged, except for whitespace between members."""
    members = [member.strip() for member in value.split(b",")]
    assert usable([value]) == b",".join(members).decode()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b",",
        b"a",
        b"=1",
        b"a=1 2",
        b'a="1"',
        b"a=\xc3\xa4",
        b"a=1\r\nX-Evil: 1",
        b"a=1;=2",
        b"a=1,b",
        b",".join(b"k%d=v" % number for number in range(MAX_MEMBERS + 1)),
        b"a=" + b"x" * (MAX_BYTES - 1),
    ],
)
def test_invalid_baggage_is_dropped_completely(value: bytes) -> None:
    """A value that another parser could read as a second header is not passed on."""
    assert usable([value]) is None
