"""A real Chromium without internet access, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.real_parts import HOW_TO_INSTALL, missing

# The first option is required for root in a container.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser, and end it after the block."""
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=ARGUMENTS
            )
        except Error:
            missing(f"Chromium is missing: {HOW_TO_INSTALL['chromium']}")
        yield browser
        browser.close()


@contextmanager
def without_complaints(page: Page) -> Iterator[list[str]]:
    """Fail the test if the page reports an error, or the browser blocks something in it.

    Yields:
        The errors so far; a test that expects some removes them.
    """
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    yield complaints
    assert complaints == []
