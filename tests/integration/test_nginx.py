"""The service behind a real nginx, configured as documented."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.nginx import running_nginx
from tests.service_process import DEADLINE_SECONDS, Service, kill, wait_until

pytestmark = pytest.mark.integration

CLIENT = "127.0.0.2"
"""An address that differs from that of nginx."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A dual-stack service, which sees nginx as `::ffff:127.0.0.1`."""
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder, HOST="::", HTTP__TRUSTED_PROXIES='["127.0.0.1"]')
    yield service
    kill(service)


@pytest.fixture(scope="module")
def client(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the nginx in front of the service."""
    port = int(service.url.rpartition(":")[2])
    with (
        running_nginx(tmp_path_factory.mktemp("nginx"), port) as url,
        httpx.Client(
            base_url=url,
            transport=httpx.HTTPTransport(local_address=CLIENT),
            timeout=DEADLINE_SECONDS,
        ) as client,
    ):
        wait_until(lambda: is_up(client))
        yield client


def is_up(client: httpx.Client) -> bool:
    """Whether nginx serves."""
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def last_line(service: Service, path: str) -> dict[str, object]:
    """The service's log line about the last request for a path."""
    wait_until(lambda: f'"{path}"' in service.text)
    lines = [json.loads(line) for line in service.text.splitlines() if f'"{path}"' in line]
    return dict(lines[-1])


def test_the_client_is_known_by_its_own_address(service: Service, client: httpx.Client) -> None:
    """The header counts because nginx is trusted in either form of its address."""
    assert client.get("/health/startup").status_code == 200

    assert last_line(service, "/health/startup")["client"] == CLIENT


def test_a_client_cannot_claim_another_address_or_path(
    service: Service, client: httpx.Client
) -> None:
    """The proxy replaces the headers that a client sends about both."""
    forged = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Prefix": "/evil"}

    answer = client.get("/problems/not-found/nowhere", headers=forged)

    assert answer.json()["type"] == "/problems/not-found"
    wait_until(lambda: re.search(r'"status":404.*\n', service.text))
    lines = [line for line in service.text.splitlines() if '"status":404' in line]
    assert json.loads(lines[-1])["client"] == CLIENT


def test_below_a_path_links_are_those_that_a_client_sees(client: httpx.Client) -> None:
    """Problems, the OpenAPI document and the redirect to the dashboard have the prefix."""
    missing = client.get("/shop/nowhere")

    assert client.get("/shop/health/live").status_code == 200
    assert missing.json()["type"] == "/shop/problems/not-found"
    assert missing.json()["instance"] == "/shop/nowhere"
    assert client.get(missing.json()["type"]).status_code == 200
    assert "'openapi.json'" in client.get("/shop/docs").text
    assert client.get("/shop/docs/swagger-ui.css").status_code == 200
    assert client.get("/shop/openapi.json").json()["servers"] == [{"url": "/shop"}]
    redirect = client.get("/shop/").next_request
    assert redirect is not None
    assert redirect.url.path == "/shop/dashboard"


def test_many_requests_of_one_client_are_refused_by_the_proxy(client: httpx.Client) -> None:
    """Requests above the client's limit do not reach the service."""
    nginx = (client.base_url.host, client.base_url.port)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(
                socket.create_connection(nginx, DEADLINE_SECONDS, source_address=(CLIENT, 0))
            )
            for _ in range(100)
        ]
        # All at once, because nginx counts the requests of a second, and a service on a busy
        # machine may answer fewer.
        for connection in connections:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        statuses = [int(connection.recv(65_536).split()[1]) for connection in connections]

    assert set(statuses) == {200, 429}


def test_a_body_beyond_the_limit_ends_at_the_proxy(client: httpx.Client) -> None:
    """The proxy refuses it by its declared length before passing anything on."""
    answer = client.post("/api/v1/payments", content=b"x" * 70_000)

    assert answer.status_code in (413, 429)
