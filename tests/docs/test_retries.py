"""The rules that the page about retries gives keep what it says of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import httpx
import pytest
import stamina

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock, half_opened
from tests.docs.pages import ROOT, blocks_of

Rule = Callable[[Exception], bool | float]


@pytest.fixture(autouse=True)
def _no_log_lines_of_stamina() -> Iterator[None]:
    """Keep the page's programs from deciding how stamina logs in other tests."""
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(before)


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    """A breaker that opens with the third failure, for thirty seconds."""
    return CircuitBreaker(
        "retried",
        failure_threshold=3,
        recovery_timeout=30.0,
        success_threshold=1,
        half_open_max_calls=1,
        clock=clock,
        registry=None,
    )


@pytest.fixture
def in_a_request() -> Rule:
    """The rule of the page for calls that somebody waits for."""
    return rule_of_the_page("worth_retrying")


@pytest.fixture
def in_a_job() -> Rule:
    """The rule of the page for calls that nobody waits for."""
    return rule_of_the_page("when_to_retry")


def rule_of_the_page(name: str) -> Rule:
    """A function as the page has it."""
    for block in blocks_of(ROOT / "docs" / "retries.md"):
        if block.language == "python" and f"def {name}(" in block.text:
            namespace: dict[str, Any] = {"__name__": "page"}
            definitions, _, _ = block.text.partition("\n\n@stamina.retry")
            exec(compile(definitions, str(block), "exec"), namespace)  # noqa: S102
            return cast("Rule", namespace[name])
    raise AssertionError(f"the page has no {name}")


class NoConnectionError(httpx.ConnectError, ConnectionError):
    """An outage by both rules: an error of httpx and one of the operating system."""


def connection_errors(count: int) -> list[Exception]:
    """So many of them."""
    return [NoConnectionError("no connection") for _ in range(count)]


def record_waits(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> list[float]:
    """The seconds that are slept from now on, which pass on the clock alone."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


class Dependency:
    """Fails with what it is given, one error for each call, and then works."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        """Be called."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "works"


def retried(
    rule: Rule, breaker: CircuitBreaker, dependency: Dependency, **limits: Any
) -> Callable[[], Awaitable[str]]:
    """The breaker inside, the retry outside, as the page has them."""
    return stamina.retry(on=rule, **limits)(breaker.protected(dependency.__call__))


@pytest.mark.parametrize("rule", ["worth_retrying", "when_to_retry"])
async def test_each_attempt_counts_once(rule: str, breaker: CircuitBreaker) -> None:
    """Two attempts that fail and one that works are two failures and one success."""
    dependency = Dependency(*connection_errors(2))
    call = retried(rule_of_the_page(rule), breaker, dependency, attempts=5)
    with stamina.set_testing(True, attempts=5):
        assert await call() == "works"

    metrics = breaker.get_metrics()
    assert (metrics["total_failures"], metrics["total_successes"]) == (2, 1)


async def test_open_circuit_is_never_retried(in_a_request: Rule, breaker: CircuitBreaker) -> None:
    """The attempt that is refused is the last, and the refusal reaches the caller."""
    dependency = Dependency(*connection_errors(10))
    call = retried(in_a_request, breaker, dependency, attempts=10)
    with stamina.set_testing(True, attempts=10):
        for _ in range(2):
            with pytest.raises(CircuitOpenError):
                await call()

    assert dependency.calls == 3
    assert breaker.total_rejections == 2


async def test_answers_are_never_retried(in_a_request: Rule, breaker: CircuitBreaker) -> None:
    """An error that is no outage is not worth a second attempt."""
    dependency = Dependency(ValueError("wrong currency"))
    call = retried(in_a_request, breaker, dependency, attempts=10)
    with stamina.set_testing(True, attempts=10), pytest.raises(ValueError, match="wrong"):
        await call()

    assert dependency.calls == 1


async def test_job_waits_for_retry_after(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks an open circuit once, sleeps for exactly what was announced, and is the probe."""
    waits = record_waits(monkeypatch, clock)
    dependency = Dependency(*connection_errors(4))
    call = retried(
        in_a_job, breaker, dependency, attempts=None, timeout=None, wait_initial=0, wait_jitter=0
    )

    assert await call() == "works"

    # The fourth failure is the first probe, after which the circuit stays open for longer.
    assert [wait for wait in waits if wait] == [30.0, 60.0]
    assert dependency.calls == 5
    assert breaker.total_rejections == 2
    assert breaker.is_closed


async def test_job_does_not_spin_while_others_probe(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open circuit whose probes are taken announces 0.0 seconds; the job waits a little."""
    waits = record_waits(monkeypatch, clock)
    call = retried(in_a_job, breaker, Dependency(), attempts=5, timeout=None)
    with half_opened(breaker):
        breaker.acquire()
        with pytest.raises(CircuitOpenError):
            await call()

    assert waits == [0.1] * 4


async def test_job_gives_up_where_no_end_is_known(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A circuit that was forced open by hand announces nothing to wait for."""
    waits = record_waits(monkeypatch, clock)
    breaker.force_open("maintenance")
    with pytest.raises(CircuitOpenError):
        await retried(in_a_job, breaker, Dependency(), attempts=None, timeout=None)()

    assert waits == []
    assert breaker.total_rejections == 1


async def test_timeout_cuts_no_wait_short(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page warns: stamina looks at its `timeout` after an attempt, not before a wait."""
    waits = record_waits(monkeypatch, clock)
    dependency = Dependency(*connection_errors(3))
    call = retried(in_a_job, breaker, dependency, timeout=5.0, wait_initial=0, wait_jitter=0)

    assert await call() == "works"
    assert waits[-1] == 30.0
