"""The dashboard of several workers, in a real browser."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.page import ALL_CLOSED, circuit, switch, verdict
from tests.service_process import Service, kill, wait_until

pytestmark = pytest.mark.integration

WORKERS = 3
START_SECONDS = 90.0
"""Time for three processes to start on a machine that runs other tests."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of three workers, whose payment circuit waits one second."""
    service = Service(
        tmp_path, WORKERS=str(WORKERS), CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT="1"
    )
    try:
        wait_until(lambda: '"event":"Serving"' in service.text, START_SECONDS)
        yield service
    finally:
        kill(service)


@pytest.fixture
def page(service: Service, browser: Browser) -> Page:
    """A page served by one of the workers."""
    return browser.new_page(base_url=service.url)


def test_three_workers_are_one_circuit_on_the_page(page: Page, service: Service) -> None:
    """A click opens it, a command heals it, and it survives a replaced worker."""
    headline = verdict(page)
    page.goto("/dashboard")
    expect(page.locator("header")).to_contain_text("3 workers")
    expect(headline).to_have_text(ALL_CLOSED)

    switch(page, "failing")
    expect(headline).to_have_text("payment is open")
    # Each worker counts the refusals of its own traffic; the page shows their sum.
    expect(page.locator(".sums")).to_contain_text(re.compile(r"[1-9]\d*"))
    changed = page.locator("#timeline").get_by_text(re.compile(r"closed → open in worker \d+"))
    expect(changed.first).to_be_visible()
    expect(circuit(page, "payment")).to_contain_text(re.compile(r"Opened for all by\s*\S+-\d+"))

    # One worker sends all the traffic, and it may be the one that is killed.
    traffic = page.locator("#traffic")
    traffic.click()
    expect(traffic).to_have_text("Start")
    os.kill(service.workers()[0], signal.SIGKILL)
    wait_until(lambda: len(service.workers()) == WORKERS + 1)
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.locator("header")).to_contain_text("3 workers")

    httpx.put(f"{service.url}/sandbox/mode", json={"mode": "healthy"}).raise_for_status()
    traffic.click()
    expect(headline).to_have_text(ALL_CLOSED)
    expect(page.get_by_role("radio", name="healthy")).to_be_checked()
