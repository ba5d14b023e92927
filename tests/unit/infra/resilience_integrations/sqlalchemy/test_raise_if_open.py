"""Checking whether a call would be admitted."""

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitOpenError,
)
from example_service.infra.resilience.sqlalchemy import (
    raise_if_open,
)
from example_service.infra.resilience.testing import FakeClock


def test_an_open_circuit_is_noticed_without_taking_a_permit(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    """An admission counts nothing and uses no probe; a refusal counts as one."""
    raise_if_open(breaker)
    breaker.force_open("a test", seconds=10.0)
    with pytest.raises(CircuitOpenError):
        raise_if_open(breaker)
    clock.advance(10.0)
    for _ in range(10):
        raise_if_open(breaker)

    assert breaker.is_half_open
    assert (breaker.in_flight, breaker.total_rejections, breaker.total_successes) == (0, 1, 0)
