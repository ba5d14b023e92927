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


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        (["/shop", "/eu"], "/shop/eu"),
        (["/shop,/eu"], "/shop/eu"),
        (["/shop/ ,\t/eu/"], "/shop/eu"),
        (["/shop", "", "/,/eu"], "/shop/eu"),
        (["/shop", "eu"], ""),
        (["/shop, //evil.test"], ""),
        (["/..", "/eu"], ""),
        (["/" + "x" * 200, "/" + "y" * 200], ""),
    ],
)
async def test_prefixes_of_several_proxies_are_joined(given: list[str], prefix: str) -> None:
    """Each proxy has removed one; the first is that of the proxy in front of the others."""
    scope = await seen(*(("x-forwarded-prefix", value) for value in given))

    assert scope.get("root_path", "") == prefix
    assert scope["path"] == f"{prefix}/api/v1"


@pytest.mark.parametrize(
    ("given", "scheme"),
    [
        (["https"], "https"),
        (["HTTPS"], "https"),
        ([" https\t"], "https"),
        (["https, http"], "https"),
        (["https", "http"], "https"),
        (["", "https"], "https"),
        (["wss"], "https"),
        (["ws"], "http"),
        (["http,https"], "http"),
        ([""], "http"),
        (["ftp"], "http"),
        (["javascript, https"], "http"),
    ],
)
async def test_the_first_proxy_names_the_scheme(given: list[str], scheme: str) -> None:
    """It is the one that the client has connected to."""
    scope = await seen(*(("x-forwarded-proto", value) for value in given))

    assert scope["scheme"] == scheme


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("192.0.2.9:443", "192.0.2.9"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[::ffff:192.0.2.9]", "192.0.2.9"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.9,", "192.0.2.9"),
        ("192.0.2.9, , 10.9.9.9", "192.0.2.9"),
        ("unknown", PROXY),
        ("dashboard", PROXY),
        ("<script>", PROXY),
        ("[2001:db8::7", PROXY),
        ("999.1.1.1", PROXY),
        ("a" * 3000, PROXY),
        ("", PROXY),
        ("192.0.2.9, unknown", PROXY),
        ("192.0.2.9, unknown, 10.9.9.9", "10.9.9.9"),
        ("unknown, 192.0.2.9", "192.0.2.9"),
        ("10.9.9.9, 10.9.9.8", "10.9.9.9"),
    ],
)
async def test_only_an_address_becomes_the_client(given: str, address: str) -> None:
    """Otherwise the client is the last one in the chain whose address is known."""
    scope = await seen(("x-forwarded-for", given))

    assert scope["client"][0] == address


async def test_a_chain_has_at_most_32_proxies() -> None:
    """Following thousands of addresses would block the event loop."""
    chain = [f"10.0.0.{number}" for number in range(1, 33)]

    complete = await seen(("x-forwarded-for", ", ".join(["192.0.2.9", *chain])))
    too_long = await seen(("x-forwarded-for", ", ".join(["192.0.2.9", "10.1.1.1", *chain])))
    prefixes = await seen(("x-forwarded-prefix", ",".join(["/a"] * 34)))

    assert complete["client"][0] == "192.0.2.9"
    assert too_long["client"][0] == chain[0]
    assert prefixes["path"] == "/api/v1"


async def test_several_headers_about_the_client_are_one_list() -> None:
    """Some proxies add a header of their own instead of a value."""
    scope = await seen(("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "10.9.9.9"))

    assert scope["client"][0] == "192.0.2.9"


async def test_a_star_trusts_every_peer_beside_other_values() -> None:
    """The first address in the list is that of the client."""
    scope = await seen(
        ("x-forwarded-for", "192.0.2.9, 198.51.100.1"),
        peer="203.0.113.5",
        trusted=("10.0.0.0/8", "*"),
    )

    assert scope["client"][0] == "192.0.2.9"
