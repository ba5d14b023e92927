"""Which callers may use `/api`, and what they see."""

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
    """The entry of a key in `API__KEYS`."""
    return f"{name}:{digest(key.encode()).hex()}{right}"


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def client_of(serve: Serve) -> Client:
    """Start the service with the keys of three callers and other settings."""
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
    """Whether the route exists or not, the response is a 401 that names the scheme."""
    client = await client_of()
    for authorization in WRONG:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = await client.get(path, headers=headers)

        assert response.status_code == 401
        assert response.json()["type"] == "/problems/unauthorized"
        assert response.headers["www-authenticate"].startswith('Bearer realm="api"')
        assert SHOP not in response.text


async def test_two_authorization_headers_are_refused(client_of: Client) -> None:
    """It would be unclear which of them counts."""
    client = await client_of()
    headers = [("Authorization", f"Bearer {key}") for key in (SHOP, SHOP)]

    assert (await client.get(PATH, headers=headers)).status_code == 401


async def test_no_spelling_of_a_path_gets_around_the_check(client_of: Client) -> None:
    """A path is either below `/api` and needs a key, or does not reach the API."""
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
    """Behind a prefix, the API still needs a key, and health still does not."""
    client = await client_of(http=HTTPSettings(root_path=root_path))

    assert (await client.get(PATH)).status_code == 401
    assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/api/nothing", headers=bearer(SHOP))).status_code == 404


async def test_each_key_of_each_caller_is_accepted(client_of: Client) -> None:
    """A caller may have two keys while it replaces one by the other."""
    client = await client_of()
    for key in (SHOP, NEW_SHOP, REPORTS):
        for scheme in ("Bearer", "bearer"):
            response = await client.get(
                "/api/nothing", headers={"Authorization": f"{scheme} {key}"}
            )
            assert response.status_code == 404


async def test_a_key_that_may_only_read_changes_nothing(client_of: Client) -> None:
    """A write gets a 403 that names the missing right."""
    client = await client_of()
    for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
        response = await client.request(method, PATH, headers=bearer(REPORTS))

        assert response.status_code == 403
        assert response.json()["type"] == "/problems/forbidden"
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]


async def test_everything_else_needs_no_key(client_of: Client) -> None:
    """Probes, metrics, problem pages and the docs are open."""
    client = await client_of()
    for path in ("/health/live", "/health/circuit-breakers", "/metrics", "/problems", "/docs"):
        assert (await client.get(path)).status_code == 200, path


async def test_a_preflight_needs_no_key(client_of: Client) -> None:
    """A preflight request has no key, and a page can read why a call was refused."""
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
    """Log lines name the caller; as a label it would multiply the series."""
    client = await client_of(log=LogSettings(format="json"))
    log_lines()
    await client.get("/api/nothing", headers=bearer(REPORTS))
    await client.get("/api/nothing", headers=bearer("wrong"))
    await client.get("/health/live")

    lines = [line for line in log_lines() if line["event"] == "request"]
    metrics = (await client.get("/metrics")).text

    assert [line.get("caller") for line in lines] == ["reports", None, None]
    assert "reports" not in metrics


async def test_console_lines_name_the_caller(
    client_of: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short access line ends with it."""
    client = await client_of(log=LogSettings(format="console"))
    await client.get("/api/nothing", headers=bearer(REPORTS))

    assert " ms caller=reports\n" in capsys.readouterr().out


async def test_openapi_says_what_needs_a_key(client_of: Client) -> None:
    """Operations below `/api` document the scheme, 401, and 403 if they write."""
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


async def test_an_open_api_needs_no_key(serve: Serve) -> None:
    """Without keys, nothing is refused and no 401 or 403 is documented."""
    client = await serve(create_app(Settings(environment="test")))

    assert (await client.get("/api/nothing")).status_code == 404
    assert "securitySchemes" not in (await client.get("/openapi.json")).json()["components"]


async def test_metrics_need_their_own_token_if_it_is_set(client_of: Client) -> None:
    """A key of the API gives no access to the metrics."""
    client = await client_of(metrics=MetricsSettings(token=SecretStr(METRICS_TOKEN)))
    for headers, status in ((bearer(METRICS_TOKEN), 200), (bearer(SHOP), 401), ({}, 401)):
        response = await client.get("/metrics", headers=headers)
        assert response.status_code == status
    assert response.headers["www-authenticate"] == 'Bearer realm="metrics"'


def test_a_websocket_needs_a_key_that_may_write() -> None:
    """The service has none, but one that a domain adds below `/api` is protected."""
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
    """This also applies to names that come from the token of another issuer."""
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
def test_a_malformed_entry_is_refused_without_repeating_it(keys: str) -> None:
    """The entry may contain the key itself by mistake."""
    with pytest.raises(ValidationError) as caught:
        APISettings(keys=keys)

    assert caught.value.errors()[0]["loc"] == ("keys",)
    assert SHOP not in str(caught.value)


@pytest.mark.parametrize("separator", [",", ", ", "\n", ",\n"])
def test_entries_are_separated_by_commas_or_line_breaks(separator: str) -> None:
    """A secrets file has one entry on each line."""
    keys = [entry("shop", SHOP), entry("reports", REPORTS, ":read")]

    assert APISettings(keys=separator.join(keys)).keys == keys


def test_an_open_api_cannot_have_keys() -> None:
    """The error names `open`, the setting that contradicts the keys."""
    with pytest.raises(ValidationError) as caught:
        APISettings(keys=[entry("shop", SHOP)], open=True)

    assert caught.value.errors()[0]["loc"] == ("open",)
