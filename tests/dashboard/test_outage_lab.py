"""The outage lab of the dashboard: clicks that make the sandbox fail and recover."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.page import ALL_CLOSED, TOKEN, circuit, findings, switch, verdict
from tests.service_process import Service

pytestmark = pytest.mark.integration


def test_a_circuit_is_opened_and_healed_with_two_clicks(page: Page, service: Service) -> None:
    """The first also starts traffic, and each shows the commands that do the same."""
    page.goto("/")
    expect(page).to_have_url(f"{service.url}/dashboard")
    expect(verdict(page)).to_have_text(ALL_CLOSED)
    curl = page.locator("#curl")
    expect(curl).not_to_contain_text("curl")

    switch(page, "failing")

    expect(curl).to_contain_text(f"curl -X PUT {service.url}/sandbox/mode")
    expect(curl).to_contain_text('{"mode":"failing"}')
    expect(curl).to_contain_text(f"curl -N -X POST {service.url}/sandbox/traffic")
    expect(curl).to_contain_text('{"calls_per_second":20}')
    expect(verdict(page)).to_have_text("payment is open")
    expect(page).to_have_title("● 1 open, Example service")
    opened = circuit(page, "payment")
    expect(opened.locator(".more")).to_contain_text("last failures: ProviderUnavailableError")
    expect(opened.locator(".more")).to_contain_text("Probes admitted in")
    expect(page.locator("#answers")).to_contain_text(re.compile(r"503 [1-9]"))

    switch(page, "healthy")

    expect(verdict(page)).to_have_text(ALL_CLOSED)
    expect(curl).to_have_text(re.compile(r'^curl -X PUT .*"mode":"healthy"\}\'$', re.DOTALL))
    expect(page.locator(".sub")).to_contain_text("The last to refuse calls was payment")
    expect(page.locator(".cases")).to_contain_text(re.compile(r"Closedpayment.*[1-9]\d* spared"))
    expect(page.locator("#timeline")).to_contain_text("payment half-open → closed")
    expect(page.locator("#timeline")).to_contain_text("payment closed → open")
    assert findings(page) == []


def test_the_log_has_state_changes_and_not_the_dashboard(page: Page, service: Service) -> None:
    """Switches and state changes are logged; the stream and the traffic are not."""
    page.goto("/dashboard")
    switch(page, "failing")
    expect(verdict(page)).to_have_text("payment is open")
    page.goto("about:blank")

    lines = service.text.split("Stop with Ctrl+C.")[1]
    assert re.search(r"PUT /sandbox/mode 200 \d+\.\d ms", lines)
    assert "opened: 5 failures in a row" in lines
    assert "/dashboard" not in lines
    assert "/exchange-rates/" not in lines


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    """Open a circuit, find it, expand it, read its chart, and reset it with the token."""
    page.goto("/dashboard")
    expect(page.get_by_role("radio", name="healthy")).to_be_checked()
    page.get_by_role("radio", name="healthy").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="failing")).to_be_checked()
    expect(verdict(page)).to_have_text("payment is open")

    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("PAY")
    expect(circuit(page, "database")).to_be_hidden()
    details = page.get_by_role("button", name="Details of payment")
    expect(details).to_have_attribute("aria-expanded", "true")
    details.focus()
    page.keyboard.press("Tab")
    strip = page.get_by_role("slider", name="Calls of payment in the last five minutes")
    expect(strip).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(strip).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:\d\d:\d\d: .*/s refused"))

    page.get_by_role("button", name="Unlock admin").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Token")).to_be_focused()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Disable payment").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Reason").fill("a false alarm")
    page.keyboard.press("Enter")
    expect(circuit(page, "payment").locator(".state")).to_have_text("Disabled")
    page.get_by_role("button", name="Force open payment").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Force open payment")).to_be_focused()


def test_the_last_of_several_quick_clicks_wins(page: Page, service: Service) -> None:
    """On the page and in the sandbox, in whatever order the requests would have arrived."""
    page.goto("/dashboard")
    expect(page.get_by_role("radio", name="healthy")).to_be_checked()
    page.evaluate(
        """
        () => {
          const inputs = [...document.querySelectorAll("#modes input")];
          for (const at of [1, 3, 0, 2, 5, 6, 2]) inputs[at].click();
        }
        """
    )

    expect(page.locator("#means")).to_have_text("Answers late.")
    expect(page.get_by_role("radio", name="slow")).to_be_checked()
    assert httpx.get(f"{service.url}/sandbox/mode").json()["mode"] == "slow"
