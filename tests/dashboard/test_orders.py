"""Orders that operators give on the dashboard, and how it shows them."""

import json
import re
import shlex

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.page import ALL_CLOSED, TOKEN, circuit, findings, unlock, verdict
from tests.service_process import Service

pytestmark = pytest.mark.integration


def test_an_operator_sets_a_mode_with_reason_and_end(page: Page, service: Service) -> None:
    """It needs the right token, which is asked for once and forgotten with the page."""
    page.goto("/dashboard")
    expect(page.get_by_role("button", name="Reset database")).to_have_count(0)
    unlock(page, "wrong")
    expect(page.get_by_role("alert").filter(has_text="This token was refused.")).to_be_visible()
    assert findings(page) == []
    page.get_by_role("textbox", name="Token").fill(TOKEN)
    page.get_by_role("button", name="Unlock", exact=True).click()
    expect(page.get_by_role("button", name="Details of database", expanded=True)).to_be_visible()

    page.get_by_role("button", name="Force open database").click()
    assert findings(page) == []
    page.get_by_label("Reason").fill("it's maintenance")
    page.get_by_label("Your name").fill("m.keller")
    page.get_by_label("End").select_option("in 1 hour")
    page.get_by_role("dialog").get_by_role("button", name="Force open database").click()

    expect(verdict(page)).to_have_text("database is forced open")
    tag = circuit(page, "database").locator(".tag")
    expect(tag.locator("p").first).to_have_text("it's maintenance")
    expect(tag).to_contain_text(re.compile(r"Set by m\.keller; ends at \d\d:\d\d, in (60|59)"))
    modes = httpx.get(f"{service.url}/health/circuit-breakers").json()["modes"]
    assert modes["database"]["reason"] == "it's maintenance (by m.keller)"
    shown = shlex.split(page.locator("#curl").text_content() or "")
    assert f"{service.url}/admin/circuit-breakers/database/force-open" in shown
    assert "Authorization: Bearer $ADMIN_TOKEN" in shown
    assert json.loads(shown[-1]) == {"reason": "it's maintenance (by m.keller)", "seconds": 3600}
    assert findings(page) == []

    page.get_by_role("button", name="Reset database").click()
    page.get_by_role("dialog").get_by_role("button", name="Reset database").click()
    expect(verdict(page)).to_have_text(ALL_CLOSED)
    page.reload()
    expect(page.get_by_role("button", name="Unlock admin")).to_be_visible()


def test_an_order_stays_one_entry_when_its_time_is_corrected(page: Page) -> None:
    """The worker that obeyed first may be the last to report."""
    page.goto("/dashboard")
    times = page.evaluate(
        """async () => {
            const {known, take} = await import("/dashboard/circuits.js");
            const order = {name: "payment", order: "set", mode: "shadow", reason: "trial"};
            const receive = (...times) =>
                take({circuits: [], timeline: times.map((at) => ({...order, at}))});
            known.timeline = [];
            receive(50.0, 10.0);
            receive(49.9);
            return known.timeline.map(({at}) => at);
        }"""
    )

    assert times == [49.9, 10.0]


def test_names_and_reasons_are_text(page: Page, service: Service) -> None:
    """The browser runs nothing that a name or a reason contains."""
    markup = "<img src=x onerror=\"document.title='run'\">"
    httpx.post(
        f"{service.url}/admin/circuit-breakers/database/disable",
        json={"reason": markup},
        headers={"Authorization": f"Bearer {TOKEN}"},
    ).raise_for_status()
    page.goto("/dashboard")

    expect(circuit(page, "database").locator(".tag")).to_contain_text(markup)
    expect(page).to_have_title("Example service")
