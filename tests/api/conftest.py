"""Every test here has an application of its own."""

import pytest


@pytest.fixture(autouse=True)
def _own_breakers(no_breakers_of_other_tests: None) -> None:
    """Let no application meet the breakers of another one."""
