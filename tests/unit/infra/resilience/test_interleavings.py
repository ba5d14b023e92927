"""Two threads share a breaker; one is stopped at each line in turn while the other acts.

Thread A performs an operation. It is stopped at its n-th line inside the package, thread B performs
another operation as far as A's locks allow, and A continues. This is repeated for every n. The
model must explain each outcome by some order of the admissions and ends of both threads.
"""

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Self, TypeAlias

import pytest

import example_service.infra.resilience
from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    FailureRate,
)
from example_service.infra.resilience.rules import lockfree
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breaker_model import Model

pytestmark = pytest.mark.one_python

PACKAGE = str(Path(example_service.infra.resilience.__file__).parent)

RECOVERY_TIMEOUT = 10.0


class WatchedLock:
    """A re-entrant lock that reports when a thread is about to wait for it.

    Args:
        waiting: Called by the thread that is about to wait.
    """

    def __init__(self, waiting: Callable[[], None]) -> None:
        self._lock = threading.RLock()
        self._waiting = waiting

    def acquire(self) -> None:
        """Take the lock."""
        if not self._lock.acquire(blocking=False):
            self._waiting()
            self._lock.acquire()

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class DownError(Exception):
    """An error that counts as a failure."""


class Rig:
    """A breaker in a prepared state, with everything needed to observe it."""

    def __init__(self, prepare: str, **rules: Any) -> None:
        self.clock = FakeClock(now=0.0)
        self.registry = CircuitBreakerRegistry()
        self.may_go_on = threading.Event()
        self.running = self.most_at_once = 0
        self.breaker = CircuitBreaker(
            "shared",
            failure_threshold=2,
            recovery_timeout=RECOVERY_TIMEOUT,
            success_threshold=2,
            half_open_max_calls=1,
            backoff=Backoff(multiplier=1.0),
            clock=self.clock,
            registry=self.registry,
            **rules,
        )
        self.guarded = self.breaker.protected(self.work)
        self.breaker._mutex = WatchedLock(self.may_go_on.set)  # type: ignore[assignment]
        self.registry._lock = WatchedLock(self.may_go_on.set)  # type: ignore[assignment]
        for step in PREPARATIONS[prepare]:
            if step == "wait":
                self.clock.advance(RECOVERY_TIMEOUT)
            else:
                OPERATIONS[step](self)

    def work(self, *, fail: bool) -> None:
        """The guarded function."""
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.running -= 1
        if fail:
            raise DownError

    def seen(self) -> tuple[object, ...]:
        """The values to compare with the model."""
        metrics = self.breaker.get_metrics()
        snapshot = self.registry.snapshots()[0]
        return (
            metrics["state"],
            metrics["failure_count"],
            metrics["success_count"],
            metrics["opened_count"],
            metrics["in_flight"],
            snapshot.failures,
            snapshot.successes,
            snapshot.rejections,
        )

    def in_flight_of_one_call(self) -> int:
        """The number of calls in flight during one call, which reveals a lost admission."""
        _reset(self)
        with self.breaker:
            return self.breaker.in_flight


def _call(rig: Rig, *, fail: bool) -> None:
    with contextlib.suppress(DownError, CircuitOpenError):
        rig.breaker.call_sync(rig.work, fail=fail)


def _decorated(rig: Rig, *, fail: bool) -> None:
    with contextlib.suppress(DownError, CircuitOpenError):
        rig.guarded(fail=fail)


def _block(rig: Rig, *, fail: bool) -> None:
    with contextlib.suppress(DownError, CircuitOpenError), rig.breaker:
        rig.work(fail=fail)


def _reset(rig: Rig) -> None:
    with contextlib.suppress(StopIteration):
        rig.breaker.reset().send(None)


OPERATIONS: dict[str, Callable[[Rig], object]] = {
    "success": lambda rig: _call(rig, fail=False),
    "failure": lambda rig: _call(rig, fail=True),
    "successful block": lambda rig: _block(rig, fail=False),
    "failing block": lambda rig: _block(rig, fail=True),
    "look": lambda rig: rig.breaker.state,
    "scrape": lambda rig: rig.registry.snapshots(),
    "reset": _reset,
}

# These operations are enough with the rules that need extra steps; see the test.
TIMED: dict[str, Callable[[Rig], object]] = {
    "decorated success": lambda rig: _decorated(rig, fail=False)
}

PREPARATIONS = {
    "closed": [],
    "closed, one failure from opening": ["failure"],
    "open": ["failure", "failure"],
    "open, its wait over": ["failure", "failure", "wait"],
    "half-open": ["failure", "failure", "wait", "look"],
    "half-open, one success from closing": ["failure", "failure", "wait", "success"],
}

# Here the limit is one call at a time throughout; in the others, a success may close the circuit.
PROBING = {"open, its wait over", "half-open"}

Step: TypeAlias = Callable[[Model, dict[str, Any]], None]


def _steps(who: str, operation: str) -> list[Step]:
    """The atomic steps of an operation on the model; `who` identifies its call."""
    if operation in {"look", "scrape"}:
        return [lambda model, _: model.look()]
    if operation == "reset":
        return [lambda model, _: model.reset()]

    def begin(model: Model, calls: dict[str, Any]) -> None:
        calls[who] = model.begin()

    def end(model: Model, calls: dict[str, Any]) -> None:
        if calls[who] is not None:
            model.end(calls[who], "failure" if operation.startswith("fail") else "success")

    return [begin, end]


def _modelled(prepare: str) -> Model:
    model = Model()
    for step in PREPARATIONS[prepare]:
        if step == "wait":
            model.now += RECOVERY_TIMEOUT
        else:
            calls: dict[str, Any] = {}
            for operate in _steps("P", step):
                operate(model, calls)
    return model


@cache
def _explained(prepare: str, a: str, b: str) -> set[tuple[object, ...]]:
    """The possible outcomes: all interleavings of A's steps and B's steps."""
    steps = [("A", step) for step in _steps("A", a)] + [("B", step) for step in _steps("B", b)]
    outcomes: set[tuple[object, ...]] = set()
    for order in itertools.permutations(range(len(steps))):
        kept = all(
            [i for i in order if steps[i][0] == who]
            == [i for i in range(len(steps)) if steps[i][0] == who]
            for who in "AB"
        )
        if not kept:
            continue
        model = _modelled(prepare)
        calls: dict[str, Any] = {}
        for i in order:
            steps[i][1](model, calls)
        model.look()
        outcomes.add(
            (
                model.state,
                model.failure_count,
                model.success_count,
                model.opened_count,
                len(model.calls),
                model.lifetime["failures"],
                model.lifetime["successes"],
                model.lifetime["rejections"],
            )
        )
    return outcomes


class Threads:
    """Threads A and B, which perform the operations of every run of a test.

    A is traced from beginning to end. Starting threads would take longer than most runs, and so
    would turning tracing on and off, because the interpreter then prepares all code again.
    """

    def __init__(self) -> None:
        self.a = ThreadPoolExecutor(1, initializer=lambda: sys.settrace(self._trace))
        self.b = ThreadPoolExecutor(1)
        self.on_line: Callable[[FrameType], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.a.shutdown()
        self.b.shutdown()

    def _trace(self, frame: FrameType, _: str, __: object) -> Any:
        inside = self.on_line is not None and frame.f_code.co_filename.startswith(PACKAGE)
        return self._trace_line if inside else None

    def _trace_line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and self.on_line is not None:
            self.on_line(frame)
        return self._trace_line


@dataclass
class Stopped:
    """A run in which A is stopped at a line while B acts."""

    rig: Rig
    a: Callable[[Rig], object]
    b: Callable[[Rig], object]
    stop_at: int
    threads: Threads
    line: str = ""

    def run(self) -> bool:
        """Run both operations, and return whether A has that many lines."""
        self._lines = 0
        self.errors: list[BaseException] = []
        self._others: list[Future[None]] = []
        self.threads.a.submit(self._run_a).result()
        for other in self._others:
            other.result()
        return bool(self._others)

    def _run_a(self) -> None:
        self.threads.on_line = self._count
        try:
            self.a(self.rig)
        except BaseException as error:  # noqa: BLE001 - The test's thread reports it.
            self.errors.append(error)
        finally:
            self.threads.on_line = None

    def _count(self, frame: FrameType) -> None:
        self._lines += 1
        if self._lines == self.stop_at:
            self.line = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
            self.threads.on_line = None
            self._others.append(self.threads.b.submit(self._run_b))
            self.rig.may_go_on.wait()

    def _run_b(self) -> None:
        try:
            self.b(self.rig)
        except BaseException as error:  # noqa: BLE001 - The test's thread reports it.
            self.errors.append(error)
        finally:
            self.rig.may_go_on.set()


def _every_stop(prepare: str, a: str, b: str, threads: Threads, **rules: Any) -> Iterator[Stopped]:
    for stop_at in itertools.count(1):
        rig = Rig(prepare, **rules)
        stopped = Stopped(rig, (OPERATIONS | TIMED)[a], OPERATIONS[b], stop_at, threads)
        if not stopped.run():
            return
        yield stopped


def _check(prepare: str, a: str, others: Iterable[str], **rules: Any) -> None:
    with Threads() as threads:
        faults = [
            f"{a}, stopped at {stopped.line} by {b}: {fault}"
            for b in others
            for stopped in _every_stop(prepare, a, b, threads, **rules)
            if (fault := _fault(stopped, prepare, _explained(prepare, a, b)))
        ]
    assert not faults, "\n".join(faults)


def _fault(stopped: Stopped, prepare: str, explained: set[tuple[object, ...]]) -> str:
    """What no order of the steps explains; empty if there is nothing."""
    if stopped.errors:
        return repr(stopped.errors)
    if (seen := stopped.rig.seen()) not in explained:
        return f"{seen}, none of {explained}"
    if stopped.rig.most_at_once > 2 - (prepare in PROBING):
        return f"{stopped.rig.most_at_once} calls at once"
    if (in_flight := stopped.rig.in_flight_of_one_call()) != 1:
        return f"one call in flight is shown as {in_flight}"
    return ""


# The most revealing operations: those that count without the lock, and one that ends the period.
TELLING = ("success", "failure", "reset")


@pytest.mark.parametrize("prepare", PREPARATIONS)
@pytest.mark.parametrize("a", ["success", "failure", "failing block", "reset"])
def test_whatever_line_a_thread_is_stopped_at_nothing_is_lost(prepare: str, a: str) -> None:
    """Wherever a thread is stopped, some order of the steps explains every count."""
    _check(prepare, a, TELLING)


@pytest.mark.parametrize("prepare", PREPARATIONS)
def test_whatever_line_a_free_thread_is_stopped_at_nothing_is_lost(
    prepare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same applies if nothing is atomic except under the lock."""
    monkeypatch.setattr(lockfree, "GIL_ENABLED", False)
    _check(prepare, "failing block", ["failure", "reset"])


@pytest.mark.parametrize("prepare", ["closed", "closed, one failure from opening"])
def test_whatever_line_a_timed_call_is_stopped_at_nothing_is_lost(prepare: str) -> None:
    """The same applies to a decorated call with every rule that needs extra steps."""
    rules = {
        "slow_call_duration": 1e6,
        "failure_rate": FailureRate(window_seconds=1e6, minimum_calls=1_000),
        "is_failed_result": lambda _: False,
        "listeners": [RecordingListener()],
    }
    _check(prepare, "decorated success", TELLING, **rules)


@pytest.mark.integration
@pytest.mark.parametrize("prepare", PREPARATIONS)
@pytest.mark.parametrize("a", OPERATIONS)
def test_whatever_two_threads_do_nothing_is_lost(prepare: str, a: str) -> None:
    """The same applies to every pair of operations."""
    _check(prepare, a, [operation for operation in OPERATIONS if operation not in TELLING])
