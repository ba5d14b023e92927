"""Whatever is logged, there is a line, and no exception."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import structlog

from example_service.core.logging import configure_logging
from example_service.core.settings import Settings
from example_service.core.settings.model import LogSettings


class Unshowable:
    """Something whose text cannot be had."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")

    __repr__ = __str__


class HalfShowable(Unshowable):
    """Something that has a representation alone."""

    def __repr__(self) -> str:
        """The representation."""
        return "half"


class UnshowableError(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")


def circle() -> list[Any]:
    """A list that contains itself."""
    around: list[Any] = []
    around.append(around)
    return around


def deep() -> list[Any]:
    """A list in a list in a list, and so on."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


VALUES: dict[str, Any] = {
    "unshowable": Unshowable(),
    "half": HalfShowable(),
    "error": UnshowableError(),
    "huge": 10**5000,
    "nested": {"a": [Unshowable(), 10**5000]},
    "NaN": float("nan"),
    "bytes": b"\xff",
    "keys": {Unshowable: 1, 2: 3},
    "circle": circle(),
    "deep": deep(),
    "surrogate": "\ud800",
}


def fail() -> NoReturn:
    """Raise an error without a text."""
    raise UnshowableError


def log_by_library(
    event: Any,
    *args: Any,
    extra: dict[str, Any] | None = None,
    exc_info: BaseException | None = None,
) -> None:
    """Log with the standard library, past the handlers of the test runner, which may fail."""
    info = None if exc_info is None else (type(exc_info), exc_info, None)
    record = logging.getLogger("shop").makeRecord(
        "shop", logging.INFO, __file__, 1, event, args, info, extra=extra
    )
    (handler,) = [
        each
        for each in logging.getLogger().handlers
        if type(each).__module__ == "example_service.core.logging"
    ]
    handler.handle(record)


@pytest.fixture(params=["json", "console"])
def lines(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """Configure logging, and hand out what reads the lines that were written."""
    configure_logging(Settings(log=LogSettings(format=request.param)))

    def read() -> list[str]:
        written = capsys.readouterr()
        assert written.err == ""
        found = written.out.splitlines()
        if request.param == "json":
            assert all(json.loads(line) for line in found)
        return [re.sub(r"\x1b\[\d+m", "", line) for line in found]

    return read


@pytest.mark.parametrize("name", VALUES)
def test_any_value_may_be_a_field(name: str, lines: Callable[[], list[str]]) -> None:
    """Of both kinds of loggers, in both forms."""
    structlog.get_logger("shop").info("from structlog", value=VALUES[name])
    log_by_library("from logging", extra={"value": VALUES[name]})

    first, second = lines()
    assert "from structlog" in first
    assert "from logging" in second
    assert "value" in first
    assert "value" in second


@pytest.mark.parametrize("name", VALUES)
def test_any_value_may_be_an_argument(name: str, lines: Callable[[], list[str]]) -> None:
    """Where it does not fit into the text, it stands behind it."""
    structlog.get_logger("shop").info("structlog says %s", VALUES[name])
    log_by_library("logging says %s", VALUES[name])

    first, second = lines()
    assert "structlog says" in first
    assert "logging says" in second


@pytest.mark.parametrize("name", VALUES)
def test_any_value_may_be_the_event(name: str, lines: Callable[[], list[str]]) -> None:
    """Or be bound to the context."""
    structlog.get_logger("shop").info(VALUES[name])
    log_by_library(VALUES[name])
    with structlog.contextvars.bound_contextvars(value=VALUES[name]):
        structlog.get_logger("shop").info("bound")

    assert len(lines()) == 3


def test_arguments_that_do_not_fit_are_written_behind_the_text(
    lines: Callable[[], list[str]],
) -> None:
    """Too many, too few, and of the wrong type."""
    structlog.get_logger("shop").info("structlog %s", "one", "two")
    log_by_library("logging %d", "one")
    log_by_library("mapping %(missing)s", {"a": 1})

    first, second, third = lines()
    assert "structlog %s 'one' 'two'" in first.replace('\\"', '"')
    assert "logging %d 'one'" in second
    assert "mapping %(missing)s {'a': 1}" in third


def test_an_exception_without_a_text_is_written_with_its_traceback(
    lines: Callable[[], list[str]],
) -> None:
    """The text is what is missing, and nothing else."""
    try:
        fail()
    except UnshowableError as error:
        structlog.get_logger("shop").exception("It went wrong")
        log_by_library("It went wrong", exc_info=error)

    text = "\n".join(lines())
    assert text.count("It went wrong") == 2
    assert text.count("UnshowableError: <exception str() failed>") == 2


def test_names_of_the_line_itself_may_be_taken(lines: Callable[[], list[str]]) -> None:
    """A field with such a name replaces the member, whatever its type."""
    structlog.get_logger("shop").info("taken", level=7, timestamp=None, exception=Unshowable())

    (line,) = lines()
    assert "taken" in line
