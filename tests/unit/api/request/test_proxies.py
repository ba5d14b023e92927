"""Which headers of proxies are trusted."""

from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from example_service.api.request.proxies import ProxiesMiddleware

PROXY = "10.1.2.3"


async def seen(
    *headers: tuple[str, str],
    peer: str | None = PROXY,
    trusted: tuple[str, ...] = ("10.0.0.0/8",),
    root_path: str = "",
) -> dict[str, Any]:
    """The scope of a request, as the application sees it."""
    scopes: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        scopes.append(scope)

    async def receive() -> Message:
        return {}

    async def send(_: Message) -> None:
        pass

    scope: Scope = {
        "type": "http",
        "scheme": "http",
        "client": None if peer is None else (peer, 1),
        "path": "/api/v1",
        "raw_path": b"/api/v1",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    await ProxiesMiddleware(app, trusted=trusted, root_path=root_path)(scope, receive, send)
    (result,) = scopes
    return dict(result)


@pytest.mark.parametrize("peer", [PROXY, f"::ffff:{PROXY}", f"::FFFF:{PROXY}", "::ffff:a01:203"])
async def test_a_trusted_proxy_names_the_client(peer: str) -> None:
    """This includes a proxy whose address the socket reports as IPv6."""
    scope = await seen(("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https"), peer=peer)

    assert (scope["client"][0], scope["scheme"]) == ("192.0.2.9", "https")


@pytest.mark.parametrize("peer", ["192.0.2.1", "::ffff:192.0.2.1", None])
async def test_any_other_peer_is_not_trusted(peer: str | None) -> None:
    """Its headers are ignored, and an IPv4 peer has an IPv4 address."""
    scope = await seen(("x-forwarded-for", "192.0.2.9"), ("x-forwarded-prefix", "/shop"), peer=peer)

    assert scope["client"] is None or scope["client"][0] == "192.0.2.1"
    assert scope["path"] == "/api/v1"
    assert not scope.get("root_path")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("0:0:0:0:0:ffff:c000:209", "192.0.2.9"),
        ("2001:DB8:0::7", "2001:db8::7"),
    ],
)
async def test_a_client_behind_the_proxy_has_one_address(given: str, address: str) -> None:
    """The proxy may have a dual-stack socket, which reports mapped addresses."""
    scope = await seen(("x-forwarded-for", given))

    assert scope["client"][0] == address


@pytest.mark.parametrize("inner", ["10.9.9.9", "::ffff:10.9.9.9", "0:0:0:0:0:FFFF:a09:909"])
async def test_a_chain_of_trusted_proxies_is_followed_to_the_client(inner: str) -> None:
    """Each of them may report the address of the one before it as IPv6."""
    scope = await seen(("x-forwarded-for", f"192.0.2.9, {inner}"))

    assert scope["client"][0] == "192.0.2.9"


@pytest.mark.parametrize(
    ("given", "root_path", "prefix"),
    [
        ("/shop", "", "/shop"),
        ("/shop/", "", "/shop"),
        ("/api", "", "/api"),
        ("/a/b-c_d.e~f", "", "/a/b-c_d.e~f"),
        ("/shop", "/other", "/shop"),
        (None, "/other", "/other"),
        ("", "/other", "/other"),
        ("/", "", ""),
        ("shop", "", ""),
        ("//evil.test", "", ""),
        ("/../admin", "", ""),
        ("/a b", "", ""),
        ("https://evil.test", "", ""),
        ("/a?b", "", ""),
        ("/" + "x" * 300, "", ""),
    ],
)
async def test_a_prefix_is_part_of_the_path(given: str | None, root_path: str, prefix: str) -> None:
    """The proxy has removed it; a value that is not a plain path is ignored."""
    headers = [] if given is None else [("x-forwarded-prefix", given)]

    scope = await seen(*headers, root_path=root_path)

    assert scope.get("root_path", "") == prefix
    assert scope["path"] == f"{prefix}/api/v1"
    assert scope["raw_path"] == scope["path"].encode()


async def test_two_prefixes_count_as_none() -> None:
    """It is unknown which of them is right."""
    scope = await seen(("x-forwarded-prefix", "/a"), ("x-forwarded-prefix", "/b"))

    assert scope["path"] == "/api/v1"
