"""Generators whose items are produced under guard: the call lasts until the stream ends."""

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, ParamSpec, TypeVar, cast

from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.rules.phases import Permit

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
                except BaseException as error:  # noqa: BLE001 - It is thrown on.
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
                except BaseException as error:  # noqa: BLE001 - It is thrown on.
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


def _settle_stream(
    guard: Guard, permit: Permit, error: BaseException, thrown: BaseException | None
) -> None:
    """Settle a stream that raised.

    What its consumer threw in says nothing about the other side if it comes back as the same
    object: FastAPI throws the error of an endpoint into its dependencies. To close it, Python
    throws in a GeneratorExit; the consumer has had an item then, so the other side works.
    """
    if error is not thrown:
        guard.settle(permit, error)
    elif isinstance(error, GeneratorExit):
        guard.succeed(permit)
    else:
        guard.release(permit)
