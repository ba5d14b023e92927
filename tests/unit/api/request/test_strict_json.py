"""Which JSON is accepted in a body."""

import contextlib
import json
import sys
import time
from typing import Any

import pytest

from example_service.api.problems.validation import JSONError
from example_service.api.request.strict_json import MAX_VALUES, parse_json


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        {"amount": 1, "more": [{"amount": 2}, {"amount": 3}]},
        {"ä": "ä\u2028\U0001f600"},
        {"text": "," * 5_000},
        [0] * MAX_VALUES,
    ],
)
def test_ordinary_json_is_parsed_unchanged(value: Any) -> None:
    """It may contain escapes."""
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"amount": 1, "amount": 2}',
        b'{"amount": 1, "amount": 1}',
        b'{"a": [{"b": {"c": 1, "c": 2}}]}',
        b'{"amount": 1, "\\u0061mount": 2}',
        b"NaN",
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b"[-1.0e400]",
        '{"a": "ä"}'.encode("latin-1"),
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b"[" + b"0," * MAX_VALUES + b"0]",
        b'{"a":[' + b"[0,0]," * MAX_VALUES + b"0]}",
        b"{" + b",".join(b'"%d":0' % number for number in range(MAX_VALUES + 1)) + b"}",
    ],
)
def test_ambiguous_json_is_refused(body: bytes) -> None:
    """JSON with more values than any model can use is refused as well."""
    with pytest.raises(JSONError):
        parse_json(body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xef\xbb\xbf{}", b"{'a': 1}", b'{"a": 1,}', b"01"])
def test_invalid_json_is_refused(body: bytes) -> None:
    """A byte order mark is not valid JSON either."""
    with pytest.raises(json.JSONDecodeError):
        parse_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65_000,
        b"[" + b"0," * 32_000 + b"0]",
        b"{" + b",".join(b'"%x":0' % number for number in range(6_000)) + b"}",
        b'{"a":' * 10_000,
        b'["' + b"\\u00e4" * 10_000 + b'"]',
        b"9" * 65_000,
    ],
)
def test_no_body_takes_long(body: bytes) -> None:
    """Parsing blocks the event loop, so every body must be parsed quickly."""
    seconds = []
    # One of them may include a garbage collection of the whole test run.
    for _ in range(3):
        start = time.thread_time()
        with contextlib.suppress(ValueError, RecursionError):
            parse_json(body)
        seconds.append(time.thread_time() - start)

    assert min(seconds) < 0.1


@pytest.mark.parametrize("level", [b"[0,", b'{"a":0,"b":'], ids=["arrays", "objects"])
def test_the_work_for_a_body_does_not_grow_with_its_depth(level: bytes) -> None:
    """A deep body with many items would otherwise block the event loop for 0.3 seconds."""
    depth, end = 500, b"]" if level[:1] == b"[" else b"}"
    body = level * depth + b"[" + b"0," * 20_000 + b"0]" + end * depth
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        with pytest.raises(JSONError, match="at most 1000"):
            parse_json(body)
    finally:
        sys.setprofile(None)

    assert calls < 10_000
