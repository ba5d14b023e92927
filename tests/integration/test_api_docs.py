"""The API documentation pages in a real browser without internet access."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser import chromium, without_complaints
from tests.service_process import DEADLINE_SECONDS, Service, kill

pytestmark = pytest.mark.integration
expect.set_options(timeout=1000 * DEADLINE_SECONDS)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service as a process."""
    service = Service(tmp_path)
    yield service
    kill(service)


@pytest.fixture
def page(service: Service) -> Iterator[Page]:
    """A browser page that may load files from the service only."""
    elsewhere: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((service.url, "data:", f"blob:{service.url}")):
            elsewhere.append(request.url)

    with chromium() as browser:
        page = browser.new_page(base_url=service.url)
        page.on("request", note)
        with without_complaints(page):
            yield page
    assert elsewhere == []


def test_an_operation_is_tried_on_the_docs_page(page: Page) -> None:
    """Swagger UI loads from the service itself and calls it under a strict policy."""
    page.goto("/docs")
    page.get_by_role("button", name="/health/live").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()

    expect(page.locator(".live-responses-table")).to_contain_text('"status": "alive"')


def test_the_api_is_read_on_the_redoc_page(page: Page) -> None:
    """ReDoc loads from the service itself, including its logo."""
    page.goto("/redoc")

    expect(page.get_by_role("heading", name="Example service (")).to_be_visible()
    logo = page.get_by_alt_text("redocly logo")
    expect(logo).to_be_visible()
    assert logo.evaluate("image => image.naturalWidth") > 0
