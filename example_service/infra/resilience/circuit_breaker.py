"""The circuit breaker: guards a call in every form in which Python makes one.

`rules` says when a circuit opens and closes, `guard` takes a permit before each call.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, overload

from example_service.infra.resilience.continuation import (
    continuation,
    guard_continuation,
    is_awaitable,
)
from example_service.infra.resilience.events import CircuitListener
from example_service.infra.resilience.guarded_block import (
    BlockExit,
    BlockExitSync,
    enter_block,
    prepared_blocks,
)
from example_service.infra.resilience.guarded_function import guarded, is_kind
from example_service.infra.resilience.monitored_guard import MonitoredGuard
from example_service.infra.resilience.outcomes import ExceptionTypes
from example_service.infra.resilience.registry import Registry
from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.rules.phases import Permit
from example_service.infra.resilience.validation import check_instance

P = ParamSpec("P")
R = TypeVar("R")


class CircuitBreakerRegistry(Registry["CircuitBreaker"]):
    """The circuit breakers of a process, by name.

    Every breaker registers itself when it is created. The registry has only weak references, so a
    breaker disappears from it when nothing uses it any more. Breakers from `register` or
    `get_or_create` are kept until they are unregistered. Several breakers may have the same name;
    for monitoring, their counters are added up.

    Safe to use from any thread.

    Args:
        clock: Returns the current time in seconds, for the ends of modes that apply to a name.
    """

    def register(self, breaker: "CircuitBreaker") -> None:
        """Keep a breaker until it is unregistered; `get` finds it before others of its name.

        It replaces the breaker that was registered under this name before, if any.

        Raises:
            TypeError: It is not a breaker.
        """
        check_instance("breaker", breaker, CircuitBreaker)
        super().register(breaker)

    def _create(self, name: str, parameters: dict[str, Any]) -> "CircuitBreaker":
        return CircuitBreaker(name, registry=self, **parameters)


circuit_breaker_registry = CircuitBreakerRegistry()


class CircuitBreaker(MonitoredGuard):
    """Stops calling a failing dependency, and detects when it works again.

    Use it as a decorator (`@breaker.protected`, or `@breaker`), as a block (`async with breaker:`
    or `with breaker:`), or for one call (`await breaker.call(func, ...)`, `breaker.call_sync`).
    One breaker, created at import time, serves any number of tasks, event loops and threads.

    A call ends as a success, as a failure, or neutral. A neutral outcome changes no counter and no
    state: an exception outside `expected_exception` or for which `is_failure` returns False, a
    refusal by this or another breaker, an exception that is not an `Exception`, and cancellation.
    An exception group is a failure if one of its exceptions is. The exception of the guarded call
    always propagates unchanged.

    Args:
        name: The breaker's name in logs, metrics and errors; not empty.
        failure_threshold: Failures in a row that open the circuit; at least 1.
        recovery_timeout: Seconds before the first probe may run, after the first opening; above 0.
        success_threshold: Successes in half-open state that close the circuit; at least 1.
        half_open_max_calls: Concurrent calls in half-open state; at least 1. Others are refused.
        expected_exception: The type, or tuple of types, of exceptions that count as failures;
            subclasses of `Exception`.
        is_failure: Called with an exception of those types; False makes it neutral.
        is_success: Called with an exception; True makes it a success, because a healthy dependency
            raises it (such as a 404).
        open_for: Called with the exception or result that is a failure; returns for how many
            seconds the dependency asks callers to wait, or None. The circuit then opens at once for
            that long, at most for a day.
        is_failed_result: Called with a returned value; True makes it a failure.
        slow_call_duration: Seconds after which a running call counts as one failure, at that moment
            and whatever it does later; None switches the rule off.
        failure_rate: The share of failures among recent calls that opens the circuit, in addition
            to `failure_threshold`; None switches the rule off.
        backoff: How the wait grows with each failed recovery.
        probe_timeout: Seconds after which a running probe counts as a failure, so that a hanging
            one cannot keep the circuit half-open; None means the greater of `recovery_timeout` and
            60 seconds.
        listeners: Objects whose methods are called on events; see `events`.
        clock: Returns the current time in seconds, and never goes back.
        registry: The registry that lists the breaker, with a weak reference; None for none.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range.

    Example:
        ```python
        import asyncio

        from example_service.infra.resilience import CircuitBreaker, CircuitOpenError

        breaker = CircuitBreaker("search", failure_threshold=3, recovery_timeout=30.0)


        async def search(words: str) -> list[str]:
            try:
                async with breaker:
                    return [f"a result for {words}"]  # Call the dependency here.
            except CircuitOpenError:
                return []  # It was not called.


        print(asyncio.run(search("circuit breaker")))
        ```
        ```text
        ['a result for circuit breaker']
        ```
    """

    __slots__ = ()

    def __init__(
        self,
        name: str,
        *,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        success_threshold: int = 2,
        half_open_max_calls: int = 3,
        expected_exception: ExceptionTypes = Exception,
        is_failure: Callable[[Exception], bool] | None = None,
        is_success: Callable[[Exception], bool] | None = None,
        open_for: Callable[[Any], float | None] | None = None,
        is_failed_result: Callable[[Any], bool] | None = None,
        slow_call_duration: float | None = None,
        failure_rate: FailureRate | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008
        probe_timeout: float | None = None,
        listeners: Iterable[CircuitListener] = (),
        clock: Callable[[], float] = time.monotonic,
        registry: CircuitBreakerRegistry | None = circuit_breaker_registry,
    ) -> None:
        if registry is not None:
            check_instance("registry", registry, CircuitBreakerRegistry)
        # By position: keyword arguments would take a tenth of the whole construction.
        super().__init__(
            name,
            failure_threshold,
            recovery_timeout,
            success_threshold,
            half_open_max_calls,
            expected_exception,
            is_failure,
            is_success,
            open_for,
            is_failed_result,
            slow_call_duration,
            failure_rate,
            backoff,
            probe_timeout,
            listeners,
            clock,
        )
        if registry is not None:
            registry.add(self)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.machine.phase.state.value}>"

    @property
    def registry(self) -> CircuitBreakerRegistry | None:
        """The registry that lists the breaker; None for none."""
        return cast("CircuitBreakerRegistry | None", self.observer)

    # Ways to call.

    def protected(self, func: Callable[P, R]) -> Callable[P, R]:
        """Guard every call of a function; for use as a decorator.

        Args:
            func: A coroutine function, a plain function, an async generator function or a generator
                function. For a plain function the returned object decides what is guarded: a future
                counts when it is done; another awaitable and a generator are guarded until they
                end. A generator takes its permit when its first item is requested. It succeeds when
                it is exhausted, or when its consumer closes it after an item.

        Returns:
            A function of the same kind, signature and metadata.

        Raises:
            TypeError: `func` is not callable.

        Example:
            ```python
            from example_service.infra.resilience import CircuitBreaker

            breaker = CircuitBreaker("rates", failure_threshold=3)


            @breaker.protected
            async def rate(currency: str) -> float:
                return {"EUR": 1.0, "USD": 1.1}[currency]
            ```
        """
        return guarded(self, func)

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        """`@breaker` is `@breaker.protected`."""
        return self.protected(func)

    @overload
    def call(
        self, func: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def call(
        self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    async def call(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function under guard, and await what it returns if that is awaitable.

        Args:
            func: A coroutine function, or a plain function that returns an awaitable or a value. A
                returned executor's future counts when it is done; a returned generator is guarded
                until it ends.
            args: Passed to it.
            kwargs: Passed to it.

        Raises:
            CircuitOpenError: The circuit refused; `func` was not called.
            TypeError: `func` is not a function, but the result of calling one.
        """
        machine = self.machine
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = self.admit()
        try:
            result = func(*args, **kwargs)
            if result.__class__ is CoroutineType:
                result = await result
            elif continuation(result.__class__) is not None:
                if not is_awaitable(result):
                    followed, permit = permit, None
                    return guard_continuation(self, followed, result)
                result = await result
        except BaseException as error:
            if permit is not None:
                self._settle_call(permit, func, error)
            raise
        if permit.counts_only:
            next(machine.successes)
        else:
            self.settle_result(permit, result)
        return result

    def call_sync(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a plain function under guard.

        The returned object decides what is guarded, as for `protected`: a future counts when it is
        done; another awaitable and a generator are guarded until they end.

        Raises:
            CircuitOpenError: The circuit refused; `func` was not called.
            TypeError: `func` is a coroutine function, which only `call` can await, or is not a
                function, but the result of calling one.
        """
        machine = self.machine
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = self.admit()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self._settle_call(permit, func, error)
            raise
        if continuation(result.__class__) is not None:  # type: ignore[arg-type]
            if isinstance(result, CoroutineType) and is_kind(func, inspect.iscoroutinefunction):
                self.release(permit)
                result.close()
                raise TypeError(f"call_sync cannot await {func!r}: use `await call(...)`")
            return cast("R", guard_continuation(self, permit, result))
        if permit.counts_only:
            next(machine.successes)
        else:
            self.settle_result(permit, result)
        return result

    def _settle_call(self, permit: Permit, func: object, error: BaseException) -> None:
        if callable(func):
            self.settle(permit, error)
            return
        self.release(permit)
        if isinstance(func, CoroutineType):
            func.close()
        raise TypeError(
            f"a function and its arguments are needed, as in call(func, 1), not {func!r}"
        ) from None

    async def __aenter__(self) -> Self:
        """Enter the block.

        Raises:
            CircuitOpenError: The circuit refuses; the block does not run.
        """
        if prepared_blocks or next(self.machine.permits, None) is None:
            enter_block(self)
        return self

    def __enter__(self) -> Self:
        """Enter the block.

        Raises:
            CircuitOpenError: The circuit refuses; the block does not run.
        """
        if prepared_blocks or next(self.machine.permits, None) is None:
            enter_block(self)
        return self

    if TYPE_CHECKING:

        async def __aexit__(
            self,
            exc_type: type[BaseException] | None,
            exc: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...

        def __exit__(
            self,
            exc_type: type[BaseException] | None,
            exc: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...
    else:
        __aexit__ = BlockExit()
        __exit__ = BlockExitSync()
