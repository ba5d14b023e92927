"""Reading recorded calls from CSV, JSON Lines, or the access log of the service.

A file is read line by line and not kept in memory. Calls are returned in the order of their start.
"""

import csv
import json
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final

from example_service.replay.calls import (
    Call,
    FieldError,
    Outcomes,
    duration_of,
    is_status,
    moment_of,
    of_status,
    seconds_of,
    shown,
)
from example_service.replay.lines import RecordingError, text_lines

COLUMNS: Final = ("time", "duration", "outcome")
MAX_REQUEST_SECONDS: Final = 300.0
"""The longest request of an access log that can be sorted, because lines are written at its end."""

_MAX_ROUTES_SHOWN: Final = 10
_PROGRESS_LINES: Final = 4_096


class Recording:
    """An iterable of the calls in one file. It can be iterated only once.

    Args:
        path: The path of the file.
        file: The file, opened in binary mode.
        route: Return only requests with this route template. Only valid for access logs.
        progress: Called regularly with the number of bytes read so far.

    Attributes:
        kind: The format of the file, available after the first line has been read.
        has_dates: Whether times are dates; otherwise they are seconds.
    """

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        route: str | None = None,
        progress: Callable[[int], None] = lambda _bytes: None,
    ) -> None:
        self.path = path
        self.kind = ""
        self.has_dates = False
        self._file = file
        self._route = route
        self._progress = progress
        self._line = 0
        # Used as an ordered set.
        self._other_routes: dict[str, None] = {}
        self._first_time: tuple[int, str] | None = None
        self._read_time: Callable[[str], float] = seconds_of
        self._outcomes = Outcomes()

    def __iter__(self) -> Iterator[Call]:
        """Read the calls.

        Raises:
            RecordingError: The file has no calls, or a line is invalid.
        """
        lines = self._numbered(text_lines(self.path, self._file))
        try:
            if (first := next(lines, None)) is not None:
                calls = self._calls(first, lines)
                if (call := next(calls, None)) is not None:
                    yield call
                    yield from calls
                    return
        except FieldError as error:
            raise RecordingError(self.path, self._line, str(error)) from None
        raise RecordingError(self.path, None, self._no_calls())

    def _no_calls(self) -> str:
        if self._route is None:
            return "there is no call in the file; record some first"
        known = f"; there are {', '.join(self._other_routes)}" if self._other_routes else ""
        return f"there is no request of the route {self._route!r}{known}"

    def _numbered(self, lines: Iterator[str]) -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            self._line = number
            if not number % _PROGRESS_LINES:
                self._progress(self._file.tell())
            if not line.isspace():
                yield line

    def _calls(self, first: str, rest: Iterator[str]) -> Iterator[Call]:
        if not first.startswith("{"):
            self._refuse_route()
            self.kind = "CSV"
            return self._in_order(self._from_csv(first, rest))
        record = self._object(first)
        if "timestamp" in record and "logger" in record:
            self.kind = "access log"
            return self._sorted(self._from_access_log(record, rest))
        self._refuse_route()
        self.kind = "JSON Lines"
        return self._in_order(self._from_json(record, rest))

    def _refuse_route(self) -> None:
        if self._route is not None:
            raise FieldError("only the calls of an access log have a route; leave --route out")

    # The three formats.

    def _from_csv(self, header: str, lines: Iterator[str]) -> Iterator[Call]:
        names = [name.strip() for name in _fields(header)]
        if missing := [name for name in COLUMNS if name not in names]:
            raise FieldError(
                f"the first line names no column {' and '.join(map(repr, missing))}; begin with a "
                f"header such as {','.join(COLUMNS)}, or give JSON Lines, such as a log with "
                "LOG__FORMAT=json"
            )
        if twice := [name for name in COLUMNS if names.count(name) > 1]:
            raise FieldError(f"the first line has two columns {twice[0]!r}; rename one of them")
        pick = itemgetter(*map(names.index, COLUMNS))
        for line in lines:
            row = _fields(line)
            if len(row) != len(names):
                raise FieldError(
                    f"the line has {_counted(len(row), 'field')}, but the header has {len(names)}; "
                    "correct or remove the line"
                )
            yield self._call(*pick(row))

    def _from_json(self, record: dict[str, Any], lines: Iterator[str]) -> Iterator[Call]:
        while True:
            if missing := [name for name in COLUMNS if name not in record]:
                raise FieldError(
                    f"there is no member {' and '.join(map(repr, missing))}; write a line "
                    'as {"time": 12.5, "duration": 0.031, "outcome": "success"}'
                )
            yield self._call(*[_as_text(name, record[name]) for name in COLUMNS])
            if (line := next(lines, None)) is None:
                return
            record = self._object(line)

    def _from_access_log(self, record: dict[str, Any], lines: Iterator[str]) -> Iterator[Call]:
        """The requests in the order of the lines, that is, of their ends."""
        while True:
            if record.get("event") == "request":
                route = str(record.get("route"))
                if self._route in {None, route}:
                    yield self._request(record)
                elif len(self._other_routes) < _MAX_ROUTES_SHOWN:
                    self._other_routes[route] = None
            if (line := next(lines, None)) is None:
                return
            record = self._object(line)

    def _request(self, record: dict[str, Any]) -> Call:
        status = record.get("status")
        if type(status) is not int or not is_status(status):
            raise FieldError(
                f"the status {status!r:.40} is not a whole number from 100 to 599; write it as 503"
            )
        duration = duration_of(_as_text("duration_seconds", record.get("duration_seconds")))
        ended = self._time(_as_text("timestamp", record.get("timestamp")))
        return Call(ended - duration, duration, of_status(status))

    def _object(self, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line, object_pairs_hook=_members)
        except FieldError:
            raise
        except ValueError as error:
            raise FieldError(f"this is not JSON ({error}); remove the line or repair it") from None
        except RecursionError:
            raise FieldError("the JSON is nested too deeply; remove the line") from None
        if not isinstance(record, dict):
            raise FieldError(f"{shown(line.strip())} is not a JSON object; remove the line")
        return record

    # Parsing fields, and the order of calls.

    def _call(self, time: str, duration: str, outcome: str) -> Call:
        return Call(self._time(time), duration_of(duration), self._outcomes[outcome])

    def _time(self, text: str) -> float:
        if self._first_time is None:
            self._first_time = self._line, text
            try:
                float(text)
            except ValueError:
                self.has_dates, self._read_time = True, moment_of
        try:
            return self._read_time(text)
        except FieldError as error:
            line, first = self._first_time
            if line != self._line and _is_date(text) != self.has_dates:
                raise FieldError(
                    f"the time {shown(text)} is written otherwise than {shown(first)} in line "
                    f"{line}; use one format throughout"
                ) from None
            raise error from None

    def _in_order(self, calls: Iterator[Call]) -> Iterator[Call]:
        last = -inf
        for call in calls:
            if call.time < last:
                raise FieldError(
                    "the call began before the one above it; sort the lines by their time, at "
                    "which the calls began"
                )
            last = call.time
            yield call

    def _sorted(self, calls: Iterator[Call]) -> Iterator[Call]:
        """Sort requests by their start. The input is in the order of their ends."""
        waiting: list[Call] = []
        latest_end = begun = -inf
        for call in calls:
            latest_end = max(latest_end, call.time + call.duration)
            if call.time < begun:
                raise FieldError(
                    f"the request began {latest_end - call.time:.0f} seconds before the latest "
                    f"end above, more than the {MAX_REQUEST_SECONDS:.0f} within which lines "
                    "can be put in order; sort the lines, or choose one route with --route"
                )
            heappush(waiting, call)
            while waiting and waiting[0].time < latest_end - MAX_REQUEST_SECONDS:
                yield (earliest := heappop(waiting))
                begun = earliest.time
        while waiting:
            yield heappop(waiting)


def _fields(line: str) -> list[str]:
    if '"' not in line:
        return line.rstrip("\r\n").split(",")
    try:
        # Parse each line separately, so that an unclosed quotation mark cannot absorb later lines.
        return next(csv.reader([line], strict=True))
    except csv.Error:
        raise FieldError("the quotation marks are not in pairs; repair the line") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FieldError(f"the member {shown(twice)} is repeated; remove one")
    return members


def _as_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    # In Python, bool is a subclass of int.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    raise FieldError(f"the {name} {shown(json.dumps(value))} must be a text or a number")


def _is_date(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return True
    return False


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
