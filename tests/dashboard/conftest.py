"""Fixtures of the dashboard's tests: real services and scenes, and a real Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium, without_complaints
from tests.dashboard.page import TOKEN
from tests.dashboard.playing import playing
from tests.service_process import DEADLINE_SECONDS, Service, kill

expect.set_options(timeout=1000 * DEADLINE_SECONDS)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service as a process with its sandbox, short waits and administration."""
    service = Service(
        tmp_path,
        CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT="1",
        ADMIN__TOKEN=TOKEN,
        LOG__FORMAT="console",
    )
    yield service
    kill(service)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser, started after the service because its event loop would block that setup."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(service: Service, browser: Browser) -> Iterator[Page]:
    """A page of the service; any error in the browser's console fails the test."""
    page = browser.new_page(base_url=service.url)
    with without_complaints(page) as complaints:
        yield page
        # A wrong token; the page reports it itself.
        complaints[:] = [line for line in complaints if "status of 401" not in line]
    page.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a service with five hundred circuits, some of them not closed."""
    with playing("many", tmp_path_factory.mktemp("many")) as url:
        yield url


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a service with a circuit in every state."""
    with playing("outage", tmp_path_factory.mktemp("states")) as url:
        yield url
