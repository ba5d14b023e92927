"""What the server itself answers, before a request reaches the application."""

import pytest

from example_service.api.problems.catalogue import find_problem_type
from example_service.server import refusals
from example_service.server.refusals import Refusal
from tests.unit.server.connection import CHUNKED, PROXY, Connection

REFUSALS = [value for value in vars(refusals).values() if isinstance(value, Refusal)]
PREFIX = b"X-Forwarded-Prefix: /shop\r\n"
LONG = b"x: " + b"y" * (refusals.MAX_HEAD_BYTES + 1024) + b"\r\n"


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.type.slug)
def test_each_refusal_has_a_type_that_the_service_explains(refusal: Refusal) -> None:
    """The link in a refusal leads to the page with the same title and status."""
    assert find_problem_type(refusal.type.slug) == refusal.type


@pytest.mark.parametrize(
    ("request_head", "slug"),
    [
        (b"GET / HTTP/1.1\r\n" + PREFIX + b"\r\n", "invalid-host"),
        (b"FOO / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 600 + b"\r\n" + PREFIX + b"\r\n", "http-501"),
        (b"GET / HTTP/3.0\r\nHost: a\r\n" + PREFIX + b"\r\n", "http-505"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + PREFIX + LONG + b"\r\n", "http-431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + PREFIX + b"a b: c\r\n\r\n", "http-400"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\n" + PREFIX + b"Content-Length: 1" + b"0" * 30,
            "body-too-large",
        ),
        (CHUNKED.replace(b"\r\n\r\n", b"\r\n" + PREFIX + b"\r\n") + b"x\r\n", "http-400"),
    ],
)
@pytest.mark.parametrize(
    ("client", "root_path", "expected"),
    [
        (PROXY, "", "/shop"),
        (f"::ffff:{PROXY}", "/other", "/shop"),
        ("192.0.2.1", "", ""),
        ("192.0.2.1", "/other", "/other"),
    ],
)
async def test_the_link_of_a_refusal_has_the_path_prefix(
    request_head: bytes, slug: str, client: str, root_path: str, expected: str
) -> None:
    """The prefix is that of a trusted proxy, or else the setting; others cannot choose it."""
    connection = Connection(client=client, root_path=root_path)

    await connection.send(request_head)

    assert connection.problem["type"] == f"{expected}/problems/{slug}"


async def test_a_refused_connection_has_the_path_prefix() -> None:
    """There is no request yet, so only the setting is known."""
    full = Connection(root_path="/shop", max_connections=0)

    assert full.problem["type"] == "/shop/problems/overloaded"


async def test_a_request_for_the_server_reaches_the_application() -> None:
    """`OPTIONS *` is the only request without a path."""
    connection = Connection()

    await connection.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")

    assert [scope["path"] for scope in connection.scopes] == ["*"]


@pytest.mark.parametrize("line", [b"GET *", b"OPTIONS *a", b"POST *"])
async def test_a_star_is_no_path(line: bytes) -> None:
    """Any other request for it is refused (RFC 9112, section 3.2.4)."""
    connection = Connection()

    await connection.send(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    assert connection.problem["status"] == 400
    assert not connection.scopes
