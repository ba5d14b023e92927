"""Arguments that a transport refuses."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
)
from tests.unit.infra.resilience_integrations.httpx.upstream import ORIGIN, URL, Recording


@pytest.mark.parametrize(
    ("parameters", "error", "names"),
    [
        ({"key": "origin"}, TypeError, "key"),
        ({"max_breakers": 0}, ValueError, "max_breakers"),
        ({"max_breakers": True}, TypeError, "max_breakers"),
        ({"max_retry_after_seconds": 0}, ValueError, "max_retry_after_seconds"),
        ({"max_retry_after_seconds": "7"}, TypeError, "max_retry_after_seconds"),
        ({"failure_threshold": 0}, ValueError, "failure_threshold"),
        ({"threshold": 5}, TypeError, "threshold"),
        ({"listeners": [object()]}, TypeError, "listeners"),
        ({"backoff": 2.0, "max_retry_after_seconds": 1.0}, TypeError, "backoff"),
        ({"name": "rates"}, TypeError, "name"),
    ],
)
def test_bad_values_are_refused_at_once(
    make: Callable[..., CircuitBreakerTransport],
    registry: CircuitBreakerRegistry,
    parameters: dict[str, Any],
    error: type[Exception],
    names: str,
) -> None:
    """A mistake is reported at the constructor, not at the first request; no breaker remains."""
    with pytest.raises(error, match=names):
        make(**parameters)

    assert len(registry) == 0


class Watching(CircuitBreakerRegistry):
    """A registry that records the names of all breakers it ever had."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def add(self, breaker: CircuitBreaker) -> None:
        """Record the name."""
        self.names.append(breaker.name)
        super().add(breaker)


def test_nothing_is_registered_before_the_first_request(
    make: Callable[..., CircuitBreakerTransport],
) -> None:
    """Checking the parameters has no visible effect, and they are passed on unchanged."""
    watching, backoff = Watching(), Backoff(multiplier=3.0)

    transport = make(registry=watching, backoff=backoff)

    assert watching.names == []
    assert transport.breaker_for(httpx.Request("GET", URL)).backoff is backoff
    assert watching.names == [ORIGIN]


@pytest.mark.parametrize("given", [None, httpx.Client, "https://api.test"])
def test_only_transports_are_wrapped(given: Any) -> None:
    """A client or None is refused."""
    with pytest.raises(TypeError, match="transport"):
        CircuitBreakerTransport(given)


def test_default_registry_sees_the_breakers() -> None:
    """By default, the breakers appear in the registry of all breakers."""
    from example_service.infra.resilience import circuit_breaker_registry  # noqa: PLC0415

    transport = CircuitBreakerTransport(Recording())
    httpx.Client(transport=transport).get("https://seen.test/")

    assert "https://seen.test" in circuit_breaker_registry
    del transport
    assert "https://seen.test" not in circuit_breaker_registry
