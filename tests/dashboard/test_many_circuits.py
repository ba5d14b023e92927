"""The dashboard with five hundred circuits, while their counts and countdowns change."""

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.browser import without_complaints

pytestmark = pytest.mark.integration

MAX_SHIFT = 0.01


def processor_seconds(session: CDPSession) -> float:
    """The CPU time of the page's main thread, which a busy machine does not change."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def shift_while_idle(page: Page) -> float:
    """The layout shift of two seconds, after the last change of the page is drawn."""
    page.evaluate("new Promise((done) => requestIdleCallback(() => requestIdleCallback(done)))")
    page.evaluate("window.shift = 0")
    page.wait_for_timeout(2000)
    return float(page.evaluate("window.shift"))


def test_five_hundred_circuits_are_searched_smoothly(many: str, browser: Browser) -> None:
    """Circuits that are not closed come first, typing is fast, and nothing jumps."""
    page = browser.new_page(base_url=many, viewport={"width": 1440, "height": 900})
    page.add_init_script(
        """
        window.shift = 0;
        new PerformanceObserver((list) => {
          for (const {value} of list.getEntries()) window.shift += value;
        }).observe({type: "layout-shift"});
        """
    )
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    with without_complaints(page):
        page.goto("/dashboard")
        expect(page.locator(".circuit")).to_have_count(500)
        expect(page.locator(".circuit h3").first).to_have_text("payment")
        expect(page.locator(".rail")).to_contain_text("closed")
        assert shift_while_idle(page) < MAX_SHIFT

        page.keyboard.press("/")
        drawn = processor_seconds(session)
        page.keyboard.type("service-48", delay=50)
        expect(page.locator(".circuit:visible")).to_have_count(10)
        # Drawing everything again for each key would take ten times as long as drawing it once.
        assert processor_seconds(session) - drawn < 2 * drawn
        page.get_by_role("searchbox").fill("")
        page.locator("#filter").get_by_text("Not closed").click(force=True)
        expect(page.locator(".circuit:visible")).to_have_count(5)
        assert shift_while_idle(page) < MAX_SHIFT
        page.get_by_role("searchbox").fill("nowhere")
        expect(page.get_by_text("No circuit here has “nowhere” in its name.")).to_be_visible()
    page.close()


def test_reduced_motion_stands_still(many: str, browser: Browser) -> None:
    """Nothing is animated if the user prefers reduced motion."""
    page = browser.new_page(base_url=many, reduced_motion="reduce")
    page.goto("/dashboard")
    expect(page.locator("#link")).to_have_text("Live")

    assert page.evaluate("document.getAnimations().length") == 0
    page.close()


def test_the_live_region_does_not_chatter(many: str, browser: Browser) -> None:
    """Countdowns and counts change every second and are not announced."""
    page = browser.new_page(base_url=many)
    page.goto("/dashboard")
    expect(page.locator(".big").first).to_be_visible()
    page.evaluate(
        """
        () => {
          window.announced = 0;
          const watch = new MutationObserver((changes) => { window.announced += changes.length });
          for (const node of document.querySelectorAll("[role=status], [role=alert]")) {
            watch.observe(node, {childList: true, characterData: true, subtree: true});
          }
        }
        """
    )
    before = page.locator(".big").first.inner_text()
    expect(page.locator(".big").first).not_to_have_text(before)
    page.wait_for_timeout(2500)

    assert page.evaluate("window.announced") == 0
    page.close()


def test_a_selection_stays(many: str, browser: Browser) -> None:
    """A reason can be copied while the countdown beside it goes on."""
    page = browser.new_page(base_url=many)
    page.goto("/dashboard")
    countdown = page.locator(".big").first
    expect(countdown).to_be_visible()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.circuit.open .why'))")
    before = countdown.inner_text()
    page.wait_for_timeout(2500)
    assert countdown.inner_text() == before
    assert page.evaluate("String(getSelection())") != ""

    page.evaluate("getSelection().removeAllRanges()")
    expect(countdown).not_to_have_text(before)
    page.close()
