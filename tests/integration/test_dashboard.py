"""The dashboard in a real browser with the real service behind it."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import chromium, without_complaints
from tests.dashboard.playing import playing
from tests.service_process import DEADLINE_SECONDS, Service, kill

pytestmark = pytest.mark.integration
expect.set_options(timeout=1000 * DEADLINE_SECONDS)

TOKEN = "Zk3vq0YJ5b-8sWmR1tXeL9aHcU7dNfGi"

SECONDS_FOR_A_KEY = 0.1
ALL_CLOSED = "All 2 circuits are closed"


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
        complaints[:] = [one for one in complaints if "status of 401" not in one]
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


def verdict(page: Page) -> Locator:
    """The sentence about what is wrong now."""
    return page.get_by_role("heading", level=1)


def circuit(page: Page, name: str) -> Locator:
    """The entry of one circuit in the list."""
    return page.locator(f'[id="circuit-{name}"]')


def switch(page: Page, mode: str) -> None:
    """Click a switch of the sandbox."""
    page.locator("#modes").get_by_text(mode, exact=True).click(force=True)


def unlock(page: Page, token: str = TOKEN) -> None:
    """Enter the token of the administration."""
    page.get_by_role("button", name="Unlock admin").click()
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Unlock", exact=True).click()


def processor_seconds(page: Page) -> float:
    """The CPU time of the page's main thread, which a busy machine does not change."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def findings(page: Page) -> list[str]:
    """The violations that axe-core finds."""
    violations = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in violations]


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


def test_five_hundred_circuits_are_searched_smoothly(many: str, browser: Browser) -> None:
    """Circuits that are not closed come first, typing is fast, and nothing jumps."""
    page = browser.new_page(base_url=many, viewport={"width": 1440, "height": 900})
    page.add_init_script(
        """
        window.shift = 0;
        new PerformanceObserver((list) => {
          for (const one of list.getEntries()) if (!one.hadRecentInput) window.shift += one.value;
        }).observe({type: "layout-shift"});
        """
    )
    with without_complaints(page):
        page.goto("/dashboard")
        expect(page.locator(".circuit")).to_have_count(500)
        expect(page.locator(".circuit h3").first).to_have_text("payment")
        expect(page.locator(".rail")).to_contain_text("closed")
        page.wait_for_timeout(1000)
        page.evaluate("window.shift = 0")

        page.keyboard.press("/")
        before = processor_seconds(page)
        page.keyboard.type("service-48", delay=50)
        expect(page.locator(".circuit:visible")).to_have_count(10)
        assert processor_seconds(page) - before < 10 * SECONDS_FOR_A_KEY
        page.get_by_role("searchbox").fill("")
        page.locator("#filter").get_by_text("Not closed").click(force=True)
        expect(page.locator(".circuit:visible")).to_have_count(5)
        page.wait_for_timeout(3000)
        page.get_by_role("searchbox").fill("nowhere")
        expect(page.get_by_text("No circuit here has “nowhere” in its name.")).to_be_visible()

        assert page.evaluate("window.shift") < 0.01
    page.close()


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
