"""The format of log lines."""

import json
import logging
from datetime import datetime
from typing import Any, NoReturn

import pytest
import structlog

from example_service.core import context
from example_service.core import logging as core_logging
from example_service.core.logging import configure_logging, writes_to_console
from example_service.core.settings import Settings
from example_service.core.settings.model import LogSettings

NASTY = "line\nbreak\r\x1b[31mred\x00\u2028\u202eend"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def configured(**log: Any) -> None:
    """Configure logging with these settings."""
    configure_logging(Settings(log=LogSettings(**log)))


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The written lines, each parsed as JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def fail(text: str) -> NoReturn:
    """Raise an exception with this text."""
    raise ValueError(text)


def test_both_kinds_of_loggers_write_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields of structlog and `extra` of the standard library look the same."""
    configured(format="json")

    structlog.get_logger("shop").warning("Circuit opened", breaker="payment", failures=5)
    logging.getLogger("shop").warning(
        "Circuit %s", "opened", extra={"breaker": "payment", "failures": 5}
    )

    first, second = json_lines(capsys)
    assert datetime.fromisoformat(first.pop("timestamp")).utcoffset() is not None
    assert datetime.fromisoformat(second.pop("timestamp")).utcoffset() is not None
    assert first == second
    assert first == {
        "level": "warning",
        "logger": "shop",
        "event": "Circuit opened",
        "breaker": "payment",
        "failures": 5,
    }


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20.000000+00:00"),
        (1_700_000_000_000_001_999, "2023-11-14T22:13:20.000001+00:00"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999999+00:00"),
        (1_700_000_001_000_000_000, "2023-11-14T22:13:21.000000+00:00"),
        (1_700_000_000_500_000_000, "2023-11-14T22:13:20.500000+00:00"),
    ],
)
def test_a_line_has_the_time_to_the_microsecond(
    nanoseconds: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The width is fixed, so lines sort as text, also after the clock was set back."""
    configured(format="json")
    monkeypatch.setattr(core_logging, "time_ns", lambda: nanoseconds)

    structlog.get_logger("shop").info("open")

    (line,) = json_lines(capsys)
    assert line["timestamp"] == text


def test_lines_written_for_a_request_carry_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line has the request's id, its trace and the fields bound to the context."""
    configured(format="json")
    token = context.identity.set(("abc", TRACEPARENT, ()))

    with structlog.contextvars.bound_contextvars(customer="c1"):
        structlog.get_logger("shop").info("one")
        logging.getLogger("shop").info("two")
    context.identity.reset(token)
    structlog.get_logger("shop").info("three")

    one, two, three = json_lines(capsys)
    for line in (one, two):
        assert line["request_id"] == "abc"
        assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert line["customer"] == "c1"
    assert {"request_id", "trace_id", "customer"}.isdisjoint(three)


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The level applies to both kinds of loggers."""
    configured(format="json", level="WARNING")

    for logger in (structlog.get_logger("levels"), logging.getLogger("levels")):
        logger.info("no")
        logger.warning("yes")

    assert [line["event"] for line in json_lines(capsys)] == ["yes", "yes"]


def test_configuring_again_replaces_the_first_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No line is written twice, and existing loggers use the new format."""
    configured(format="console")
    logger = structlog.get_logger("again")
    logger.info("as text")
    capsys.readouterr()

    configured(format="json")
    configured(format="json")
    logger.info("one")
    logging.getLogger("again").info("two")

    assert [line["event"] for line in json_lines(capsys)] == ["one", "two"]


def test_handlers_of_others_stay() -> None:
    """A test runner or an error tracker keeps its handler at the root."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)

    configured(format="json")

    assert handler in logging.getLogger().handlers


@pytest.mark.parametrize("format_", ["json", "console"])
def test_control_characters_never_break_a_line(
    format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """User input stays on its line, whether in a value, a nested value or the event."""
    configured(format=format_)

    structlog.get_logger("shop").info(
        NASTY, path=NASTY, nested={"a": [NASTY]}, error=ValueError(NASTY)
    )
    logging.getLogger("shop").info("%s", NASTY, extra={"path": NASTY})

    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_a_traceback_in_json_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With both kinds of loggers, the exception is one string in the JSON object."""
    configured(format="json")

    for logger in (structlog.get_logger("shop"), logging.getLogger("shop")):
        try:
            fail(NASTY)
        except ValueError:
            logger.exception("failed")

    for line in json_lines(capsys):
        assert line["level"] == "error"
        assert line["exception"].startswith("Traceback")
        assert "exc_info" not in line


def test_a_traceback_on_the_console_cannot_pass_for_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its lines are indented, so a line break in an exception's text cannot forge a log line."""
    configured(format="console")

    try:
        fail("x\n2026-01-01T00:00:00+00:00 [info] forged\x1b[31m")
    except ValueError:
        structlog.get_logger("shop").exception("failed")

    first, *others = capsys.readouterr().out.rstrip("\n").split("\n")
    assert "failed" in first
    assert len(others) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_values_without_a_json_form_are_still_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Writing the line matters more than the exact form of a value in it."""
    configured(format="json")
    circle: list[Any] = []
    circle.append(circle)

    logger = structlog.get_logger("shop")
    logger.info("a", value=float("nan"), count=3, text="t")
    logger.info("b", value={(1, 2): 3})
    logger.info("c", value=circle)
    logger.info("d", value=datetime(2026, 1, 1))  # noqa: DTZ001 - it can be any object

    values = {line["event"]: line["value"] for line in json_lines(capsys)}
    assert values == {"a": "nan", "b": "{(1, 2): 3}", "c": "[[...]]", "d": "2026-01-01 00:00:00"}


def test_logging_into_a_closed_pipe_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request must not fail because its log line cannot be written."""

    class Closed:
        def write(self, _: str) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdout", Closed())
    configured(format="json")

    structlog.get_logger("shop").info("unheard")
    logging.getLogger("shop").info("unheard")


def test_a_record_that_cannot_be_formatted_is_still_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its arguments are appended to its text."""
    configured(format="json")
    handler = logging.getLogger().handlers[-1]

    handler.handle(logging.makeLogRecord({"msg": "%d items", "args": ("three",)}))

    (line,) = json_lines(capsys)
    assert line["event"] == "%d items 'three'"


def test_the_server_logs_in_the_format_of_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    """Its handlers, its coloured message and its access log are removed."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler())
    configured(format="json")

    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[1mStarted"})
    logging.getLogger("uvicorn.access").info("GET /")

    (line,) = json_lines(capsys)
    assert (line["logger"], line["event"]) == ("uvicorn.error", "Started")
    assert "color_message" not in line
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.mark.parametrize(
    ("format_", "environment", "terminal", "console"),
    [
        ("auto", "development", True, True),
        ("auto", "development", False, False),
        ("auto", "production", True, False),
        ("console", "production", False, True),
        ("json", "development", True, False),
    ],
)
def test_people_get_text_and_machines_get_json(
    *,
    format_: str,
    environment: str,
    terminal: bool,
    console: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default, the log is text only on a developer's terminal."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    settings = Settings.model_validate({"environment": environment, "log": {"format": format_}})

    assert writes_to_console(settings) is console


def test_packages_write_no_details(capsys: pytest.CaptureFixture[str]) -> None:
    """DEBUG applies to the service alone: details of packages may contain secrets."""
    configure_logging(Settings(environment="test", log=LogSettings(level="DEBUG")))
    for name in ("aiosqlite", "sqlalchemy.engine.Engine", "httpx", "asyncpg", "a.package"):
        logging.getLogger(name).debug("executing %r", "key-2026")
    logging.getLogger("example_service.payments").debug("our own")

    assert [line["event"] for line in json_lines(capsys)] == ["our own"]
