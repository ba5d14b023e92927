"""What any worker answers for all of them, and how orders reach all."""

# ruff: noqa: ARG002 - What stands in for a part takes the arguments of the part.

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from example_service.infra.fleet.directory_store import FILE, DirectoryStore
from example_service.infra.fleet.fleet import Fleet
from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.participant import FollowClose, FollowOpen, Obey, Rules
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.fleet.reports import Reports
from example_service.infra.resilience import (
    CircuitBreaker,
    Mode,
    circuit_breaker_registry,
)
from example_service.infra.resilience.testing import FakeClock
from example_service.main import create_app
from tests.application import LogLines, Serve

TOKEN = "a-token-of-more-than-sixteen"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
THIS, OTHER, THIRD = 1, 2, 3
MAINTENANCE = {"reason": "maintenance"}


class OtherBreakers:
    """The breakers of another worker: they write down what they are to do."""

    def __init__(self) -> None:
        self.obeyed: list[tuple[str, str | None]] = []

    def rules(self, name: str) -> Rules:
        """See `Breakers`."""
        return Rules(60.0, 2, 3, 60.0)

    def open(self, name: str, instruction: FollowOpen) -> None:
        """See `Breakers`."""

    def close(self, name: str, instruction: FollowClose) -> None:
        """See `Breakers`."""

    def obey(self, name: str, instruction: Obey) -> None:
        """See `Breakers`."""
        self.obeyed.append((name, instruction.mode))

    def attach(self, name: str, gate: LeaseGate) -> None:
        """See `Breakers`."""

    def detach(self, name: str) -> None:
        """See `Breakers`."""


class OtherWorker:
    """Another worker, which reports what a test says.

    Args:
        directory: Where the workers meet.
        pid: Its process id.

    Attributes:
        breakers: What its breakers show, by name.
        transitions: Its changes of state.
        obeyed: The orders that it has carried out.
    """

    def __init__(self, directory: Path, pid: int = OTHER) -> None:
        self.breakers: dict[str, Any] = {}
        self.transitions: list[dict[str, Any]] = []
        self._breakers = OtherBreakers()
        self.obeyed = self._breakers.obeyed
        self.member = Member(DirectoryStore(directory), self._breakers, name=f"w{pid}")
        self._reports = Reports(directory, pid=pid)

    def report(self) -> None:
        """Write a report now."""
        body = {
            "breakers": self.breakers,
            "transitions": self.transitions,
            "version": self.member.version,
        }
        self._reports.write(json.dumps(body))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["OtherWorker"]:
        """Take part until the end of the block, and report all the time."""

        async def report_regularly() -> None:
            while True:
                self.report()
                await asyncio.sleep(0.02)

        async with self.member.running():
            await connected(self.member)
            self.report()
            task = asyncio.create_task(report_regularly())
            yield self
            task.cancel()


async def connected(member: Member) -> None:
    """Wait until a member takes part."""
    async with asyncio.timeout(5):
        while not member.is_connected:  # noqa: ASYNC110 - A member is asked, it does not announce it.
            await asyncio.sleep(0.01)


@pytest.fixture
def fleet_directory(tmp_path: Path) -> Path:
    """Where the workers meet."""
    return tmp_path


@pytest.fixture
async def other(fleet_directory: Path) -> AsyncIterator[OtherWorker]:
    """Another worker."""
    async with OtherWorker(fleet_directory).running() as other:
        yield other


@pytest.fixture
def silent(fleet_directory: Path) -> None:
    """A third worker, whose last report is old."""
    Reports(fleet_directory, pid=THIRD, clock=FakeClock(-100.0)).write('{"breakers": {}}')


@pytest.fixture
async def fleet(fleet_directory: Path) -> AsyncIterator[Fleet]:
    """This process as a member."""
    breakers = ProcessBreakers(circuit_breaker_registry)
    member = Member(DirectoryStore(fleet_directory), breakers, name="w1")
    with breakers.reporting_to(member):
        async with member.running():
            await connected(member)
            yield Fleet(member, Reports(fleet_directory, pid=THIS))


@pytest.fixture
async def app() -> FastAPI:
    """The service, one worker of several."""
    admin = AdminSettings(token=SecretStr(TOKEN))
    return create_app(Settings(environment="test", admin=admin))


@pytest.fixture
async def client(app: FastAPI, serve: Serve, fleet: Fleet) -> httpx.AsyncClient:
    """A client of that worker."""
    client = await serve(app)
    app.state.services = replace(app.state.services, all_workers=AllWorkers(fleet))
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
    """The health of the breakers."""
    response = await client.get("/health/circuit-breakers")
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


async def force_open(client: httpx.AsyncClient, name: str) -> httpx.Response:
    """Order that a name be forced open."""
    path = f"/admin/circuit-breakers/{name}/force-open"
    return await client.post(path, headers=AUTHORISED, json=MAINTENANCE)


async def test_breakers_of_all_workers_are_shown_together(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """Sums, and the worst state with its reason; also those that only another worker has."""
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


async def test_changes_of_all_workers_are_in_the_order_in_which_they_came(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """The newest first, twenty at most, each with the worker in which it was."""
    other.transitions = [
        transition("2999-01-01T00:00:00+00:00", OTHER),
        *[transition(f"2000-01-01T00:00:{59 - n}+00:00", OTHER) for n in range(25)],
    ]
    other.report()
    shop = CircuitBreaker("shop")
    shop.force_open("now")

    shown = (await health(client))["transitions"]

    assert len(shown) == 20
    assert [one["at"] for one in shown] == sorted([one["at"] for one in shown], reverse=True)
    assert [one["worker"] for one in shown[:3]][::2] == [OTHER, OTHER]
    assert shown[1]["reason"] == "forced open by hand: now"


@pytest.mark.usefixtures("silent", "other")
async def test_workers_without_a_recent_report_are_named(client: httpx.AsyncClient) -> None:
    """Something is missing, and the answer says so."""
    shown = await health(client)

    assert (shown["workers"], shown["silent_workers"]) == ([THIS, OTHER], [THIRD])
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
    client: httpx.AsyncClient, other: OtherWorker, path: str, body: object, mode: Mode | None
) -> None:
    """The answer has their process ids."""
    shop = CircuitBreaker("shop")

    response = await client.post(
        f"/admin/circuit-breakers/shop/{path}", headers=AUTHORISED, json=body
    )

    assert response.status_code == 200
    assert response.json()["workers"] == [THIS, OTHER]
    assert other.obeyed == [("shop", mode)]
    assert shop.get_metrics().get("mode", {}).get("name") == mode


async def test_a_reset_closes_what_was_open_in_all_workers(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """Also a circuit that opened by its own rules."""
    shop = CircuitBreaker("shop", failure_threshold=1)
    with pytest.raises(ZeroDivisionError):
        shop.call_sync(lambda: 1 / 0)
    assert shop.is_open

    response = await client.post("/admin/circuit-breakers/shop/reset", headers=AUTHORISED)

    assert (response.status_code, response.json()["state"]) == (200, "closed")
    assert other.obeyed == [("shop", None)]
    assert shop.is_closed


async def test_a_breaker_that_only_another_worker_has_is_known(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """And the mode applies here as well, once the breaker is created."""
    other.breakers = {"elsewhere": metrics("open")}
    other.report()

    response = await force_open(client, "elsewhere")

    assert response.status_code == 200
    assert response.json()["state"] == "open"
    assert CircuitBreaker("elsewhere").is_open


async def test_a_breaker_that_no_worker_has_is_unknown(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """Nothing is set anywhere."""
    response = await force_open(client, "nobody")

    assert response.status_code == 404
    assert other.obeyed == []
    assert circuit_breaker_registry.modes() == {}


@pytest.mark.usefixtures("silent")
async def test_an_order_that_a_worker_has_not_carried_out_is_no_success(
    client: httpx.AsyncClient, other: OtherWorker, log_lines: LogLines
) -> None:
    """The others have, and it will as soon as it runs again."""
    shop = CircuitBreaker("shop")

    response = await force_open(client, "shop")

    assert response.status_code == 504
    problem = response.json()
    assert problem["type"] == "/problems/incomplete-order"
    assert (problem["workers"], problem["silent_workers"]) == ([THIS, OTHER], [THIRD])
    assert shop.is_open
    assert other.obeyed == [("shop", "forced_open")]
    (line,) = [line for line in log_lines() if line["logger"] == "example_service.admin"]
    assert (line["workers"], line["silent_workers"]) == ([THIS, OTHER], [THIRD])


@pytest.mark.usefixtures("silent")
async def test_a_breaker_that_only_a_silent_worker_may_have_is_not_called_unknown(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """Nothing is ordered either, because the name may be misspelt."""
    response = await force_open(client, "nobody")

    assert response.status_code == 504
    assert response.json()["silent_workers"] == [THIRD]
    assert (other.obeyed, circuit_breaker_registry.modes()) == ([], {})


async def test_an_order_that_cannot_be_stored_applies_to_one_process(
    client: httpx.AsyncClient, other: OtherWorker, fleet: Fleet, fleet_directory: Path
) -> None:
    """The operator learns that the others do not know of it."""
    shop = CircuitBreaker("shop")
    (fleet_directory / FILE).write_text("{")
    assert fleet.member is not None
    async with asyncio.timeout(5):
        while fleet.member.is_connected:  # noqa: ASYNC110 - As in `connected`.
            await asyncio.sleep(0.01)
    (fleet_directory / FILE).unlink()
    (fleet_directory / FILE).mkdir()

    response = await force_open(client, "shop")

    assert response.status_code == 504
    assert "Only one process did it" in response.json()["detail"]
    assert shop.is_open
    assert other.obeyed == []


async def test_a_mode_without_a_breaker_is_shown_and_can_be_ended(
    client: httpx.AsyncClient,
) -> None:
    """As of clients that are created for each request, and are gone between two of them."""
    circuit_breaker_registry.set_mode("client", Mode.FORCED_OPEN, "maintenance")

    shown = {"client": {"name": "forced_open", "reason": "maintenance", "ends_in": None}}
    assert (await health(client))["modes"] == shown
    listed = (await client.get("/admin/circuit-breakers", headers=AUTHORISED)).json()
    assert listed["modes"] == shown

    response = await client.post("/admin/circuit-breakers/client/reset", headers=AUTHORISED)

    assert (response.status_code, response.json()["state"]) == (200, None)
    assert (await health(client))["modes"] == {}


async def test_a_mode_that_code_has_ended_is_shown_no_longer(client: httpx.AsyncClient) -> None:
    """The answer has what the breakers do, not what was ordered once."""
    shop = CircuitBreaker("shop")
    await force_open(client, "shop")
    assert list((await health(client))["modes"]) == ["shop"]

    await circuit_breaker_registry.reset("shop")

    assert (await health(client))["modes"] == {}
    assert shop.is_closed


async def test_a_new_worker_starts_in_the_modes_that_are_set(
    fleet_directory: Path, other: OtherWorker
) -> None:
    """One that takes the place of another continues as that would have."""
    await other.member.order("shop", "forced_open", "maintenance", 60.0, opens=True)
    await other.member.order("ended", "forced_open", "maintenance", 0.01, opens=True)
    await asyncio.sleep(0.02)
    shop, ended = CircuitBreaker("shop"), CircuitBreaker("ended")

    breakers = ProcessBreakers(circuit_breaker_registry)
    member = Member(DirectoryStore(fleet_directory), breakers, name="w1")
    async with member.running():
        await connected(member)
        shown = shop.get_metrics()["mode"]

    assert (shown["name"], shown["reason"]) == ("forced_open", "maintenance")
    assert 0 < shown["ends_in"] <= 60.0
    assert CircuitBreaker("shop").is_open
    assert ended.is_closed


async def test_when_another_worker_opens_this_one_follows(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """With its reason and what is left of its wait."""
    shop = CircuitBreaker("shop")
    other.member.opened("shop", 30.0, "5 failures in a row", 0)
    async with asyncio.timeout(5):
        while shop.is_closed:  # noqa: ASYNC110 - As in `connected`.
            await asyncio.sleep(0.01)

    shown = (await health(client))["breakers"]["shop"]

    assert shown["reason"] == "5 failures in a row (opened by w2)"
    assert 29 < shown["retry_after"] <= 30
    assert (shown["verdict"], shown["opened_by"]) == ("fleet", "w2")


async def test_a_circuit_that_only_this_process_opened_says_so(
    client: httpx.AsyncClient,
) -> None:
    """As of one that code has forced open here."""
    shop = CircuitBreaker("shop")
    shop.force_open("now")
    closed = CircuitBreaker("closed")

    shown = await health(client)

    assert shown["fleet"] == {"connected": True, "processes": 1}
    assert shown["breakers"]["shop"]["verdict"] == "own"
    assert "opened_by" not in shown["breakers"]["shop"]
    assert "verdict" not in shown["breakers"][closed.name]


@pytest.mark.parametrize("nonsense", ["", "[]", "no JSON", '{"breakers": {"shop": 1}}'])
async def test_a_report_that_cannot_be_understood_is_none(
    client: httpx.AsyncClient,
    fleet_directory: Path,
    nonsense: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It costs neither the health answer nor an order."""
    Reports(fleet_directory, pid=OTHER).write(nonsense)
    shop = CircuitBreaker("shop")

    assert (await health(client))["silent_workers"] == [OTHER]
    response = await force_open(client, "shop")

    assert response.status_code == 504
    assert shop.is_open
    assert "could not be understood" in caplog.text


async def test_a_worker_reports_when_something_has_changed(
    fleet: Fleet, fleet_directory: Path
) -> None:
    """At once, not only each second; and no longer once it has ended."""
    reader = Reports(fleet_directory, pid=OTHER)
    shop = CircuitBreaker("shop")
    async with AllWorkers(fleet).reporting():
        shop.force_open("now")
        async with asyncio.timeout(0.5):
            while '"state":"open"' not in reader.others()[THIS].text:  # noqa: ASYNC110 - A file.
                await asyncio.sleep(0.01)
    assert reader.others() == {}


async def test_a_report_that_cannot_be_written_is_logged_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk costs the views of the other workers, and nothing else."""

    def fail(_: Reports, __: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Reports, "write", fail)
    workers = AllWorkers(fleet)
    async with workers.reporting():
        await workers._write()
        await workers._write()
    assert caplog.text.count("could not be written") == 1
