"""The dashboard in a real browser, in front of the real service."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Error, Locator, Page, Route, expect, sync_playwright

from tests.real_parts import missing
from tests.service_process import DEADLINE_SECONDS, Service, kill

pytestmark = pytest.mark.integration
expect.set_options(timeout=1000 * DEADLINE_SECONDS)

RATES = "/api/v1/exchange-rates/EUR"
# The first is for root in a container, the others keep the browser off the internet.
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service as a process, with its sandbox and short waits."""
    service = Service(tmp_path, CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT="2")
    yield service
    kill(service)


@pytest.fixture
def page(service: Service) -> Iterator[Page]:
    """A page of a browser at the service; nothing that it complains of passes unnoticed."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=ARGUMENTS
            )
        except Error:
            missing(
                "there is no Chromium; get it with `apt-get install chromium` "
                "or `.venv/bin/playwright install chromium`"
            )
        page = browser.new_page(base_url=service.url)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        yield page
        browser.close()
    # That it cannot reach the service is what some tests are about.
    assert [one for one in complaints if "net::ERR" not in one] == []


def status(page: Page) -> Locator:
    """The sentence that sums everything up."""
    return page.get_by_role("status")


def row_of(page: Page, name: str) -> Locator:
    """What stands in the table about one breaker."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


def test_a_circuit_is_seen_to_open_and_to_close_again(page: Page, service: Service) -> None:
    """The whole story of an outage, without a hand laid on the page."""
    page.goto("/")
    expect(page).to_have_url(f"{service.url}/dashboard")
    expect(status(page)).to_have_text("All 2 circuits are closed.")
    expect(row_of(page, "payment")).to_contain_text("closed")

    httpx.put(f"{service.url}/sandbox/mode", json={"mode": "failing"})
    for _ in range(6):
        httpx.get(service.url + RATES)

    expect(status(page)).to_have_text("1 of 2 circuits is not closed.")
    expect(row_of(page, "payment")).to_contain_text("5 failures in a row; last failures:")
    expect(row_of(page, "payment").get_by_role("cell").nth(4)).to_have_text("1")
    expect(page.get_by_role("row").nth(1)).to_contain_text("payment")
    expect(page).to_have_title("● Circuit breakers")
    expect(row_of(page, "payment")).to_contain_text("half-open")

    httpx.put(f"{service.url}/sandbox/mode", json={"mode": "healthy"})
    for _ in range(2):
        httpx.get(service.url + RATES)

    expect(status(page)).to_have_text("All 2 circuits are closed.")
    changes = page.get_by_role("listitem")
    expect(changes).to_have_count(3)
    expect(changes.first).to_contain_text("payment half-open → closed")
    expect(page.get_by_role("contentinfo")).to_have_text(f"Of worker {service.process.pid}.")


def test_a_service_that_is_gone_is_told_of(page: Page, service: Service) -> None:
    """Figures that are no longer true must not pass for the present."""
    page.goto("/dashboard")
    expect(status(page)).to_have_text("All 2 circuits are closed.")

    kill(service)

    expect(status(page)).to_contain_text("The service has not answered since")
    expect(row_of(page, "payment")).to_contain_text("closed")


def breaker(state: str, **different: Any) -> dict[str, Any]:
    """One breaker as the service tells of it."""
    return {
        "state": state,
        "failure_count": 0,
        "success_count": 0,
        "total_failures": 0,
        "total_successes": 0,
        "total_rejections": 0,
        "last_failure_time": None,
        "failure_rate": 0.0,
        "retry_after": 0.0,
        "opened_count": 0,
        "in_flight": 0,
        **different,
    }


def opening(breaker_name: str, reason: str, worker: int = 7) -> dict[str, Any]:
    """One change as the service tells of it."""
    return {
        "at": "2026-01-02T03:04:05+00:00",
        "worker": worker,
        "breaker_name": breaker_name,
        "from_state": "closed",
        "to_state": "open",
        "reason": reason,
        "wait_seconds": 1.0,
        "failure_count": 1,
        "rejections": 0,
    }


@pytest.fixture
def show(page: Page) -> Callable[..., None]:
    """Have the page show an answer that the service would have to be brought to give."""

    def show_health(
        breakers: dict[str, Any],
        *transitions: dict[str, Any],
        modes: dict[str, Any] | None = None,
        workers: Sequence[int] = (7,),
        silent: Sequence[int] = (),
    ) -> None:
        health = {
            "status": "degraded",
            "workers": workers,
            "silent_workers": silent,
            "breakers": breakers,
            "modes": modes or {},
            "transitions": transitions,
        }

        def answer(route: Route) -> None:
            route.fulfill(json=health)

        page.route("**/health/circuit-breakers", answer)
        page.goto("/dashboard")

    return show_health


def test_what_somebody_has_set_by_hand_is_shown(page: Page, show: Callable[..., None]) -> None:
    """With reason and end; a forgotten mode is an outage to come."""
    by_hand = {"would_have_rejected": 3, "ends_in": None}
    forced = {"name": "forced_open", "reason": "maintenance", **by_hand}
    disabled = {"name": "disabled", "reason": "false alarm", **by_hand, "ends_in": 59.2}
    shadow = {"name": "shadow", "reason": "new values", **by_hand}
    show(
        {
            "a": breaker(
                "open",
                retry_after=None,
                reason="forced open by hand: maintenance",
                mode=forced,
            ),
            "b": breaker("closed", mode=disabled),
            "c": breaker("open", retry_after=0.5, reason="1 failure in a row", mode=shadow),
        }
    )

    expect(row_of(page, "a")).to_contain_text("until somebody closes it")
    expect(row_of(page, "a")).to_contain_text("Forced open by hand until a reset: maintenance")
    expect(row_of(page, "b")).to_contain_text("Disabled by hand for 60 s more: false alarm")
    expect(row_of(page, "c")).to_contain_text("probes admitted in less than a second")
    expect(row_of(page, "c")).to_contain_text("Shadowed by hand until a reset: new values")
    expect(row_of(page, "c")).to_contain_text("3 calls let through that would have been refused")
    expect(status(page)).to_have_text(
        "2 of 3 circuits are not closed. A mode set by hand holds for 3."
    )


def test_a_mode_is_seen_though_all_circuits_are_closed(
    page: Page, show: Callable[..., None]
) -> None:
    """Before the others, for somebody may have forgotten it."""
    disabled = {
        "name": "disabled",
        "reason": "false alarm",
        "ends_in": None,
        "would_have_rejected": 0,
    }
    show({"a": breaker("closed"), "b": breaker("closed", mode=disabled)})

    expect(status(page)).to_have_text("All 2 circuits are closed. A mode set by hand holds for 1.")
    expect(page.get_by_role("row").nth(1)).to_contain_text("Disabled by hand")
    expect(page).to_have_title("● Circuit breakers")


def test_a_mode_is_seen_though_there_is_no_breaker_now(
    page: Page, show: Callable[..., None]
) -> None:
    """As of clients that are made for each request; it may be what keeps them from working."""
    mode = {"name": "forced_open", "reason": "maintenance", "ends_in": None}
    show({"a": breaker("closed")}, modes={"client": mode})

    expect(status(page)).to_have_text("The one circuit is closed. A mode set by hand holds for 1.")
    expect(row_of(page, "client")).to_contain_text("no breaker now")
    expect(row_of(page, "client")).to_contain_text("Forced open by hand until a reset: maintenance")
    expect(page).to_have_title("● Circuit breakers")


def test_several_workers_are_told_apart(page: Page, show: Callable[..., None]) -> None:
    """Whose figures these are, where a circuit opened, and whose figures are missing."""
    show({"a": breaker("closed")}, opening("a", "hung", worker=8), workers=[7, 8], silent=[9])

    expect(page.get_by_role("contentinfo")).to_have_text(
        "Sums over workers 7, 8; of states and waits the worst."
    )
    expect(page.get_by_role("listitem")).to_contain_text("closed → open in worker 8")
    expect(status(page)).to_have_text(
        "The one circuit is closed. Not known of worker 9, which did not answer."
    )
    expect(page).to_have_title("● Circuit breakers")


def test_what_is_selected_stays(page: Page, show: Callable[..., None]) -> None:
    """A reason can be copied while the wait beside it goes on."""
    show({"a": breaker("open", retry_after=9.0, reason="5 failures in a row")})
    expect(row_of(page, "a")).to_contain_text("probes admitted in 9 s")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('tbody'))")
    page.unroute_all()
    later = {
        "status": "degraded",
        "workers": [7],
        "silent_workers": [],
        "breakers": {"a": breaker("open", retry_after=1.0, reason="5 failures in a row")},
        "modes": {},
        "transitions": [],
    }
    page.route("**/health/circuit-breakers", lambda route: route.fulfill(json=later))
    for _ in range(2):  # When the page asks again, it has shown the answer before.
        with page.expect_response("**/health/circuit-breakers"):
            pass

    assert "5 failures in a row" in page.evaluate("String(getSelection())")
    page.evaluate("getSelection().removeAllRanges()")
    expect(row_of(page, "a")).to_contain_text("probes admitted in 1 s")


def test_names_and_reasons_are_text(page: Page, show: Callable[..., None]) -> None:
    """Whatever somebody wrote into them, the browser runs nothing of it."""
    markup = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    show({markup: breaker("open", reason=markup)}, opening(markup, markup))

    expect(row_of(page, markup)).to_contain_text(markup)
    expect(page.get_by_role("listitem")).to_contain_text(markup)
    expect(page).to_have_title("● Circuit breakers")


def test_a_page_is_readable_on_a_telephone(page: Page, show: Callable[..., None]) -> None:
    """The table scrolls by itself, and the page does not."""
    page.set_viewport_size({"width": 360, "height": 640})
    show({"a-name-without-an-end-" * 9: breaker("open", reason="because-" * 60)})

    expect(page.get_by_role("rowheader")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_no_breaker_is_no_error(page: Page, show: Callable[..., None]) -> None:
    """A service may have none yet."""
    show({})

    expect(status(page)).to_have_text("There is no circuit breaker yet.")
    expect(page.get_by_role("listitem")).to_have_text("None so far.")
