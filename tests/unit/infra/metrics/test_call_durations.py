"""Durations of calls, for breakers with this listener."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from example_service.infra.metrics import CallDurations
from example_service.infra.metrics.call_durations import CallDurationMetrics
from example_service.infra.metrics.duration_buckets import DURATION_BOUNDS_SECONDS
from example_service.infra.resilience import CallSucceeded, CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock

DURATION = "circuit_breaker_call_duration_seconds"


class Exported:
    """Durations exported from a separate registry, with breakers that record them."""

    def __init__(self, *, max_names: int = 100) -> None:
        self.metrics = CallDurationMetrics(max_names=max_names)
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(self.metrics)
        self.clock = FakeClock()

    def breaker(self, name: str = "payment", **parameters: float) -> CircuitBreaker:
        """A breaker whose calls are timed."""
        return CircuitBreaker(
            name,
            failure_threshold=2,
            listeners=[CallDurations(self.metrics)],
            clock=self.clock,
            registry=None,
            **parameters,  # type: ignore[arg-type]
        )

    def succeed(self, breaker: CircuitBreaker, seconds: float) -> None:
        """Make a call that succeeds after this many seconds."""
        breaker.call_sync(self.clock.advance, seconds)

    def fail(self, breaker: CircuitBreaker, seconds: float) -> None:
        """Make a call that fails after this many seconds."""

        def fail() -> None:
            self.clock.advance(seconds)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            breaker.call_sync(fail)

    def value(self, suffix: str, outcome: str, name: str = "payment", **more: str) -> float | None:
        """One of the exported values."""
        labels = {"name": name, "outcome": outcome, **more}
        return self.registry.get_sample_value(DURATION + suffix, labels)


@pytest.fixture
def exported() -> Exported:
    """Exported durations."""
    return Exported()


def test_calls_are_timed_by_outcome(exported: Exported) -> None:
    """Each call counts in every bucket from its duration upwards, in the count and in the sum."""
    breaker = exported.breaker()
    for seconds in (0.25, 0.5, 60.0):
        exported.succeed(breaker, seconds)
    exported.fail(breaker, 2.5)

    buckets = {
        end: exported.value("_bucket", "success", le=end)
        for end in ("0.1", "0.25", "0.5", "10.0", "+Inf")
    }
    assert buckets == {"0.1": 0, "0.25": 1, "0.5": 2, "10.0": 2, "+Inf": 3}
    assert exported.value("_count", "success") == 3
    assert exported.value("_sum", "success") == 60.75
    assert exported.value("_count", "failure") == 1
    assert exported.value("_sum", "failure") == 2.5


@pytest.mark.parametrize("seconds", DURATION_BOUNDS_SECONDS)
def test_the_bound_of_a_bucket_belongs_to_it(exported: Exported, seconds: float) -> None:
    """In Prometheus, `le` means less than or equal."""
    CallDurations(exported.metrics).on_success(CallSucceeded("payment", seconds))

    below = [bound for bound in DURATION_BOUNDS_SECONDS if bound < seconds]
    assert exported.value("_bucket", "success", le=str(seconds)) == 1
    assert [exported.value("_bucket", "success", le=str(bound)) for bound in below] == [0] * len(
        below
    )


def test_the_first_failure_shows_as_an_increase(exported: Exported) -> None:
    """A series that starts at 1 shows no increase, so it starts at 0 with the first call."""
    exported.succeed(exported.breaker(), 1.0)
    assert exported.value("_count", "failure") == 0


def test_refusals_and_neutral_calls_are_not_timed(exported: Exported) -> None:
    """Their durations say nothing about the dependency."""
    breaker = exported.breaker()
    with pytest.raises(KeyboardInterrupt), breaker:
        raise KeyboardInterrupt
    breaker.force_open("by hand")
    with pytest.raises(CircuitOpenError):
        exported.succeed(breaker, 1.0)
    assert exported.value("_count", "success") is None


async def test_a_call_that_hangs_is_counted_with_its_time_so_far(exported: Exported) -> None:
    """It counts as failed at its deadline, and is not counted again when it ends."""
    breaker = exported.breaker(slow_call_duration=3.0)
    async with breaker:
        exported.clock.advance(10.0)
        assert breaker.total_failures == 1
        assert exported.value("_sum", "failure") == 3.0
    assert exported.value("_count", "failure") == 1
    assert exported.value("_count", "success") == 0


def test_breakers_and_listeners_of_one_name_add_up(exported: Exported) -> None:
    """Breakers with the same name share a series, and others have their own."""
    for breaker in (exported.breaker(), exported.breaker(), exported.breaker("other one")):
        exported.succeed(breaker, 1.0)
    assert exported.value("_count", "success") == 2
    assert exported.value("_count", "success", name="other one") == 1


def test_names_beyond_the_limit_share_one_label(caplog: pytest.LogCaptureFixture) -> None:
    """Every call is counted, known names keep their series, and one warning is logged."""
    exported = Exported(max_names=2)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b", "c", "d", "a"):
            exported.succeed(exported.breaker(name), 1.0)

    counts = [
        exported.value("_count", "success", name=name) for name in ("a", "b", "c", "d", "other")
    ]
    assert counts == [2, 1, None, None, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_no_call_of_any_thread_is_lost(exported: Exported) -> None:
    """All calls of concurrent threads are counted."""
    listener = CallDurations(exported.metrics)
    event = CallSucceeded("payment", 0.5)

    def count(_: int) -> None:
        for _ in range(500):
            listener.on_success(event)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(count, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert exported.value("_count", "success") == 4000
    assert exported.value("_sum", "success") == 2000.0


def test_a_call_may_be_counted_while_another_is_being_counted(exported: Exported) -> None:
    """The garbage collector may end a stream at any time, even while the lock is held."""

    class Seconds(float):
        """A duration that counts another call while it is being added."""

        def __radd__(self, other: float) -> float:
            CallDurations(exported.metrics).on_success(CallSucceeded("payment", 2.0))
            return other + float(self)

    CallDurations(exported.metrics).on_success(CallSucceeded("payment", Seconds(1.0)))
    assert exported.value("_count", "success") == 2


def test_both_text_formats_are_valid(exported: Exported) -> None:
    """The rendered text can be parsed, even with unusual names."""
    for name in ('say "no"\nback\\slash ä', "half\ud83d"):
        exported.succeed(exported.breaker(name), 1.0)

    prometheus = parse_prometheus(generate_latest(exported.registry).decode())
    text = generate_openmetrics(exported.registry).decode()  # type: ignore[no-untyped-call]
    openmetrics = parse_openmetrics(text)  # type: ignore[no-untyped-call]

    for (family,) in (list(prometheus), list(openmetrics)):
        assert (family.name, family.type) == (DURATION, "histogram")
        names = {sample.labels["name"] for sample in family.samples}
        assert names == {'say "no"\nback\\slash ä', "half\\ud83d"}


def test_a_collector_can_be_registered_only_once(exported: Exported) -> None:
    """The text would be invalid if the same metrics appeared twice."""
    with pytest.raises(ValueError, match=DURATION):
        exported.registry.register(CallDurationMetrics())


def test_a_listener_without_arguments_exports_from_this_process() -> None:
    """`listeners=[CallDurations()]` is enough; a breaker without it has no series."""
    timed = CircuitBreaker("timed_by_a_test", listeners=[CallDurations()])
    untimed = CircuitBreaker("not_timed_by_a_test")
    for breaker in (timed, untimed):
        breaker.call_sync(lambda: None)

    counts = [
        REGISTRY.get_sample_value(f"{DURATION}_count", {"name": name, "outcome": "success"})
        for name in ("timed_by_a_test", "not_timed_by_a_test")
    ]
    assert counts == [1, None]


def test_workers_share_durations(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a shared directory, each worker shows the calls of all."""
    directory = tmp_path_factory.mktemp("m")
    program = """
import asyncio
from example_service.infra.metrics import CallDurations, expose, shared_metrics
from example_service.infra.resilience import CircuitBreaker

async def main():
    async with shared_metrics():
        await CircuitBreaker("payment", listeners=[CallDurations()]).call(lambda: None)
        print((await expose()).body.decode())

asyncio.run(main())
"""
    for expected in (1.0, 2.0):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env={"PROMETHEUS_MULTIPROC_DIR": str(directory)},
            capture_output=True,
            text=True,
            check=True,
        )
        (family,) = (family for family in parse_prometheus(ended.stdout) if family.name == DURATION)
        (count,) = (
            sample.value
            for sample in family.samples
            if sample.name == f"{DURATION}_count" and sample.labels["outcome"] == "success"
        )
        assert count == expected
