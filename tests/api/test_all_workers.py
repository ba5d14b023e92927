"""What whoever asks one worker learns of all of them, and how orders reach them."""

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from example_service.api.breakers.all_workers import AllWorkers
from example_service.core.settings import Settings
from example_service.core.settings.model import AdminSettings
from example_service.infra.resilience import (
    CircuitBreaker,
    Mode,
    NamedMode,
    circuit_breaker_registry,
)
from example_service.infra.resilience.testing import FakeClock
from example_service.infra.workers.peers import Peers
from example_service.infra.workers.standing_modes import StandingModes
from example_service.main import create_app
from tests.application import LogLines, Serve

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
        orders: The names for which it was told to look at the modes.
    """

    def __init__(self, peers: Peers) -> None:
        self.breakers: dict[str, Any] = {}
        self.transitions: list[dict[str, Any]] = []
        self.orders: list[str] = []
        peers.answer("breakers", self._tell)
        peers.answer("order", self._apply)

    async def _tell(self, _: bytes) -> bytes:
        told = {"breakers": self.breakers, "transitions": self.transitions}
        return json.dumps(told).encode()

    async def _apply(self, content: bytes) -> bytes:
        self.orders.append(content.decode())
        return await self._tell(content)


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
    app.state.services = replace(app.state.services, all_workers=worker(directory, THIS))
    return client


def worker(directory: Path, pid: int) -> AllWorkers:
    """A worker of the service."""
    return AllWorkers(Peers(directory, pid=pid), StandingModes(directory))


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


async def force_open(client: httpx.AsyncClient, name: str) -> httpx.Response:
    """Order that a name be forced open."""
    path = f"/admin/circuit-breakers/{name}/force-open"
    return await client.post(path, headers=AUTHORISED, json=MAINTENANCE)


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
        ("force-open", MAINTENANCE, Mode.FORCED_OPEN),
        ("disable", {**MAINTENANCE, "seconds": 60}, Mode.DISABLED),
        ("shadow", MAINTENANCE, Mode.SHADOW),
        ("reset", None, None),
        ("reset", {}, None),
    ],
)
async def test_orders_reach_all_workers(
    client: httpx.AsyncClient, other: FakeWorker, path: str, body: object, mode: Mode | None
) -> None:
    """The answer tells which ones."""
    shop = CircuitBreaker("shop")

    response = await client.post(
        f"/admin/circuit-breakers/shop/{path}", headers=AUTHORISED, json=body
    )

    assert response.status_code == 200
    assert response.json()["workers"] == [THIS, OTHER]
    assert other.orders == ["shop"]
    assert shop.get_metrics().get("mode", {}).get("name") == mode


async def test_a_breaker_that_only_another_worker_has_is_known(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """And the mode holds here as well, for the time when it is made."""
    other.breakers = {"elsewhere": metrics("open")}

    response = await force_open(client, "elsewhere")

    assert response.status_code == 200
    assert response.json()["state"] == "open"
    assert CircuitBreaker("elsewhere").is_open


async def test_a_breaker_that_no_worker_has_is_unknown(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """Nothing is set anywhere."""
    response = await force_open(client, "nobody")

    assert response.status_code == 404
    assert other.orders == []
    assert circuit_breaker_registry.modes() == {}


@pytest.mark.usefixtures("silent")
async def test_an_order_that_a_worker_may_have_missed_is_no_success(
    client: httpx.AsyncClient, other: FakeWorker, log_lines: LogLines
) -> None:
    """The others have carried it out; whoever gave it gives it once more."""
    shop = CircuitBreaker("shop")

    response = await force_open(client, "shop")

    assert response.status_code == 504
    problem = response.json()
    assert problem["type"] == "/problems/incomplete-order"
    assert (problem["workers"], problem["silent_workers"]) == ([THIS, OTHER], [THIRD])
    assert shop.is_open
    assert len(other.orders) == 1
    (line,) = [line for line in log_lines() if line["logger"] == "example_service.admin"]
    assert (line["workers"], line["silent_workers"]) == ([THIS, OTHER], [THIRD])


@pytest.mark.usefixtures("silent")
async def test_a_breaker_that_only_a_silent_worker_may_have_is_not_called_unknown(
    client: httpx.AsyncClient, other: FakeWorker
) -> None:
    """Nothing is ordered either: the name may be a slip of the pen."""
    response = await force_open(client, "nobody")

    assert response.status_code == 504
    assert response.json()["silent_workers"] == [THIRD]
    assert (other.orders, circuit_breaker_registry.modes()) == ([], {})


async def test_a_mode_without_a_breaker_is_shown_and_can_be_ended(
    client: httpx.AsyncClient,
) -> None:
    """As of clients that are made for each request, and are gone between two of them."""
    circuit_breaker_registry.set_mode("client", Mode.FORCED_OPEN, "maintenance")

    shown = {"client": {"name": "forced_open", "reason": "maintenance", "ends_in": None}}
    assert (await health(client))["modes"] == shown
    listed = (await client.get("/admin/circuit-breakers", headers=AUTHORISED)).json()
    assert listed["modes"] == shown

    response = await client.post("/admin/circuit-breakers/client/reset", headers=AUTHORISED)

    assert (response.status_code, response.json()["state"]) == (200, None)
    assert (await health(client))["modes"] == {}


async def test_a_mode_that_code_has_ended_is_shown_no_longer(client: httpx.AsyncClient) -> None:
    """What holds is what the breakers do, not what was ordered once."""
    shop = CircuitBreaker("shop")
    await force_open(client, "shop")
    assert list((await health(client))["modes"]) == ["shop"]

    await circuit_breaker_registry.reset("shop")

    assert (await health(client))["modes"] == {}
    assert shop.is_closed


async def test_a_new_worker_takes_over_the_modes_that_hold(directory: Path) -> None:
    """One that takes the place of another goes on as that would have, even if all were killed."""
    clock = FakeClock()
    modes = StandingModes(directory, clock=clock)
    modes.write("shop", NamedMode(Mode.FORCED_OPEN, "maintenance", 60.0))
    modes.write("ended", NamedMode(Mode.FORCED_OPEN, "maintenance", 1.0))
    clock.advance(1.0)
    shop, ended = CircuitBreaker("shop"), CircuitBreaker("ended")

    async with AllWorkers(Peers(directory, pid=THIS), modes).running():
        shown = shop.get_metrics()["mode"]

    assert (shown["name"], shown["reason"]) == ("forced_open", "maintenance")
    assert 0 < shown["ends_in"] <= 59.0
    assert CircuitBreaker("shop").is_open
    assert ended.is_closed


async def test_of_two_orders_the_one_that_was_written_last_holds_everywhere(
    directory: Path,
) -> None:
    """However late a worker hears of the other."""
    shop = CircuitBreaker("shop")
    modes = StandingModes(directory)
    asking = Peers(directory, pid=OTHER)
    async with worker(directory, THIS).running():
        modes.write("shop", NamedMode(Mode.FORCED_OPEN, "maintenance", None))
        modes.write("shop", None)
        await asking.ask("order", b"shop")
        assert shop.is_closed

        modes.write("shop", None)
        modes.write("shop", NamedMode(Mode.FORCED_OPEN, "maintenance", None))
        await asking.ask("order", b"shop")
        await asking.ask("order", b"shop")
        assert shop.is_open


async def test_a_mode_that_has_ended_before_a_worker_hears_of_it_does_not_begin(
    directory: Path,
) -> None:
    """One that hung must not refuse what all others admit again."""
    shop = CircuitBreaker("shop")
    now = FakeClock()
    modes = StandingModes(directory, clock=now)
    modes.write("shop", NamedMode(Mode.FORCED_OPEN, "maintenance", 3.0))
    hung = AllWorkers(Peers(directory, pid=THIS), modes)
    now.advance(3.0)

    outcome = await hung._answer_order(b"shop")

    assert b'"state":"closed"' in outcome
    assert shop.is_closed


@pytest.mark.parametrize("nonsense", [b"", b"[]", b"no JSON", b'{"breakers": {"shop": 1}}'])
async def test_an_answer_that_cannot_be_understood_is_none(
    client: httpx.AsyncClient, directory: Path, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs neither the health answer nor an order."""
    peers = Peers(directory, pid=OTHER)

    async def talk(_: bytes) -> bytes:
        return nonsense

    peers.answer("breakers", talk)
    peers.answer("order", talk)
    shop = CircuitBreaker("shop")
    async with peers.listening():
        assert (await health(client))["silent_workers"] == [OTHER]
        response = await force_open(client, "shop")

    assert response.status_code == 504
    assert shop.is_open
    assert "could not be understood" in caplog.text


async def test_workers_tell_each_other_what_they_show(directory: Path) -> None:
    """What one asks and what another answers fit together."""
    shop = CircuitBreaker("shop")
    one, two = worker(directory, THIS), worker(directory, OTHER)
    async with one.running(), two.running():
        outcome = await one.carry_out("shop", NamedMode(Mode.FORCED_OPEN, "maintenance", 60.0))
        assert (outcome.state, outcome.workers) == ("open", [THIS, OTHER])

        report = await two.report()

    # Both are this process, so everything is there twice.
    assert report.workers == [THIS, OTHER]
    mode = report.breakers["shop"].mode
    assert mode is not None
    assert mode.name is Mode.FORCED_OPEN
    assert {change.breaker_name for change in report.transitions} == {"shop"}
    assert shop.is_open
