"""What should not be in the logs of the service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_BAD_LEVELS: Final = frozenset({"error", "critical"})
_EXPECTED_EVENTS: Final = frozenset(
    {
        "A worker died and is replaced",
        # The worker was killed before it served.
        "A worker could not start; trying another",
        # That happened five times in a row, so the service ended; the report counts that.
        "A worker could not start",
    }
)


def unexpected_lines(folder: Path) -> list[str]:
    """Errors, tracebacks and lines on standard error, each with its file."""
    return [
        f"{path.name}:{number}: {line[:2000]}"
        for path in sorted(folder.glob("service-*"))
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if line and (path.suffix == ".err" or _is_unexpected(line))
    ]


def serving_workers(log: Path) -> list[int]:
    """The processes that began to serve, in that order; some may have ended since."""
    events = [line["event"] for line in _lines(log)]
    started = [event for event in events if event.startswith("Started server process")]
    # Few workers start at once, so the first to start are the ones that serve.
    serving = started[: events.count("Application startup complete.")]
    return [int(event.rpartition("[")[2].rstrip("]")) for event in serving]


def is_announced(log: Path) -> bool:
    """Whether the service has logged that all its processes serve."""
    return any(line["event"] == "Serving" for line in _lines(log))


def longest_served_seconds(folder: Path) -> float:
    """The duration of the longest completed request, or 0 without requests."""
    return max(
        (
            line["duration_seconds"]
            for log in folder.glob("service-*.log")
            for line in _lines(log)
            if line["event"] == "request"
        ),
        default=0.0,
    )


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    for text in log.read_text(errors="replace").splitlines():
        if text.startswith("{") and text.endswith("}"):
            yield json.loads(text)


def _is_unexpected(text: str) -> bool:
    """Whether a line on standard output is neither a normal log line nor the banner."""
    if not text.startswith("{"):
        return "Traceback" in text
    if not text.endswith("}"):
        # The process was killed while it wrote the line.
        return False
    line = json.loads(text)
    if line["event"] in _EXPECTED_EVENTS:
        return False
    return line["level"] in _BAD_LEVELS or "exception" in line
