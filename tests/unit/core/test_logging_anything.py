"""Logging any value writes a line and raises nothing."""

import asyncio
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
    """An object whose `str` and `repr` fail."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")

    __repr__ = __str__


class HalfShowable(Unshowable):
    """An object whose `str` fails and whose `repr` works."""

    def __repr__(self) -> str:
        """The representation."""
        return "half"


class Untrue(Unshowable):
    """An object that is neither true nor false."""

    def __bool__(self) -> bool:
        """Fail."""
        raise RuntimeError("undecided")


class Panicking(Unshowable):
    """An object whose `repr` raises what is not an `Exception`, as extensions in Rust do."""

    def __str__(self) -> str:
        """Fail."""
        raise asyncio.CancelledError

    __repr__ = __str__


class Proxy(Unshowable):
    """A proxy of an object that is missing, so that even its class is unknown."""

    @property
    def __class__(self) -> Any:
        """Fail."""
        raise RuntimeError("no object")

    @__class__.setter
    def __class__(self, value: object) -> None:
        """Fail."""


class Nameless(type):
    """A class without a name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        """Fail."""
        raise RuntimeError("no name")


class Unnamed(Unshowable, metaclass=Nameless):
    """An object whose class has no name."""


class UnshowableError(Exception):
    """An exception whose `str` fails."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")


class Interrupting:
    """An object during whose conversion Ctrl+C is pressed."""

    def __repr__(self) -> str:
        """Stop the process."""
        raise KeyboardInterrupt

    __str__ = __repr__


class Endless(dict[str, Any]):
    """A mapping whose number of keys is unknown."""

    def __len__(self) -> int:
        """Fail."""
        raise RuntimeError("unknown")


def circle() -> list[Any]:
    """A list that contains itself."""
    around: list[Any] = []
    around.append(around)
    return around


def deep() -> list[Any]:
    """A deeply nested list."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


VALUES: dict[str, Any] = {
    "unshowable": Unshowable(),
    "half": HalfShowable(),
    "untrue": Untrue(),
    "panicking": Panicking(),
    "proxy": Proxy(),
    "unnamed": Unnamed(),
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
    """Raise an exception whose text cannot be read."""
    raise UnshowableError


def log_by_library(
    event: Any,
    *args: Any,
    extra: dict[str, Any] | None = None,
    exc_info: BaseException | None = None,
) -> None:
    """Log with the standard library, bypassing the test runner's handlers, which may fail."""
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
    """Configure logging, and return a function that reads the written lines."""
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
    """This applies to both kinds of loggers and to both formats."""
    structlog.get_logger("shop").info("from structlog", value=VALUES[name])
    log_by_library("from logging", extra={"value": VALUES[name]})

    first, second = lines()
    assert "from structlog" in first
    assert "from logging" in second
    assert "value" in first
    assert "value" in second


@pytest.mark.parametrize("name", VALUES)
def test_any_value_may_be_an_argument(name: str, lines: Callable[[], list[str]]) -> None:
    """A value that does not fit its placeholder is appended to the text."""
    structlog.get_logger("shop").info("structlog says %s", VALUES[name])
    log_by_library("logging says %s", VALUES[name])

    first, second = lines()
    assert "structlog says" in first
    assert "logging says" in second


@pytest.mark.parametrize("name", VALUES)
def test_any_value_may_be_the_event(name: str, lines: Callable[[], list[str]]) -> None:
    """Any value may also be bound to the context."""
    structlog.get_logger("shop").info(VALUES[name])
    log_by_library(VALUES[name])
    with structlog.contextvars.bound_contextvars(value=VALUES[name]):
        structlog.get_logger("shop").info("bound")

    assert len(lines()) == 3


def test_arguments_that_do_not_fit_are_appended_to_the_text(
    lines: Callable[[], list[str]],
) -> None:
    """There may be too many arguments, too few, or some of the wrong type."""
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
    """Only the text is missing from the line."""
    try:
        fail()
    except UnshowableError as error:
        structlog.get_logger("shop").exception("It went wrong")
        log_by_library("It went wrong", exc_info=error)

    text = "\n".join(lines())
    assert text.count("It went wrong") == 2
    assert text.count("UnshowableError: <exception str() failed>") == 2


def test_a_field_may_have_the_name_of_a_standard_member(lines: Callable[[], list[str]]) -> None:
    """The field replaces the member, whatever its type."""
    structlog.get_logger("shop").info("taken", level=7, timestamp=None, exception=Unshowable())

    (line,) = lines()
    assert "taken" in line


def test_every_method_writes_a_line_for_any_arguments(lines: Callable[[], list[str]]) -> None:
    """This includes the methods that take a level, the asynchronous ones, and those of old code."""
    logger = structlog.get_logger("shop")
    logger.log(logging.WARNING, "wrong %d", "one")
    logger.log(logging.INFO + 5, "between two levels")
    logger.msg("old %d", "two")
    asyncio.run(logger.ainfo("later %d", "three"))
    asyncio.run(logger.alog(logging.ERROR, Unshowable()))
    asyncio.run(logger.aexception("failed", exc_info=Untrue()))
    logger.debug("below the level")
    logger.log(logging.DEBUG, "below the level")

    written = lines()
    assert ["warning" in line for line in written] == [True, *[False] * 5]
    assert "wrong %d 'one'" in written[0].replace('\\"', '"')
    assert "between two levels" in written[1]
    assert "later %d 'three'" in written[3].replace('\\"', '"')
    assert ["error" in line for line in written[4:]] == [True, True]


def test_the_standard_library_accepts_any_single_argument(lines: Callable[[], list[str]]) -> None:
    """It looks at a single argument before any handler does."""
    for value in (Proxy(), Endless(a=1)):
        log_by_library("one %s", value)

    first, second = lines()
    assert "one %s <Proxy that cannot be displayed>" in first
    assert "one" in second


def test_stopping_the_process_is_not_an_error_of_a_value(lines: Callable[[], list[str]]) -> None:
    """Ctrl+C may arrive while a line is written."""
    with pytest.raises(KeyboardInterrupt):
        structlog.get_logger("shop").info("interrupted", value=Interrupting())

    assert lines() == []


def test_a_name_cannot_break_a_line(lines: Callable[[], list[str]]) -> None:
    """Fields may come from a request, with their names, and so may the text of an exception."""
    forged = "x\n2026-01-01T00:00:00+00:00 [info] forged"
    structlog.get_logger("shop").info("fields", **{forged: 1}, exception=[forged])
    log_by_library("fields", extra={forged: 1})

    assert [line.startswith("2026-01-01T00:00:00") for line in lines()].count(True) == 0


def test_an_event_is_optional(lines: Callable[[], list[str]]) -> None:
    """A line without one has its fields."""
    structlog.get_logger("shop").info(amount=1250)
    structlog.get_logger("shop").info(None, amount=1250)

    assert ["1250" in line for line in lines()] == [True, True]


def test_a_field_may_have_the_name_of_a_parameter(lines: Callable[[], list[str]]) -> None:
    """The name gets an underscore. With `extra=`, the text and the logger stay as they are."""
    names = {"event": "one", "self": "two", "method_name": "three"}
    structlog.get_logger("shop").info("taken", **names)
    log_by_library("taken", extra={"event": "one", "logger": "two", "_record": "three"})

    first, second = lines()
    assert "taken" in first
    for name, value in names.items():
        assert re.search(rf"\b{name}_\W+{value}", first)
    assert "taken" in second
    assert "shop" in second


def test_anything_may_be_passed_as_an_exception(lines: Callable[[], list[str]]) -> None:
    """The line is written without a traceback."""
    structlog.get_logger("shop").info("no exception", exc_info=Untrue())

    (line,) = lines()
    assert "no exception" in line
