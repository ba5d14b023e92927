"""The task that feeds all open pages of the dashboard."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from example_service.api.breakers.all_workers import AllWorkers
from example_service.api.dashboard.feed import Feed
from example_service.api.dashboard.history import History
from example_service.core.lifecycle import begin_draining, end_draining
from example_service.core.settings import Settings
from example_service.infra.fleet.fleet import Fleet
from example_service.infra.resilience import (
    CircuitBreaker,
    FailureRate,
    Mode,
    circuit_breaker_registry,
)
from example_service.infra.workers.reports import Reports
from tests.virtual_loop import run_virtually

pytestmark = pytest.mark.usefixtures("no_breakers_of_other_tests")
LIMIT_SECONDS = 60.0


class CountingWorkers(AllWorkers):
    """This process as the only worker, with a count of its reports."""

    reports = 0

    async def report(self) -> Any:
        """Create a report, and count it."""
        self.reports += 1
        return await super().report()


@pytest.fixture
def workers() -> CountingWorkers:
    """This process as the only worker."""
    return CountingWorkers(Fleet(None, Reports(None, pid=1)))


@pytest.fixture
async def feed(workers: CountingWorkers) -> AsyncIterator[Feed]:
    """A running feed."""
    feed = Feed(Settings(environment="test"), workers)
    async with feed.running():
        yield feed


@contextlib.asynccontextmanager
async def feed_in_virtual_time(
    workers: CountingWorkers, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Feed]:
    """A running feed in virtual time, which a busy machine does not delay."""
    now, noon = asyncio.get_running_loop().time, time.time()
    clocks = SimpleNamespace(monotonic=now, perf_counter=now)
    monkeypatch.setattr("example_service.api.dashboard.feed.time", clocks)
    feed = Feed(Settings(environment="test"), workers, clock=lambda: noon + now())
    async with feed.running():
        yield feed


async def following(pages: AsyncIterator[str]) -> dict[str, Any]:
    """The next message for a page."""
    async with asyncio.timeout(LIMIT_SECONDS):
        message: dict[str, Any] = json.loads(await anext(pages))
        return message


async def change(pages: AsyncIterator[str]) -> dict[str, Any]:
    """The next message with a change of a circuit."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (message := await following(pages))["circuits"]:
            pass
        return message


async def quiet(pages: AsyncIterator[str]) -> None:
    """Wait for a message without changes; the next one is due in a second."""
    while (await following(pages))["circuits"]:
        pass


def break_down(breaker: CircuitBreaker) -> None:
    """Make failing calls until the circuit opens."""
    while breaker.is_closed:
        with pytest.raises(ZeroDivisionError):
            breaker.call_sync(lambda: 1 // 0)


async def test_a_page_first_receives_everything_and_then_the_changes(feed: Feed) -> None:
    """Idle circuits are sent only once."""
    idle = circuit_breaker_registry.get_or_create("idle")
    busy = circuit_breaker_registry.get_or_create("busy")
    await change(feed.messages())
    pages = feed.messages()

    first = await following(pages)
    busy.call_sync(lambda: None)
    second = await change(pages)

    assert idle.is_closed
    assert first["service"]["environment"] == "test"
    assert sorted(circuit["name"] for circuit in first["circuits"]) == ["busy", "idle"]
    assert [circuit["name"] for circuit in second["circuits"]] == ["busy"]
    assert [calls[1:] for calls in second["circuits"][0]["calls"]] == [[1, 0, 0]]
    assert "service" not in second


def test_a_change_of_state_is_sent_within_200_milliseconds(
    workers: CountingWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the transition, and does not wait for the next second."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time
        breaker = circuit_breaker_registry.get_or_create("payment")
        async with feed_in_virtual_time(workers, monkeypatch) as feed:
            pages = feed.messages()
            await quiet(pages)

            started = now()
            break_down(breaker)
            message = await change(pages)

            assert now() - started <= 0.2
            assert message["circuits"][0]["status"] == "open"
            assert message["timeline"][0]["to"] == "open"

    run_virtually(scenario())


def test_the_end_of_a_wait_is_sent_in_time(
    workers: CountingWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This needs no call that would notice the end."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time
        breaker = circuit_breaker_registry.get_or_create("payment", recovery_timeout=0.3, clock=now)
        async with feed_in_virtual_time(workers, monkeypatch) as feed:
            pages = feed.messages()
            await quiet(pages)

            started = now()
            break_down(breaker)
            statuses = [(await change(pages))["circuits"][0]["status"] for _ in range(2)]

            assert statuses == ["open", "half_open"]
            assert 0.3 <= now() - started <= 0.5

    run_virtually(scenario())


async def test_a_circuit_is_sent_with_its_failure_rate(feed: Feed) -> None:
    """If it has a failure-rate rule, the message has its window and its threshold."""
    rule = FailureRate(threshold=0.5, window_calls=10, minimum_calls=4)
    breaker = circuit_breaker_registry.get_or_create("payment", failure_rate=rule)
    circuit_breaker_registry.get_or_create("database")
    for number in (1, 0, 1):
        with contextlib.suppress(ZeroDivisionError):
            breaker.call_sync(divmod, 1, number)

    message = await change(feed.messages())

    shown = {circuit["name"]: circuit for circuit in message["circuits"]}
    assert shown["payment"]["window"] == {"rate": 0.3333, "calls": 3}
    assert shown["payment"]["rateThreshold"] == 0.5
    assert shown["payment"]["minimumCalls"] == 4
    assert shown["database"]["window"] is None
    assert shown["database"]["rateThreshold"] is None


async def test_a_mode_set_by_hand_is_sent_at_once(feed: Feed) -> None:
    """This includes modes of names that no breaker has at the moment."""
    pages = feed.messages()
    await following(pages)
    circuit_breaker_registry.set_mode("absent", Mode.DISABLED, "a false alarm", 60)

    message = await change(pages)

    (circuit,) = message["circuits"]
    assert (circuit["status"], circuit["hasBreaker"]) == ("disabled", False)
    assert circuit["mode"]["reason"] == "a false alarm"
    circuit_breaker_registry._modes.clear()


async def test_all_pages_share_one_report(feed: Feed, workers: CountingWorkers) -> None:
    """A hundred pages cause no more reports than one, and receive the same text."""
    pages = [feed.messages() for _ in range(100)]
    await asyncio.gather(*(following(page) for page in pages))
    reports = workers.reports

    texts = await asyncio.gather(*(anext(page) for page in pages))

    assert workers.reports - reports <= 2
    assert len({id(text) for text in texts}) == 1
    assert feed.pages == 100


async def test_a_slow_page_receives_the_latest_state_and_delays_nothing(feed: Feed) -> None:
    """Its next message contains all changes that it has missed."""
    breaker = circuit_breaker_registry.get_or_create("payment")
    slow, quick = feed.messages(), feed.messages()
    await following(slow)
    await following(quick)
    for _ in range(3):
        breaker.call_sync(lambda: None)
        await following(quick)

    message = await change(slow)

    assert sum(calls[1] for calls in message["circuits"][0]["calls"]) == 3


async def test_a_clock_that_is_set_back_stops_nothing(workers: CountingWorkers) -> None:
    """Pages go on receiving messages each second, with the new time."""
    clock = iter([5_000.0, 4_000.0, *range(1_000, 2_000)])
    feed = Feed(Settings(environment="test"), workers, clock=lambda: float(next(clock)))
    async with feed.running():
        pages = feed.messages()
        times = [(await following(pages))["at"] for _ in range(3)]

    assert times[-1] < times[0]


async def test_a_closed_page_is_forgotten(feed: Feed) -> None:
    """Without open pages, no more messages are created."""
    pages = feed.messages()
    await following(pages)
    assert feed.pages == 1

    await pages.aclose()  # type: ignore[attr-defined]

    assert feed.pages == 0


async def test_streams_end_when_the_service_drains(feed: Feed) -> None:
    """An open page must not delay the shutdown of the service."""
    pages = feed.messages()
    await following(pages)
    begin_draining()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            rest = [message async for message in pages]
    finally:
        end_draining()

    assert len(rest) <= 1


@pytest.mark.parametrize("broken", [(AllWorkers, "report"), (History, "add")], ids=str)
async def test_a_failed_report_is_logged_and_the_next_one_is_shown(
    broken: tuple[type, str], feed: Feed, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The dashboard continues after an internal error."""
    pages = feed.messages()
    await following(pages)

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("for a test")

    monkeypatch.setattr(*broken, fail)
    await following(pages)

    assert "could not poll the circuits" in caplog.text
