"""What whoever asks one worker learns of all of them, and how orders reach them."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from example_service.api.all_workers import AllWorkers
from example_service.core.settings import AdminSettings, Settings
from example_service.infra.peers import Peers
from example_service.infra.resilience import CircuitBreaker, Mode, circuit_breaker_registry
from example_service.main import create_app
from tests.api.conftest import LogLines, Serve

TOKEN = "a-token-of-more-than-sixteen"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
THIS, OTHER, THIRD = 1, 2, 3
MAINTENANCE = {"reason": "maintenance"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the workers meet; its path leaves room for sockets, which pytest's may not."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


class FakeWorker:
    """Another worker, as far as it can be asked.

    Args:
        peers: How it is asked.

    Attributes:
        breakers: What it tells of its breakers, by name.
        transitions: What it tells of changes.
        modes: What it tells of modes that hold for names.
        orders: What it was told to do.
    """

    def __init__(self, peers: Peers) -> None:
        self.breakers: dict[str, Any] = {}
        self.transitions: list[dict[str, Any]] = []
        self.modes: dict[str, Any] = {}
        self.orders: list[dict[str, Any]] = []
        peers.answer("breakers", self._tell)
        peers.answer("order", self._obey)
        peers.answer("modes", self._tell_modes)

    async def _tell(self, _: bytes) -> bytes:
        told = {"breakers": self.breakers, "transitions": self.transitions}
        return json.dumps(told).encode()

    async def _tell_modes(self, _: bytes) -> bytes:
        return json.dumps(self.modes).encode()

    async def _obey(self, content: bytes) -> bytes:
        self.orders.append(json.loads(content))
        return b"done"


@pytest.fixture
async def other(directory: Path) -> AsyncIterator[FakeWorker]:
    """Another worker that answers."""
    peers = Peers(directory, pid=OTHER)
    async with peers.listening():
        yield FakeWorker(peers)


@pytest.fixture
async def silent(directory: Path) -> AsyncIterator[None]:
    """A third worker that fails at whatever it is asked."""
    async with Peers(directory, pid=THIRD).listening():
        yield


@pytest.fixture
async def app() -> FastAPI:
    """The service, one worker of several."""
    admin = AdminSettings(token=SecretStr(TOKEN))
    return create_app(Settings(environment="test", admin=admin))


@pytest.fixture
async def client(app: FastAPI, serve: Serve, directory: Path) -> httpx.AsyncClient:
    """A client of that worker."""
    client = await serve(app)
    app.state.all_workers = AllWorkers(Peers(directory, pid=THIS))
    return client


def metrics(state: str, **different: Any) -> dict[str, Any]:
    """What a breaker shows in another worker."""
    return {**CircuitBreaker("blank", registry=None).get_metrics(), "state": state, **different}


def transition(at: str, worker: int) -> dict[str, Any]:
    """A change in another worker."""
    return {
        "at": at,
        "worker": worker,
        "breaker_name": "shop",
        "from_state": "closed",
        "to_state": "open",
        "reason": "1 failure in a row",
        "wait_seconds": 60.0,
        "failure_count": 1,
        "rejections": 0,
    }


async def health(client: httpx.AsyncClient) -> dict[str, Any]:
    """What the service tells of its breakers."""
    response = await client.get("/health/circuit-breakers")
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


async def test_breakers_of_all_workers_are_shown_together(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """Sums, and the worst state with its reason; also those that only another worker has."""
    shop = CircuitBreaker("shop")
    shop.call_sync(str)
    other.breakers = {
        "shop": metrics("open", total_successes=2, retry_after=9.5, reason="5 failures in a row"),
        "elsewhere": metrics("closed"),
    }

    told = await health(client)

    assert told["status"] == "degraded"
    assert (told["workers"], told["silent_workers"]) == ([THIS, OTHER], [])
    shown = told["breakers"]["shop"]
    assert (shown["state"], shown["total_successes"], shown["retry_after"]) == ("open", 3, 9.5)
    assert shown["reason"] == "5 failures in a row"
    assert "mode" not in shown
    assert told["breakers"]["elsewhere"]["state"] == "closed"
    assert "reason" not in told["breakers"]["elsewhere"]


async def test_changes_of_all_workers_are_in_the_order_in_which_they_came(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """The newest first, twenty at most, each with the worker in which it was."""
    other.transitions = [
        transition("2999-01-01T00:00:00+00:00", OTHER),
        *[transition(f"2000-01-01T00:00:{59 - n}+00:00", OTHER) for n in range(25)],
    ]
    shop = CircuitBreaker("shop")
    shop.force_open("now")

    told = (await health(client))["transitions"]

    assert len(told) == 20
    assert [one["at"] for one in told] == sorted([one["at"] for one in told], reverse=True)
    assert [one["worker"] for one in told[:3]][::2] == [OTHER, OTHER]
    assert told[1]["reason"] == "forced open by hand: now"


@pytest.mark.usefixtures("silent")
async def test_workers_that_do_not_answer_are_named(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """Whoever looks has to know that something is missing."""
    assert other.orders == []

    told = await health(client)

    assert (told["workers"], told["silent_workers"]) == ([THIS, OTHER], [THIRD])
    listed = (await client.get("/admin/circuit-breakers", headers=AUTHORISED)).json()
    assert (listed["workers"], listed["silent_workers"]) == ([THIS, OTHER], [THIRD])


@pytest.mark.parametrize(
    ("path", "body", "mode"),
    [
        ("force-open", MAINTENANCE, ["forced_open", "maintenance", None]),
        ("disable", {**MAINTENANCE, "seconds": 60}, ["disabled", "maintenance", 60.0]),
        ("shadow", MAINTENANCE, ["shadow", "maintenance", None]),
        ("reset", None, None),
    ],
)
async def test_orders_reach_all_workers(
    client: httpx.AsyncClient, other: FakeWorker, path: str, body: object, mode: list[Any] | None
) -> None:
    """The answer tells which ones."""
    shop = CircuitBreaker("shop")

    response = await client.post(
        f"/admin/circuit-breakers/shop/{path}", headers=AUTHORISED, json=body
    )

    assert response.status_code == 200
    assert response.json()["workers"] == [THIS, OTHER]
    assert other.orders == [{"breaker": "shop", "mode": mode}]
    assert shop.get_metrics().get("mode", {}).get("name") == (mode and mode[0])


async def test_a_breaker_that_only_another_worker_has_is_known(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """And the mode holds here as well, for the time when it is made."""
    other.breakers = {"elsewhere": metrics("open")}

    response = await client.post(
        "/admin/circuit-breakers/elsewhere/force-open", headers=AUTHORISED, json=MAINTENANCE
    )

    assert response.status_code == 200
    assert response.json()["state"] == "open"
    assert CircuitBreaker("elsewhere").is_open


async def test_a_breaker_that_no_worker_has_is_unknown(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """Nothing is set anywhere."""
    response = await client.post(
        "/admin/circuit-breakers/nobody/force-open", headers=AUTHORISED, json=MAINTENANCE
    )

    assert response.status_code == 404
    assert other.orders == []
    assert circuit_breaker_registry.modes() == {}


@pytest.mark.usefixtures("silent")
async def test_an_order_that_a_worker_may_have_missed_is_no_success(
    client: httpx.AsyncClient, other: FakeWorker, log_lines: LogLines
) -> None:
    """The others have carried it out; whoever gave it gives it once more."""
    shop = CircuitBreaker("shop")

    response = await client.post(
        "/admin/circuit-breakers/shop/force-open", headers=AUTHORISED, json=MAINTENANCE
    )

    assert response.status_code == 504
    problem = response.json()
    assert problem["type"] == "/problems/incomplete-order"
    assert (problem["workers"], problem["silent_workers"]) == ([THIS, OTHER], [THIRD])
    assert shop.is_open
    assert len(other.orders) == 1
    (line,) = [line for line in log_lines() if line["logger"] == "example_service.admin"]
    assert (line["workers"], line["silent_workers"]) == ([THIS, OTHER], [THIRD])


@pytest.mark.usefixtures("silent")
async def test_a_new_worker_takes_over_the_modes_that_hold(
    directory: Path, other: FakeWorker
) -> None:
    """One that takes the place of another goes on as that would have."""
    other.modes = {"shop": ["forced_open", "maintenance", 60.0]}
    shop = CircuitBreaker("shop")

    async with AllWorkers(Peers(directory, pid=THIS)).running():
        shown = shop.get_metrics()["mode"]

    assert (shown["name"], shown["reason"]) == ("forced_open", "maintenance")
    assert 0 < shown["ends_in"] <= 60.0
    assert CircuitBreaker("shop").is_open


async def test_an_order_to_a_new_worker_is_newer_than_what_it_takes_over(directory: Path) -> None:
    """It is carried out after that, or a mode would come back that has just been ended."""
    asked, may_tell = asyncio.Event(), asyncio.Event()
    peers = Peers(directory, pid=OTHER)

    async def tell_late(_: bytes) -> bytes:
        asked.set()
        await may_tell.wait()
        return json.dumps({"shop": ["forced_open", "maintenance", None]}).encode()

    peers.answer("modes", tell_late)
    shop = CircuitBreaker("shop")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(peers.listening())
        new = AllWorkers(Peers(directory, pid=THIS))
        starting = asyncio.create_task(stack.enter_async_context(new.running()))
        await asked.wait()
        reset = json.dumps({"breaker": "shop", "mode": None}).encode()
        order = asyncio.create_task(peers.ask("order", reset))
        may_tell.set()
        await starting
        assert await order == {THIS: b"done"}

    assert shop.is_closed
    assert circuit_breaker_registry.modes() == {}


async def test_workers_tell_each_other_what_they_show(directory: Path) -> None:
    """What one asks and what another answers fit together."""
    shop = CircuitBreaker("shop")
    one, two = (AllWorkers(Peers(directory, pid=pid)) for pid in (THIS, OTHER))
    async with one.running(), two.running():
        circuit_breaker_registry.set_mode("shop", Mode.FORCED_OPEN, "maintenance", 60.0)
        shop.get_metrics()

        report = await one.report()

        # Both are this process, so everything is there twice.
        assert report.workers == [THIS, OTHER]
        mode = report.breakers["shop"].mode
        assert mode is not None
        assert mode.name is Mode.FORCED_OPEN
        assert [change.breaker_name for change in report.transitions] == ["shop", "shop"]
        async with AllWorkers(Peers(directory, pid=THIRD)).running():
            assert circuit_breaker_registry.modes()["shop"].reason == "maintenance"
