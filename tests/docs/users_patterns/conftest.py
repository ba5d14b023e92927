"""The clock and the fake network of these tests."""

from collections.abc import Iterator

import pytest
import respx

from example_service.infra.resilience.testing import FakeClock
from tests.docs.users_patterns.outage import WAREHOUSE


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the breakers under test."""
    return FakeClock()


@pytest.fixture
def warehouse() -> Iterator[respx.MockRouter]:
    """A network that has only the warehouse."""
    with respx.mock(base_url=WAREHOUSE, assert_all_called=False) as router:
        yield router
