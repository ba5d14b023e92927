"""Overlapping calls of every kind, compared with a model written only from the text of the rules.

The test starts calls in every form, lets them overlap, ends them with success, failure, a neutral
outcome or cancellation, abandons them, resets the breaker, sets modes and lets whole seconds pass.
After each step, everything that the breaker shows must match the model. Time may also pass without
a look at the breaker, so that the next start or end of a call finds several moments due at once.
"""

import contextlib
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    FailureRate,
)
from example_service.infra.resilience.rules import lockfree
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breaker_model import Model, ModelParameters
from tests.unit.infra.resilience.rules.running_calls import (
    ENDS,
    FAILED_RESULT,
    FORMS,
    FORMS_WITHOUT_RESULT,
    MODE_REASON,
    Bench,
    DownError,
    MissingError,
    Running,
    StoryListener,
    TransitionListener,
)

if TYPE_CHECKING:
    from collections.abc import Callable

few = st.integers(min_value=1, max_value=4)
seconds = st.integers(min_value=1, max_value=12).map(float)
failure_rates = st.builds(
    lambda window_calls, missing, percent: (
        percent,
        window_calls,
        max(1, window_calls - missing),
    ),
    st.integers(min_value=1, max_value=6),
    st.integers(min_value=0, max_value=4),
    st.integers(min_value=1, max_value=100),
)


@st.composite
def parameters(draw: st.DrawFn) -> ModelParameters:
    """Small values for all parameters, with half of the rules disabled."""
    recovery_timeout = draw(seconds)
    percent, window_calls, minimum_calls = draw(st.just((None, 1, 1)) | failure_rates)
    return ModelParameters(
        failure_threshold=draw(few),
        success_threshold=draw(few),
        half_open_max_calls=draw(st.integers(min_value=1, max_value=3)),
        recovery_timeout=recovery_timeout,
        probe_timeout=draw(seconds | st.just(recovery_timeout)),
        multiplier=draw(st.sampled_from([1.0, 2.0, 3.0])),
        max_timeout=draw(seconds.map(lambda value: value * 3) | st.just(5 * recovery_timeout)),
        slow_call_duration=draw(st.none() | seconds),
        percent=percent,
        window_calls=window_calls,
        minimum_calls=minimum_calls,
    )


class BreakerMachine(RuleBasedStateMachine):
    """Applies the same actions to a breaker and to its model."""

    @initialize(
        given=parameters(),
        listener_type=st.sampled_from([TransitionListener, StoryListener, None]),
        judge_exceptions=st.booleans(),
        judge_results=st.booleans(),
        gil_enabled=st.sampled_from([True, True, False]),
        begin_as=st.sampled_from(["closed", "open", "probing", "probing in shadow"]),
    )
    def make(
        self,
        *,
        given: ModelParameters,
        listener_type: type[TransitionListener] | None,
        judge_exceptions: bool,
        judge_results: bool,
        gil_enabled: bool,
        begin_as: str,
    ) -> None:
        """Create a breaker and its model with the same parameters."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(lockfree, "GIL_ENABLED", gil_enabled)
        self.clock = FakeClock(now=0.0)
        self.registry = CircuitBreakerRegistry()
        self.listener = listener_type() if listener_type is not None else None
        self.judge_exceptions = judge_exceptions
        self.judge_results = judge_results
        self.breaker = CircuitBreaker(
            "modelled",
            failure_threshold=given.failure_threshold,
            success_threshold=given.success_threshold,
            half_open_max_calls=given.half_open_max_calls,
            recovery_timeout=given.recovery_timeout,
            probe_timeout=given.probe_timeout,
            backoff=Backoff(multiplier=given.multiplier, max_timeout=given.max_timeout),
            slow_call_duration=given.slow_call_duration,
            failure_rate=None
            if given.percent is None
            else FailureRate(
                threshold=given.percent / 100,
                window_calls=given.window_calls,
                minimum_calls=given.minimum_calls,
            ),
            expected_exception=DownError,
            is_failure=(lambda error: not isinstance(error, MissingError))
            if judge_exceptions
            else None,
            is_failed_result=(lambda result: result == FAILED_RESULT) if judge_results else None,
            listeners=[self.listener] if self.listener is not None else [],
            clock=self.clock,
            registry=self.registry,
        )
        self.model = Model(given)
        self.bench = Bench(self.breaker)
        self.running: list[Running] = []
        self.looked = True
        if begin_as != "closed":
            for _ in range(given.failure_threshold):
                self._call_plain("call_sync", "exception")
        if begin_as.startswith("probing"):
            self.advance(passed=given.max_timeout, look=True)
            for _ in range(given.half_open_max_calls):
                self.begin("call")
        if begin_as == "probing in shadow":
            self.set_mode("shadow", None)

    @rule(form=st.sampled_from(FORMS))
    def begin(self, form: str) -> None:
        """Start a call, which is either refused or runs until a later step ends it."""
        started = self.bench.started
        if form == "decorated plain function" and self.model.mode is not None:
            form = "call"
        expected = self.model.begin()
        coroutine = self.bench.start(form)
        self.looked = True
        if expected is not None:
            coroutine.send(None)
            assert self.bench.started == started + 1
            self.running.append((coroutine, expected, form))
            return
        with pytest.raises(CircuitOpenError) as caught:
            coroutine.send(None)
        assert self.bench.started == started
        assert caught.value.retry_after == self.model.retry_after()
        assert caught.value.state == self.model.state
        assert self.model.reason() in str(caught.value.reason)

    @precondition(lambda self: self.running)
    @rule(how=st.sampled_from(sorted(ENDS)), which=st.integers(min_value=0, max_value=20))
    def end(self, how: str, which: int) -> None:
        """End one of the running calls."""
        coroutine, expected, form = self.running.pop(which % len(self.running))
        outcome, error_type = ENDS[how]
        if how == "failed result" and (form in FORMS_WITHOUT_RESULT or not self.judge_results):
            outcome = "success"
        if error_type is MissingError and not self.judge_exceptions:
            outcome = "failure"
        self.model.end(expected, outcome)
        if how == "abandoned":
            del coroutine
        elif error_type is None:
            value = FAILED_RESULT if how == "failed result" else "fine"
            with contextlib.suppress(StopIteration):
                coroutine.send(value)
        else:
            error = error_type("on purpose")
            with pytest.raises(error_type) as caught:
                coroutine.throw(error)
            assert caught.value is error
        self.looked = True

    @rule(
        form=st.sampled_from(["call_sync", "decorator", "with"]),
        hows=st.lists(
            st.sampled_from(["value", "exception", "unexpected exception"]), min_size=1, max_size=6
        ),
    )
    def call_plain(self, form: str, hows: list[str]) -> None:
        """Make plain calls, one after another."""
        for how in hows:
            self._call_plain(form, how)

    def _call_plain(self, form: str, how: str) -> None:
        outcome, error_type = ENDS[how]
        calls = 0

        def work() -> None:
            nonlocal calls
            calls += 1
            if error_type is not None:
                raise error_type("on purpose")

        def in_block() -> None:
            with self.breaker:
                work()

        forms: dict[str, Callable[[], None]] = {
            "call_sync": lambda: self.breaker.call_sync(work),
            "decorator": self.breaker.protected(work),
            "with": in_block,
        }
        expected = self.model.begin()
        try:
            forms[form]()
        except CircuitOpenError:
            assert expected is None
        except Exception as error:  # noqa: BLE001
            assert type(error) is error_type  # noqa: PT017
        if expected is not None:
            self.model.end(expected, outcome)
        assert calls == (expected is not None)
        self.looked = True

    @rule()
    def reset(self) -> None:
        """Reset by hand."""
        self.model.reset()
        with contextlib.suppress(StopIteration):
            self.breaker.reset().send(None)
        self.looked = True

    @rule(
        mode=st.sampled_from(["force_open", "disable", "shadow"]),
        lasting=st.none() | seconds,
    )
    def set_mode(self, mode: str, lasting: float | None) -> None:
        """Set a mode by hand."""
        getattr(self.model, mode)(lasting)
        getattr(self.breaker, mode)(MODE_REASON, lasting)
        self.looked = True

    @rule(passed=seconds, look=st.booleans())
    def advance(self, passed: float, look: bool) -> None:
        """Let time pass, with or without a look at the breaker."""
        self.clock.advance(passed)
        self.model.now = self.clock.now
        self.looked = look
        if look:
            self.model.look()

    @invariant()
    def everything_shown_is_as_the_model_says(self) -> None:
        """Every readable value agrees with the model."""
        if not self.looked:
            return
        model = self.model
        metrics = self.breaker.get_metrics()
        failed_at = metrics.pop("last_failure_time")
        assert failed_at is not None or not model.totals["failures"]
        if model.state != "closed":
            assert model.reason() in metrics.pop("reason")
        if model.mode is not None:
            assert metrics.pop("mode") == {
                "name": model.mode.name,
                "reason": MODE_REASON,
                "ends_in": None if model.mode.until == inf else model.mode.until - model.now,
                "would_have_rejected": model.mode.would_have_rejected,
            }
        ended = model.totals["failures"] + model.totals["successes"]
        assert metrics == {
            "state": model.state,
            "failure_count": model.failure_count,
            "success_count": model.success_count,
            "total_failures": model.totals["failures"],
            "total_successes": model.totals["successes"],
            "total_rejections": model.totals["rejections"],
            "failure_rate": model.totals["failures"] / ended if ended else 0.0,
            "retry_after": model.retry_after(),
            "opened_count": model.opened_count,
            "in_flight": len(model.calls),
            **self._window_shown(),
        }
        assert self.breaker.state == model.state
        assert self.breaker.in_flight == len(self.running) == len(model.calls)
        assert self.breaker.total_failures == model.totals["failures"]
        assert self.breaker.total_successes == model.totals["successes"]
        assert self.breaker.total_rejections == model.totals["rejections"]

    @invariant()
    def monitoring_has_seen_it_all(self) -> None:
        """The listener and the registry's snapshot have all events."""
        if not self.looked:
            return
        model = self.model
        snapshot = self.registry.snapshots()[0]
        assert snapshot.failures == model.lifetime["failures"]
        assert snapshot.successes == model.lifetime["successes"]
        assert snapshot.rejections == model.lifetime["rejections"]
        assert snapshot.state_changes == Counter(
            (transition[1], transition[2]) for transition in model.transitions()
        )
        assert snapshot.mode == (model.mode.name if model.mode else None)
        assert snapshot.would_have_rejected == (model.mode.would_have_rejected if model.mode else 0)
        if isinstance(self.listener, StoryListener):
            assert self.listener.events == model.events
        elif self.listener is not None:
            assert self.listener.events == model.transitions()

    def _window_shown(self) -> dict[str, Any]:
        """The metrics of the window; empty without the rule."""
        given, window = self.model.parameters, self.model.window
        if given.percent is None:
            return {}
        rate = sum(window) / len(window) if window else 0.0
        return {
            "window": {
                "failure_rate": rate,
                "calls": len(window),
                "threshold": given.percent / 100,
            }
        }

    def teardown(self) -> None:
        """Abandon the calls that are still running."""
        for coroutine, _, _ in getattr(self, "running", ()):
            coroutine.close()
        if hasattr(self, "patch"):
            self.patch.undo()


TestBreakerAgainstModel = BreakerMachine.TestCase
TestBreakerAgainstModel.settings = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
