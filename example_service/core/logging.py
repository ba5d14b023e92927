"""One format for the log lines of all libraries.

Lines of structlog and of the standard library (the server, the circuit breakers with their
`extra=` fields, any package) have the same members: `timestamp`, `level`, `logger`, `event`, the
`request_id`, `trace_id` and `caller` of the request, structlog's context variables, and the fields
of the line. They are written to standard output, as JSON or as readable text for a terminal.
Control characters are escaped in both formats, so every entry stays on one line.
"""

import copy
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from time import time_ns
from typing import TYPE_CHECKING, Any

import structlog
from structlog.contextvars import merge_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from example_service.core.context import TRACE_ID, caller, request_id, traceparent
from example_service.core.output import output

if TYPE_CHECKING:
    from example_service.core.settings import Settings

_TRACEBACK_MARGIN = "    "
_OWN_LOGGER = "example_service"
CHATTY_LOGGERS = ("alembic", "httpx", "httpcore")
SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")

# Other formatters add these attributes to a record; `color_message` is uvicorn's.
_REPEATED = ("message", "asctime", "color_message")

_METHODS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
# The position of `args` among the parameters of a record.
_ARGUMENTS = 5
_LEVELS = ("critical", "error", "warning", "info", "debug")

# structlog's own parameters, which would make a call with such a field fail.
_PARAMETERS = frozenset({"self", "method_name", "event"})

# Modified in place, because cached loggers keep a reference to this list.
_processors: list[Processor] = []


def configure_logging(settings: "Settings") -> None:
    """Configure the level and the format of all log lines of the process.

    Calling it again replaces the configuration, except for the level of structlog loggers that have
    already been used.
    """
    level = logging.getLevelNamesMapping()[settings.log.level]
    rendering: list[Processor] = [_render_json]
    if writes_to_console(settings):
        rendering = _console_rendering()
    _processors[:] = [merge_contextvars, _compose, *rendering]
    structlog.configure(
        processors=_processors,
        wrapper_class=_filtering_logger(level),
        logger_factory=_LineLogger,
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(level, rendering)


def writes_to_console(settings: "Settings") -> bool:
    """Whether lines are written as readable text instead of JSON."""
    if settings.log.format == "auto":
        return settings.environment == "development" and _is_terminal()
    return settings.log.format == "console"


def _is_terminal() -> bool:
    # `sys.stdout` is None if the process was started without standard output.
    return sys.stdout is not None and sys.stdout.isatty()


def _configure_standard_library(level: int, rendering: list[Processor]) -> None:
    handler = _LineHandler()
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_add_fields],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                merge_contextvars,
                _compose,
                *rendering,
            ],
        )
    )
    if logging.getLogRecordFactory() is logging.LogRecord:
        logging.setLogRecordFactory(_Record)
    root = logging.getLogger()
    for former in [h for h in root.handlers if isinstance(h, _LineHandler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    # The debug lines of other packages contain parameters of statements and requests, such as
    # idempotency keys.
    root.setLevel(max(level, logging.INFO))
    logging.getLogger(_OWN_LOGGER).setLevel(level)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name in SERVER_LOGGERS:
        server_logger = logging.getLogger(name)
        server_logger.handlers.clear()
        server_logger.setLevel(logging.NOTSET)
        # The service writes its own access log, with the request id and the route.
        server_logger.propagate = name != "uvicorn.access"


def timestamp() -> str:
    """The current time in UTC with microseconds, in ISO 8601 format."""
    second, nanoseconds = divmod(time_ns(), 1_000_000_000)
    return f"{_to_the_second(second)}.{nanoseconds // 1_000:06d}+00:00"


@lru_cache(maxsize=1)
def _to_the_second(second: int) -> str:
    # Cached, because this is the most expensive part of a line and many lines share a second.
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _compose(logger: WrappedLogger, level: str, event_dict: EventDict) -> EventDict:
    """Put the common members first, and add the members of the request."""
    line: dict[str, Any] = {
        "timestamp": timestamp(),
        "level": level,
        "logger": event_dict.pop("logger", getattr(logger, "name", "root")),
        "event": event_dict.pop("event", None),
    }
    if (current_id := request_id()) is not None:
        line["request_id"] = current_id
    if (parent := traceparent()) is not None:
        line["trace_id"] = parent[TRACE_ID]
    if (name := caller.get()) is not None:
        line["caller"] = name
    line.update(event_dict)
    if "exc_info" not in line:
        return line
    try:
        return dict(format_exc_info(logger, level, dict(line)))
    except BaseException as error:  # noqa: BLE001 - it may be any value, whose own code is called
        _reraise_if_stopping(error)
        return line


def _add_fields(logger: WrappedLogger, level: str, event_dict: EventDict) -> EventDict:
    """Add the `extra=` fields of a record, unless they have the name of a standard member."""
    record = event_dict["_record"]
    fields = _add_extra(logger, level, {"_record": record})
    for key in _REPEATED:
        fields.pop(key, None)
    return {**fields, **event_dict, "logger": record.name}


_add_extra = ExtraAdder()


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode


def _render_json(_: WrappedLogger, __: str, event_dict: EventDict) -> str:
    """Render a line as a JSON object in ASCII, which escapes control characters."""
    try:
        return _encode(event_dict)
    except BaseException as error:  # noqa: BLE001 - `default` calls the logged objects' own code
        _reraise_if_stopping(error)
        # JSON has no NaN, no keys other than strings and no cycles, so write the Python repr.
        return _encode({_shown(k, str): _as_json(v) for k, v in event_dict.items()})


def _as_json(value: object) -> object:
    if _is_a(str, value):
        return value
    text = _shown(value, ascii)
    # Python refuses to convert integers with thousands of digits to text.
    return value if _is_a(int, value) and text[0] != "<" else text


def _is_a(kind: type, value: object) -> bool:
    # `isinstance` reads `__class__`, which raises for some proxies of other objects.
    return issubclass(type(value), kind)


def _reraise_if_stopping(error: BaseException) -> None:
    """Raise an error again if it asks the process to stop; everything else comes from a value.

    That may be any `BaseException`, such as the panics of extensions that are written in Rust.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        raise error


def _shown(value: object, convert: Callable[[object], str]) -> str:
    """Convert any value to text, even if its own conversion raises."""
    try:
        return convert(value)
    except BaseException as error:  # noqa: BLE001 - logging a value must not raise
        _reraise_if_stopping(error)
        return f"<{_class_name(type(value))} that cannot be displayed>"


# Not `value.__name__`, which a metaclass can override.
_class_name: Callable[[type], str] = type.__dict__["__name__"].__get__


def _console_rendering() -> list[Processor]:
    colors = _is_terminal() and not os.environ.get("NO_COLOR")
    render = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)

    def render_console(logger: WrappedLogger, level: str, event_dict: EventDict) -> str:
        try:
            return render(logger, level, _escape(event_dict))
        except BaseException as error:  # noqa: BLE001 - it expects certain types in some members
            _reraise_if_stopping(error)
            return _render_json(logger, level, event_dict)

    return [render_console]


def _escape(event_dict: EventDict) -> EventDict:
    """Escape control characters, which could forge log lines or control the terminal."""
    escaped: EventDict = {}
    for key, value in event_dict.items():
        shown = value if _is_a(str, value) else _shown(value, repr)
        if key in ("exception", "stack"):
            # The indentation distinguishes lines of an exception's message from log lines.
            lines = (_TRACEBACK_MARGIN + printable(line) for line in shown.split("\n"))
            escaped[key] = "\n".join(lines)
        else:
            is_fine = shown.isprintable() and shown[:1] != "<" and key != "event"
            escaped[printable(_shown(key, str))] = value if is_fine else printable(shown)
    return escaped


def printable(text: str) -> str:
    """Escape all characters that are not printable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _LineLogger:
    """The logger that structlog passes rendered lines to."""

    __slots__ = ("name",)

    def __init__(self, name: str = "example_service") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        output.write(f"{line}\n")

    debug = info = warning = error = critical = msg


class _Record(logging.LogRecord):
    """A record with any arguments. If there is one, the base class looks at it, which may raise."""

    def __init__(self, *given: Any, **named: Any) -> None:
        try:
            super().__init__(*given, **named)
        except BaseException as error:  # noqa: BLE001 - logging must not raise
            _reraise_if_stopping(error)
            super().__init__(*given[:_ARGUMENTS], (), *given[_ARGUMENTS + 1 :], **named)  # type: ignore[call-arg]
            self.args = given[_ARGUMENTS]


class _LineHandler(logging.Handler):
    """The handler of the standard library's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except BaseException as error:  # noqa: BLE001 - logging must not raise
            _reraise_if_stopping(error)
            line = self.format(_without_arguments(record))
        output.write(f"{line}\n")


def _without_arguments(record: logging.LogRecord) -> logging.LogRecord:
    """A copy of a record with its arguments appended, because they do not match its message."""
    plain = copy.copy(record)
    plain.msg = _interpolated_anyway(record.msg, record.args or ())
    plain.args = ()
    return plain


def _interpolated_anyway(message: object, arguments: object) -> str:
    given = arguments if isinstance(arguments, tuple) else (arguments,)
    return " ".join([_shown(message, str), *(_shown(value, repr) for value in given)])


def _filtering_logger(level: int) -> type[Any]:
    """A structlog logger whose methods write a line for any arguments and never raise."""
    base = structlog.make_filtering_bound_logger(level)

    def log(self: Any, number: int, event: Any = None, /, *args: Any, **fields: Any) -> None:
        if number >= level:
            _write(self, number, event, args, fields)

    members: dict[str, Any] = {"log": log, "alog": _awaitable(log)}
    for name, number in _METHODS.items():
        if number >= level:
            method = _method(number, {"exc_info": True} if name == "exception" else {})
            members |= {name: method, f"a{name}": _awaitable(method)}
    return type("Logger", (base,), members)


def _method(number: int, defaults: dict[str, Any]) -> Callable[..., None]:
    def method(self: Any, event: Any = None, /, *args: Any, **fields: Any) -> None:
        _write(self, number, event, args, {**defaults, **fields})

    return method


def _awaitable(method: Callable[..., None]) -> Callable[..., Any]:
    """The asynchronous variant of a method. It needs no thread, because writing never blocks."""

    async def awaitable(self: Any, /, *args: Any, **fields: Any) -> None:
        method(self, *args, **fields)

    return awaitable


def _write(
    bound: Any, number: int, event: Any, args: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    if args:
        event = _interpolated(event, args)
    if not _PARAMETERS.isdisjoint(fields):
        fields = {f"{key}_" if key in _PARAMETERS else key: fields[key] for key in fields}
    # Numbers between those of the standard levels are allowed.
    name = _LEVELS[min(max(5 - number // 10, 0), 4)]
    bound._proxy_to_logger(name, event, **fields)  # noqa: SLF001 - structlog documents it for this


def _interpolated(event: Any, args: tuple[Any, ...]) -> str:
    try:
        is_mapping = len(args) == 1 and isinstance(args[0], Mapping)
        return event % (args[0] if is_mapping else args)  # type: ignore[no-any-return]
    except BaseException as error:  # noqa: BLE001 - logging must not raise
        _reraise_if_stopping(error)
        return _interpolated_anyway(event, args)
