"""Nothing on the dashboard moves when a circuit opens or closes, in a real browser."""

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.page import ALL_CLOSED, TOKEN, verdict
from tests.service_process import Service, kill

pytestmark = pytest.mark.integration

MAX_SHIFT = 0.01
WINDOWS = {
    "light": (1440, 900),
    "dark": (1280, 720),
    "tablet": (900, 900),
    "phone": (390, 844),
    "small phone": (320, 640),
}

# The score of the Layout Instability API, without the exception for what a click has caused.
COUNT_SHIFTS = """
    window.shift = 0;
    window.moved = [];
    new PerformanceObserver((list) => {
      for (const {value, sources} of list.getEntries()) {
        window.shift += value;
        window.moved.push(value, ...sources.map(({node}) => node?.id || node?.className));
      }
    }).observe({type: "layout-shift", buffered: true});
"""

# Draws as late as a busy browser, so that the page is shown in parts unless it waits for them.
LATE_FRAMES = """
    const nextFrame = requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (draw) => setTimeout(() => nextFrame(draw), 200);
"""


@pytest.fixture
def pages(service: Service, browser: Browser) -> dict[str, Page]:
    """The dashboard in windows of several sizes and in both themes."""
    return {name: opened(browser, service, name) for name in WINDOWS}


def opened(browser: Browser, service: Service, name: str) -> Page:
    """A page that counts its layout shifts from the beginning."""
    width, height = WINDOWS[name]
    page = browser.new_page(
        base_url=service.url,
        viewport={"width": width, "height": height},
        color_scheme="dark" if name == "dark" else "light",
    )
    page.add_init_script(COUNT_SHIFTS)
    if name in {"tablet", "phone"}:
        page.add_init_script(LATE_FRAMES)
    page.goto("/dashboard")
    expect(page.locator("#modes label").first).to_be_visible()
    return page


def order(service: Service, action: str) -> None:
    """Give an order for the circuit of the database."""
    url = f"{service.url}/admin/circuit-breakers/database/{action}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    httpx.post(url, json={"reason": "maintenance"}, headers=headers).raise_for_status()


def test_nothing_moves_when_circuits_open_and_close(
    service: Service, pages: dict[str, Page]
) -> None:
    """Neither at the first sight of the page, nor when a mode is set or the connection is lost."""

    def show(text: str) -> None:
        for page in pages.values():
            expect(verdict(page)).to_have_text(text, timeout=30_000)

    show(ALL_CLOSED)
    httpx.put(f"{service.url}/sandbox/mode", json={"mode": "failing"}).raise_for_status()
    pages["light"].get_by_role("button", name="Start").click()
    show("payment is open")
    order(service, "force-open")
    show("payment is open")
    httpx.put(f"{service.url}/sandbox/mode", json={"mode": "healthy"}).raise_for_status()
    show("database is forced open")
    order(service, "shadow")
    show("No circuit refuses calls")
    order(service, "reset")
    show(ALL_CLOSED)
    kill(service)
    for page in pages.values():
        expect(page.get_by_text("No answer since")).to_be_visible(timeout=30_000)

    shifts = {name: page.evaluate("window.shift") for name, page in pages.items()}
    moved = {name: page.evaluate("window.moved") for name, page in pages.items()}
    assert max(shifts.values()) < MAX_SHIFT, (shifts, moved)
