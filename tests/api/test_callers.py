"""Who may call what is below `/api`, and what a caller sees."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError
from starlette.websockets import WebSocketDisconnect

from example_service.api.request.callers import Caller, CallersMiddleware, callers_by_key
from example_service.core.digests import digest
from example_service.core.settings import HTTPSettings, LogSettings, Settings
from example_service.core.settings.model import APISettings, MetricsSettings
from example_service.main import create_app
from tests.application import LogLines, Serve

SHOP = "RZ0c9vYwqk7mC1tJ3nXf5uLdGh8sPb2A"
NEW_SHOP = "vT4eWz8oQj1rHk6yBn3xMs9iCa5uFg7L"
REPORTS = "kP2dXs7cVb9nYt4mZq1wRj6hGf8eLa3U"
PATH = "/api/v1/payments"
METRICS_TOKEN = "n3q8vZ-2xkLw0pTs5dRb"

Client = Callable[..., Awaitable[httpx.AsyncClient]]


def entry(name: str, key: str, right: str = "") -> str:
    """What `API__KEYS` has for a key."""
    return f"{name}:{digest(key.encode()).hex()}{right}"


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def client_of(serve: Serve) -> Client:
    """Starts the service with the keys of three callers, and other settings."""
    keys = [entry("shop", SHOP), entry("shop", NEW_SHOP), entry("reports", REPORTS, ":read")]

    async def start(**changes: Any) -> httpx.AsyncClient:
        settings = Settings(environment="test", api=APISettings(keys=keys))
        return await serve(create_app(settings.model_copy(update=changes)))

    return start


WRONG = (
    None,
    "",
    "Bearer",
    "Bearer ",
    f"Basic {SHOP}",
    SHOP,
    f"Bearer {SHOP[:-1]}",
    f"Bearer {SHOP}x",
    f"Bearer {SHOP} {SHOP}",
    f"Bearer {digest(SHOP.encode()).hex()}",
    f"Bearer {SHOP.swapcase()}",
)


@pytest.mark.parametrize("path", [PATH, "/api", "/api/nothing", "/api/v1/exchange-rates/EUR"])
async def test_nothing_below_api_is_served_without_a_key(path: str, client_of: Client) -> None:
    """Whether a route is there or not, the answer is a 401 that names the scheme."""
    client = await client_of()
    for authorization in WRONG:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = await client.get(path, headers=headers)

        assert response.status_code == 401
        assert response.json()["type"] == "/problems/unauthorized"
        assert response.headers["www-authenticate"].startswith('Bearer realm="api"')
        assert SHOP not in response.text


async def test_two_authorizations_are_none(client_of: Client) -> None:
    """Which of them counts would be a matter of opinion."""
    client = await client_of()
    headers = [("Authorization", f"Bearer {key}") for key in (SHOP, SHOP)]

    assert (await client.get(PATH, headers=headers)).status_code == 401


async def test_no_spelling_of_a_path_gets_around_the_check(client_of: Client) -> None:
    """It is either below `/api`, and needs a key, or it is no path of the API."""
    client = await client_of()
    for path in (
        "/%61pi/v1/payments",
        "//api/v1/payments",
        "/API/v1/payments",
        "/api%2Fv1/payments",
    ):
        assert (await client.get(path)).status_code in {401, 404}, path


@pytest.mark.parametrize("root_path", ["/api", "/shop", "/shop/api"])
async def test_a_root_path_changes_nothing(root_path: str, client_of: Client) -> None:
    """Behind a prefix, the API needs a key, and health needs none."""
    client = await client_of(http=HTTPSettings(root_path=root_path))

    assert (await client.get(PATH)).status_code == 401
    assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/api/nothing", headers=bearer(SHOP))).status_code == 404


async def test_each_key_of_each_caller_is_accepted(client_of: Client) -> None:
    """Two keys of one name serve while a caller changes from one to the other."""
    client = await client_of()
    for key in (SHOP, NEW_SHOP, REPORTS):
        for scheme in ("Bearer", "bearer"):
            response = await client.get(
                "/api/nothing", headers={"Authorization": f"{scheme} {key}"}
            )
            assert response.status_code == 404


async def test_a_key_that_may_only_read_changes_nothing(client_of: Client) -> None:
    """The answer is a 403 that says which right is missing."""
    client = await client_of()
    for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
        response = await client.request(method, PATH, headers=bearer(REPORTS))

        assert response.status_code == 403
        assert response.json()["type"] == "/problems/forbidden"
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]


async def test_everything_else_needs_no_key(client_of: Client) -> None:
    """Probes, Prometheus, explanations of problems and the docs."""
    client = await client_of()
    for path in ("/health/live", "/health/circuit-breakers", "/metrics", "/problems", "/docs"):
        assert (await client.get(path)).status_code == 200, path


async def test_a_browser_may_ask_before_it_calls(client_of: Client) -> None:
    """A preflight request carries no key, and a page can read why it was refused."""
    client = await client_of(http=HTTPSettings(cors_origins=["https://shop.com"]))
    origin = {"Origin": "https://shop.com"}

    preflight = await client.options(
        PATH,
        headers=origin
        | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    refused = await client.get(PATH, headers=origin)

    assert preflight.status_code == 200
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://shop.com"
    assert "WWW-Authenticate" in refused.headers["access-control-expose-headers"]


async def test_the_caller_is_in_log_lines_and_not_in_metrics(
    client_of: Client, log_lines: LogLines
) -> None:
    """Its name is found beside the request's id, and no metric grows with the callers."""
    client = await client_of(log=LogSettings(format="json"))
    log_lines()
    await client.get("/api/nothing", headers=bearer(REPORTS))
    await client.get("/api/nothing", headers=bearer("wrong"))
    await client.get("/health/live")

    lines = [line for line in log_lines() if line["event"] == "request"]
    metrics = (await client.get("/metrics")).text

    assert [line.get("caller") for line in lines] == ["reports", None, None]
    assert "reports" not in metrics


async def test_lines_of_a_console_name_the_caller(
    client_of: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short access line has it at its end."""
    client = await client_of(log=LogSettings(format="console"))
    await client.get("/api/nothing", headers=bearer(REPORTS))

    assert " ms caller=reports\n" in capsys.readouterr().out


async def test_openapi_says_what_needs_a_key(client_of: Client) -> None:
    """Operations below `/api` have the scheme, 401, and 403 where they change something."""
    document = (await (await client_of()).get("/openapi.json")).json()

    assert document["components"]["securitySchemes"] == {
        "api": {"type": "http", "scheme": "bearer"}
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_api = path.startswith("/api/")
            assert (operation.get("security") == [{"api": []}]) is is_api
            assert ("401" in operation["responses"]) is is_api
            assert ("403" in operation["responses"]) is (is_api and method == "post")


async def test_an_open_api_asks_for_nothing(serve: Serve) -> None:
    """Without keys nothing is refused, and nothing is documented as if it were."""
    client = await serve(create_app(Settings(environment="test")))

    assert (await client.get("/api/nothing")).status_code == 404
    assert "securitySchemes" not in (await client.get("/openapi.json")).json()["components"]


async def test_metrics_ask_for_their_token_where_there_is_one(client_of: Client) -> None:
    """A key of the API does not open them."""
    client = await client_of(metrics=MetricsSettings(token=SecretStr(METRICS_TOKEN)))
    for headers, status in ((bearer(METRICS_TOKEN), 200), (bearer(SHOP), 401), ({}, 401)):
        response = await client.get("/metrics", headers=headers)
        assert response.status_code == status
    assert response.headers["www-authenticate"] == 'Bearer realm="metrics"'


def test_a_websocket_needs_a_key_that_may_write() -> None:
    """The service has none, but what a domain adds below `/api` is not open by mistake."""
    app = FastAPI()
    find_caller = callers_by_key([entry("shop", SHOP), entry("reports", REPORTS, ":read")])
    app.add_middleware(CallersMiddleware, find_caller=find_caller)

    @app.websocket("/api/updates")
    async def updates(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    client = TestClient(app)
    for headers in ({}, bearer(REPORTS)):
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/api/updates", headers=headers),
        ):
            pass
    with client.websocket_connect("/api/updates", headers=bearer(SHOP)):
        pass


@pytest.mark.parametrize("name", ["", "x" * 65, "shop\nforged", "\x1b[31m"])
def test_a_caller_has_a_name_that_can_be_logged_and_stored(name: str) -> None:
    """Also where a token of another issuer says who it is."""
    with pytest.raises(ValueError, match="name must be"):
        Caller(name)


@pytest.mark.parametrize(
    "keys",
    [
        "shop",
        "shop:",
        f"shop:{SHOP}",
        f"shop:{'0' * 63}",
        f":{'0' * 64}",
        f"a shop:{'0' * 64}",
        f"shop:{'0' * 64}:write",
        f"shop:{'0' * 64},reports:{'0' * 64}",
    ],
)
def test_an_entry_that_is_none_is_refused_without_repeating_it(keys: str) -> None:
    """Somebody may have put the key itself there."""
    with pytest.raises(ValidationError) as caught:
        APISettings(keys=keys)

    assert caught.value.errors()[0]["loc"] == ("keys",)
    assert SHOP not in str(caught.value)


@pytest.mark.parametrize("separator", [",", ", ", "\n", ",\n"])
def test_entries_are_separated_by_commas_or_line_breaks(separator: str) -> None:
    """A file of secrets has one in each line."""
    keys = [entry("shop", SHOP), entry("reports", REPORTS, ":read")]

    assert APISettings(keys=separator.join(keys)).keys == keys


def test_an_api_is_not_open_and_closed() -> None:
    """The setting that contradicts the keys is named."""
    with pytest.raises(ValidationError) as caught:
        APISettings(keys=[entry("shop", SHOP)], open=True)

    assert caught.value.errors()[0]["loc"] == ("open",)
