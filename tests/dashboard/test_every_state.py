"""The dashboard with a circuit in every state."""

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.page import circuit, findings

pytestmark = pytest.mark.integration


def test_a_failure_rate_has_a_threshold_only_while_the_rule_counts(
    states: str, browser: Browser
) -> None:
    """It is that of the rule then, with that of the last minute below it."""
    page = browser.new_page(base_url=states, timezone_id="UTC")
    page.goto("/dashboard")
    page.get_by_role("button", name="Details of database").click()
    closed, opened = circuit(page, "database"), circuit(page, "payment")

    expect(closed.locator(".facts")).to_contain_text("Failure rate, last 100 calls")
    expect(closed.locator(".facts")).to_contain_text("opens at 50 % of 20 calls or more")
    expect(closed.locator(".facts")).to_contain_text("In the last minute")
    expect(closed.locator(".mark-at")).to_have_count(2)
    expect(opened.locator(".facts")).to_contain_text("Failure rate, last minute")
    expect(opened.locator(".facts")).to_contain_text("the rule counts again once it is closed")
    expect(opened.locator(".mark-at")).to_have_count(0)
    expect(circuit(page, "email").locator(".facts")).to_contain_text("By its rules it is")
    expect(page.locator("#zone")).to_have_text("UTC")
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_with_every_state_on_the_page(
    states: str, browser: Browser, theme: str
) -> None:
    """Colours, names, roles and heading order are accessible in both themes."""
    page = browser.new_page(base_url=states, color_scheme="dark" if theme == "dark" else "light")
    page.goto("/dashboard")
    expect(page.locator(".state.forced-open").first).to_be_visible()

    assert findings(page) == []
    page.close()


def test_a_phone_shows_every_number(states: str, browser: Browser) -> None:
    """Nothing scrolls sideways down to 320 pixels, and no word is broken."""
    page = browser.new_page(base_url=states, viewport={"width": 320, "height": 640})
    page.goto("/dashboard")
    expect(page.locator(".circuit").first).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    for figure in circuit(page, "payment").locator(".figures dd").all():
        box = figure.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
    expect(page.get_by_role("navigation", name="On this page")).to_be_visible()
    assert findings(page) == []
    page.close()


def test_forced_colours_show_what_is_open_and_chosen(states: str, browser: Browser) -> None:
    """Backgrounds, which show it otherwise, are removed by the browser."""
    page = browser.new_page(base_url=states, forced_colors="active")
    page.goto("/dashboard")
    expect(page.locator(".pips .taken").first).to_be_visible()

    def color(selector: str, name: str) -> str:
        computed = f"(node) => getComputedStyle(node)['{name}']"
        return str(page.locator(selector).first.evaluate(computed))

    text, surface = color("body", "color"), color("body", "background-color")
    assert text != surface
    assert color(".state.open .glyph", "stroke") == text
    assert color(".pips .taken", "background-color") != surface
    assert color("#filter :checked + span", "background-color") not in {text, surface}
    page.close()
