"""One line in a conftest isolates every test from the breakers of the others."""

import subprocess
import sys
import textwrap

import pytest

pytest_plugins = ["pytester"]

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
        assert [breaker.name for breaker in circuit_breaker_registry] == ["stock", "held"]
        assert circuit_breaker_registry.get("stock") is stock
        assert (stock.state, stock.total_failures) == ("closed", 0)
        assert circuit_breaker_registry.get_or_create("configured").failure_threshold == 5
        fleeting = CircuitBreaker("fleeting")
        snapshots = circuit_breaker_registry.snapshots()
        failures = {snapshot.name: snapshot.failures for snapshot in snapshots}
        assert failures["fleeting"] == failures["held"] == 0


    def test_that_takes_things_away():
        for name in ["stock", "held"]:
            circuit_breaker_registry.unregister(name)
        assert len(circuit_breaker_registry) == 0


    def test_that_finds_them_there_again():
        assert [breaker.name for breaker in circuit_breaker_registry] == ["stock", "held"]
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
        assert {breaker.name for breaker in shelf} == {"own", "https://early.test"}
        assert shelf.get_or_create("made").failure_threshold == 5
        breakers = (hidden, own, early)
        assert all(breaker.is_closed and not breaker.total_failures for breaker in breakers)
        assert hidden.clock is time.monotonic
        for origin in ("https://early.test", "https://late.test"):
            for each in (client, sharing):
                assert each.get(origin).status_code == 503
                with pytest.raises(httpx.TransportError):
                    each.get(origin)
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
