"""Any worker can answer for the whole service."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from example_service.api.breakers import all_workers
from example_service.api.breakers.all_workers import AllWorkers
from example_service.infra.resilience import (
    CircuitBreaker,
    Mode,
    circuit_breaker_registry,
)
from example_service.infra.workers.reports import Reports
from tests.api.all_workers.other_workers import (
    AUTHORISED,
    DEADLINE_SECONDS,
    OTHER,
    THIRD,
    THIS,
    OtherWorker,
    force_open,
    health,
    metrics,
    transition,
)


async def test_breakers_of_all_workers_are_shown_together(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """Counts are summed, and the worst state is shown with its reason."""
    shop = CircuitBreaker("shop")
    shop.call_sync(str)
    other.breakers = {
        "shop": metrics("open", total_successes=2, retry_after=9.5, reason="5 failures in a row"),
        "elsewhere": metrics("closed"),
    }
    other.report()

    shown = await health(client)

    assert shown["status"] == "degraded"
    assert (shown["workers"], shown["silent_workers"]) == ([THIS, OTHER], [])
    both = shown["breakers"]["shop"]
    assert (both["state"], both["total_successes"], both["retry_after"]) == ("open", 3, 9.5)
    assert both["reason"] == "5 failures in a row"
    assert "mode" not in both
    assert shown["breakers"]["elsewhere"]["state"] == "closed"
    assert "reason" not in shown["breakers"]["elsewhere"]


async def test_state_changes_of_all_workers_are_listed_by_time(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """The newest twenty are listed, newest first, each with its worker."""
    other.transitions = [
        transition("2999-01-01T00:00:00+00:00", OTHER),
        *[transition(f"2000-01-01T00:00:{59 - n}+00:00", OTHER) for n in range(25)],
    ]
    other.report()
    shop = CircuitBreaker("shop")
    shop.force_open("now")

    shown = (await health(client))["transitions"]

    assert len(shown) == 20
    assert [entry["at"] for entry in shown] == sorted(
        [entry["at"] for entry in shown], reverse=True
    )
    assert [entry["worker"] for entry in shown[:3]][::2] == [OTHER, OTHER]
    assert shown[1]["reason"] == "forced open by hand: now"


async def test_orders_of_all_workers_are_reported(workers: AllWorkers, other: OtherWorker) -> None:
    """The dashboard shows the same ones, whichever worker serves it."""
    other.orders = [["2026-11-29T12:00:00+00:00", "shop", "disabled", "a false alarm", 60.0]]
    other.report()
    circuit_breaker_registry.set_mode("client", Mode.SHADOW, "a trial")

    orders = (await workers.report()).orders

    assert [order[1:] for order in orders] == [
        ("client", Mode.SHADOW, "a trial", None),
        ("shop", Mode.DISABLED, "a false alarm", 60.0),
    ]
    assert orders[1].at == datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.usefixtures("silent", "other")
async def test_workers_without_a_recent_report_are_named(client: httpx.AsyncClient) -> None:
    """The response says whose data is missing."""
    shown = await health(client)

    assert (shown["workers"], shown["silent_workers"]) == ([THIS, OTHER], [THIRD])
    listed = (await client.get("/admin/circuit-breakers", headers=AUTHORISED)).json()
    assert (listed["workers"], listed["silent_workers"]) == ([THIS, OTHER], [THIRD])


async def test_a_mode_without_a_breaker_is_shown_and_can_be_ended(
    client: httpx.AsyncClient,
) -> None:
    """A client may create its breaker for each request, so none exists in between."""
    circuit_breaker_registry.set_mode("client", Mode.FORCED_OPEN, "maintenance")

    shown = {"client": {"name": "forced_open", "reason": "maintenance", "ends_in": None}}
    assert (await health(client))["modes"] == shown
    listed = (await client.get("/admin/circuit-breakers", headers=AUTHORISED)).json()
    assert listed["modes"] == shown

    response = await client.post("/admin/circuit-breakers/client/reset", headers=AUTHORISED)

    assert (response.status_code, response.json()["state"]) == (200, None)
    assert (await health(client))["modes"] == {}


async def test_a_mode_that_code_has_ended_is_no_longer_shown(client: httpx.AsyncClient) -> None:
    """The response shows the present modes, even if an order set another one."""
    shop = CircuitBreaker("shop")
    await force_open(client, "shop")
    assert list((await health(client))["modes"]) == ["shop"]

    await circuit_breaker_registry.reset("shop")

    assert (await health(client))["modes"] == {}
    assert shop.is_closed


async def test_a_circuit_that_only_this_process_opened_says_so(
    client: httpx.AsyncClient,
) -> None:
    """Code that forces a circuit open affects its own process only."""
    shop = CircuitBreaker("shop")
    shop.force_open("now")
    closed = CircuitBreaker("closed")

    shown = await health(client)

    assert shown["fleet"] == {"connected": True, "processes": 1}
    assert shown["breakers"]["shop"]["verdict"] == "own"
    assert "opened_by" not in shown["breakers"]["shop"]
    assert "verdict" not in shown["breakers"][closed.name]


@pytest.mark.parametrize("nonsense", ["", "[]", "no JSON", '{"breakers": {"shop": 1}}'])
async def test_a_report_that_cannot_be_parsed_counts_as_missing(
    client: httpx.AsyncClient,
    fleet_directory: Path,
    nonsense: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Health is still answered, and orders still apply to the other workers."""
    Reports(fleet_directory, pid=OTHER).write(nonsense)
    shop = CircuitBreaker("shop")

    assert (await health(client))["silent_workers"] == [OTHER]
    response = await force_open(client, "shop")

    assert response.status_code == 504
    assert shop.is_open
    assert "report of another worker could not be read" in caplog.text


async def test_a_worker_reports_when_something_has_changed(
    workers: AllWorkers, fleet_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change is reported at once, and the report is deleted when the worker stops."""
    monkeypatch.setattr(all_workers, "REPORT_SECONDS", 3600.0)
    reader = Reports(fleet_directory, pid=OTHER)
    shop = CircuitBreaker("shop")
    async with workers.reporting():
        shop.force_open("now")
        async with asyncio.timeout(DEADLINE_SECONDS):
            while '"state":"open"' not in reader.others()[THIS].text:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0.01)
    assert reader.others() == {}


async def test_a_report_that_cannot_be_written_is_logged_once(
    workers: AllWorkers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the disk is full, the service goes on without reports."""

    def fail(_: Reports, __: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Reports, "write", fail)
    async with workers.reporting():
        await workers._write()
        await workers._write()
    assert caplog.text.count("could not be written") == 1


@pytest.mark.parametrize("fault", [OSError(28, "No space left"), RuntimeError("no new thread")])
async def test_reports_go_on_after_a_failed_write(
    fault: Exception,
    workers: AllWorkers,
    fleet_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other workers see this one again as soon as it can write."""
    reader = Reports(fleet_directory, pid=OTHER)
    loop, has_failed = asyncio.get_running_loop(), asyncio.Event()
    shop = CircuitBreaker("shop")

    def fail(_: Reports, __: str) -> None:
        loop.call_soon_threadsafe(has_failed.set)
        raise fault

    async with workers.reporting():
        with monkeypatch.context() as patch:
            patch.setattr(Reports, "write", fail)
            shop.force_open("now")
            async with asyncio.timeout(DEADLINE_SECONDS):
                await has_failed.wait()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while '"state":"open"' not in reader.others()[THIS].text:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0.01)


async def test_when_another_worker_opens_this_one_follows(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """It takes over the reason and the rest of the wait."""
    shop = CircuitBreaker("shop")
    other.member.opened("shop", 30.0, "5 failures in a row", 0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while shop.is_closed:  # noqa: ASYNC110 - As in `connected`.
            await asyncio.sleep(0.01)

    shown = (await health(client))["breakers"]["shop"]

    assert shown["reason"] == "5 failures in a row (opened by w2)"
    # By its own rules it would be 60.
    assert 0 < shown["retry_after"] <= 30
    assert (shown["verdict"], shown["opened_by"]) == ("fleet", "w2")
