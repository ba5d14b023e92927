"""Each test here has its own application."""

import pytest


@pytest.fixture(autouse=True)
def _own_breakers(no_breakers_of_other_tests: None) -> None:
    """Keep the breakers of one application out of the next."""
