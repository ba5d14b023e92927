"""Log lines of one shape, from every library.

Lines of structlog and of the standard library (the server, the circuit breakers with their
`extra=` fields, any package) get the same members: `timestamp`, `level`, `logger`, `event`, the
request's `request_id`, `trace_id` and `caller`, what is bound to the context, and the line's own
fields. They are written to standard output, as JSON for machines or as text for a person at a
terminal. A line stays a line: control characters in any value are escaped in both forms.
"""

import copy
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, wraps
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

# The formatters of other handlers leave their results on a record, and uvicorn its message with
# colours in it.
_REPEATED = ("message", "asctime", "color_message")

_METHODS = ("debug", "info", "warning", "warn", "error", "exception", "critical", "fatal")

# Loggers keep the list that they met at their first line, so it is changed in place.
_processors: list[Processor] = []


def configure_logging(settings: "Settings") -> None:
    """Send every log line of the process through the one format that the settings ask for.

    May be called again; the last call decides. Only the level of a structlog logger that has
    already written a line stays as it was.
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
    """Tell whether lines are written as text for a person, rather than as JSON."""
    if settings.log.format == "auto":
        return settings.environment == "development" and _is_terminal()
    return settings.log.format == "console"


def _is_terminal() -> bool:
    # A service may be started without any standard output.
    return sys.stdout is not None and sys.stdout.isatty()


def _configure_standard_library(level: int, rendering: list[Processor]) -> None:
    handler = _LineHandler()
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[ExtraAdder(), _name_record],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                merge_contextvars,
                _compose,
                *rendering,
            ],
        )
    )
    root = logging.getLogger()
    for former in [h for h in root.handlers if isinstance(h, _LineHandler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    # What packages write below INFO has the parameters of statements and requests in it, such as
    # idempotency keys.
    root.setLevel(max(level, logging.INFO))
    logging.getLogger(_OWN_LOGGER).setLevel(level)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name in SERVER_LOGGERS:
        server_logger = logging.getLogger(name)
        server_logger.handlers.clear()
        server_logger.setLevel(logging.NOTSET)
        # The service writes an access line of its own, with the request's id and route.
        server_logger.propagate = name != "uvicorn.access"


def timestamp() -> str:
    """Now, in UTC and to the microsecond, as every line has it (ISO 8601)."""
    second, nanoseconds = divmod(time_ns(), 1_000_000_000)
    return f"{_to_the_second(second)}.{nanoseconds // 1_000:06d}+00:00"


@lru_cache(maxsize=1)
def _to_the_second(second: int) -> str:
    # Many lines share a second, and this is most of a line's price.
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _compose(logger: WrappedLogger, level: str, event_dict: EventDict) -> EventDict:
    """Put the members that every line has in front, and add those of the request."""
    line: dict[str, Any] = {
        "timestamp": timestamp(),
        "level": level,
        "logger": event_dict.pop("logger", None) or getattr(logger, "name", "root"),
        "event": event_dict.pop("event"),
    }
    if (current_id := request_id()) is not None:
        line["request_id"] = current_id
    if (parent := traceparent()) is not None:
        line["trace_id"] = parent[TRACE_ID]
    if (name := caller.get()) is not None:
        line["caller"] = name
    line.update(event_dict)
    return dict(format_exc_info(logger, level, line)) if "exc_info" in line else line


def _name_record(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    event_dict["logger"] = event_dict["_record"].name
    for key in _REPEATED:
        event_dict.pop(key, None)
    return event_dict


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode


def _render_json(_: WrappedLogger, __: str, event_dict: EventDict) -> str:
    """Write the line as a JSON object in ASCII, in which no control character remains."""
    try:
        return _encode(event_dict)
    except Exception:  # noqa: BLE001 - `default` runs the code of whatever is logged
        # NaN, keys that are no strings, a circle: JSON has no words for them, so Python's serve.
        return _encode({_shown(k, str): _as_json(v) for k, v in event_dict.items()})


def _as_json(value: object) -> object:
    if isinstance(value, str):
        return value
    text = _shown(value, ascii)
    # Python refuses to write integers of many thousand digits.
    return value if isinstance(value, int) and text[0] != "<" else text


def _shown(value: object, convert: Callable[[object], str]) -> str:
    """The text of any value, even of one that cannot be converted."""
    try:
        return convert(value)
    except Exception:  # noqa: BLE001 - a value must not fail the code that logs it
        return f"<{type(value).__name__} that cannot be shown>"


def _console_rendering() -> list[Processor]:
    colors = _is_terminal() and not os.environ.get("NO_COLOR")
    render = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)

    def render_console(logger: WrappedLogger, level: str, event_dict: EventDict) -> str:
        try:
            return render(logger, level, _escape(event_dict))
        except Exception:  # noqa: BLE001 - the colours expect certain types of certain members
            return _render_json(logger, level, event_dict)

    return [render_console]


def _escape(event_dict: EventDict) -> EventDict:
    """Keep control characters in values from breaking a line, or from steering the terminal."""
    escaped: EventDict = {}
    for key, value in event_dict.items():
        if key in ("exception", "stack") and isinstance(value, str):
            # The margin keeps a line break in an exception's text from passing for a log line.
            lines = (_TRACEBACK_MARGIN + printable(line) for line in value.split("\n"))
            escaped[key] = "\n".join(lines)
        else:
            shown = value if isinstance(value, str) else _shown(value, repr)
            is_fine = shown.isprintable() and shown[:1] != "<" and key != "event"
            escaped[_shown(key, str)] = value if is_fine else printable(shown)
    return escaped


def printable(text: str) -> str:
    """The text with each character escaped that is not printable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _LineLogger:
    """What structlog's loggers hand their finished lines to."""

    __slots__ = ("name",)

    def __init__(self, name: str = "example_service") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        output.write(f"{line}\n")

    debug = info = warning = error = critical = msg


class _LineHandler(logging.Handler):
    """What the standard library's loggers hand their records to."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not fail its writer
            line = self.format(_without_arguments(record))
        output.write(f"{line}\n")


def _without_arguments(record: logging.LogRecord) -> logging.LogRecord:
    """The same record, with its arguments behind its message, which they do not fit into."""
    plain = copy.copy(record)
    plain.msg = _interpolated_anyway(record.msg, record.args or ())
    plain.args = ()
    return plain


def _interpolated_anyway(message: object, arguments: object) -> str:
    given = arguments if isinstance(arguments, tuple) else (arguments,)
    return " ".join([_shown(message, str), *(_shown(one, repr) for one in given)])


def _filtering_logger(level: int) -> type[Any]:
    """A logger of structlog that writes a line even where the arguments do not fit its text."""
    base = structlog.make_filtering_bound_logger(level)

    def forgiving(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def log(self: Any, event: Any, *args: Any, **fields: Any) -> Any:
            if not args:
                return method(self, event, **fields)
            try:
                return method(self, event, *args, **fields)
            except Exception:  # noqa: BLE001 - see above
                return method(self, _interpolated_anyway(event, args), **fields)

        return log

    return type("Logger", (base,), {name: forgiving(getattr(base, name)) for name in _METHODS})
