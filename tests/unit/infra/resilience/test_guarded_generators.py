"""Asynchronous and plain generators, which are guarded while they run."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Generator
from contextlib import nullcontext

import pytest

from example_service.infra.resilience import CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    BadRequestError,
    DownError,
    fail,
    half_opened,
    make_breaker,
    opened,
)


class Source:
    """A stream of a dependency, in both kinds, which records how it is used."""

    def __init__(self, items: int = 3, *, error: Exception | None = None) -> None:
        self.items = items
        self.error = error
        self.notes: list[object] = []

    async def stream(self) -> AsyncGenerator[int, str]:
        """Yield the items, then fail if requested."""
        try:
            for item in range(self.items):
                try:
                    self.notes.append((yield item))
                except BadRequestError as thrown:
                    self.notes.append(thrown)
            if self.error is not None:
                raise self.error
        finally:
            self.notes.append("closed")

    def plain_stream(self) -> Generator[int, str, str]:
        """Yield the items, then fail if requested."""
        try:
            for item in range(self.items):
                try:
                    self.notes.append((yield item))
                except BadRequestError as thrown:
                    self.notes.append(thrown)
            if self.error is not None:
                raise self.error
            return "result"
        finally:
            self.notes.append("closed")


class TestAsyncGenerators:
    """The outcome of a stream is known when it ends."""

    async def test_a_stream_read_to_its_end_is_a_success(self) -> None:
        """It keeps its permit until then."""
        breaker = make_breaker()
        seen = []
        async for item in breaker.protected(Source().stream)():
            assert breaker.in_flight == 1
            assert breaker.total_successes == 0
            seen.append(item)
        assert seen == [0, 1, 2]
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    async def test_a_failure_in_the_middle_is_a_failure(self) -> None:
        """It is a failure even though its first items arrived."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source(error=DownError("half-way")).stream)()
        assert [await anext(stream), await anext(stream), await anext(stream)] == [0, 1, 2]
        with pytest.raises(DownError, match="half-way"):
            await anext(stream)
        assert breaker.is_open
        assert breaker.total_successes == 0

    async def test_closing_it_after_an_item_is_a_success_and_closes_the_source(self) -> None:
        """The dependency answered, and the client needs no further items."""
        breaker = half_opened(FakeClock())
        source = Source()
        stream = breaker.protected(source.stream)()
        await anext(stream)
        await stream.aclose()
        assert source.notes == ["closed"]
        assert breaker.in_flight == 0
        assert breaker.is_half_open
        assert breaker.total_successes == 1

    async def test_closing_one_with_a_task_group_after_an_item_is_a_success(self) -> None:
        """The group wraps the exception with which Python closes the stream."""

        async def stream() -> AsyncGenerator[None, None]:
            async with asyncio.TaskGroup():
                yield

        breaker = make_breaker()
        guarded = breaker.protected(stream)()
        await anext(guarded)
        with pytest.raises(BaseExceptionGroup):
            await guarded.aclose()
        assert (breaker.total_failures, breaker.total_successes, breaker.in_flight) == (0, 1, 0)

    async def test_dropping_it_after_an_item_is_a_success(self) -> None:
        """An abandoned stream is closed by the event loop."""
        breaker = make_breaker()
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        del stream
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert breaker.in_flight == 0
        assert (breaker.total_failures, breaker.total_successes) == (0, 1)

    async def test_cancellation_while_it_waits_is_neutral(self) -> None:
        """Cancelling a stream is neutral, like cancelling any other call."""
        breaker = make_breaker()

        @breaker.protected
        async def silent() -> AsyncGenerator[int]:
            await asyncio.Event().wait()
            yield 1

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(silent())
        assert breaker.in_flight == 0
        assert breaker.total_failures == 0

    async def test_a_stream_that_is_never_read_takes_no_permit(self) -> None:
        """The permit is acquired with the first item."""
        breaker = opened(FakeClock())
        stream = breaker.protected(Source().stream)()
        assert breaker.total_rejections == 0
        with pytest.raises(CircuitOpenError):
            await anext(stream)
        assert breaker.total_rejections == 1

    async def test_sent_values_and_thrown_exceptions_reach_the_source(self) -> None:
        """The guard passes both through."""
        breaker = make_breaker()
        source = Source()
        stream = breaker.protected(source.stream)()
        thrown = BadRequestError("consumer's")
        assert await anext(stream) == 0
        assert await stream.asend("sent") == 1
        assert await stream.athrow(thrown) == 2
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert source.notes == ["sent", thrown, None, "closed"]
        assert breaker.total_successes == 1

    async def test_an_exception_that_the_consumer_throws_is_neutral_when_it_comes_back(
        self,
    ) -> None:
        """It is the consumer's error: FastAPI throws errors of endpoints into dependencies."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        with pytest.raises(DownError):
            await stream.athrow(DownError())
        assert breaker.is_closed
        assert (breaker.total_failures, breaker.total_successes, breaker.in_flight) == (0, 0, 0)

    @pytest.mark.parametrize(
        ("thrown", "raised"),
        [(StopAsyncIteration(), RuntimeError), (DownError(), ExceptionGroup)],
        ids=repr,
    )
    async def test_what_is_thrown_in_and_comes_back_wrapped_is_neutral(
        self, thrown: Exception, raised: type[Exception]
    ) -> None:
        """Python wraps the end of an iteration, and task groups wrap every error."""

        async def stream() -> AsyncGenerator[None, None]:
            async with asyncio.TaskGroup() if raised is ExceptionGroup else nullcontext():
                yield

        breaker = make_breaker(expected_exception=Exception)
        guarded = breaker.protected(stream)()
        await anext(guarded)
        with pytest.raises(raised):
            await guarded.athrow(thrown)
        assert (breaker.total_failures, breaker.total_successes, breaker.in_flight) == (0, 0, 0)

    async def test_probes_of_a_recovery_keep_their_slots(self) -> None:
        """A stream that is being read is a running call."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        with pytest.raises(CircuitOpenError):
            breaker.call_sync(str)
        assert [item async for item in stream] == [1, 2]
        assert breaker.is_closed

    async def test_a_late_end_of_a_stream_changes_nothing(self) -> None:
        """The circuit has opened since the start of the stream."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        fail(breaker)
        assert [item async for item in stream] == [1, 2]
        assert breaker.is_open
        assert breaker.total_successes == 1


class TestGenerators:
    """Plain streams behave in the same way."""

    def test_a_stream_read_to_its_end_is_a_success_and_returns_its_result(self) -> None:
        """`yield from` returns the result of the generator."""
        breaker = make_breaker()

        def consumer() -> Generator[int, str, str]:
            return (yield from breaker.protected(Source().plain_stream)())

        stream = consumer()
        assert [next(stream), next(stream), next(stream)] == [0, 1, 2]
        assert breaker.in_flight == 1
        with pytest.raises(StopIteration) as caught:
            next(stream)
        assert caught.value.value == "result"
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    def test_a_failure_in_the_middle_is_a_failure(self) -> None:
        """It is a failure even though its first items arrived."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source(error=DownError("half-way")).plain_stream)()
        assert [next(stream), next(stream), next(stream)] == [0, 1, 2]
        with pytest.raises(DownError, match="half-way"):
            next(stream)
        assert breaker.is_open

    @pytest.mark.parametrize("how", ["closed", "dropped"])
    def test_ending_it_after_an_item_is_a_success_and_closes_the_source(self, how: str) -> None:
        """The dependency answered, and the client needs no further items."""
        breaker = half_opened(FakeClock())
        source = Source()
        stream = breaker.protected(source.plain_stream)()
        next(stream)
        if how == "closed":
            stream.close()
        else:
            del stream
            gc.collect()
        assert source.notes == ["closed"]
        assert breaker.in_flight == 0
        assert breaker.is_half_open
        assert breaker.total_successes == 1

    def test_sent_values_and_thrown_exceptions_reach_the_source(self) -> None:
        """The guard passes both through."""
        breaker = make_breaker()
        source = Source()
        stream = breaker.protected(source.plain_stream)()
        thrown = BadRequestError("consumer's")
        assert next(stream) == 0
        assert stream.send("sent") == 1
        assert stream.throw(thrown) == 2
        assert list(stream) == []
        assert source.notes == ["sent", thrown, None, "closed"]
        assert breaker.total_successes == 1

    def test_a_stream_that_is_never_read_takes_no_permit(self) -> None:
        """The permit is acquired with the first item."""
        breaker = opened(FakeClock())
        stream = breaker.protected(Source().plain_stream)()
        assert breaker.total_rejections == 0
        with pytest.raises(CircuitOpenError):
            next(stream)
        assert breaker.total_rejections == 1


async def test_what_is_thrown_into_a_probe_reaches_its_stream() -> None:
    """A stream that handles it goes on, and closes the circuit at its end."""
    for kind in ("async", "plain"):
        source = Source(items=2)
        breaker = half_opened(FakeClock(), success_threshold=1)
        thrown = BadRequestError()
        if kind == "async":
            stream = breaker.protected(source.stream)()
            assert await anext(stream) == 0
            assert await stream.athrow(thrown) == 1
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        else:
            plain_stream = breaker.protected(source.plain_stream)()
            assert next(plain_stream) == 0
            assert plain_stream.throw(thrown) == 1
            with pytest.raises(StopIteration):
                next(plain_stream)
        assert source.notes == [thrown, None, "closed"]
        assert breaker.is_closed
