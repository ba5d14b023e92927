"""The clock and the network of these tests."""

from collections.abc import Iterator

import pytest
import respx

from example_service.infra.resilience.testing import FakeClock
from tests.docs.users_patterns.outage import WAREHOUSE


@pytest.fixture
def clock() -> FakeClock:
    """The time that breakers under test go by."""
    return FakeClock()


@pytest.fixture
def warehouse() -> Iterator[respx.MockRouter]:
    """A network in which only the warehouse can be reached."""
    with respx.mock(base_url=WAREHOUSE, assert_all_called=False) as router:
        yield router
