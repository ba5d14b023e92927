"""The access line, which is formatted by hand if that is safe."""

import json
import re
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from example_service.api.request.access_log import AccessLog
from example_service.core import context
from example_service.core.logging import configure_logging
from example_service.core.settings import Settings
from example_service.core.settings.model import LogSettings

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def access_log(**log: Any) -> AccessLog:
    """An access log with these settings."""
    settings = Settings(environment="test", log=LogSettings(**log))
    configure_logging(settings)
    return AccessLog(settings)


def write(log: AccessLog, **different: Any) -> None:
    """Write a line in the way the middleware does."""
    identity = ("mine", TRACEPARENT, ())
    token = context.identity.set(identity)
    fields = {
        "method": "GET",
        "path": "/items/7",
        "route": "/items/{item_id}",
        "status": 200,
        "duration_seconds": 0.0123456789,
        "client": "192.0.2.1",
    }
    log.write(identity, **{**fields, **different})
    context.identity.reset(token)


@pytest.mark.parametrize("client", ["192.0.2.1", "::1", None])
def test_the_line_equals_that_of_structlog(
    client: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the same members and values in the same order."""
    log = access_log()
    write(log, client=client)
    with structlog.contextvars.bound_contextvars(bound=1):
        write(log, client=client)
    by_hand, by_structlog = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert by_structlog.pop("bound") == 1
    assert list(by_hand) == list(by_structlog)
    assert len(by_hand.pop("timestamp")) == len(by_structlog.pop("timestamp"))
    assert by_hand == by_structlog


def test_the_caller_is_in_its_usual_place(capsys: pytest.CaptureFixture[str]) -> None:
    """It follows the ids, formatted by hand or by structlog, and any name is escaped."""
    log = access_log()
    token = context.caller.set('a "shop"')
    write(log)
    with structlog.contextvars.bound_contextvars(bound=1):
        write(log)
    context.caller.reset(token)

    by_hand, by_structlog = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    del by_structlog["bound"]
    assert by_hand["caller"] == 'a "shop"'
    assert list(by_hand) == list(by_structlog)


@given(method=st.text(), route=st.text(), client=st.text())
def test_any_text_is_escaped(method: str, route: str, client: str) -> None:
    """The result is one line of valid ASCII JSON, which parses to the same text."""
    log = access_log()
    written: list[str] = []
    log._write_line = written.append
    write(log, method=method, route=route, client=client)
    (line,) = written
    assert line.isascii()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    read = json.loads(line)
    assert (read["method"], read["route"], read["client"]) == (method, route, client)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 6.8e-05, 0.1, 12.0, 123456.789])
def test_durations_are_numbers_in_microseconds(
    seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """This applies to very short and very long durations as well."""
    write(access_log(), duration_seconds=seconds)
    assert json.loads(capsys.readouterr().out)["duration_seconds"] == round(seconds, 6)


def test_people_get_a_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    """On a console, it has the method, path, status and milliseconds, without ids."""
    write(access_log(format="console"))
    line = capsys.readouterr().out
    assert re.fullmatch(r"\S+ \[info     \] GET /items/7 200 12\.3 ms\n", line)


def test_a_path_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and line breaks are escaped, so each request is one line."""
    write(access_log(format="console"), method="\x1b[31m", path="/items/\n7")
    assert "\\x1b[31m /items/\\n7 200" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    "route", ["/dashboard", "/dashboard/events", "/dashboard/{name}", "/sandbox/traffic"]
)
def test_requests_of_the_dashboard_are_not_logged(
    form: str, route: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are logged only if they were refused or failed."""
    log = access_log(format=form)
    for status in (200, 304, 499):
        write(log, route=route, status=status)
    assert capsys.readouterr().out == ""
    for status in (401, 404, 503):
        write(log, route=route, status=status)
    assert capsys.readouterr().out.count("\n") == 3


@pytest.mark.parametrize(
    ("method", "route", "is_logged"),
    [
        ("GET", "/sandbox/mode", False),
        ("PUT", "/sandbox/mode", True),
        ("GET", "/", False),
        ("GET", "/dashboards", True),
        ("GET", "/sandbox/charges", True),
    ],
)
def test_what_the_page_reads_by_itself_is_not_logged(
    method: str, route: str, is_logged: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A click is logged, and so is a route whose name only begins like the dashboard's."""
    write(access_log(), method=method, route=route)
    assert bool(capsys.readouterr().out) is is_logged


@pytest.mark.parametrize(
    ("log", "is_on"),
    [
        ({}, True),
        ({"access": False}, False),
        ({"level": "DEBUG"}, True),
        ({"level": "WARNING"}, False),
    ],
)
def test_it_is_on_if_configured_and_visible(log: dict[str, Any], is_on: bool) -> None:
    """Both its own setting and the log level must allow it."""
    assert access_log(**log).is_on is is_on
