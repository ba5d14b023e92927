"""What takes longer than most tests and is therefore done once in a process."""

import gc
import ssl
from collections.abc import Iterator
from typing import Any

import certifi
import pytest


def pytest_collection_finish() -> None:
    """Exempt what collecting has created from garbage collection.

    Many tests collect garbage to prove that something is freed. Visiting the objects of all modules
    and tests would take most of their time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_a_file() -> Iterator[None]:
    """Free what the tests of a file leave in cycles.

    The test kit resets every breaker that exists, before and after each test. Without this there
    would be thousands.
    """
    yield
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _certificates_read_once() -> Iterator[None]:
    """Share one TLS context among HTTP clients; each would parse the same certificates again."""
    create = ssl.create_default_context
    shared = create(cafile=certifi.where())

    def create_or_share(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        if not args and kwargs == {"cafile": certifi.where()}:
            return shared
        return create(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", create_or_share)
        yield
