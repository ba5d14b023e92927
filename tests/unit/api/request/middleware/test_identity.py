"""Request ids and traces."""

import json
import threading

import pytest

from example_service.core import context
from tests.unit.api.request.middleware.asgi import Headers, Service


class TestRequestId:
    """A valid `X-Request-ID` is adopted."""

    @pytest.mark.parametrize(
        "given",
        [
            b"a",
            b"0b6f5a4e-8a3b-4b4c-9d36-6a4f7d2f8f10",
            b"01ARZ3NDEKTSV4RRFFQ69G5FAV",
            b"Root=1-67891233-abcdef012345678912345678",
            b"a.b_c~d:e+f/g=h@i-j",
            b"x" * 128,
        ],
    )
    async def test_a_valid_id_is_adopted(self, service: Service, given: bytes) -> None:
        """The caller's own id is in the answer, and code finds it in the context."""
        answer = await service.request("/known", headers=[(b"x-request-id", given)])
        assert answer.header(b"x-request-id") == given
        assert json.loads(answer.body)[0] == given.decode()

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [(b"x-request-id", b"")],
            [(b"x-request-id", b"x" * 129)],
            [(b"x-request-id", b"x" * 100_000)],
            [(b"x-request-id", b"a b")],
            [(b"x-request-id", b"a\x00b")],
            [(b"x-request-id", b"a\r\nSet-Cookie: b")],
            [(b"x-request-id", b"a\n")],
            [(b"x-request-id", b'a"b')],
            [(b"x-request-id", b"a\\b")],
            [(b"x-request-id", b"\x1b[31m")],
            [(b"x-request-id", "ä".encode("latin-1"))],
            [(b"x-request-id", "ä".encode())],
            [(b"x-request-id", b"one"), (b"x-request-id", b"two")],
            [(b"x-request-id", b"one"), (b"x-request-id", b"one"), (b"x-request-id", b"one")],
        ],
    )
    async def test_an_invalid_id_is_replaced(self, service: Service, headers: Headers) -> None:
        """An id that is too long, unsafe or ambiguous is replaced by a new one."""
        answer = await service.request("/known", headers=headers)
        made = answer.header(b"x-request-id").decode()
        assert len(made) == 32
        assert int(made, 16)

    async def test_generated_ids_are_unique(self, service: Service) -> None:
        """No two requests get the same id, trace or span."""
        answers = [await service.request("/known") for _ in range(500)]
        traces = [answer.header(b"traceparent").split(b"-") for answer in answers]
        assert len({answer.header(b"x-request-id") for answer in answers}) == 500
        assert len({trace[1] for trace in traces}) == 500
        assert len({trace[2] for trace in traces}) == 500

    async def test_the_context_is_restored(self, service: Service) -> None:
        """After the request, the context of the caller contains none of its values."""
        await service.request("/known", headers=[(b"x-request-id", b"mine")])
        assert context.request_id() is None
        assert context.traceparent() is None

    async def test_threads_know_the_request(self, service: Service) -> None:
        """A plain function, which FastAPI runs in a thread, sees the same ids."""

        @service.app.get("/thread")
        def thread() -> str | None:
            assert threading.current_thread() is not threading.main_thread()
            return context.request_id()

        answer = await service.request("/thread", headers=[(b"x-request-id", b"mine")])
        assert json.loads(answer.body) == "mine"


class TestTraceContext:
    """`traceparent` is read and written as W3C Trace Context specifies."""

    TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
    SPAN = b"00f067aa0ba902b7"

    @pytest.mark.parametrize(
        ("given", "flags"),
        [
            (b"00-%b-%b-01", b"01"),
            (b"00-%b-%b-00", b"00"),
            (b"00-%b-%b-ff", b"01"),
            (b"00-%b-%b-02", b"00"),
            (b"cc-%b-%b-01", b"01"),
            (b"cc-%b-%b-01-what-the-future-will-be-like", b"01"),
            (b"01-%b-%b-00-", b"00"),
        ],
    )
    async def test_a_valid_trace_is_continued(
        self, service: Service, given: bytes, flags: bytes
    ) -> None:
        """The trace continues with a new span, in version 00, and with known flags only."""
        answer = await service.request(
            "/known", headers=[(b"traceparent", given % (self.TRACE, self.SPAN))]
        )
        version, trace, span, sent_flags = answer.header(b"traceparent").split(b"-")
        assert (version, trace, sent_flags) == (b"00", self.TRACE, flags)
        assert span != self.SPAN
        assert len(span) == 16
        assert int(span, 16)
        assert json.loads(answer.body)[1] == answer.header(b"traceparent").decode()

    @pytest.mark.parametrize(
        "given",
        [
            b"",
            b"00",
            b"00-%b-%b" % (TRACE, SPAN),
            b"00-%b-%b-01-extra" % (TRACE, SPAN),
            b"00-%b-%b-01-" % (TRACE, SPAN),
            b"00-%b-%b-01 " % (TRACE, SPAN),
            b"00-%b-%b-01\n" % (TRACE, SPAN),
            b"00-%b-%b-1" % (TRACE, SPAN),
            b"00-%b-%b-0x" % (TRACE, SPAN),
            b"0-%b-%b-01" % (TRACE, SPAN),
            b"ff-%b-%b-01" % (TRACE, SPAN),
            b"cc-%b-%b-01.what-the-future" % (TRACE, SPAN),
            b"00-%b-%b-01" % (TRACE.upper(), SPAN),
            b"00-%b-%b-01" % (TRACE, SPAN.upper()),
            b"00-%b-%b-01" % (b"0" * 32, SPAN),
            b"00-%b-%b-01" % (TRACE, b"0" * 16),
            b"00-%b-%b-01" % (TRACE[:-1], SPAN),
            b"00-%b-%b-01" % (TRACE + b"a", SPAN),
            b"00-%b-%b-01" % (b"g" * 32, SPAN),
            b"00_%b_%b_01" % (TRACE, SPAN),
            b"x" * 100_000,
            "ä".encode("latin-1") * 55,
        ],
    )
    async def test_an_invalid_trace_is_replaced(self, service: Service, given: bytes) -> None:
        """A new trace begins, without the flag that says it is sampled."""
        answer = await service.request("/known", headers=[(b"traceparent", given)])
        version, trace, span, flags = answer.header(b"traceparent").split(b"-")
        assert (version, flags) == (b"00", b"00")
        assert trace.lower() != self.TRACE
        assert (len(trace), len(span)) == (32, 16)

    async def test_two_headers_count_as_none(self, service: Service) -> None:
        """A header that appears twice cannot be trusted, even if both values are equal."""
        given = b"00-%b-%b-01" % (self.TRACE, self.SPAN)
        answer = await service.request("/known", headers=[(b"traceparent", given)] * 2)
        assert answer.header(b"traceparent").split(b"-")[1] != self.TRACE

    async def test_a_trace_is_continued_with_a_generated_id(self, service: Service) -> None:
        """Either header works without the other."""
        given = b"00-%b-%b-01" % (self.TRACE, self.SPAN)
        answer = await service.request("/known", headers=[(b"traceparent", given)])
        assert len(answer.header(b"x-request-id")) == 32

    async def test_the_state_of_a_trace_belongs_to_its_request(self, service: Service) -> None:
        """It is known while the request is served, and not to the next one in the same context."""

        @service.app.get("/state")
        async def state() -> str | None:
            return context.tracestate.get()

        trace = b"00-%b-%b-01" % (self.TRACE, self.SPAN)
        with_state = [(b"traceparent", trace), (b"tracestate", b"vendor=1")]
        answers = [await service.request("/state", headers=given) for given in (with_state, [])]
        assert [json.loads(answer.body) for answer in answers] == ["vendor=1", None]
