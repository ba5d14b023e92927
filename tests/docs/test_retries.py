"""The rules on the page about retries behave as the page says."""

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
    """Keep the programs of the page from changing how stamina logs in other tests."""
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
    """A breaker that opens for thirty seconds after three failures."""
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
    """The page's rule for calls with a waiting user."""
    return rule_of_the_page("worth_retrying")


@pytest.fixture
def in_a_job() -> Rule:
    """The page's rule for calls without a waiting user."""
    return rule_of_the_page("when_to_retry")


def rule_of_the_page(name: str) -> Rule:
    """A function defined on the page."""
    for block in blocks_of(ROOT / "docs" / "retries.md"):
        if block.language == "python" and f"def {name}(" in block.text:
            namespace: dict[str, Any] = {"__name__": "page"}
            definitions, _, _ = block.text.partition("\n\n@stamina.retry")
            exec(compile(definitions, str(block), "exec"), namespace)  # noqa: S102
            return cast("Rule", namespace[name])
    raise AssertionError(f"the page has no {name}")


class NoConnectionError(httpx.ConnectError, ConnectionError):
    """An outage according to both rules: an error of httpx and of the operating system."""


def connection_errors(count: int) -> list[Exception]:
    """This many connection errors."""
    return [NoConnectionError("no connection") for _ in range(count)]


def record_waits(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> list[float]:
    """Record the seconds of each sleep from now on; they pass only on the fake clock."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


class Dependency:
    """Raises the given errors, one per call, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        """Handle a call."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "works"


def retried(
    rule: Rule, breaker: CircuitBreaker, dependency: Dependency, **limits: Any
) -> Callable[[], Awaitable[str]]:
    """A call with the breaker inside and the retry outside, as on the page."""
    return stamina.retry(on=rule, **limits)(breaker.protected(dependency.__call__))


@pytest.mark.parametrize("rule", ["worth_retrying", "when_to_retry"])
async def test_each_attempt_counts_once(rule: str, breaker: CircuitBreaker) -> None:
    """Two failed attempts and a successful one count as two failures and one success."""
    dependency = Dependency(*connection_errors(2))
    call = retried(rule_of_the_page(rule), breaker, dependency, attempts=5)
    with stamina.set_testing(True, attempts=5):
        assert await call() == "works"

    metrics = breaker.get_metrics()
    assert (metrics["total_failures"], metrics["total_successes"]) == (2, 1)


async def test_open_circuit_is_never_retried(in_a_request: Rule, breaker: CircuitBreaker) -> None:
    """A refused attempt is the last one, and the refusal reaches the caller."""
    dependency = Dependency(*connection_errors(10))
    call = retried(in_a_request, breaker, dependency, attempts=10)
    with stamina.set_testing(True, attempts=10):
        for _ in range(2):
            with pytest.raises(CircuitOpenError):
                await call()

    assert dependency.calls == 3
    assert breaker.total_rejections == 2


async def test_answers_are_never_retried(in_a_request: Rule, breaker: CircuitBreaker) -> None:
    """An error that is not an outage is not worth a second attempt."""
    dependency = Dependency(ValueError("wrong currency"))
    call = retried(in_a_request, breaker, dependency, attempts=10)
    with stamina.set_testing(True, attempts=10), pytest.raises(ValueError, match="wrong"):
        await call()

    assert dependency.calls == 1


async def test_job_waits_for_retry_after(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries an open circuit once, sleeps exactly the announced time, and becomes the probe."""
    waits = record_waits(monkeypatch, clock)
    dependency = Dependency(*connection_errors(4))
    call = retried(
        in_a_job, breaker, dependency, attempts=None, timeout=None, wait_initial=0, wait_jitter=0
    )

    assert await call() == "works"

    # The fourth failure is the first probe, after which the circuit stays open longer.
    assert [wait for wait in waits if wait] == [30.0, 60.0]
    assert dependency.calls == 5
    assert breaker.total_rejections == 2
    assert breaker.is_closed


async def test_job_does_not_spin_while_others_probe(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all probes are taken, a refusal announces 0.0 seconds; the job waits a little."""
    waits = record_waits(monkeypatch, clock)
    call = retried(in_a_job, breaker, Dependency(), attempts=5, timeout=None)
    with half_opened(breaker):
        breaker.acquire()
        with pytest.raises(CircuitOpenError):
            await call()

    assert waits == [0.1] * 4


async def test_job_gives_up_if_no_end_is_known(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A circuit that was forced open does not announce when it will close."""
    waits = record_waits(monkeypatch, clock)
    breaker.force_open("maintenance")
    with pytest.raises(CircuitOpenError):
        await retried(in_a_job, breaker, Dependency(), attempts=None, timeout=None)()

    assert waits == []
    assert breaker.total_rejections == 1


async def test_timeout_does_not_shorten_a_wait(
    in_a_job: Rule, breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page warns, stamina checks its `timeout` after an attempt, not before a wait."""
    waits = record_waits(monkeypatch, clock)
    dependency = Dependency(*connection_errors(3))
    call = retried(in_a_job, breaker, dependency, timeout=5.0, wait_initial=0, wait_jitter=0)

    assert await call() == "works"
    assert waits[-1] == 30.0
