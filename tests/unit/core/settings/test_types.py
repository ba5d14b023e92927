"""Types of settings whose rules go beyond a range."""

import pytest
from pydantic import TypeAdapter, ValidationError

from example_service.core.settings.types import (
    HTTPURL,
    HeaderToken,
    HostPatterns,
    Origins,
    OwnAddress,
    ProxyAddresses,
)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://api.example.com/", "https://api.example.com"),
        ("http://127.0.0.1:8080/v2/", "http://127.0.0.1:8080/v2"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_a_url_never_ends_in_a_slash(given: str, read: str) -> None:
    """Paths can be appended to the parsed URL."""
    assert TypeAdapter(HTTPURL).validate_python(given) == read


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://host:port",
        "https://host:hunter2",
        "https://host:99999",
        "https://[::1",
        "https://user:hunter2@host",
        "https://token@host",
        "https://host?key=hunter2",
        "https://host#part",
        "https://host/a b",
        "https://host/\n",
        "https://höst",
        "https://loc%61lhost",
        "https://127.0.0.1%00.example.com",
        "https://127.0.0.1\\.example.com",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    """The message does not contain credentials from the URL."""
    with pytest.raises(ValidationError) as refusal:
        TypeAdapter(HTTPURL).validate_python(url)

    message = refusal.value.errors(include_input=False)[0]["msg"]
    assert "should be a URL" in message or "must not contain" in message
    assert "hunter2" not in message


def test_origins_are_lower_case_and_have_no_path() -> None:
    """They match the `Origin` header of browsers, which omits the default port."""
    origins = TypeAdapter(Origins)

    assert origins.validate_python("https://App.example.com:8443,*") == [
        "https://app.example.com:8443",
        "*",
    ]
    assert origins.validate_python(
        "https://a.b:443,http://a.b:80,http://a.b:443,http://[::1]:80"
    ) == [
        "https://a.b",
        "http://a.b",
        "http://a.b:443",
        "http://[::1]",
    ]
    for wrong in ("https://app.example.com/", "https://app.example.com/shop", "app.example.com"):
        with pytest.raises(ValidationError):
            origins.validate_python(wrong)


def test_hosts_are_names_without_scheme_and_port() -> None:
    """They are compared with the `Host` header without its port."""
    hosts = TypeAdapter(HostPatterns)

    assert hosts.validate_python(["API.example.com", "*.example.com", "127.0.0.1", "*"]) == [
        "api.example.com",
        "*.example.com",
        "127.0.0.1",
        "*",
    ]
    for wrong in (
        "https://a.example",
        "a.example:80",
        "a.*.example",
        "*a.example",
        "a b",
        "",
        "münchen.de",
    ):
        with pytest.raises(ValidationError):
            hosts.validate_python([wrong])


@pytest.mark.parametrize(
    ("given", "read"),
    [("::1", "::1"), ("::ffff:127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("0", "0")],
)
def test_the_address_to_listen_on_is_an_address_or_a_name(given: str, read: str) -> None:
    """A mapped address is listened on as the IPv4 address that it stands for."""
    assert TypeAdapter(OwnAddress).validate_python(given) == read


@pytest.mark.parametrize(
    "given", ["", "[::1]", "127.0.0.1:80", "http://127.0.0.1", "unix:/run/a.sock", "*", "a b", "é"]
)
def test_an_address_to_listen_on_has_no_port_scheme_or_brackets(given: str) -> None:
    """The error says so, and does not come from the resolver."""
    with pytest.raises(ValidationError, match="should be an IP address or a host name"):
        TypeAdapter(OwnAddress).validate_python(given)


def test_proxies_are_addresses_or_networks() -> None:
    """A host name cannot be compared with the address of a peer."""
    proxies = TypeAdapter(ProxyAddresses)

    assert proxies.validate_python("10.0.0.0/8, 192.168.0.1, *") == [
        "10.0.0.0/8",
        "192.168.0.1/32",
        "*",
    ]
    for wrong in ("proxy.example.com", "10.0.0.1/8", "10.0.0.0/99"):
        with pytest.raises(ValidationError):
            proxies.validate_python(wrong)


def test_a_list_in_brackets_must_be_json() -> None:
    """An opening bracket starts a JSON array."""
    with pytest.raises(ValidationError, match="JSON array"):
        TypeAdapter(Origins).validate_python('["https://a.example"')


@pytest.mark.parametrize(
    "token", ["short", "has a space in it", "tab\tis-no-visible-one", "ü" * 16]
)
def test_a_token_fits_into_a_header(token: str) -> None:
    """Short tokens and characters that a header cannot carry are refused."""
    with pytest.raises(ValidationError):
        TypeAdapter(HeaderToken).validate_python(token)


def test_a_long_token_of_visible_characters_is_accepted() -> None:
    """Sixteen characters are enough, and a line break at the end is ignored."""
    for given in ("0123456789-ABC~!", "0123456789-ABC~!\n"):
        token = TypeAdapter(HeaderToken).validate_python(given)

        assert token.get_secret_value() == "0123456789-ABC~!"
