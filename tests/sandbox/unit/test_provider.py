"""The sandbox's API: the contract of a payment provider, late charges and impostors."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from example_service.sandbox.charges import Ledger
from example_service.sandbox.control import create_control
from example_service.sandbox.modes import Impostor, ModeChange, SandboxMode, Step, steps
from example_service.sandbox.provider import create_provider
from example_service.sandbox.switch import Switch
from tests.sandbox.unit.test_switch import FakePort

ORDER = {"amount": 1000, "currency": "EUR", "customer_id": "alice"}
DEADLINE_SECONDS = 60.0


class Sandbox:
    """A sandbox without sockets, and the requests of a test.

    Attributes:
        ledger: Its charges.
        switch: Its present mode.
        calls: Calls that wait for a late charge.
    """

    def __init__(self) -> None:
        self.ledger, self.switch = Ledger(), Switch()
        self.calls: list[asyncio.Task[httpx.Response]] = []
        provider = create_provider(self.ledger, self.switch)
        control = create_control(self.ledger, self.switch, FakePort())
        self.provider = httpx.AsyncClient(
            transport=httpx.ASGITransport(provider), base_url="http://provider.test/v1"
        )
        self.control = httpx.AsyncClient(
            transport=httpx.ASGITransport(control), base_url="http://control.test/sandbox"
        )

    async def turn(self, mode: SandboxMode, **parameters: Any) -> None:
        """Set the mode."""
        await self.switch.turn(ModeChange(mode=mode, **parameters), FakePort())

    async def charge(self, key: str = "k", **changes: Any) -> httpx.Response:
        """Charge with a key."""
        headers = {"Idempotency-Key": key}
        return await self.provider.post("/charges", json={**ORDER, **changes}, headers=headers)

    async def cancel(self, key: str = "k") -> httpx.Response:
        """Cancel a key."""
        return await self.provider.post(f"/charges/{key}/cancel")

    async def find(self, key: str = "k") -> httpx.Response:
        """Look up a key."""
        return await self.provider.get(f"/charges/{key}")

    async def leave_late_charge(self, key: str = "k") -> None:
        """Send a charge that arrives late, and disconnect without a response."""
        before = self.on_their_way
        call = asyncio.create_task(self.charge(key))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.on_their_way == before:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0)
        self.calls.append(call)

    @property
    def on_their_way(self) -> int:
        """The number of charges that have not arrived yet."""
        return len(self.switch.late_charges._on_their_way)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A healthy sandbox."""
    sandbox = Sandbox()
    async with sandbox.provider, sandbox.control:
        yield sandbox
        for call in sandbox.calls:
            call.cancel()


def content(response: httpx.Response) -> tuple[int, Any]:
    """Return the status and the body of a response."""
    assert response.headers["Content-Type"] == "application/json"
    return response.status_code, response.json()


class TestContract:
    """The provider's responses."""

    async def test_a_charge_is_found_and_repeated_and_outlives_a_cancellation(
        self, sandbox: Sandbox
    ) -> None:
        """Looking it up, repeating it and cancelling it all return the same charge."""
        status, charge = content(await sandbox.charge())
        assert (status, charge) == (
            201,
            {"id": charge["id"], "idempotency_key": "k", **ORDER, "status": "succeeded"},
        )
        assert content(await sandbox.charge()) == (201, charge)
        assert content(await sandbox.find()) == (200, charge)
        assert content(await sandbox.cancel()) == (200, charge)

    async def test_a_decline_is_final(self, sandbox: Sandbox) -> None:
        """It is repeated, even if the key is used for another customer."""
        body = {"idempotency_key": "k", "status": "declined", "reason": "card declined"}
        assert content(await sandbox.charge(customer_id="declined")) == (402, body)
        assert content(await sandbox.charge()) == (402, body)
        assert content(await sandbox.find()) == (200, body)
        assert content(await sandbox.cancel()) == (200, body)
        assert sandbox.ledger.report().total_charges == 0

    async def test_a_refusal_is_final(self, sandbox: Sandbox) -> None:
        """It names the key, and is repeated even if the second order is valid."""
        status, body = content(await sandbox.charge(amount=0))
        assert (status, body["idempotency_key"], body["status"]) == (422, "k", "refused")
        assert body["reason"].startswith("amount: ")
        refused = {name: body[name] for name in ("idempotency_key", "status", "reason")}
        assert content(await sandbox.charge()) == (422, refused)
        assert content(await sandbox.find()) == (200, refused)
        assert content(await sandbox.cancel()) == (200, refused)
        assert sandbox.ledger.report().total_charges == 0

    async def test_a_refusal_does_not_replace_a_charge(self, sandbox: Sandbox) -> None:
        """An invalid order with a charged key gets the charge."""
        charge = (await sandbox.charge()).json()
        assert content(await sandbox.charge(amount=0)) == (201, charge)

    async def test_a_cancelled_key_is_never_charged(self, sandbox: Sandbox) -> None:
        """This includes charges that arrive late."""
        body = {"idempotency_key": "k", "status": "cancelled"}
        assert content(await sandbox.cancel()) == (200, body)
        assert content(await sandbox.charge()) == (409, body)
        assert content(await sandbox.find()) == (200, body)
        assert content(await sandbox.cancel()) == (200, body)
        assert sandbox.ledger.report().total_charges == 0

    async def test_a_key_in_use_is_answered_with_in_progress(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is in progress until the slow call is done, even if its client has left."""
        await sandbox.turn(SandboxMode.SLOW, latency_seconds=60)
        first = asyncio.create_task(sandbox.charge())
        while sandbox.ledger.find("k") is None:  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0)
        first.cancel()
        in_progress = (409, {"idempotency_key": "k", "status": "in_progress"})

        assert content(await sandbox.charge()) == in_progress
        assert content(await sandbox.cancel()) == in_progress
        await sandbox.turn(SandboxMode.HEALTHY)
        assert content(await sandbox.charge()) == in_progress
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + 60)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (answer := await sandbox.charge()).status_code == 409:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        assert answer.status_code == 201
        assert sandbox.ledger.report().total_charges == 1

    async def test_an_unknown_key_is_named(self, sandbox: Sandbox) -> None:
        """It is only unknown for now, because it may be charged at any moment."""
        unknown = (404, {"idempotency_key": "k", "status": "unknown"})
        assert content(await sandbox.find()) == unknown
        assert (await sandbox.charge()).status_code == 201

    async def test_an_unknown_currency_is_named(self, sandbox: Sandbox) -> None:
        """This distinguishes the response from a gateway's 404."""
        answer = content(await sandbox.provider.get("/rates/XXX"))
        assert answer == (404, {"currency": "XXX", "error": "unknown currency"})


class TestLate:
    """Charges that arrive later."""

    async def test_a_late_charge_is_made_even_if_its_client_has_left(
        self, sandbox: Sandbox
    ) -> None:
        """Until then the key is unknown; the mode at its arrival makes no difference."""
        await sandbox.turn(SandboxMode.LATE, latency_seconds=604_800)
        await sandbox.leave_late_charge()
        await sandbox.turn(SandboxMode.HEALTHY)
        assert (await sandbox.find()).json()["status"] == "unknown"

        delivered = await sandbox.control.post("/late-charges/deliver")

        assert content(delivered) == (200, {"delivered": 1})
        assert (await sandbox.find()).json()["status"] == "succeeded"

    async def test_it_arrives_by_itself(self, sandbox: Sandbox) -> None:
        """A client that still waits gets the response."""
        await sandbox.turn(SandboxMode.LATE, latency_seconds=0.01)
        assert (await sandbox.charge()).status_code == 201

    async def test_it_does_not_charge_a_key_cancelled_meanwhile(self, sandbox: Sandbox) -> None:
        """A cancellation arrives at once and wins."""
        await sandbox.turn(SandboxMode.LATE, latency_seconds=60)
        await sandbox.leave_late_charge()
        assert (await sandbox.cancel()).json()["status"] == "cancelled"
        await sandbox.control.post("/late-charges/deliver")
        assert (await sandbox.find()).json()["status"] == "cancelled"
        assert sandbox.ledger.report().total_charges == 0

    async def test_several_with_one_key_charge_once(self, sandbox: Sandbox) -> None:
        """A client may have sent the charge several times."""
        await sandbox.turn(SandboxMode.LATE, latency_seconds=60)
        for _ in range(3):
            await sandbox.leave_late_charge()
        assert (await sandbox.control.post("/late-charges/deliver")).json() == {"delivered": 3}
        assert sandbox.ledger.report().total_charges == 1

    async def test_clearing_drops_late_charges(self, sandbox: Sandbox) -> None:
        """Otherwise they would charge during the next test."""
        arriving = asyncio.create_task(sandbox.switch.late_charges.arrive(60))
        await asyncio.sleep(0)
        await sandbox.control.delete("/charges")
        assert not await arriving
        assert (await sandbox.control.post("/late-charges/deliver")).json() == {"delivered": 0}

    async def test_a_sandbox_that_stops_makes_no_late_charge(self, sandbox: Sandbox) -> None:
        """Stopping does not wait for late charges."""
        sandbox.switch.late_charges.close()
        assert not await sandbox.switch.late_charges.arrive(60)


class TestIntercepted:
    """A gateway responds instead of the provider."""

    async def test_no_response_passes_for_one_of_the_provider(self, sandbox: Sandbox) -> None:
        """Each has the wrong type, key or order."""
        await sandbox.turn(SandboxMode.INTERCEPTED, seed=1)
        for number, step in zip(range(500), steps(sandbox.switch.report), strict=False):
            key = f"key-{number}"
            answer = await sandbox.charge(key)
            assert answer.status_code == step.status
            assert (sandbox.ledger.find(key) is not None) is step.records
            if answer.headers.get("Content-Type") != "application/json":
                continue
            body = answer.json()
            if body.get("idempotency_key") == key:
                assert body["customer_id"] != ORDER["customer_id"]
                assert step.impostor is Impostor.ANOTHER_ORDER

    @pytest.mark.parametrize("path", ["/charges/k", "/rates/EUR"])
    async def test_other_calls_are_intercepted_too(self, path: str, sandbox: Sandbox) -> None:
        """The gateway is in front of all paths."""
        await sandbox.turn(SandboxMode.INTERCEPTED, seed=1)
        drawn: list[Step] = [
            step for _, step in zip(range(50), steps(sandbox.switch.report), strict=False)
        ]
        answers = [await sandbox.provider.get(path) for _ in drawn]
        assert [answer.status_code for answer in answers] == [step.status for step in drawn]
