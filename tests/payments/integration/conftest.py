"""What the tests of payments with real processes share."""

from collections.abc import Iterator

import pytest

from tests.payments.integration.held_provider import HeldProvider


@pytest.fixture
def provider() -> Iterator[HeldProvider]:
    """A provider that holds its answer back until the test lets it go."""
    with HeldProvider.running() as provider:
        yield provider
