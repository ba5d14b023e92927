"""The headers that restrict browsers and caches."""

from example_service.api.request.protection import protection_for


def names_and_policy(*headers: tuple[bytes, bytes]) -> tuple[list[bytes], bytes]:
    """The names of the final headers of a response, and its single policy."""
    complete = [*headers, *protection_for(headers)]
    (policy,) = [value for name, value in complete if name == b"content-security-policy"]
    return sorted(name for name, _ in complete), policy


def test_data_may_do_nothing() -> None:
    """A data response may not load or run anything, and may not be framed."""
    names, policy = names_and_policy((b"content-type", b"application/json"))

    assert names == [
        b"cache-control",
        b"content-security-policy",
        b"content-type",
        b"x-content-type-options",
    ]
    assert b"default-src 'none'" in policy
    assert b"frame-ancestors 'none'" in policy


def test_a_page_may_load_what_it_needs() -> None:
    """A page with its own policy keeps it, and no page may be framed."""
    _, policy = names_and_policy((b"content-type", b"text/html; charset=utf-8"))

    assert b"default-src" not in policy
    assert b"frame-ancestors 'none'" in policy


def test_a_response_keeps_its_own_headers() -> None:
    """Each header appears once."""
    names, policy = names_and_policy(
        (b"content-security-policy", b"default-src 'self'"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-type", b"text/html"),
        (b"cache-control", b"max-age=60"),
    )

    assert names == [
        b"cache-control",
        b"content-security-policy",
        b"content-type",
        b"x-content-type-options",
    ]
    assert policy == b"default-src 'self'"
