"""Generators whose items are produced under guard: the call lasts until the stream ends."""

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, ParamSpec, TypeVar, cast

from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.nested_calls import mark_probe, unmark_call
from example_service.infra.resilience.rules.phases import HalfOpen, Permit, TimedCall

P = ParamSpec("P")
R = TypeVar("R")


def guarded_async_generator(
    guard: Guard, func: Callable[P, AsyncGenerator[R, Any]]
) -> Callable[P, AsyncGenerator[R, Any]]:
    """Wrap an async generator function; see `CircuitBreaker.protected`."""

    @functools.wraps(func)
    async def guarded_stream(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
        stream = func(*args, **kwargs)
        permit = guard.acquire()
        if isinstance(permit, TimedCall) and isinstance(permit.phase, HalfOpen):
            stream = cast("AsyncGenerator[R, Any]", _AsyncSteps(guard, stream, permit))
        thrown: BaseException | None = None
        try:
            item = await anext(stream)
            while True:
                try:
                    sent = yield item
                except GeneratorExit as error:
                    thrown = error
                    await stream.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - Passed on to the stream.
                    thrown = error
                    item = await stream.athrow(error)
                    thrown = None
                else:
                    item = await stream.asend(sent)
        except StopAsyncIteration:
            guard.succeed(permit)
        except BaseException as error:
            _settle_stream(guard, permit, error, thrown)
            raise

    return guarded_stream


def guarded_generator(
    guard: Guard, func: Callable[P, Generator[Any, Any, R]]
) -> Callable[P, Generator[Any, Any, R]]:
    """Wrap a generator function; see `CircuitBreaker.protected`."""

    @functools.wraps(func)
    def guarded_stream(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        stream = func(*args, **kwargs)
        permit = guard.acquire()
        if isinstance(permit, TimedCall) and isinstance(permit.phase, HalfOpen):
            stream = cast("Generator[Any, Any, R]", _Steps(stream, permit))
        thrown: BaseException | None = None
        try:
            item = next(stream)
            while True:
                try:
                    sent = yield item
                except GeneratorExit as error:
                    thrown = error
                    stream.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - Passed on to the stream.
                    thrown = error
                    item = stream.throw(error)
                    thrown = None
                else:
                    item = stream.send(sent)
        except StopIteration as end:
            guard.succeed(permit)
            return cast("R", end.value)
        except BaseException as error:
            _settle_stream(guard, permit, error, thrown)
            raise

    return guarded_stream


class _Steps:
    """A generator whose steps run as part of a probe.

    Calls of its consumer, which runs between the steps in the same context, are not part of it.
    """

    def __init__(self, stream: Generator[Any, Any, Any], probe: TimedCall) -> None:
        self._stream = stream
        self._probe = probe

    def __next__(self) -> Any:
        return self._step(self._stream.__next__)

    def send(self, value: Any) -> Any:
        return self._step(self._stream.send, value)

    def throw(self, error: BaseException) -> Any:
        return self._step(self._stream.throw, error)

    def close(self) -> None:
        self._step(self._stream.close)

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        mark_probe(self._probe)
        try:
            return step(*given)
        finally:
            unmark_call(self._probe)


class _AsyncSteps:
    """The same for an async generator."""

    def __init__(self, guard: Guard, stream: AsyncGenerator[Any, Any], probe: TimedCall) -> None:
        self._guard = guard
        self._stream = stream
        self._probe = probe

    def __del__(self) -> None:
        # Python does not close an async generator whose loop has closed. The call is then neutral,
        # and its probe slot becomes free.
        if isinstance(self._probe.phase, HalfOpen):
            self._guard.release(self._probe)

    async def __anext__(self) -> Any:
        return await self._step(self._stream.__anext__)

    async def asend(self, value: Any) -> Any:
        return await self._step(self._stream.asend, value)

    async def athrow(self, error: BaseException) -> Any:
        return await self._step(self._stream.athrow, error)

    async def aclose(self) -> None:
        await self._step(self._stream.aclose)

    async def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        mark_probe(self._probe)
        try:
            return await step(*given)
        finally:
            unmark_call(self._probe)


def _settle_stream(
    guard: Guard, permit: Permit, error: BaseException, thrown: BaseException | None
) -> None:
    """Settle a stream that raised.

    An error that the consumer throws in and that comes out again is neutral: FastAPI throws the
    error of an endpoint into its dependencies. Python closes a generator by throwing in a
    GeneratorExit. That is a success, because the consumer has received an item before.
    """
    if not _comes_back(error, thrown):
        guard.settle(permit, error)
    elif isinstance(thrown, GeneratorExit):
        guard.succeed(permit)
    else:
        guard.release(permit)


def _comes_back(error: BaseException, thrown: BaseException | None) -> bool:
    """Whether an error is the one that was thrown in, or a task group or Python wrapped it."""
    if error is thrown or (isinstance(error, GeneratorExit) and isinstance(thrown, GeneratorExit)):
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(_comes_back(inner, thrown) for inner in error.exceptions)
    # If a generator raises the end of an iteration, Python turns it into a RuntimeError.
    return isinstance(thrown, StopIteration | StopAsyncIteration) and error.__cause__ is thrown
