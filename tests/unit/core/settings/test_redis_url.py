"""How the URL of a Redis or Valkey server is parsed."""

import pytest
from pydantic import TypeAdapter, ValidationError

from example_service.core.settings.redis_url import RedisURL


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss@cache:6379/3",
        "rediss://:secret@cache.internal/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/valkey/valkey.sock",
        "unix://user:secret@/run/valkey.sock?db=2",
        "redis://[::1]:6379",
    ],
)
def test_a_redis_url_may_have_a_password_and_a_database(url: str) -> None:
    """Both are understood for TCP, TLS and Unix sockets, and a line break at the end is ignored."""
    for given in (url, f"{url} \n"):
        assert TypeAdapter(RedisURL).validate_python(given).get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "cache:6379",
        "http://cache",
        "redis://",
        "redis://cache:port",
        "redis://cache:0",
        "redis://cache/first",
        "redis://cache/0#hunter2",
        "redis://:hun ter2@cache",
        "redis://:hunter2@cache?socket_timeout=100",
        "unix://run/valkey.sock",
        "unix://",
        "redis://[::1",
    ],
)
def test_a_redis_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    """The message shows the expected form, but never the password."""
    with pytest.raises(ValidationError) as refusal:
        TypeAdapter(RedisURL).validate_python(url)

    message = refusal.value.errors(include_input=False)[0]["msg"]
    assert "should be redis://" in message or "may only have the options" in message
    assert "hunter2" not in message


def test_a_redis_url_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message contains the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"pip install 'example-service\[redis\]'"):
        TypeAdapter(RedisURL).validate_python("redis://localhost")
