"""The test kit sets breakers to a state for a block, and isolates tests."""

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from math import inf, nan

import pytest

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    StateChanged,
    circuit_breaker_registry,
)
from example_service.infra.resilience.testing import (
    FakeClock,
    RecordingListener,
    half_opened,
    opened,
)

pytest_plugins = ["pytester"]

CLOSED, OPEN, HALF_OPEN = CircuitState


async def succeed() -> str:
    """Return an answer."""
    return "answer"


async def fail() -> None:
    """Raise the error of a dependency that is down."""
    raise ConnectionError


async def failed_call(breaker: CircuitBreaker) -> None:
    """Make a call that fails."""
    with pytest.raises(ConnectionError):
        await breaker.call(fail)


def assert_new(breaker: CircuitBreaker) -> None:
    """Check that a breaker is like a new one."""
    new = CircuitBreaker("new", registry=None)
    assert breaker.get_metrics() == new.get_metrics()
    assert breaker.clock is time.monotonic


@pytest.fixture
def breaker(listener: RecordingListener) -> CircuitBreaker:
    """A breaker as in services, with the system clock."""
    return CircuitBreaker("stock", listeners=[listener], registry=None)


# --- the clock


async def test_clock_moves_only_when_advanced() -> None:
    """Time passes only by advancing the clock or by sleeping on it."""
    clock = FakeClock(now=10)
    assert [clock(), clock()] == [10, 10]
    clock.advance(5)
    await clock.sleep(0.5)

    assert clock() == clock.now == 15.5


@pytest.mark.parametrize("seconds", [-1, nan, inf])
def test_clock_never_goes_back(clock: FakeClock, seconds: float) -> None:
    """A monotonic clock cannot be set back."""
    with pytest.raises(ValueError, match=r"^seconds must be at least 0"):
        clock.advance(seconds)

    assert clock() == 1000


# --- the listener


async def test_listener_keeps_every_event_in_order(
    clock: FakeClock, listener: RecordingListener
) -> None:
    """A test can compare all events of an outage, or only its transitions."""
    breaker = CircuitBreaker(
        "stock",
        failure_threshold=1,
        success_threshold=1,
        listeners=[listener],
        clock=clock,
        registry=None,
    )
    await failed_call(breaker)
    with pytest.raises(CircuitOpenError):
        await breaker.call(succeed)
    clock.advance(60)
    await breaker.call(succeed)

    assert [type(event) for event in listener.events] == [
        CallFailed,
        StateChanged,
        CallRejected,
        StateChanged,
        CallSucceeded,
        StateChanged,
    ]
    assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


# --- an open circuit


async def test_opened_circuit_refuses_as_after_an_outage(breaker: CircuitBreaker) -> None:
    """The caller receives the same details, and no extra call is counted."""
    with opened(breaker) as same:
        assert same is breaker
        with pytest.raises(CircuitOpenError) as refusal:
            await breaker.call(succeed)
        metrics = breaker.get_metrics()

    assert refusal.value.state is OPEN
    assert refusal.value.retry_after == pytest.approx(60, abs=10)
    assert refusal.value.reason == metrics["reason"] == "opened by a test"
    assert (metrics["total_rejections"], metrics["opened_count"]) == (1, 1)
    assert (metrics["total_failures"], metrics["last_failure_time"]) == (0, None)
    assert "mode" not in metrics


def test_opened_circuit_waits_as_long_as_asked(
    breaker: CircuitBreaker, clock: FakeClock, listener: RecordingListener
) -> None:
    """Callers and listeners receive the wait that is in effect."""
    with opened(breaker, retry_after=7, clock=clock):
        assert breaker.get_metrics()["retry_after"] == 7
        clock.advance(6)
        assert breaker.is_open
        clock.advance(1)
        assert breaker.is_half_open

    opening = listener.events[0]
    assert isinstance(opening, StateChanged)
    assert opening.wait_seconds == 7


@pytest.mark.parametrize("seconds", [0, -1, nan, inf])
def test_opened_circuit_refuses_an_impossible_wait(breaker: CircuitBreaker, seconds: float) -> None:
    """An invalid wait is an error, and the breaker does not change."""
    with (
        pytest.raises(ValueError, match=r"^retry_after must be above 0"),
        opened(breaker, retry_after=seconds),
    ):
        pytest.fail("the block was entered")

    assert_new(breaker)


async def test_opened_circuit_recovers_by_its_own_rules(
    breaker: CircuitBreaker, clock: FakeClock, listener: RecordingListener
) -> None:
    """The clock of the test replaces the breaker's own, so a test can go through a recovery."""
    with opened(breaker, clock=clock):
        clock.advance(60)
        assert [await breaker.call(succeed) for _ in range(2)] == ["answer", "answer"]
        assert breaker.is_closed

    assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]
    assert_new(breaker)


def test_breaker_is_closed_and_clean_after_the_block(
    breaker: CircuitBreaker, listener: RecordingListener
) -> None:
    """Nothing remains of the block, even if the test failed in it."""
    with pytest.raises(CircuitOpenError), opened(breaker):
        breaker.call_sync(sorted, "")

    assert_new(breaker)
    assert listener.transitions == [(CLOSED, OPEN), (OPEN, CLOSED)]


@pytest.mark.parametrize("state", [opened, half_opened])
async def test_what_was_before_the_block_is_forgotten(
    breaker: CircuitBreaker, state: Callable[[CircuitBreaker], AbstractContextManager[object]]
) -> None:
    """Earlier failures, waits and modes neither affect the block nor return after it."""
    clock = FakeClock()
    with half_opened(breaker, clock=clock):
        await failed_call(breaker)
        with opened(breaker):
            assert breaker.get_metrics()["retry_after"] == 60
        await failed_call(breaker)
    breaker.force_open("forgotten")

    with state(breaker):
        metrics = breaker.get_metrics()
        assert "mode" not in metrics
        assert (metrics["total_failures"], metrics["opened_count"]) == (0, 1)
    assert_new(breaker)


async def test_calls_in_flight_at_either_end_act_on_nothing(breaker: CircuitBreaker) -> None:
    """A call from before the block does not affect it, nor a call of the block what follows."""
    release = asyncio.Event()

    async def answer_late() -> None:
        await release.wait()

    async def fail_late() -> None:
        await release.wait()
        raise ConnectionError

    before = [asyncio.create_task(breaker.call(answer_late)) for _ in range(2)]
    await asyncio.sleep(0)
    with half_opened(breaker):
        release.set()
        await asyncio.gather(*before)
        assert breaker.is_half_open
        release.clear()
        probe = asyncio.create_task(breaker.call(fail_late))
        await asyncio.sleep(0)
    release.set()
    with pytest.raises(ConnectionError):
        await probe

    assert breaker.is_closed
    assert breaker.get_metrics()["failure_count"] == 0


# --- a half-open circuit


async def test_half_opened_circuit_admits_only_its_probes(breaker: CircuitBreaker) -> None:
    """It admits as many calls as the breaker allows, and refuses the next."""
    release = asyncio.Event()
    with half_opened(breaker) as same:
        assert same is breaker
        probes = [asyncio.create_task(breaker.call(release.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(CircuitOpenError) as refusal:
            await breaker.call(succeed)
        release.set()
        await asyncio.gather(*probes)

    assert (refusal.value.state, refusal.value.retry_after) == (HALF_OPEN, 0)
    assert_new(breaker)


async def test_half_opened_circuit_closes_when_probes_succeed(
    breaker: CircuitBreaker, listener: RecordingListener
) -> None:
    """No success is counted in advance, and listeners receive the usual transitions."""
    with half_opened(breaker):
        assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN)]
        await breaker.call(succeed)
        assert breaker.is_half_open
        await breaker.call(succeed)
        assert breaker.is_closed

    assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


async def test_half_opened_circuit_opens_for_longer_when_a_probe_fails(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    """This is the breaker's second wait, on the clock of the test."""
    with half_opened(breaker, clock=clock):
        await failed_call(breaker)
        assert breaker.is_open
        clock.advance(119)
        assert breaker.get_metrics()["retry_after"] == 1


def test_blocks_of_several_breakers_nest(breaker: CircuitBreaker) -> None:
    """Each breaker has its own state, its own clock and its own end."""
    other = CircuitBreaker("other", registry=None)
    with opened(breaker), half_opened(other, clock=FakeClock()):
        assert (breaker.state, other.state) == (OPEN, HALF_OPEN)

    assert_new(breaker)
    assert_new(other)


# --- the registry


@pytest.fixture(scope="module")
def long_lived() -> Iterator[CircuitBreaker]:
    """A breaker that exists before the test, like one created at import time."""
    breaker = CircuitBreaker("long-lived", failure_threshold=1)
    breaker.force_open("not by a test")
    yield breaker
    assert_new(breaker)


@pytest.mark.parametrize("turn", ["first", "second"])
def test_long_lived_breaker_is_clean_in_every_test(turn: str, long_lived: CircuitBreaker) -> None:
    """It stays in the registry, and tests do not see each other's changes to it."""
    assert circuit_breaker_registry.get("long-lived") is long_lived
    assert_new(long_lived)
    with pytest.raises(TypeError):
        long_lived.call_sync(len, turn, turn)  # type: ignore[call-arg]

    assert long_lived.is_open


INNER_TESTS = """
    import pytest

    from example_service.infra.resilience import CircuitBreaker, Mode, circuit_breaker_registry

    stock = CircuitBreaker("stock", failure_threshold=1)
    circuit_breaker_registry.get_or_create("held")
    still_alive = []


    def failed(breaker):
        with pytest.raises(ZeroDivisionError):
            breaker.call_sync(divmod, 1, 0)
        return breaker


    def test_that_leaves_things_behind():
        still_alive.append(failed(CircuitBreaker("stock")))
        circuit_breaker_registry.register(still_alive[0])
        assert circuit_breaker_registry.get("stock") is not stock
        still_alive.append(CircuitBreaker("made in a test"))
        failed(CircuitBreaker("fleeting"))
        failed(CircuitBreaker("held"))
        circuit_breaker_registry.configure({"configured": {"failure_threshold": 1}})
        circuit_breaker_registry.get_or_create("configured")
        assert failed(stock).is_open
        circuit_breaker_registry.set_mode("to come", Mode.FORCED_OPEN, "must not outlive this")


    def test_that_finds_nothing_of_it():
        assert circuit_breaker_registry.modes() == {}
        assert CircuitBreaker("to come").is_closed
        assert [one.name for one in circuit_breaker_registry] == ["stock", "held"]
        assert circuit_breaker_registry.get("stock") is stock
        assert (stock.state, stock.total_failures) == ("closed", 0)
        assert circuit_breaker_registry.get_or_create("configured").failure_threshold == 5
        fleeting = CircuitBreaker("fleeting")
        failures = {one.name: one.failures for one in circuit_breaker_registry.snapshots()}
        assert failures["fleeting"] == failures["held"] == 0


    def test_that_takes_things_away():
        for name in ["stock", "held"]:
            circuit_breaker_registry.unregister(name)
        assert len(circuit_breaker_registry) == 0


    def test_that_finds_them_there_again():
        assert [one.name for one in circuit_breaker_registry] == ["stock", "held"]
        assert circuit_breaker_registry.get("stock") is stock
        assert circuit_breaker_registry.recent_transitions() == []
        stock.force_open("must not outlive this test")
        assert len(circuit_breaker_registry.recent_transitions()) == 1
        circuit_breaker_registry.get("held").force_open("must not outlive this test")


    def test_that_may_ask_for_the_registry(request):
        if "isolated_registry" in request.fixturenames:
            isolated = request.getfixturevalue("isolated_registry")
            assert isolated is circuit_breaker_registry
        assert circuit_breaker_registry.get("held").is_closed
"""
INNER_TURNS = """
    import time

    import httpx
    import pytest

    from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry
    from example_service.infra.resilience.httpx import CircuitBreakerTransport, transport_breakers

    shelf = CircuitBreakerRegistry()
    once = {"failure_threshold": 1}
    hidden = CircuitBreaker("hidden", registry=None, **once)
    own = CircuitBreaker("own", registry=shelf, **once)
    shared = transport_breakers(max_breakers=2, registry=shelf, **once)
    broken = httpx.MockTransport(lambda _: httpx.Response(503))
    client = httpx.Client(transport=CircuitBreakerTransport(broken, registry=None, **once))
    sharing = httpx.Client(transport=CircuitBreakerTransport(broken, breakers=shared))
    early = shared.named("https://early.test")


    @pytest.mark.parametrize("turn", range(4))
    def test_that_finds_everything_new_and_leaves_it_used(turn):
        assert {one.name for one in shelf} == {"own", "https://early.test"}
        assert shelf.get_or_create("made").failure_threshold == 5
        assert all(one.is_closed and not one.total_failures for one in (hidden, own, early))
        assert hidden.clock is time.monotonic
        for origin in ("https://early.test", "https://late.test"):
            for one in (client, sharing):
                assert one.get(origin).status_code == 503
                with pytest.raises(httpx.TransportError):
                    one.get(origin)
        for breaker in (hidden, own):
            breaker.force_open("must not outlive this test")
        hidden.clock = lambda: 0.0
        shelf.configure({"made": once})
        shelf.register(CircuitBreaker("left behind", registry=shelf))
        shelf.unregister("made")
"""
PLUGIN = 'pytest_plugins = ["example_service.infra.resilience.testing"]'
IMPORTED_NAME = "from example_service.infra.resilience.testing import isolated_registry"
IMPORTED_BEFORE = f"import example_service.infra.resilience.testing\n{PLUGIN}"


def run_inner_tests(
    pytester: pytest.Pytester, conftest: str, *options: str, tests: str = INNER_TESTS
) -> dict[str, int]:
    """The numbers of the outcomes of the inner tests."""
    pytester.makeconftest(conftest)
    pytester.makepyfile(tests)
    # The inner tests need no plugins, which would take longer to import than the tests to run.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        result = pytester.runpytest_subprocess("-W", "error", *options)
    return result.parseoutcomes()


@pytest.mark.parametrize("conftest", [PLUGIN, IMPORTED_NAME, IMPORTED_BEFORE])
def test_one_line_isolates_every_test(pytester: pytest.Pytester, conftest: str) -> None:
    """Tests that leave breakers and settings behind do not disturb those after them."""
    assert run_inner_tests(pytester, conftest) == {"passed": 5}


def test_isolation_covers_every_breaker_of_a_process(pytester: pytest.Pytester) -> None:
    """This includes breakers without a registry, in another one and in transports."""
    workers = ("-p", "xdist", "--numprocesses=2")
    outcomes = run_inner_tests(pytester, PLUGIN, *workers, tests=INNER_TURNS)

    assert outcomes["passed"] == 4
    assert "failed" not in outcomes


def test_without_the_line_tests_disturb_each_other(pytester: pytest.Pytester) -> None:
    """It is the fixture that isolates the inner tests, not how they are written."""
    assert run_inner_tests(pytester, "") == {"passed": 1, "failed": 4}


def test_the_service_runs_without_pytest() -> None:
    """Production code does not import the kit or pytest."""
    program = """
        import sys
        import example_service.main
        print(sorted({"pytest", "example_service.infra.resilience.testing"} & set(sys.modules)))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout == "[]\n"
