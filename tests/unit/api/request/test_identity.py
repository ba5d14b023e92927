"""Ids of requests and traces; the tests of the middleware show how callers see them."""

import os
import random

import pytest

from example_service.api.request.identity import continued_state, identify, new_identity


def test_an_identity_is_ready_for_use() -> None:
    """The headers contain the same values as the strings."""
    request_id, traceparent, headers = new_identity()
    assert headers == (
        (b"x-request-id", request_id.encode()),
        (b"traceparent", traceparent.encode()),
    )


def test_seeding_random_numbers_does_not_make_ids_repeat() -> None:
    """Workers that use the same seed still generate different ids."""
    ids = set()
    for _ in range(300):
        random.seed(1)
        ids.add(new_identity()[0])
    assert len(ids) == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_process_generates_different_ids() -> None:
    """It shares neither prepared ids nor the state of the generator with its parent."""
    new_identity()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, "\n".join(new_identity()[0] for _ in range(200)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        theirs = set(pipe.read().split())
    os.waitpid(child, 0)
    ours = {new_identity()[0] for _ in range(200)}
    assert len(theirs) == len(ours) == 200
    assert not theirs & ours


TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ([b"a=1"], "a=1"),
        ([b"a=1, b=2 ,c=3"], "a=1,b=2,c=3"),
        ([b"a=1", b"b=2"], "a=1,b=2"),
        ([b"a=1,,"], "a=1"),
        ([b""], None),
        ([b"nonsense"], None),
        ([b"a=\xff"], None),
        ([b"a=1\n"], None),
        ([b"1a_b-c*d/e@f=x y"], "1a_b-c*d/e@f=x y"),
        ([b"a=" + b"x" * 256], "a=" + "x" * 256),
        ([b"a=" + b"x" * 257], None),
        ([b"a" * 257 + b"=1"], None),
        ([b"a=1,B=2"], None),
        ([b"a=1,b.c=2"], None),
        ([b"a=1,b =2"], None),
        ([b"a=1,b=2=3"], None),
        ([b"a=1,b="], None),
        ([b"a=" + b"x" * 512], None),
        ([b",".join(b"a%d=1" % number for number in range(33))], None),
    ],
)
def test_the_state_of_a_trace_is_passed_on(given: list[bytes], state: str | None) -> None:
    """It is passed on as one list; an invalid or overlong list is dropped."""
    assert continued_state(given, TRACEPARENT, identify(None, TRACEPARENT)) == state


def test_the_state_of_a_trace_that_is_not_continued_is_dropped() -> None:
    """It does not apply to the new trace."""
    assert continued_state([b"a=1"], b"nonsense", identify(None, b"nonsense")) is None
