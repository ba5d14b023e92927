"""Slow work that is done only once per process."""

import gc
import ssl
from collections.abc import Iterator
from typing import Any

import certifi
import pytest


def pytest_collection_finish() -> None:
    """Exempt the objects created during collection from garbage collection.

    Many tests collect garbage to prove that an object is freed. Visiting the objects of all modules
    and tests would take most of their time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_a_file() -> Iterator[None]:
    """Free the reference cycles that the tests of a file leave behind.

    The test kit resets all existing breakers before and after each test, and without this there
    would be thousands of them. What remains stays, and the next collection need not visit it.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _certificates_read_once() -> Iterator[None]:
    """Share one TLS context among HTTP clients, so the certificates are parsed only once."""
    create = ssl.create_default_context
    shared = create(cafile=certifi.where())

    def create_or_share(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        if not args and kwargs == {"cafile": certifi.where()}:
            return shared
        return create(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", create_or_share)
        yield
