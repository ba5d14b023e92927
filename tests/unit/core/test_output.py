"""Standard output with a reader that is slow or has gone away."""

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from example_service.core.logging import configure_logging
from example_service.core.output import Output
from example_service.core.settings import Settings

LINE = "x" * 99 + "\n"
MORE_THAN_A_PIPE_TAKES = 20_000


@contextmanager
def piped() -> Iterator[int]:
    """Redirect standard output to a pipe, and yield its reading end."""
    reading, writing = os.pipe()
    former, threads = sys.stdout, set(threading.enumerate())
    with os.fdopen(writing, "w") as stream:
        sys.stdout = stream
        try:
            yield reading
        finally:
            sys.stdout = former
            # This ends the thread of an output whose reader has stopped.
            os.close(reading)
            for thread in set(threading.enumerate()) - threads:
                thread.join(60)


def read_lines(reading: int, last: str) -> list[str]:
    """The lines up to one that contains a text."""
    text = ""
    while last not in text or not text.endswith("\n"):
        text += os.read(reading, 1_000_000).decode()
    return text.splitlines()


def test_a_reader_that_keeps_up_gets_each_line_at_once() -> None:
    """No thread is started for it."""
    with piped() as pipe:
        output = Output()

        output.write("one\n")
        output.write("two\n")

        assert os.read(pipe, 100) == b"one\ntwo\n"
        assert output._writer is None


def test_a_reader_that_is_slow_gets_every_line_in_order() -> None:
    """The lines are queued, so the writer does not have to wait."""
    with piped() as pipe:
        output = Output(max_waiting_bytes=10_000_000)
        lines = [f"{number:099}\n" for number in range(MORE_THAN_A_PIPE_TAKES)]

        for line in lines:
            output.write(line)

        assert read_lines(pipe, lines[-1]) == [line.rstrip() for line in lines]


def test_no_line_overtakes_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line waits behind them even if the pipe has room for it by then."""
    begin: list[Callable[[], object]] = []

    class LateThread(threading.Thread):
        def start(self) -> None:
            begin.append(super().start)

    monkeypatch.setattr(threading, "Thread", LateThread)
    with piped() as pipe:
        output = Output()
        lines = [f"{number:099}\n" for number in range(1_000)]
        for line in lines:
            output.write(line)
        received = os.read(pipe, 1_000_000).decode()
        output.write("last\n")

        (start,) = begin
        start()

        rest = read_lines(pipe, "last")
        assert received.splitlines() + rest == [line.rstrip() for line in (*lines, "last")]


def test_lines_that_are_not_read_are_dropped_and_counted() -> None:
    """Once the reader continues, the log says how many were dropped, and goes on as before."""
    with piped() as pipe:
        configure_logging(Settings(environment="test"))
        output = Output(max_waiting_bytes=1_000)
        for _ in range(MORE_THAN_A_PIPE_TAKES):
            output.write(LINE)

        received, lost = 0, 0
        while received + lost < MORE_THAN_A_PIPE_TAKES:
            for line in read_lines(pipe, "\n"):
                report = json.loads(line) if line.startswith("{") else None
                received += report is None
                lost += report["lost"] if report else 0

        assert lost > 0
        assert received + lost == MORE_THAN_A_PIPE_TAKES
        output.finish()
        output.write("afterwards\n")
        assert os.read(pipe, 100) == b"afterwards\n"


def test_a_long_line_is_written_whole() -> None:
    """A line may be longer than the buffer of a pipe, as tracebacks are."""
    with piped() as pipe:
        output = Output()

        output.write("x" * 300_000 + "end\n")

        (line,) = read_lines(pipe, "end")
        assert len(line) == 300_003


def test_the_end_does_not_wait_for_a_reader_that_has_stopped() -> None:
    """Finishing waits for such a reader for one second at most."""
    with piped() as pipe:
        output = Output()
        for _ in range(MORE_THAN_A_PIPE_TAKES):
            output.write(LINE)

        output.finish()

        assert os.read(pipe, 100).startswith(b"xxx")


def test_a_reader_that_has_gone_away_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens with `serve | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        output = Output()

        output.write(LINE)
        output.write(LINE)
        output.finish()


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_standard_output_need_not_be_a_file(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be missing, or kept in memory."""
    monkeypatch.setattr(sys, "stdout", stream)

    Output().write(LINE)

    if stream is not None:
        assert stream.getvalue() == LINE
