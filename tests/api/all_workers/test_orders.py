"""An operator's order reaches all workers."""

import asyncio
from pathlib import Path

import httpx
import pytest

from example_service.infra.fleet.directory_store import FILE, DirectoryStore
from example_service.infra.fleet.fleet import Fleet
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.resilience import (
    CircuitBreaker,
    Mode,
    circuit_breaker_registry,
)
from tests.api.all_workers.other_workers import (
    AUTHORISED,
    DEADLINE_SECONDS,
    MAINTENANCE,
    OTHER,
    THIRD,
    THIS,
    OtherWorker,
    connected,
    force_open,
    metrics,
)
from tests.application import LogLines


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
    """Every worker carries out an order, and the response lists their process IDs."""
    shop = CircuitBreaker("shop")

    response = await client.post(
        f"/admin/circuit-breakers/shop/{path}", headers=AUTHORISED, json=body
    )

    assert response.status_code == 200
    assert response.json()["workers"] == [THIS, OTHER]
    assert other.obeyed == [("shop", mode)]
    assert shop.get_metrics().get("mode", {}).get("name") == mode


async def test_a_reset_closes_a_circuit_in_all_workers(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """A reset also closes a circuit that opened because of failures."""
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
    """A mode set for it also applies here once this worker creates the breaker."""
    other.breakers = {"elsewhere": metrics("open")}
    other.report()

    response = await force_open(client, "elsewhere")

    assert response.status_code == 200
    assert response.json()["state"] == "open"
    assert CircuitBreaker("elsewhere").is_open


async def test_a_breaker_that_no_worker_has_is_unknown(
    client: httpx.AsyncClient, other: OtherWorker
) -> None:
    """An order for it is answered with 404 and changes nothing."""
    response = await force_open(client, "nobody")

    assert response.status_code == 404
    assert other.obeyed == []
    assert circuit_breaker_registry.modes() == {}


@pytest.mark.usefixtures("silent")
async def test_an_order_that_a_worker_has_not_carried_out_is_not_a_success(
    client: httpx.AsyncClient, other: OtherWorker, log_lines: LogLines
) -> None:
    """The other workers obey at once; a silent one will when it runs again."""
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
    """No worker gets the order either, because the name may be misspelt."""
    response = await force_open(client, "nobody")

    assert response.status_code == 504
    assert response.json()["silent_workers"] == [THIRD]
    assert (other.obeyed, circuit_breaker_registry.modes()) == ([], {})


async def test_an_order_that_cannot_be_stored_applies_to_one_process(
    client: httpx.AsyncClient, other: OtherWorker, fleet: Fleet, fleet_directory: Path
) -> None:
    """The response says that the other workers did not get the order."""
    shop = CircuitBreaker("shop")
    (fleet_directory / FILE).write_text("{")
    assert fleet.member is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        while fleet.member.is_connected:  # noqa: ASYNC110 - As in `connected`.
            await asyncio.sleep(0.01)
    (fleet_directory / FILE).unlink()
    (fleet_directory / FILE).mkdir()

    response = await force_open(client, "shop")

    assert response.status_code == 504
    assert "Only one process carried it out" in response.json()["detail"]
    assert shop.is_open
    assert other.obeyed == []


async def test_a_new_worker_starts_in_the_modes_that_are_set(
    fleet_directory: Path, other: OtherWorker
) -> None:
    """A worker that replaces another continues in the same modes."""
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
