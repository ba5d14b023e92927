"""Fixtures of payment tests with real processes."""

from collections.abc import Iterator

import pytest

from tests.payments.integration.held_provider import HeldProvider


@pytest.fixture
def provider() -> Iterator[HeldProvider]:
    """A provider that holds its response back until the test releases it."""
    with HeldProvider.running() as provider:
        yield provider
