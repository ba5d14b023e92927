"""Recordings in three formats, and the errors of each."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from example_service.api.request.access_log import AccessLog
from example_service.core.logging import configure_logging
from example_service.core.settings import Settings
from example_service.core.settings.model import LogSettings
from example_service.replay.calls import FAILURE, NEUTRAL, SUCCESS, Call
from example_service.replay.lines import MAX_LINE_LENGTH, RecordingError
from example_service.replay.recording import Recording

HEADER = b"time,duration,outcome\n"
MOMENT = "2026-11-29T08:30:00+00:00"
MOMENT_SECONDS = 1_795_941_000.0


def calls_of(folder: Path, content: bytes, route: str | None = None) -> list[Call]:
    """The calls read from a file with this content."""
    path = folder / "calls.log"
    path.write_bytes(content)
    with path.open("rb") as file:
        return list(Recording(path, file, route))


def request(ended: str, **members: Any) -> str:
    """A line of the access log."""
    line = {
        "timestamp": ended,
        "level": "info",
        "logger": "example_service.access",
        "event": "request",
        "route": "/items",
        "status": 200,
        "duration_seconds": 0.5,
    }
    return json.dumps(line | members) + "\n"


def test_csv_columns_may_be_in_any_order(tmp_path: Path) -> None:
    """Columns are identified by their names in the header; other columns are ignored."""
    content = b"outcome,host,time,duration\r\nsuccess,a,1,0.5\r\n\r\nneutral,b,1.5,2\r\n"

    assert calls_of(tmp_path, content) == [Call(1.0, 0.5, SUCCESS), Call(1.5, 2.0, NEUTRAL)]


def test_a_byte_order_mark_and_quotes_are_accepted(tmp_path: Path) -> None:
    """Spreadsheets write CSV with both."""
    content = b'\xef\xbb\xbf"time","duration","outcome"\n"1","0.5","failure"\n'

    assert calls_of(tmp_path, content) == [Call(1.0, 0.5, FAILURE)]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, SUCCESS),
        (404, SUCCESS),
        (429, FAILURE),
        (499, NEUTRAL),
        (500, FAILURE),
        (503, FAILURE),
    ],
)
def test_a_status_is_an_outcome(tmp_path: Path, status: int, outcome: str) -> None:
    """In CSV and in an access log alike, 429 and 5xx are failures."""
    csv = calls_of(tmp_path, HEADER + f"1,0.5,{status}\n".encode())
    log = calls_of(tmp_path, request(MOMENT, status=status).encode())

    assert [call.outcome for call in (*csv, *log)] == [outcome, outcome]


def test_json_lines_have_the_members_of_the_columns(tmp_path: Path) -> None:
    """Times are numbers or dates, and time zones are taken into account."""
    lines = [
        {"time": "2026-11-29T09:30:00+01:00", "duration": 0.5, "outcome": "success"},
        {"time": "2026-11-29T08:30:00.250Z", "duration": 1, "outcome": "failure", "host": "a"},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()

    assert calls_of(tmp_path, content) == [
        Call(MOMENT_SECONDS, 0.5, SUCCESS),
        Call(MOMENT_SECONDS + 0.25, 1.0, FAILURE),
    ]


def test_requests_of_an_access_log_are_ordered_by_their_start(tmp_path: Path) -> None:
    """A line is written at the end of a request, so a slow request has a later line."""
    content = (
        request("2026-11-29T08:30:01Z", duration_seconds=0.25)
        + request("2026-11-29T08:30:02Z", logger="example_service", event="shutdown")
        + request("2026-11-29T08:30:02Z", duration_seconds=2.0)
    )

    assert calls_of(tmp_path, content.encode()) == [
        Call(MOMENT_SECONDS, 2.0, SUCCESS),
        Call(MOMENT_SECONDS + 0.75, 0.25, SUCCESS),
    ]


def test_the_access_log_of_the_service_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON lines of the service are calls; for console lines, the error names the fix."""
    for log_format in ("json", "console"):
        settings = Settings(environment="test", log=LogSettings(format=log_format))
        configure_logging(settings)
        AccessLog(settings).write(
            ("mine", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ()),
            method="GET",
            path="/items/7",
            route="/items/{item_id}",
            status=503,
            duration_seconds=0.25,
            client="192.0.2.1",
        )
    as_json, for_console = capsys.readouterr().out.splitlines()

    [call] = calls_of(tmp_path, as_json.encode(), route="/items/{item_id}")
    assert (call.duration, call.outcome) == (0.25, FAILURE)
    with pytest.raises(RecordingError, match="LOG__FORMAT=json"):
        calls_of(tmp_path, for_console.encode())


def test_a_route_selects_requests(tmp_path: Path) -> None:
    """Only requests to the route are calls; the error for an unknown route lists the others."""
    content = (request(MOMENT, route="/a") + request(MOMENT, route="/b", status=503)).encode()

    assert [call.outcome for call in calls_of(tmp_path, content, route="/b")] == [FAILURE]
    with pytest.raises(RecordingError, match="no request of the route '/c'; there are /a, /b"):
        calls_of(tmp_path, content, route="/c")


def test_the_first_request_of_an_access_log_may_have_taken_long(tmp_path: Path) -> None:
    """Nothing is above it, so it is in order however early it began."""
    content = request(MOMENT, duration_seconds=3600) + request(MOMENT, duration_seconds=1)

    assert [call.duration for call in calls_of(tmp_path, content.encode())] == [3600, 1]


def test_a_request_that_started_too_long_ago_cannot_be_put_in_order(tmp_path: Path) -> None:
    """Memory is bounded, so a line that is too late is an error and not a wrong order."""
    content = (
        request("2026-11-29T08:30:00Z", duration_seconds=0)
        + request("2026-11-29T08:40:00Z", duration_seconds=0)
        + request("2026-11-29T08:40:00Z", duration_seconds=3600)
    )

    with pytest.raises(RecordingError, match=r"line 3: .*choose one route with --route"):
        calls_of(tmp_path, content.encode())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"calls.log: the file is empty"),
        (b"\n \n", r"calls.log: there is no call in the file"),
        (HEADER, r"calls.log: there is no call in the file"),
        (b"1,2,success\n", r"line 1: the first line names no column 'time'"),
        (b"time;duration;outcome\n", r"line 1: the first line names no column"),
        (
            b"time,duration,outcome, time\n1,2,success,3\n",
            r"line 1: the first line has two columns 'time'; rename one",
        ),
        (HEADER + b"1,2\n", r"line 2: the line has 2 fields, but the header has 3; correct"),
        (HEADER + b"1,2,success,4\n", r"line 2: the line has 4 fields, but the header has 3"),
        (HEADER + b'1,2,"success\n', r"line 2: the quotation marks are not in pairs"),
        (
            HEADER + b"\n1,x,success\n",
            r"line 3: the duration 'x' is not a number of seconds; write",
        ),
        (HEADER + b'1,"0,5",success\n', r"line 2: the duration '0,5' .*use a decimal point"),
        (
            HEADER + b"1,-1,success\n",
            r"line 2: the duration '-1' must be 0 seconds or more; correct",
        ),
        (
            HEADER + b"1,nan,success\n",
            r"line 2: the duration 'nan' must be 0 seconds or more; correct",
        ),
        (
            HEADER + b"1,inf,success\n",
            r"line 2: the duration 'inf' must be 0 seconds or more; correct",
        ),
        (HEADER + b"1,1,ok\n", r"line 2: the outcome 'ok' is unknown; write success, failure"),
        (HEADER + b"1,1,700\n", r"line 2: the outcome '700' is unknown"),
        (HEADER + b"1,1," + b"2" * 5_000, r"line 2: the outcome '2{40}…' is unknown"),
        (HEADER + b"1,1e300,success\n", r"line 2: the duration '1e300' is more than eleven days"),
        (HEADER + b"-1e300,1,success\n", r"line 2: the time '-1e300' is in milliseconds"),
        (HEADER + b"inf,1,success\n", r"line 2: the time 'inf' is not a number of seconds; write"),
        (HEADER + b"nan,1,success\n", r"line 2: the time 'nan' is not a number of seconds"),
        (HEADER + b"soon,1,success\n", r"line 2: the time 'soon' is not a date; write"),
        (HEADER + b"1795941000000,1,success\n", r"line 2: the time .* is in milliseconds"),
        (HEADER + b"2026-11-29 08:30,1,success\n", r"line 2: .* has no time zone; append Z"),
        (
            HEADER + b"1,1,success\n2026-11-29T08:30Z,1,success\n",
            r"line 3: the time '2026-11-29T08:30Z' is written otherwise than '1' in line 2",
        ),
        (
            HEADER + b"2026-11-29T08:30Z,1,success\n1,1,success\n",
            r"line 3: the time '1' is written otherwise than '2026-11-29T08:30Z' in line 2",
        ),
        (
            HEADER + b"2,1,success\n2,1,success\n1,1,success\n",
            r"line 4: the call began before the one above it; sort the lines",
        ),
        (HEADER + b"1,1,success\n\xff\xfe\n", r"line 3: this is not UTF-8 text"),
        (HEADER + b"1,1,succ\0ess\n", r"line 2: this is a binary file"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"line 1: this is not UTF-8 text"),
        (gzip.compress(HEADER, mtime=0), r"line 1: the file is compressed; unpack it with gunzip"),
        ("time,duration,outcome\n".encode("utf-16"), r"line 1: the file is UTF-16"),
        (HEADER + b"1" * (MAX_LINE_LENGTH + 1), r"line 2: the line is longer than"),
        (b'{"time": 1, "duration": 1}\n', r"line 1: there is no member 'outcome'"),
        (b'{"time": 1,\n', r"line 1: this is not JSON"),
        (b'{"time": true, "duration": 1, "outcome": "success"}', r"line 1: the time 'true' must"),
        (b'{"time": NaN, "duration": 1, "outcome": "success"}', r"line 1: the time 'nan'"),
        (
            b'{"time": 1, "duration": 1, "outcome": "success"}\n[1]\n',
            r"line 2: '\[1\]' is not a JSON object",
        ),
        (b'{"time": 1, "time": 2}\n', r"line 1: the member 'time' is repeated; remove one"),
        (b'{"a":' * 10_000, r"line 1: th(e JSON is nested too deeply|is is not JSON)"),
        (
            request(MOMENT, status="200").encode(),
            r"line 1: the status '200' is not a whole number from 100 to 599; write",
        ),
        (request(MOMENT, status=-7).encode(), r"line 1: the status -7 is not a whole number from"),
        (request(MOMENT, status=600).encode(), r"line 1: the status 600 is not"),
        (request(MOMENT, duration_seconds=None).encode(), r"line 1: the duration_seconds 'null'"),
        (request("now").encode(), r"line 1: the time 'now' is not a date"),
        ((request(MOMENT) + "Traceback\n").encode(), r"line 2: this is not JSON"),
    ],
)
def test_an_invalid_line_is_refused_with_its_number(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    """The error says which line is wrong, in what way, and how to correct it."""
    with pytest.raises(RecordingError, match=problem):
        calls_of(tmp_path, content)


def test_a_route_applies_only_to_access_logs(tmp_path: Path) -> None:
    """Calls in the other formats have no route, so giving one is an error."""
    with pytest.raises(RecordingError, match="leave --route out"):
        calls_of(tmp_path, HEADER + b"1,1,success\n", route="/a")


def test_reading_reports_how_far_it_has_got(tmp_path: Path) -> None:
    """The position in the file only grows, and never exceeds the file's size."""
    path = tmp_path / "calls.csv"
    path.write_bytes(HEADER + b"1,1,success\n" * 10_000)
    reached: list[int] = []
    with path.open("rb") as file:
        assert len(list(Recording(path, file, progress=reached.append))) == 10_000

    assert len(reached) >= 2
    assert reached == sorted(reached)
    assert reached[-1] <= path.stat().st_size
