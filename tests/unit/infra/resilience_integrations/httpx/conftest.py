"""The httpx transport in front of a fake upstream."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from example_service.infra.resilience import CircuitBreakerRegistry
from example_service.infra.resilience.httpx import CircuitBreakerTransport
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience_integrations.httpx.upstream import WAYS, Upstream, Way


@pytest.fixture
def upstream() -> Upstream:
    """The fake upstream."""
    return Upstream()


@pytest.fixture
def make(
    upstream: Upstream, registry: CircuitBreakerRegistry, clock: FakeClock
) -> Callable[..., CircuitBreakerTransport]:
    """Creates a transport for `upstream` whose breakers open with the second failure."""

    def make(transport: Any = None, **parameters: Any) -> CircuitBreakerTransport:
        wrapped = transport or httpx.MockTransport(upstream)
        chosen = {
            "failure_threshold": 2,
            "success_threshold": 1,
            "registry": registry,
            "clock": clock,
        }
        return CircuitBreakerTransport(wrapped, **{**chosen, **parameters})

    return make


@pytest.fixture
def transport(make: Callable[..., CircuitBreakerTransport]) -> CircuitBreakerTransport:
    """A transport with the default rules."""
    return make()


@pytest.fixture(params=WAYS)
def way_of(request: pytest.FixtureRequest) -> Callable[[CircuitBreakerTransport], Way]:
    """Creates a client of one kind."""
    return WAYS[request.param]


@pytest.fixture
def way(
    way_of: Callable[[CircuitBreakerTransport], Way], transport: CircuitBreakerTransport
) -> Way:
    """A client of one kind."""
    return way_of(transport)
