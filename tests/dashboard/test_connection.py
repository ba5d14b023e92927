"""How the dashboard connects to the service: after a restart, and in production."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.page import ALL_CLOSED, TOKEN, findings, verdict
from tests.dashboard.playing import playing
from tests.service_process import Service, kill

pytestmark = pytest.mark.integration


def test_it_reconnects_by_itself(browser: Browser, tmp_path: Path) -> None:
    """Meanwhile it shows the last data and since when the service has not answered."""
    database = f"sqlite:///{tmp_path / 'database.sqlite3'}"
    service = Service(tmp_path, DATABASE_URL=database)
    page = browser.new_page(base_url=service.url)
    page.goto("/dashboard")
    expect(verdict(page)).to_have_text(ALL_CLOSED)

    port = service.url.rpartition(":")[2]
    kill(service)

    lost = page.get_by_role("alert").filter(has_text="No answer since")
    expect(lost).to_have_text(re.compile(r"^No answer since \d\d:\d\d:\d\d: what you see is from"))
    expect(page.locator("#link")).to_contain_text("Disconnected since")
    expect(verdict(page)).to_have_text(ALL_CLOSED)
    assert findings(page) == []

    again = Service(tmp_path, PORT=port, DATABASE_URL=database)
    try:
        assert again.url == service.url
        expect(page.locator("#link")).to_have_text("Live")
        expect(lost).to_have_count(0)
    finally:
        page.close()
        kill(again)


def test_in_production_it_asks_for_the_token(browser: Browser, tmp_path: Path) -> None:
    """Before that it shows no data, and it has no lab."""
    with playing(
        "calm",
        tmp_path,
        ENVIRONMENT="production",
        API__OPEN="true",
        DASHBOARD__ENABLED="true",
        ADMIN__TOKEN=TOKEN,
        DATABASE_URL="postgresql://shop:Wm8-tY3pQz51@db.internal/shop",
        HTTP__ALLOWED_HOSTS="127.0.0.1",
        PAYMENT_PROVIDER__BASE_URL="https://api.payment-provider.com",
    ) as url:
        page = browser.new_page(base_url=url)
        page.goto("/dashboard")
        expect(verdict(page)).to_have_text("This dashboard asks for the admin token")
        expect(page.locator(".circuit")).to_have_count(0)
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.get_by_role("button", name="Unlock", exact=True).click()

        expect(verdict(page)).to_have_text("All 10 circuits are closed")
        expect(page.get_by_text("Outage lab").first).to_be_hidden()
        page.close()
