"""The modes of the sandbox as a real HTTP client sees them over real sockets."""

import asyncio
import errno
import json
import socket
import time
from collections.abc import Callable
from itertools import islice
from typing import Any, cast

import httpx
import pytest

from example_service.sandbox.charges import Ledger
from example_service.sandbox.listener import Listener
from example_service.sandbox.modes import (
    Act,
    Damage,
    ModeChange,
    ModeReport,
    SandboxMode,
    Step,
    steps,
)
from example_service.sandbox.provider import create_provider
from example_service.sandbox.switch import Switch
from tests.sandbox.integration.sandboxes import (
    EURO,
    IMPATIENT,
    PATIENCE_SECONDS,
    TEN_EUROS,
    Sandbox,
    outcome,
)

pytestmark = pytest.mark.integration


class TestHealthy:
    """The sandbox in its initial mode."""

    async def test_it_answers_with_rates(self, sandbox: Sandbox) -> None:
        """Known currencies have a rate; others are not found."""
        assert (await sandbox.rate()).json() == EURO
        assert (await sandbox.rate("XXX")).status_code == 404

    async def test_kept_connections_answer_at_once(self, sandbox: Sandbox) -> None:
        """No response waits for the acknowledgement of the previous one, which takes 40 ms."""
        took = []
        for _ in range(40):
            begun = time.monotonic()
            await sandbox.rate()
            took.append(time.monotonic() - begun)
        # The first acknowledgements on a connection are not delayed. Of the others, a busy machine
        # may delay many, but not all.
        assert min(took[20:]) < 0.04

    async def test_a_charge_is_recorded_under_its_key(self, sandbox: Sandbox) -> None:
        """The response, the lookup by key and the control address show the same charge."""
        answer = await sandbox.charge("k")
        assert answer.status_code == 201
        found = await sandbox.client.get(f"{sandbox.provider}/v1/charges/k")
        assert found.json() == answer.json()
        assert answer.json().items() <= (await sandbox.charges())["k"].items()

    async def test_an_uncharged_key_is_not_found(self, sandbox: Sandbox) -> None:
        """A client learns from this that it may charge."""
        response = await sandbox.client.get(f"{sandbox.provider}/v1/charges/k")
        assert response.status_code == 404

    async def test_concurrent_requests_with_one_key_charge_once(self, sandbox: Sandbox) -> None:
        """Ten concurrent requests for each of five keys make five charges."""
        keys = [f"k{number % 5}" for number in range(50)]
        answers = await asyncio.gather(*(sandbox.charge(key) for key in keys))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 5
        charges = await sandbox.charges()
        assert {(each["times_charged"], each["requests"]) for each in charges.values()} == {(1, 10)}

    async def test_a_declined_charge_is_not_recorded(self, sandbox: Sandbox) -> None:
        """The customer without credit is declined with 402 each time."""
        for _ in range(2):
            answer = await sandbox.charge("k", {**TEN_EUROS, "customer_id": "declined"})
            assert (answer.status_code, answer.json()["status"]) == (402, "declined")
        assert await sandbox.charges() == {}

    async def test_a_key_with_another_charge_is_a_conflict(self, sandbox: Sandbox) -> None:
        """The first charge stands and the second is not made."""
        await sandbox.charge("k")
        assert (await sandbox.charge("k", {**TEN_EUROS, "amount": 5})).status_code == 409
        assert (await sandbox.charges())["k"]["amount"] == 1000

    @pytest.mark.parametrize(
        ("key", "change", "field"),
        [
            ("k", {"amount": -1}, "amount"),
            ("k", {"amount": 0.5}, "amount"),
            ("k", {"currency": "euro"}, "currency"),
            ("k", {"currency": "XXX"}, "currency"),
            ("k", {"customer_id": ""}, "customer_id"),
            ("k", {"gift": True}, "gift"),
            ("", {}, "Idempotency-Key"),
            ("with space", {}, "Idempotency-Key"),
        ],
    )
    async def test_an_odd_charge_is_refused_by_field(
        self, key: str, change: dict[str, Any], field: str, sandbox: Sandbox
    ) -> None:
        """The 422 names the wrong field, and nothing is charged."""
        answer = await sandbox.charge(key, {**TEN_EUROS, **change})
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["errors"]] == [field]
        assert await sandbox.charges() == {}


class TestFailing:
    """Responds with 503."""

    async def test_every_call_fails_and_none_charges(self, sandbox: Sandbox) -> None:
        """This applies to rates, charges and lookups."""
        await sandbox.turn("failing")
        assert (await sandbox.rate()).status_code == 503
        assert (await sandbox.charge("k")).status_code == 503
        assert await sandbox.charges() == {}


class TestSlow:
    """Responds late."""

    async def test_the_response_comes_after_the_latency(self, sandbox: Sandbox) -> None:
        """The response itself is correct."""
        await sandbox.turn("slow", latency_seconds=0.2)
        begun = time.monotonic()
        assert (await sandbox.rate()).json() == EURO
        assert time.monotonic() - begun >= 0.2

    async def test_a_charge_stands_even_if_the_client_gave_up(self, sandbox: Sandbox) -> None:
        """It is recorded on arrival, so sending it again later charges nothing."""
        await sandbox.turn("slow", latency_seconds=1)
        with pytest.raises(httpx.ReadTimeout):
            await sandbox.charge("k", timeout=IMPATIENT)
        await sandbox.until_charged("k")
        await sandbox.turn("healthy")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await sandbox.charge("k")).status_code == 409:
                assert answer.json()["status"] == "in_progress"
        assert answer.status_code == 201
        assert (await sandbox.charges())["k"]["times_charged"] == 1


class TestHanging:
    """Never responds."""

    async def test_a_hanging_charge_stands_and_ends_with_the_mode(self, sandbox: Sandbox) -> None:
        """The charge is recorded on arrival; changing the mode closes the connection."""
        await sandbox.turn("hanging")
        call = asyncio.create_task(sandbox.charge("k"))
        await sandbox.until_charged("k")
        assert not call.done()
        await sandbox.turn("healthy")
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await call
        assert (await sandbox.charge("k")).status_code == 201
        assert (await sandbox.charges())["k"]["times_charged"] == 1

    async def test_a_hanging_call_of_a_client_that_left_is_dropped(self) -> None:
        """Nothing is kept for hanging calls whose client gave up."""
        switch = Switch()
        listener = Listener(create_provider(Ledger(), switch), "127.0.0.1", 0)
        await switch.turn(ModeChange(mode=SandboxMode.HANGING), listener)
        async with httpx.AsyncClient(trust_env=False) as client:
            call = asyncio.create_task(client.get(f"{listener.url}/v1/rates/EUR"))
            await eventually(lambda: len(switch._hanging) == 1)
            call.cancel()
            await eventually(lambda: not switch._hanging)
        await listener.close()


async def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until a condition is true in this process."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_true():  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0)


class TestRefusing:
    """Does not accept connections."""

    async def test_connections_are_refused_until_it_heals_on_the_same_port(
        self, sandbox: Sandbox
    ) -> None:
        """The client gets a real ECONNREFUSED at once, each time the mode is set."""
        for _ in range(3):
            await sandbox.turn("refusing")
            port = httpx.URL(sandbox.provider).port
            with socket.socket() as plain:
                assert plain.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
            with pytest.raises(httpx.ConnectError):
                await sandbox.rate()
            await sandbox.turn("healthy")
            assert (await sandbox.rate()).json() == EURO

    async def test_open_connections_are_closed(self, sandbox: Sandbox) -> None:
        """Calls in flight fail at once, but their charges stand."""
        await sandbox.turn("slow", latency_seconds=60)
        call = asyncio.create_task(sandbox.charge("k"))
        await sandbox.until_charged("k")
        await sandbox.turn("refusing")
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await call
        assert "k" in await sandbox.charges()

    async def test_idle_connections_are_closed_when_the_mode_is_set(self) -> None:
        """A client that keeps its connections sends the next call over a new one."""
        switch = Switch()
        listener = Listener(create_provider(Ledger(), switch), "127.0.0.1", 0)
        await listener.open()
        url = httpx.URL(listener.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /v1/rates/EUR HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"}")

        await switch.turn(ModeChange(mode=SandboxMode.REFUSING), listener)

        # Read without the event loop, which would close the connection now if it is still open.
        with writer.get_extra_info("socket").dup() as idle:
            assert idle.recv(1) == b""
        writer.close()
        await listener.close()

    async def test_the_port_stays_taken(self, sandbox: Sandbox) -> None:
        """No other program can bind it meanwhile."""
        await sandbox.turn("refusing")
        with socket.socket() as other, pytest.raises(OSError) as caught:  # noqa: PT011 - errno below
            other.bind(("127.0.0.1", httpx.URL(sandbox.provider).port))
        assert caught.value.errno == errno.EADDRINUSE

    async def test_setting_it_twice_changes_nothing(self, sandbox: Sandbox) -> None:
        """Refusing twice and healing twice do no harm."""
        for mode in ("refusing", "refusing", "healthy", "healthy"):
            await sandbox.turn(mode)
        assert (await sandbox.rate()).json() == EURO


class TestGarbled:
    """Sends broken bodies."""

    async def test_each_body_is_broken_as_drawn(self, sandbox: Sandbox) -> None:
        """Each kind of damage occurs, and no body can be read as a valid response."""
        await sandbox.turn("garbled", seed=3)
        drawn = drawn_steps(24, mode="garbled", seed=3)
        assert {step.damage for step in drawn} == set(Damage)
        for step in drawn:
            if step.damage is Damage.TRUNCATED:
                with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
                    await sandbox.rate()
                continue
            answer = await sandbox.rate()
            assert answer.status_code == 200
            if step.damage is Damage.WRONG_SHAPE:
                assert not answer.json().keys() & EURO.keys()
            else:
                with pytest.raises(json.JSONDecodeError):
                    answer.json()

    async def test_a_charge_is_recorded_as_drawn(self, sandbox: Sandbox) -> None:
        """Half of the lost responses belong to real charges; a client cannot tell which."""
        await sandbox.turn("garbled", seed=3)
        drawn = dict(zip(map(str, range(24)), drawn_steps(24, mode="garbled", seed=3), strict=True))
        for key in drawn:
            await outcome(sandbox.charge(key))
        recorded = {key for key, step in drawn.items() if step.records}
        assert 0 < len(recorded) < 24
        assert (await sandbox.charges()).keys() == recorded


class TestFlaky:
    """Injects each fault at a seeded rate."""

    async def test_the_same_seed_gives_the_same_responses(self, sandbox: Sandbox) -> None:
        """In each run, a call meets the fault that was drawn for it."""
        change = {"failure_rate": 0.8, "latency_seconds": 0.01, "seed": 8}
        drawn = drawn_steps(20, mode="flaky", **change)
        assert {step.act for step in drawn} == set(Act) - {Act.DELAY, Act.INTERCEPT}
        runs = []
        for _ in range(2):
            await sandbox.turn("flaky", **change)
            limits = [IMPATIENT if step.act is Act.HANG else PATIENCE_SECONDS for step in drawn]
            runs.append([await outcome(sandbox.rate(timeout=limit)) for limit in limits])
        assert runs[0] == runs[1]
        answered = [
            run[0] == 200 and json.loads(cast("bytes", run[1])) == EURO
            for run, step in zip(runs[0], drawn, strict=True)
            if step.act in {Act.ANSWER, Act.ANSWER_LATE}
        ]
        assert all(answered)

    async def test_repeating_with_the_same_key_charges_exactly_once(self, sandbox: Sandbox) -> None:
        """However many responses are lost, each key is charged once in the end."""
        await sandbox.turn("flaky", failure_rate=0.7, latency_seconds=0.01, seed=11)
        keys = [str(number) for number in range(10)]

        async def charge_until_answered(key: str) -> None:
            while True:
                status, *content = await outcome(sandbox.charge(key, timeout=IMPATIENT))
                if status == 201 and b'"idempotency_key"' in cast("bytes", content[0]):
                    return

        await asyncio.gather(*map(charge_until_answered, keys))
        charges = await sandbox.charges()
        assert charges.keys() == set(keys)
        assert {each["times_charged"] for each in charges.values()} == {1}


def drawn_steps(count: int, **change: Any) -> list[Step]:
    """What the sandbox must do with the first calls in a mode."""
    return list(islice(steps(ModeReport.of(ModeChange(**change), None)), count))
