"""What holds for every test of the pages."""

from collections.abc import Iterator

import pytest

from example_service.infra.resilience import circuit_breaker_registry

# So that a page that tells no longer what is true fails with both texts side by side.
pytest.register_assert_rewrite("tests.docs.walk")


@pytest.fixture(autouse=True)
def _no_breakers_left_behind() -> Iterator[None]:
    """Take the breakers that an example made out of the registry, for others look at it, too."""
    names = {breaker.name for breaker in circuit_breaker_registry}
    yield
    for name in {breaker.name for breaker in circuit_breaker_registry} - names:
        circuit_breaker_registry.unregister(name)
